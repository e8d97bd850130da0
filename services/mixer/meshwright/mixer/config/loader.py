"""From documents to a policy in an engine: what the engine refuses of a document is left out as other faults are.

One decision to know: an engine takes a policy whole or not at all and names its first fault, so it is asked again
without the documents at fault until it takes the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from meshwright.core.config.objects import Object
from meshwright.core.errors import ConfigError
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config.compiled import Compiled, Lists
from meshwright.mixer.config.compiler import GLOBAL_NAMESPACE, PolicyCompiler
from meshwright.mixer.config.documents import identity_of
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.violation import Identity, Violation

Load = Callable[[bytes], None]
"""Lets an engine read a policy; raises ValueError with the reason when it refuses."""

_ROUNDS = 200  # of asking the engine again


class PolicyLoader:
    """Loads one configuration after the other; a change costs what changed.

    Threads may share it, so that who judges a change has at hand what the configuration in force was compiled to.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        load: Load,
        *,
        export: bool,
        namespace: str = GLOBAL_NAMESPACE,
        max_validity: float = 0,
    ) -> None:
        self._compiler = PolicyCompiler(adapters, export=export, namespace=namespace, max_validity=max_validity)
        self._load = load
        self._lock = threading.Lock()
        self._refused: dict[Identity, tuple[Object, list[Violation]]] = {}  # for expressions of their own

    def load(self, documents: Sequence[Object], *, revision: str = "", lists: Lists = MappingProxyType({})) -> Compiled:
        """Compile, and let the engine take what is good; ConfigError when it takes none, and then nothing changed."""
        with self._lock:
            return self._load_alone(documents, revision, lists)

    def _load_alone(self, documents: Sequence[Object], revision: str, lists: Lists) -> Compiled:
        by_identity = {identity_of(each): each for each in documents}
        self._refused = {
            identity: known for identity, known in self._refused.items() if by_identity.get(identity) == known[0]
        }
        refused = [violation for _, known in self._refused.values() for violation in known]
        for _ in range(_ROUNDS):
            compiled = self._compiler.compile(documents, revision=revision, refused=refused, lists=lists)
            try:
                self._load(compiled.policy)
            except ValueError as error:
                is_node = compiled.places.is_node(str(error))
                explained = self._bad_patterns(compiled.places) if is_node else []
                explained = explained or compiled.places.explain(str(error))
                if not explained:
                    self._compiler.forget_nodes()
                    raise ConfigError(f"the engine refuses the policy: {error}") from error
                refused += explained
                if is_node:
                    self._compiler.forget_nodes()
                    self._remember(explained, by_identity)
            else:
                return compiled
        raise ConfigError(f"the engine refused documents {_ROUNDS} times: {refused[-1]}")

    def _bad_patterns(self, places: Places) -> list[Violation]:
        """Where one expression is refused it mostly is a pattern; all of them are asked about at once."""
        found: list[Violation] = []
        for node, policy in self._compiler.patterns():
            try:
                self._load(policy)
            except ValueError as error:
                found += places.explain(f"nodes[{node}]{str(error).partition(']')[2]}")
        return found

    def _remember(self, refused: Sequence[Violation], documents: Mapping[Identity, Object]) -> None:
        """An expression is refused for itself: until its document changes there is no use in asking again."""
        for violation in refused:
            document = documents.get(violation.object)
            if document is not None:
                self._refused.setdefault(violation.object, (document, []))[1].append(violation)
