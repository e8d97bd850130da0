//! Reports of istio.mixer.v1 as attributes in full, and what report rules make of them.

mod common;

use std::collections::HashMap;

use common::{Builder, Type};
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_policy::{Attributes, Program, expand};
use mixer::attributes::attribute_value::Value;

fn element(words: &[&str], strings: &[(i32, i32)], int64s: &[(i32, i64)]) -> mixer::CompressedAttributes {
    mixer::CompressedAttributes {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        strings: strings.iter().copied().collect(),
        int64s: int64s.iter().copied().collect(),
        ..Default::default()
    }
}

fn text<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    match attributes.get(name)?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn report(semantics: i32, attributes: Vec<mixer::CompressedAttributes>) -> mixer::ReportRequest {
    mixer::ReportRequest {
        attributes,
        default_words: vec!["request.path".into(), "/default".into()],
        global_word_count: 222,
        repeated_attributes_semantics: semantics,
    }
}

#[test]
fn elements_without_words_use_the_default_ones() {
    let request = report(
        1,
        vec![element(&[], &[(-1, -2)], &[]), element(&["/own"], &[(17, -1)], &[])],
    );
    let expanded: Vec<_> = expand(&request).into_iter().map(Result::unwrap).collect();
    assert_eq!(text(&expanded[0], "request.path"), Some("/default"));
    assert_eq!(text(&expanded[1], "request.path"), Some("/own"));
}

#[test]
fn delta_elements_change_what_came_before() {
    let request = report(
        0,
        vec![element(&[], &[(-1, -2)], &[(30, 200)]), element(&[], &[], &[(30, 404)])],
    );
    let expanded: Vec<_> = expand(&request).into_iter().map(Result::unwrap).collect();
    assert_eq!(text(&expanded[1], "request.path"), Some("/default"));
    assert_eq!(expanded[1]["response.code"].value, Some(Value::Int64Value(404)));
    assert_eq!(expanded[0]["response.code"].value, Some(Value::Int64Value(200)));
}

#[test]
fn an_unknown_index_is_an_error_in_delta_and_skipped_otherwise() {
    let elements = || vec![element(&[], &[(-9, -2)], &[]), element(&[], &[(-1, -2)], &[])];
    let delta = expand(&report(0, elements()));
    assert!(delta[0].is_err() && delta[1].is_ok());
    let independent = expand(&report(1, elements()));
    assert!(independent.iter().all(Result::is_ok) && independent[0].as_ref().unwrap().is_empty());
}

#[test]
fn rules_evaluate_instances_for_their_sink() {
    let mut builder = Builder::new();
    let sink = builder.sink("metrics");
    let (code, path) = (
        builder.read("response.code", Type::Int64),
        builder.read("request.path", Type::String),
    );
    let whole = builder.report("metric", &[("value", code), ("dimensions.path", path)]);
    let condition = builder.equals("request.method", "GET");
    builder.rule(Some(condition), sink, whole);
    builder.0.drop_unmatched_reports = true;
    let program = Program::load(&builder.bytes()).unwrap();
    let value = |value| mixer::attributes::AttributeValue { value: Some(value) };
    let mut attributes: Attributes = HashMap::from([
        ("request.method".to_owned(), value(Value::StringValue("GET".into()))),
        ("request.path".to_owned(), value(Value::StringValue("/a".into()))),
        ("response.code".to_owned(), value(Value::Int64Value(200))),
    ]);
    let report = program.report(&attributes).unwrap().unwrap();
    let [emission] = report.emissions.as_slice() else {
        panic!("one emission, not {:?}", report.emissions)
    };
    assert_eq!(
        (emission.sink.as_str(), emission.template.as_str()),
        ("metrics", "metric")
    );
    assert_eq!(
        (emission.handler.as_str(), emission.instance.as_str()),
        ("reports.mesh", "entry.mesh")
    );
    assert_eq!(emission.fields["value"].value, Some(Value::Int64Value(200)));
    assert_eq!(
        emission.fields["dimensions.path"].value,
        Some(Value::StringValue("/a".into()))
    );
    attributes.remove("response.code");
    let report = program.report(&attributes).unwrap().unwrap();
    assert_eq!((report.emissions.len(), report.failed), (0, 1));
    attributes.insert("request.method".to_owned(), value(Value::StringValue("POST".into())));
    assert!(program.report(&attributes).unwrap().is_none());
}

#[test]
fn a_small_message_can_not_fill_the_memory() {
    for semantics in [0, 1] {
        let mut request = report(semantics, vec![element(&[], &[(-1, -2)], &[]); 10_000]);
        request.default_words[1] = "x".repeat(100_000);
        let expanded = expand(&request);
        assert!(expanded.len() < 1000, "{} elements", expanded.len());
        let error = expanded.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(error.contains("send fewer elements"), "{error}");
    }
}
