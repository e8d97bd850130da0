"""Adapters that ship with mixer. They use the SDK as any third party does."""

from meshwright.mixer.adapters.opentelemetry import ADAPTER as _OPENTELEMETRY

BUILT_IN = (_OPENTELEMETRY,)
