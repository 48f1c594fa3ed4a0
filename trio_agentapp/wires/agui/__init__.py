"""AG-UI: front ends that show an agent's texts, tool calls and state, such as those made with CopilotKit.

Specification: https://docs.ag-ui.com, version 1.0.
"""

from .adapter import AGUIAdapter, AGUIAdaptorConfig

__all__ = ["AGUIAdapter", "AGUIAdaptorConfig"]
