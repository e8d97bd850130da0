"""Version 1 of the adapter SDK: what an adapter implements, what it gets, and how it is found.

An adapter is an object with the attributes of `Adapter`, named in its distribution's entry points under the group
`meshwright.adapters`. Mixer's configuration then names it as a handler's `compiledAdapter`.
"""

from meshwright.mixer.adapter.v1.interface import Adapter, Handler, Host
from meshwright.mixer.adapter.v1.record import Entry, LogEntry, Metric, Origin, Value
from meshwright.mixer.adapter.v1.registry import GROUP, AdapterError, discover

__all__ = [
    "GROUP",
    "Adapter",
    "AdapterError",
    "Entry",
    "Handler",
    "Host",
    "LogEntry",
    "Metric",
    "Origin",
    "Value",
    "discover",
]
