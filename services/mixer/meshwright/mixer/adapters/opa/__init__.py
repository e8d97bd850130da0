"""Adapter `opa`: decides by policies in Rego, the language of Open Policy Agent, in this process."""

from meshwright.mixer.adapters.opa.adapter import ADAPTER

__all__ = ["ADAPTER"]
