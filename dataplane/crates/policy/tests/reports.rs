//! Reports of istio.mixer.v1 as attributes in full, and what report rules make of them.

mod common;

use std::collections::HashMap;

use common::{Builder, Type};
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_policy::{Attributes, Bag, Program, Report, Vocabulary, expand, expand_element};
use mixer::attributes::attribute_value::Value;
use prost::Message;

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
    assert_eq!(
        evaluated(&program, &attributes),
        (true, vec![("entry.mesh", vec!["/a".to_owned(), "200".to_owned()])], 0)
    );
    let handler = program.report_handler(0).unwrap();
    assert_eq!((handler.name, handler.sink), ("reports.mesh", "metrics"));
    let instance = program.report_instance(0).unwrap();
    assert_eq!(
        (instance.template, instance.fields().collect::<Vec<_>>()),
        ("metric", vec!["dimensions.path", "value"])
    );
    attributes.remove("response.code");
    assert_eq!(evaluated(&program, &attributes), (true, vec![], 1));
    attributes.insert("request.method".to_owned(), value(Value::StringValue("POST".into())));
    assert_eq!(evaluated(&program, &attributes), (false, vec![], 0));
}

/// Whether a report is wanted, what is made of it (by instance, values as text), and how much failed.
fn evaluated<'p>(program: &'p Program, attributes: &Attributes) -> (bool, Vec<(&'p str, Vec<String>)>, usize) {
    let bag = Bag::plain(program.names(), attributes).unwrap();
    let mut made = Vec::new();
    let evaluated = program
        .evaluate_report(&bag, 0, |_, instance, values| {
            let values = values.iter().map(ToString::to_string).collect();
            made.push((program.report_instance(instance).unwrap().name, values));
        })
        .unwrap();
    (program.wants(&bag).unwrap(), made, evaluated.failed)
}

#[test]
fn elements_read_in_place_are_what_they_are_in_full() {
    let mut builder = Builder::new();
    let sink = builder.sink("metrics");
    let path = builder.read("request.path", Type::String);
    let host = builder.index("request.headers", "host");
    let whole = builder.report("metric", &[("dimensions.host", host), ("dimensions.path", path)]);
    builder.rule(None, sink, whole);
    let program = Program::load(&builder.bytes()).unwrap();
    let headers = mixer::StringMap {
        entries: [(65, -3)].into(),
    };
    let mut shared = element(&[], &[(-1, -2)], &[]);
    shared.string_maps.insert(15, headers.clone());
    let mut own = element(&["/own", "x", "elsewhere"], &[(17, -1)], &[]);
    own.string_maps.insert(15, headers);
    // The message's own word hides the global one.
    let hidden = element(&[], &[(17, -2)], &[]);
    let mut request = report(1, vec![shared, own, hidden]);
    request.default_words.push("shop".into());
    let bytes = request.encode_to_vec();
    let read = Report::read(&bytes).unwrap();
    assert!(!read.is_delta);
    let vocabulary = Vocabulary::new(program.names(), read.default_words.clone());
    let dictionary = vocabulary.dictionary();
    let mut found = Vec::new();
    for (element, expected) in read.elements.iter().zip(expand(&request)) {
        vocabulary.check(element).unwrap();
        assert_eq!(expand_element(element, &dictionary).unwrap(), expected.unwrap());
        let bag = vocabulary.bag(program.names(), element).unwrap();
        program
            .evaluate_report(&bag, 0, |_, _, values| {
                found.push(values.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .unwrap();
    }
    assert_eq!(found, [["shop", "/default"], ["elsewhere", "/own"]]);
}

#[test]
fn an_element_that_is_not_one_or_grows_too_large_is_refused_before_it_is_stored() {
    let names = Program::empty();
    let vocabulary = |words| Vocabulary::new(names.names(), words);
    let large = "x".repeat(100_000);
    let strings: Vec<(i32, i32)> = (0..20).map(|index| (index, -1)).collect();
    let grown = element(&[], &strings, &[]).encode_to_vec();
    assert!(vocabulary(vec!["x"]).check(&grown).is_ok());
    let error = vocabulary(vec![&large]).check(&grown).unwrap_err().to_string();
    assert!(error.contains("written out"), "{error}");
    for broken in [
        &b"\xff"[..],
        b"\x0a\x01\xff",
        b"\x12\x02\x12\x00",
        b"\x22\x04\x08\x02\x10\x01",
    ] {
        assert!(vocabulary(vec![]).check(broken).is_err(), "{broken:?}");
    }
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
