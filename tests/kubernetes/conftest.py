"""These tests need libraries that do not agree with those of others: `make test-kubernetes`."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("kubernetes_validate") else ["test_schemas.py", "test_cluster.py"]
