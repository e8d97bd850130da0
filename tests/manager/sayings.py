"""Any valid routes and policies, for property tests: what a dialect may make of objects that passed its schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from speaking import CATALOG, ORIGIN, V1, V2

from meshwright.manager.model.routing import (
    Backend,
    CallerMatch,
    ConnectionMatch,
    ConnectionRoute,
    Cors,
    Destination,
    Dialect,
    DirectResponse,
    Fault,
    HeaderChanges,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    Routes,
    Text,
    TextMatch,
)
from meshwright.manager.model.traffic import (
    Balancing,
    Ejection,
    Hash,
    Limits,
    Settings,
    Subset,
    Tls,
    TlsMode,
    TrafficPolicy,
)

HOSTS = (
    CATALOG,
    "catalog-v1.default.svc.cluster.local",
    "feed.default.svc.cluster.local",
    "gone.default.svc.cluster.local",
    "far.depot.svc.cluster.local",
    "api.example.com",
)

_word = st.text("abcXYZ019-_", min_size=1, max_size=8)
_any = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_header = st.sampled_from(["x-a", "x-b", "cookie", "user-agent", "content-type"])
_regex = st.sampled_from([".*", "a|b", "[0-9]+", "(?i:x)y", "", "^a$", r"\d{1,3}", "a{2,5}"])
_seconds = st.sampled_from([0.001, 0.25, 1.0, 30.0, 86400.0])
_share = st.sampled_from([0.0, 0.01, 12.5, 50.0, 100.0])
_labels = st.sampled_from([(), V1.labels, V2.labels, (("app", "catalog"), ("version", "v1")), (("tier", "none"),)])


def _texts(value: st.SearchStrategy[str]) -> st.SearchStrategy[TextMatch]:
    plain = st.sampled_from([Text.EXACT, Text.PREFIX, Text.SUFFIX, Text.PRESENT])
    flags = {"ignore_case": st.booleans(), "negated": st.booleans()}
    return st.builds(TextMatch, plain, value, **flags) | st.builds(TextMatch, st.just(Text.REGEX), _regex, **flags)


_text = _texts(_any)
_path = _texts(st.builds("/{}".format, _word)) | st.builds(
    TextMatch, st.just(Text.SEGMENTS), st.sampled_from(["/", "/a", "/a/", "/a/b"]), st.booleans(), st.booleans()
)
_callers = st.none() | st.builds(
    CallerMatch, st.sampled_from(["", "default", "depot"]), _labels, st.sampled_from(["", "shop"])
)


def _some(each: st.SearchStrategy[Any], most: int = 2, least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, min_size=least, max_size=most).map(tuple)


_match = st.builds(
    HttpMatch,
    path=st.none() | _path,
    methods=_some(st.sampled_from(["GET", "POST", "OPTIONS"])),
    headers=_some(st.tuples(_header, _text)),
    query=_some(st.tuples(_word, _text)),
    authority=st.none() | _text,
    scheme=st.none() | _text,
    port=st.sampled_from([None, None, 80, 81]),
    callers=_callers,
    gateways=st.sampled_from([(), (), ("mesh",), ("default/edge",)]),
)
_pairs = _some(st.tuples(st.sampled_from(["x-a", "x-b", "host", ":authority"]), _any))
_changes = st.builds(HeaderChanges, _pairs, _pairs, _some(st.sampled_from(["x-a", "host", ":path", "x-c"])))
_destination = st.builds(
    Destination,
    st.sampled_from(HOSTS),
    st.sampled_from([None, None, 80, 81, 9000]),
    st.sampled_from(["", "v1", "v2", "v9"]),
    only_port=st.booleans(),
) | st.builds(Destination, st.sampled_from(HOSTS), labels=_labels)
_backend = st.builds(
    Backend,
    _destination,
    st.sampled_from([0, 1, 7, 1_000_000]),
    _changes,
    _changes,
    st.sampled_from(["", "", "refused"]),
    st.booleans(),
)
_rewrite = (
    st.builds(Rewrite, prefix=st.sampled_from([None, "", "/", "/x", "/x/"]), authority=st.none() | st.just("a.example"))
    | st.builds(Rewrite, path=_any.map("/{}".format))
    | st.builds(Rewrite, regex=st.just(("/(a+)", "/\\1")))
)
_redirect = st.builds(
    Redirect,
    st.sampled_from([301, 302, 303, 307, 308]),
    st.sampled_from([None, "http", "https"]),
    st.none() | st.just("b.example"),
    st.none() | st.integers(1, 65535),
    st.none() | _word.map("/{}".format),
    st.sampled_from([None, "", "/", "/y"]),
)
_fault = st.builds(
    Fault,
    _share,
    _seconds,
    _share,
    st.none() | st.integers(200, 599),
    st.none() | st.integers(0, 16),
    st.sampled_from(["", "x-delay"]),
    st.sampled_from(["", "x-abort"]),
)
_retries = st.builds(
    Retries,
    st.integers(0, 10),
    st.none() | _seconds,
    _some(st.sampled_from(["5xx", "gateway-error", "503", "connect-failure", "retriable-4xx", "cancelled"])),
    st.none() | _seconds,
    st.booleans(),
    st.booleans(),
)
_cors = st.builds(
    Cors,
    _some(_text),
    _some(st.sampled_from(["GET", "PUT", "*"])),
    _some(_header),
    _some(_header),
    st.none() | st.integers(0, 86400),
    st.booleans(),
    st.booleans(),
)
_end = (
    st.fixed_dictionaries({"backends": _some(_backend, 3)})
    | st.fixed_dictionaries({"redirect": _redirect})
    | st.fixed_dictionaries(
        {"response": st.builds(DirectResponse, st.integers(200, 599), _any, st.sampled_from(["", "text/plain"]))}
    )
)
_http = st.builds(
    lambda end, more: HttpRoute(ORIGIN, **end, **more),
    _end,
    st.fixed_dictionaries(
        {
            "name": _word,
            "matches": _some(_match),
            "rewrite": st.none() | _rewrite,
            "timeout_seconds": st.none() | st.just(0.0) | _seconds,
            "timeout_header": st.sampled_from(["", "x-timeout"]),
            "attempt_seconds": st.none() | _seconds,
            "retries": st.none() | _retries,
            "retries_header": st.sampled_from(["", "x-retries"]),
            "fault": st.none() | _fault,
            "mirrors": _some(st.builds(Mirror, _destination, _share)),
            "cors": st.none() | _cors,
            "request_headers": _changes,
            "response_headers": _changes,
            "websocket": st.booleans(),
        }
    ),
)
_subnets = _some(st.sampled_from(["10.0.0.0/8", "10.1.2.3", "fd00::/8", "0.0.0.0/0"]))
_connection = st.builds(
    ConnectionRoute,
    st.just(ORIGIN),
    _word,
    _some(
        st.builds(
            ConnectionMatch,
            _some(st.sampled_from(["a.example", "*.example", "A.Example", "*"])),
            _subnets,
            _subnets,
            st.sampled_from([None, 9000, 81]),
            _callers,
            st.sampled_from([(), ("mesh",), ("default/edge",)]),
        )
    ),
    _some(_backend),
)
_exported = st.sampled_from([None, None, frozenset(["default"]), frozenset(["depot"])])
routes = st.builds(
    Routes,
    st.sampled_from(HOSTS[:3]),
    st.sampled_from(Dialect),
    _some(_http, 4),
    _some(_connection, 3),
    st.sampled_from([None, None, frozenset([80]), frozenset([9000])]),
    _exported,
)
_limits = st.builds(
    Limits,
    *[st.none() | st.integers(1, 10_000)] * 6,
    *[st.none() | _seconds] * 4,
    st.none() | st.tuples(*[st.none() | st.integers(1, 60)] * 3),
    st.sampled_from([None, True, False]),
    st.none() | st.tuples(st.sampled_from([0.5, 20.0, 100.0]), st.integers(0, 50)),
)
_hash = st.one_of(
    *(
        st.builds(
            Hash, **{what: st.just("x")}, ring=st.sampled_from([0, 1, 1 << 30]), table=st.sampled_from([0, 1, 100])
        )
        for what in ("header", "query", "cookie")
    ),
    st.builds(Hash, source_address=st.just(True)),
    st.builds(Hash, cookie=st.just("c"), cookie_path=st.just("/"), cookie_seconds=st.sampled_from([0.0, 60.0])),
)
_ejection = st.builds(
    Ejection,
    *[st.none() | st.integers(0, 100)] * 3,
    st.booleans(),
    *[st.none() | _seconds] * 2,
    *[st.none() | st.integers(0, 100)] * 2,
)
_settings = st.builds(
    Settings,
    st.none() | st.sampled_from(Balancing),
    st.none() | _hash,
    st.none() | _seconds,
    st.none() | _limits,
    st.none() | _ejection,
    st.none()
    | st.builds(
        Tls,
        st.sampled_from([TlsMode.MESH, TlsMode.DISABLED, TlsMode.SIMPLE]),
        names=st.sampled_from([(), ("a.example",), ("spiffe://x/y",)]),
        server_name=st.sampled_from(["", "a.example"]),
        unverified=st.just(True),
    ),
)
_ports = _some(st.tuples(st.sampled_from([80, 9000]), _settings), 1)
policies = st.builds(
    TrafficPolicy,
    st.sampled_from(HOSTS[:3]),
    st.just(ORIGIN),
    _settings,
    _ports,
    _some(st.builds(Subset, st.sampled_from(["v1", "v2"]), _labels, _settings, _ports), 3),
    _exported,
    _labels,
    st.sampled_from(["", "", "shop.default.svc.cluster.local"]),
)
words = _some(routes, 3, 1) | _some(routes | policies, 5, 1)
