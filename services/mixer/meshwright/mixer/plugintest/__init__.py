"""Runs an adapter inside a test, in two ways.

`running` opens the adapter and gives its handler: quick, with instances that the test makes; it needs neither servers
nor the native module. `serving` gives documents and requests to the compiler, the engine and the host of adapters, as
mixer does:

    async with running(ADAPTER, {"prefix": "> "}) as handler:
        await handler.report([log_entry({"user": "ann"})])

    async with serving(ADAPTER, documents) as mixer:
        assert (await mixer.check({"source.principal": "ann"})).code == Code.OK
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshwright.mixer.plugintest.alone import running
from meshwright.mixer.plugintest.instances import log_entry, metric, origin
from meshwright.mixer.plugintest.recording import RecordingHost

if TYPE_CHECKING:
    from meshwright.mixer.plugintest.within import Served, serving

__all__ = ["RecordingHost", "Served", "log_entry", "metric", "origin", "running", "serving"]


def __getattr__(name: str) -> Any:
    """What needs mixer's own parts is imported when it is used."""
    if name in ("Served", "serving"):
        from meshwright.mixer.plugintest import within

        return getattr(within, name)
    raise AttributeError(name)
