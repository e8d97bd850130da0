"""`meshwright-citadel-agent`: the node's Workload API and SDS."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshwright.citadel.agent import app
from meshwright.citadel.agent.settings import AgentSettings
from meshwright.core import process, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; return the exit code."""
    chosen = settings.load(AgentSettings, arguments)
    return process.run("meshwright-citadel-agent", lambda stop: app.run(chosen, stop))


if __name__ == "__main__":
    sys.exit(main())
