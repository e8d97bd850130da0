//! Whole checks, from the bytes of a request to the answer, as callers of istio.mixer.v1 see them.

mod common;

use common::{Attributes, Builder, Operation, Type, limit, names};
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{BadRequest, Engine};
use mixer::check_request::QuotaParams;
use mixer::check_response::PreconditionResult;
use prost::Message;

const SECOND: u64 = 1_000_000_000;

fn engine(builder: &Builder) -> Engine {
    let engine = Engine::default();
    engine.load(&builder.bytes()).unwrap();
    engine
}

fn check(engine: &Engine, request: &mixer::CheckRequest, now: u64) -> mixer::CheckResponse {
    let bytes = engine.check(&request.encode_to_vec(), now).unwrap();
    mixer::CheckResponse::decode(bytes.as_slice()).unwrap()
}

fn precondition(builder: &Builder, attributes: Attributes) -> PreconditionResult {
    check(&engine(builder), &attributes.request(), 0).precondition.unwrap()
}

fn references(builder: &Builder, attributes: Attributes) -> Vec<String> {
    names(&precondition(builder, attributes).referenced_attributes.unwrap())
}

#[test]
fn without_rules_everything_passes_for_a_minute() {
    let result = precondition(&Builder::new(), Attributes::default());
    assert_eq!(result.status.unwrap().code, 0);
    assert_eq!(
        (result.valid_duration.unwrap().seconds, result.valid_use_count),
        (60, 10_000)
    );
    let references = names(&result.referenced_attributes.unwrap());
    assert_eq!(references, ["-context.reporter.kind", "-destination.namespace"]);
}

#[test]
fn denials_are_joined_with_their_handlers_and_the_shortest_validity_counts() {
    let mut builder = Builder::new();
    let (first, second, nothing) = (
        builder.denier("no", 7, "go away"),
        builder.denier("never", 16, "who?"),
        builder.nothing(),
    );
    builder.rule(None, first, nothing);
    builder.rule(None, second, nothing);
    let list = builder.list(&["/ok"], false);
    let path = builder.read("request.path", Type::String);
    let entry = builder.entry(path);
    builder.rule(None, list, entry);
    let result = precondition(&builder, Attributes::default().text("request.path", "/bad"));
    let status = result.status.unwrap();
    assert_eq!(status.code, 7);
    assert_eq!(
        status.message,
        "no.mesh:go away, never.mesh:who?, list.mesh:/bad is not whitelisted"
    );
    assert_eq!(
        (result.valid_duration.unwrap().seconds, result.valid_use_count),
        (5, 1000)
    );
}

#[test]
fn a_list_whose_value_is_missing_denies() {
    let mut builder = Builder::new();
    let (list, path) = (
        builder.list(&["/bad"], true),
        builder.read("request.path", Type::String),
    );
    let entry = builder.entry(path);
    builder.rule(None, list, entry);
    let status = precondition(&builder, Attributes::default()).status.unwrap();
    assert_eq!(status.code, 9);
    assert!(status.message.contains("request.path"), "{}", status.message);
}

#[test]
fn rules_of_a_namespace_apply_to_its_requests_only() {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    builder.rule(None, denier, nothing).namespace = "demo".into();
    let attributes = |kind: &str, source: &str, destination: &str| {
        let attributes = Attributes::default()
            .text("source.namespace", source)
            .text("destination.namespace", destination);
        attributes.text("context.reporter.kind", kind)
    };
    for (kind, source, destination, code) in [
        ("inbound", "other", "demo", 7),
        ("inbound", "demo", "other", 0),
        ("outbound", "demo", "other", 7),
        ("outbound", "other", "demo", 0),
        ("sideways", "demo", "demo", 0),
    ] {
        let result = precondition(&builder, attributes(kind, source, destination));
        assert_eq!(result.status.unwrap().code, code, "{kind} {source} {destination}");
    }
    assert_eq!(
        references(&builder, attributes("outbound", "a", "b")),
        ["context.reporter.kind", "source.namespace"]
    );
}

/// Makes a condition; the request's attributes; what is referenced beside the namespace's attributes.
type Case<'a> = (fn(&mut Builder) -> u32, Attributes, &'a [&'a str]);

#[test]
fn what_decided_is_referenced_and_nothing_else() {
    let base = ["-context.reporter.kind", "-destination.namespace"];
    let cases: [Case<'_>; 6] = [
        // || and && don't read the right side when the left decides.
        (
            |builder| {
                let (left, right) = (
                    builder.equals("request.path", "/a"),
                    builder.equals("request.host", "b"),
                );
                builder.node(Operation::Or, &[left, right])
            },
            Attributes::default().text("request.path", "/a"),
            &["request.path"],
        ),
        (
            |builder| {
                let (left, right) = (
                    builder.equals("request.path", "/a"),
                    builder.equals("request.host", "b"),
                );
                builder.node(Operation::And, &[left, right])
            },
            Attributes::default()
                .text("request.path", "/x")
                .text("request.host", "b"),
            &["request.path"],
        ),
        // A map is referred to by key; with a key that is absent as well.
        (
            |builder| {
                let (left, right) = (builder.index("request.headers", "x-tier"), builder.text("gold"));
                builder.node(Operation::Equal, &[left, right])
            },
            Attributes::default().map("request.headers", &[("x-tier", "gold")]),
            &["request.headers[x-tier]"],
        ),
        (
            |builder| {
                let (left, right) = (builder.index("request.headers", "x-tier"), builder.text("gold"));
                builder.node(Operation::Equal, &[left, right])
            },
            Attributes::default().map("request.headers", &[("host", "gold")]),
            &["-request.headers[x-tier]"],
        ),
        // The map itself only when it is absent.
        (
            |builder| {
                let (left, right) = (builder.index("request.headers", "x-tier"), builder.text("gold"));
                builder.node(Operation::Equal, &[left, right])
            },
            Attributes::default(),
            &["-request.headers"],
        ),
        // Each operand of | that was tried.
        (
            |builder| {
                let (first, second) = (
                    builder.read("source.user", Type::String),
                    builder.read("source.name", Type::String),
                );
                let third = builder.text("nobody");
                let inner = builder.node(Operation::Default, &[first, second]);
                let outer = builder.node(Operation::Default, &[inner, third]);
                builder.node(Operation::Equal, &[outer, third])
            },
            Attributes::default().text("source.name", "ann"),
            &["-source.user", "source.name"],
        ),
    ];
    for (number, (make, attributes, expected)) in cases.into_iter().enumerate() {
        let mut builder = Builder::new();
        let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
        let condition = make(&mut builder);
        builder.rule(Some(condition), denier, nothing);
        let mut expected: Vec<&str> = expected.iter().chain(&base).copied().collect();
        expected.sort_unstable();
        assert_eq!(references(&builder, attributes), expected, "case {number}");
    }
}

#[test]
fn an_answer_made_without_the_map_is_never_reused() {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    let (left, right) = (builder.index("request.headers", "x-tier"), builder.text("gold"));
    let condition = builder.node(Operation::Equal, &[left, right]);
    builder.rule(Some(condition), denier, nothing);
    assert_eq!(precondition(&builder, Attributes::default()).valid_use_count, 0);
    let with_map = Attributes::default().map("request.headers", &[("host", "shop")]);
    assert_eq!(precondition(&builder, with_map).valid_use_count, 10_000);
}

#[test]
fn words_that_the_caller_does_not_know_are_spelled_out() {
    let builder = Builder::new();
    let mut request = Attributes::default().request();
    request.global_word_count = 156;
    let result = check(&engine(&builder), &request, 0).precondition.unwrap();
    let references = result.referenced_attributes.unwrap();
    assert_eq!(references.words, ["context.reporter.kind"]);
    assert_eq!(names(&references), ["-context.reporter.kind", "-destination.namespace"]);
}

#[test]
fn a_caller_with_a_longer_dictionary_is_told() {
    let request = mixer::CheckRequest {
        global_word_count: 223,
        ..Default::default()
    };
    let error = Engine::default().check(&request.encode_to_vec(), 0).unwrap_err();
    assert_eq!(
        error,
        BadRequest::Dictionary {
            known: 222,
            claimed: 223
        }
    );
    let expected = "inconsistent global dictionary versions used: mixer knows 222 words, caller knows 223";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn headers_as_text_are_an_error_where_a_rule_reads_them() {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    let (left, right) = (builder.index("request.headers", "x"), builder.text("y"));
    let condition = builder.node(Operation::Equal, &[left, right]);
    builder.rule(Some(condition), denier, nothing);
    let request = Attributes::default().text("request.headers", "oops").request();
    let error = engine(&builder).check(&request.encode_to_vec(), 0).unwrap_err();
    assert!(
        error.to_string().contains("request.headers must be of type STRING_MAP"),
        "{error}"
    );
}

fn with_quota(max: i64) -> Builder {
    let mut builder = Builder::new();
    let source = builder.read("source.user", Type::String);
    let quota = builder.quota("RequestCount", &[("source", source)]);
    let handler = builder.quotas(vec![compiled::handler::Limit {
        overrides: vec![compiled::handler::Override {
            dimensions: [("source".to_owned(), "ann".to_owned())].into(),
            max_amount: 2 * max,
            window_nanos: SECOND as i64,
        }],
        ..limit(quota, max)
    }]);
    let condition = builder.equals("request.path", "/limited");
    builder.rule(Some(condition), handler, quota);
    builder
}

fn granted(engine: &Engine, path: &str, user: &str, name: &str, amount: i64, id: &str) -> (i64, i64) {
    let mut request = Attributes::default()
        .text("request.path", path)
        .text("source.user", user)
        .request();
    request.quotas.insert(
        name.into(),
        QuotaParams {
            amount,
            best_effort: false,
        },
    );
    request.deduplication_id = id.into();
    let response = check(engine, &request, 0);
    let quota = &response.quotas[name];
    (
        quota.granted_amount,
        quota.valid_duration.map_or(-1, |duration| duration.seconds),
    )
}

#[test]
fn quotas_are_found_by_short_name_in_any_case_and_limited_by_dimensions() {
    let engine = engine(&with_quota(10));
    assert_eq!(granted(&engine, "/limited", "bob", "requestcount", 10, "1"), (10, 1));
    assert_eq!(granted(&engine, "/limited", "bob", "REQUESTCOUNT", 1, "2"), (0, 0));
    assert_eq!(granted(&engine, "/limited", "eve", "requestcount", 10, "3"), (10, 1));
    assert_eq!(
        granted(&engine, "/limited", "ann", "requestcount", 20, "4"),
        (20, 1),
        "the override"
    );
    assert_eq!(
        granted(&engine, "/limited", "bob", "other", 99, "5"),
        (99, 60),
        "an unknown quota"
    );
    assert_eq!(
        granted(&engine, "/free", "bob", "requestcount", 99, "6"),
        (99, 60),
        "no rule matches"
    );
    assert_eq!(
        granted(&engine, "/limited", "bob", "requestcount", 5, "1"),
        (10, 1),
        "a repetition"
    );
    assert_eq!(
        granted(&engine, "/limited", "bob", "requestcount", 0, "7"),
        (0, -1),
        "nothing asked"
    );
}

#[test]
fn counters_survive_a_reload_with_the_same_limit_only() {
    let engine = engine(&with_quota(10));
    assert_eq!(granted(&engine, "/limited", "bob", "requestcount", 10, "1").0, 10);
    engine.load(&with_quota(10).bytes()).unwrap();
    assert_eq!(granted(&engine, "/limited", "bob", "requestcount", 1, "2").0, 0);
    engine.load(&with_quota(11).bytes()).unwrap();
    assert_eq!(granted(&engine, "/limited", "bob", "requestcount", 1, "3").0, 1);
}

#[test]
fn a_quota_whose_dimension_is_missing_grants_nothing() {
    let engine = engine(&with_quota(10));
    let mut request = Attributes::default().text("request.path", "/limited").request();
    request.quotas.insert(
        "requestcount".into(),
        QuotaParams {
            amount: 1,
            best_effort: true,
        },
    );
    let quota = &check(&engine, &request, 0).quotas["requestcount"];
    let status = quota.status.as_ref().unwrap();
    assert_eq!((quota.granted_amount, status.code), (0, 9));
    assert!(status.message.contains("source.user"), "{}", status.message);
}

#[test]
fn a_denied_request_is_charged_nothing() {
    let mut builder = with_quota(10);
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    builder.rule(None, denier, nothing);
    let mut request = Attributes::default().text("request.path", "/limited").request();
    request.quotas.insert(
        "requestcount".into(),
        QuotaParams {
            amount: 1,
            best_effort: false,
        },
    );
    assert!(check(&engine(&builder), &request, 0).quotas.is_empty());
}

#[test]
fn headers_are_changed_in_rule_order_when_the_request_passes() {
    use compiled::header_operation::Operation as Change;
    let mut builder = Builder::new();
    let (host, empty) = (builder.read("request.host", Type::String), builder.text(""));
    let evil = builder.text("a\r\nx-admin: 1");
    let header = |name: &str, operation: Change, values: &[u32]| compiled::HeaderOperation {
        name: name.into(),
        operation: operation.into(),
        values: values.to_vec(),
    };
    builder.0.rules.push(compiled::Rule {
        name: "headers".into(),
        namespace: "mesh".into(),
        request_headers: vec![
            header("x-host", Change::Replace, &[host, empty, evil]),
            header("x-secret", Change::Remove, &[]),
        ],
        response_headers: vec![header("x-seen", Change::Append, &[host])],
        ..Default::default()
    });
    let directive = precondition(&builder, Attributes::default().text("request.host", "shop"))
        .route_directive
        .unwrap();
    let told = |operations: &[mixer::HeaderOperation]| -> Vec<(String, String, i32)> {
        operations
            .iter()
            .map(|header| (header.name.clone(), header.value.clone(), header.operation))
            .collect()
    };
    let expected = [
        ("x-host".into(), "shop".into(), 0),
        ("x-secret".into(), String::new(), 1),
    ];
    assert_eq!(told(&directive.request_header_operations), expected);
    assert_eq!(
        told(&directive.response_header_operations),
        [("x-seen".into(), "shop".into(), 2)]
    );
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    builder.rule(None, denier, nothing);
    assert!(
        precondition(&builder, Attributes::default().text("request.host", "shop"))
            .route_directive
            .is_none()
    );
}
