"""The kind Policy: what ten lines mean to the engine, what never opens a door, and where faults are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_documents import FRONT, MALLORY, Gate, compiled, policy, policy_of
from rule_documents import denial

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.authoring import conditions

DENIED = 7


def fault(text: str, namespace: str = "demo") -> tuple[str, str, str]:
    dropped = compiled(policy(text, namespace=namespace)).dropped
    assert len(dropped) == 1, dropped
    return str(dropped[0].object), dropped[0].field, dropped[0].message


def ask(gate: Gate, path: str | None = "/items/7", method: str | None = "GET", principal: str | None = FRONT) -> int:
    attributes = {"request.url_path": path, "request.method": method, "source.principal": principal}
    return gate.code(**{name.replace(".", "_", 1): value for name, value in attributes.items()})


@pytest.fixture(scope="module")
def readers() -> Gate:
    return Gate(
        policy("""
            targets: [{service: shop}]
            allow:
              - principals: ["*/ns/demo/sa/front"]
                methods: [GET, HEAD]
                paths: [/items/*, /]
              - principals: ["*/ns/demo/sa/admin"]
        """)
    )


def test_what_allow_selects_passes_and_nothing_else(readers: Gate) -> None:
    assert ask(readers) == 0
    assert ask(readers, path="/") == 0
    assert ask(readers, method="HEAD") == 0
    assert ask(readers, method="POST") == DENIED
    assert ask(readers, path="/admin") == DENIED
    assert ask(readers, principal=MALLORY) == DENIED
    assert ask(readers, path="/admin", method="DELETE", principal=FRONT.replace("front", "admin")) == 0


@pytest.mark.parametrize("lacking", ["path", "method", "principal"])
def test_what_a_request_lacks_opens_nothing(readers: Gate, lacking: str) -> None:
    assert ask(readers, **{lacking: None}) == DENIED


def test_other_services_are_no_business_of_it(readers: Gate) -> None:
    assert readers.code(destination_service="", **{"destination_service.name": "stock"}) == 0
    assert readers.code(**{"destination_service.name": "stock"}) == 0
    assert readers.code(**{"destination_namespace": "elsewhere"}) == 0


def test_denials_tell_what_they_are_told_to() -> None:
    gate = Gate(
        policy("""
            deny:
              - paths: [/admin*]
                except: [{principals: ["*/sa/front"]}]
            answer: {code: NOT_FOUND, message: nothing here}
        """)
    )
    status = gate.ask(**{"request_url_path": "/admin"}).precondition.status
    assert (status.code, status.message) == (5, "shop/deny.demo:nothing here")
    assert ask(gate, path="/admin/x", principal=MALLORY) == 5
    assert ask(gate, path="/admin/x", principal=FRONT) == 0
    assert ask(gate, path="/admin/x", principal=None) == 5, "an exception that can't be told excuses nobody"
    assert ask(gate, path="/items", principal=None) == 0


def test_nobody_is_allowed_by_an_empty_list() -> None:
    assert ask(Gate(policy("allow: []"))) == DENIED
    assert ask(Gate(policy("allow: [{}]"))) == 0


def test_a_second_policy_never_opens_what_the_first_closed() -> None:
    closed = policy("allow: [{methods: [GET]}]", "reads")
    gate = Gate(closed, policy("allow: [{principals: ['*']}]", "known"))
    assert ask(gate) == 0
    assert ask(gate, method="POST") == DENIED
    assert ask(gate, principal=None) == DENIED


@pytest.mark.parametrize(
    ("selection", "request_", "holds"),
    [
        ("namespaces: [demo, test*]", {"source.namespace": "testing"}, True),
        ("namespaces: [demo]", {"source.namespace": "other"}, False),
        ("ports: [80, 8080]", {"destination.port": 8080}, True),
        ("ports: [80, 8080]", {"destination.port": 81}, False),
        ("hosts: [shop.example, '*.shop.example']", {"request.host": "Shop.Example:8443"}, True),
        ("hosts: ['*.shop.example']", {"request.host": "a.shop.example"}, True),
        ("hosts: ['*.shop.example']", {"request.host": "shopXexample"}, False),
        ("hosts: [shop.example]", {"request.host": "shop.example.evil"}, False),
        ("ipBlocks: [10.0.0.0/8, 'fd00::/8']", {"source.ip": bytes([10, 1, 2, 3])}, True),
        ("ipBlocks: [10.0.0.0/8]", {"source.ip": bytes([11, 1, 2, 3])}, False),
        ("labels: {app: front, tier: web}", {"source.labels": {"app": "front", "tier": "web"}}, True),
        ("labels: {app: front, tier: web}", {"source.labels": {"app": "front"}}, False),
        ("paths: ['*.png']", {"request.url_path": "/a.png"}, True),
        ("paths: ['*admin*']", {"request.url_path": "/x/admin/y"}, True),
        ("when: request.headers.tier == 'gold' // said so", {"request.headers": {"tier": "gold"}}, True),
        ("when: has(request.headers.tier) || request.size > 5", {"request.size": 7}, True),
        ("methods: [GET]\n    when: request.size > 5 || true", {"request.size": 7}, False),
    ],
)
def test_selections(selection: str, request_: dict[str, object], holds: bool) -> None:
    gate = Gate(policy(f"deny:\n  - {selection}"))
    attributes = {name.replace(".", "_", 1): value for name, value in request_.items()}
    assert (gate.code(**attributes) == DENIED) is holds


def test_limits_are_kept_by_key() -> None:
    gate = Gate(
        policy("""
            limits:
              - {name: each, amount: 3, per: 1m, by: [source.principal]}
              - {name: writes, amount: 1, per: 1m, methods: [POST]}
        """)
    )

    def granted(principal: str | None, quota: str = "shop/each", method: str = "GET") -> int:
        answer = gate.ask({quota: 1}, source_principal=principal, request_method=method)
        return int(answer.quotas[quota].granted_amount)

    assert [granted(FRONT) for _ in range(4)] == [1, 1, 1, 0]
    assert granted(MALLORY) == 1, "another caller has a limit of its own"
    assert [granted(None) for _ in range(4)] == [1, 1, 1, 0], "callers without the key share one"
    assert [granted(FRONT, "shop/writes", "POST") for _ in range(2)] == [1, 0]


def test_a_burst_is_a_second_window() -> None:
    """100 a minute and 20 at once: in any 12 seconds no more than 20."""
    document = policy("limits: [{name: each, amount: 100, per: 1m, burst: 20}]")
    quotas = pb.Policy.FromString(compiled(document).policy).handlers[0].quotas
    assert sorted((each.max_amount, each.window_nanos) for each in quotas.limits) == [
        (20, 12 * 10**9),
        (100, 60 * 10**9),
    ]


def test_logs_and_measures_become_records() -> None:
    result = compiled(
        policy("""
            log:
              - {when: response.code >= 500, severity: error, fields: {path: request.path, user: request.headers.user}}
            measure:
              - {name: shop_requests, by: {code: response.code}}
              - {name: shop_milliseconds, kind: distribution, value: response.duration, unit: ms, bounds: [1.0, 10.0]}
        """)
    )
    assert not result.dropped, result.dropped
    rules = [each.name for each in pb.Policy.FromString(result.policy).rules]
    assert rules == ["shop/log-1", "shop/measure-shop_milliseconds", "shop/measure-shop_requests"]
    assert sorted(result.sinks) == ["shop/log-opentelemetry.demo", "shop/measure-opentelemetry.demo"]


def test_network_services_are_a_target_for_the_whole_mesh() -> None:
    text = """
        targets: [{networkService: demo-vl}]
        deny: [{principals: ["*/sa/mallory"]}]
    """
    gate = Gate(policy(text, namespace="meshwright-system"))
    request = {"destination_namespace": None, "networkservice_name": "demo-vl"}
    assert gate.code(**request, source_principal=MALLORY) == DENIED
    assert gate.code(**request, source_principal=FRONT) == 0
    where = fault(text)
    assert where[1] == "spec.targets[0].networkService"
    assert "put the policy into namespace meshwright-system" in where[2]


def test_rules_are_found_by_their_service() -> None:
    """Ten thousand policies for other services cost a request nothing."""
    rules = pb.Policy.FromString(compiled(policy("targets: [{service: shop}]\ndeny: [{methods: [PUT]}]")).policy).rules
    assert len(rules[0].keys) == 2


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("{}", "spec", "does nothing"),
        ("deny: [{path: [/x]}]", "spec.deny[0].path", "unknown field"),
        ("deny: [{paths: ['/a*b']}]", "spec.deny[0].paths[0]", "beginning or end"),
        ("deny: [{ipBlocks: [10.0.0.0/64]}]", "spec.deny[0].ipBlocks[0]", "10.0.0.0/8"),
        ("deny: [{when: request.hots == 'x'}]", "spec.deny[0].when", "did you mean `request.host`?"),
        ("deny: [{when: 'true) || (true'}]", "spec.deny[0].when", "unexpected `)`"),
        ("allow: [{except: [{when: request.size}]}]", "spec.allow[0].except[0].when", "int where bool"),
        ("targets: [{}]\nallow: []", "spec.targets[0]", "name a service"),
        ("targets: [{namespace: x}]\nallow: []", "spec.targets[0].namespace", "its own namespace"),
        ("limits: [{name: a, amount: 5, per: 1s, by: [request.headers]}]", "spec.limits[0].by[0]", "STRING_MAP"),
        ("limits: [{name: a, amount: 5, per: 0s}]", "spec.limits[0]", "a millisecond at least"),
        ("limits: [{name: a, amount: 5, per: 1s, burst: 5}]", "spec.limits[0]", "less than amount"),
        ("limits: [{name: a, amount: 5, per: 1s}, {name: a, amount: 6, per: 1s}]", "spec", "'a' is there twice"),
        ("log: [{to: nowhere}]", "spec.log[0].to", "'opentelemetry'"),
        ("log: [{handler: nobody}]", "spec.log[0]", "unknown handler 'nobody'"),
        ("measure: [{name: a-b}]", "spec.measure[0].name", "letters, digits"),
        ("measure: [{name: a, value: request.path}]", "spec.measure[0].value", "yields STRING"),
        ("measure: [{name: a, bounds: [2.0, 1.0]}]", "spec.measure", "bounds must ascend"),
        ("allow: []\nlanguage: CEXL", "spec.language", "'CEL'"),
        ("allow: []\nmode: off", "spec.mode", "'enforce' or 'dry-run'"),
    ],
)
def test_faults_are_told_where_they_were_written(text: str, field: str, message: str) -> None:
    where = fault(text)
    assert where[:2] == ("Policy shop.demo", field)
    assert message in where[2]


def test_what_the_engine_refuses_is_the_policys_fault() -> None:
    from meshwright.dataplane.policy import Engine
    from meshwright.mixer.config.loader import PolicyLoader

    loader = PolicyLoader({}, Engine().load, export=False)
    result = loader.load([policy("deny: [{when: 'request.path.matches(\"a(\")'}]\nallow: []"), *denial("demo")])
    assert {(str(each.object), each.field) for each in result.dropped} == {("Policy shop.demo", "spec.deny[0]")}
    assert result.rules == 1, "half a policy means something else, so all of it goes; the rest stays"


def test_a_part_that_is_left_out_takes_the_whole_policy_with_it() -> None:
    result = compiled(policy("allow: []\nlog: [{handler: nobody}]"), *denial("demo"))
    rules = [each.name for each in pb.Policy.FromString(result.policy).rules]
    assert rules == ["deny-admin"]


_PATTERN = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(st.sampled_from(["{}", "{}*", "*{}", "*{}*"]), _PATTERN), min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
def test_patterns_mean_what_they_say(shapes: list[tuple[str, str]], text: str) -> None:
    """Whatever characters are in them."""
    patterns = [shape.replace("{}", part) for shape, part in shapes]
    text = text or shapes[0][1]

    def fits(shape: str, part: str) -> bool:
        if shape == "{}":
            return text == part
        if shape == "{}*":
            return text.startswith(part)
        return text.endswith(part) if shape == "*{}" else part in text

    gate = Gate(policy_of({"deny": [{"paths": patterns}]}))
    expected = any(fits(shape, part) for shape, part in shapes)
    assert (gate.code(**{"request_url_path": text}) == DENIED) is expected


def test_literals_are_quoted() -> None:
    assert conditions.quoted('a"b\\c\n') == '"a\\"b\\\\c\\n"'
