"""Rego, the language of Open Policy Agent: asks a rule about a document, in Rust."""

from __future__ import annotations

from collections.abc import Sequence

from meshwright.dataplane import _native


class RegoPolicy:
    """Modules (name, text) and the rule that decides, `data.PACKAGE.NAME`; any number of threads may ask.

    `is_v1`: modules are in the language of OPA 1.0 and later, else in the one before; one that says `import rego.v1` is
    in the newer one either way. A question takes at most `limit_seconds`. ValueError tells why modules or rule can't be
    used.
    """

    def __init__(
        self, modules: Sequence[tuple[str, str]], rule: str, *, is_v1: bool = False, limit_seconds: float = 0.05
    ) -> None:
        self._native = _native.RegoPolicy(modules, rule, is_v1, limit_seconds)

    def allows(self, document: str) -> bool:
        """Whether the rule is true for `document` (JSON); undefined is false.

        RuntimeError when the rule fails, takes too long, or is neither true nor false.
        """
        return self._native.allows(document)
