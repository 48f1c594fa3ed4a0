"""`python -m trio_agentapp` is `trio-agentapp`."""

from .cli import main

if __name__ == "__main__":
    main()
