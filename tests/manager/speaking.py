"""A mesh in which a test says what holds, in the inner model's own words: as any dialect might."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from unittest import mock

from meshes import SHOP, SPLIT, World

from meshwright.core.config import Key
from meshwright.manager.model import dialects
from meshwright.manager.model.meaning import Context, Meaning
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Backend, ConnectionRoute, Destination, Dialect, HttpRoute, Routes
from meshwright.manager.model.traffic import Settings, Subset, TrafficPolicy
from meshwright.manager.xds.snapshot import Snapshot

CATALOG = "catalog.default.svc.cluster.local"
ORIGIN = Key("v1", "Rule", "default", "rule")
NOTHING = Settings()
V1, V2 = (Subset(name, (("version", name),)) for name in ("v1", "v2"))


def to(host: str = CATALOG, weight: int = 1, **more: object) -> Backend:
    """A backend by host; `more` are a destination's fields."""
    return Backend(Destination(host, **more), weight)  # type: ignore[arg-type]


def http(*routes: HttpRoute, **more: object) -> Routes:
    """What is said of requests to the catalog."""
    return Routes(**{"host": CATALOG, "dialect": Dialect.VIRTUAL_SERVICE, "http": routes, **more})  # type: ignore[arg-type]


def connections(*routes: ConnectionRoute, host: str = CATALOG) -> Routes:
    """What is said of connections to a host."""
    return Routes(host, Dialect.VIRTUAL_SERVICE, connections=routes)


def policy(settings: Settings = NOTHING, *subsets: Subset, **more: object) -> TrafficPolicy:
    """What is said of how the catalog is connected to."""
    return TrafficPolicy(CATALOG, ORIGIN, settings, subsets=subsets or (V1, V2), **more)  # type: ignore[arg-type]


class Speaker(World):
    """`say` lets a namespace say something else than before; every snapshot knows the words of all."""

    def __init__(self, text: str = SHOP) -> None:
        self.words: dict[str, Meaning] = {}
        self._turn = 0
        super().__init__(text)

    def say(self, *words: Routes | TrafficPolicy, namespace: str = "default") -> Snapshot:
        """Say all that a namespace says."""
        self.words[namespace] = Meaning(
            routes=tuple(each for each in words if isinstance(each, Routes)),
            policies=tuple(each for each in words if isinstance(each, TrafficPolicy)),
        )
        self._turn += 1  # translators are asked again only when an object of the namespace changed
        turn = SPLIT.replace("name: catalog}", f"name: turn, namespace: {namespace}}}").replace("90", str(self._turn))
        return self.apply(turn.replace("catalog", "other"))


@contextlib.contextmanager
def speaking(text: str = SHOP) -> Iterator[Speaker]:
    """Let a dialect of the test's own speak in a mesh."""
    speaker: list[Speaker] = []

    def translate(members: Iterable[Parsed], context: Context) -> Meaning:
        return speaker[0].words.get(context.namespace, Meaning()) if speaker else Meaning()

    with mock.patch.dict(dialects.DIALECTS, test=translate):  # type: ignore[arg-type]
        speaker.append(Speaker(text))
        yield speaker[0]
