//! The policy engine: compiled policies, and the requests that it decides.

use std::sync::LazyLock;

use meshwright_api::istio::mixer::v1::ReportRequest;
use meshwright_policy::{Bag, Engine, Program, Report, Vocabulary, attribute_value, expand, expand_element};
use prost::Message;

use crate::everything;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::default();
    engine.load(&everything::everything().bytes()).expect("a policy");
    engine
});

static PROGRAM: LazyLock<Program> =
    LazyLock::new(|| Program::load(&everything::everything().bytes()).expect("a policy"));

/// Any bytes as a CheckRequest, against a policy that reads every type and uses every operation.
pub fn check(bytes: &[u8]) {
    let _ = ENGINE.check(bytes, bytes.len() as u64);
}

/// Any bytes as a compiled policy; one that is taken must answer.
pub fn policy(bytes: &[u8]) {
    let engine = Engine::default();
    if engine.load(bytes).is_ok() {
        let _ = engine.check(&[], 0);
        let program = engine.program();
        let bag = Bag::new(program.names());
        let _ = program.wants(&bag);
        let _ = program.evaluate_report(&bag, 0, |_, _, _| {});
    }
}

/// Any bytes as a ReportRequest: read in place, and in full as delta elements are. What is checked can be read later.
pub fn report(bytes: &[u8]) {
    if let Ok(request) = ReportRequest::decode(bytes) {
        for attributes in expand(&request).into_iter().flatten() {
            if let Ok(bag) = Bag::plain(PROGRAM.names(), &attributes) {
                evaluate(&bag);
            }
        }
    }
    let Ok(report) = Report::read(bytes) else {
        return;
    };
    let vocabulary = Vocabulary::new(PROGRAM.names(), report.default_words.clone());
    let dictionary = vocabulary.dictionary();
    for element in &report.elements {
        if vocabulary.check(element).is_ok() {
            evaluate(&vocabulary.bag(PROGRAM.names(), element).expect("a checked element"));
        }
        let _ = expand_element(element, &dictionary);
    }
}

fn evaluate<'a>(bag: &'a Bag<'a>) {
    let _ = PROGRAM.wants(bag);
    let _ = PROGRAM
        .request_headers(bag)
        .map(|headers| headers.get("traceparent").is_some());
    let _ = PROGRAM.evaluate_report(bag, 0, |_, _, values| {
        for value in values {
            let _ = (value.to_string(), attribute_value(value));
        }
    });
}
