//! Whatever arrives, the answer is an answer or an error: no input ends the process.

mod common;
#[path = "common/everything.rs"]
mod everything;

use common::{Attributes, Builder, Operation, Type, names};
use everything::everything;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Answer, Bag, CheckRequest, Decision, Engine, Failed, Program, Question, expand};
use proptest::prelude::*;
use prost::Message;

fn index() -> impl Strategy<Value = i32> {
    // Words that the policy reads, words of the message, and anything else.
    prop_oneof![
        prop::sample::select(vec![0, 6, 15, 17, 18, 21, 23, 24, 29, 154, 155, 177, 201, 219, 220]),
        -8..0i32,
        any::<i32>()
    ]
}

fn compressed() -> impl Strategy<Value = mixer::CompressedAttributes> {
    let words = prop::collection::vec(
        prop_oneof![Just("x.double".to_owned()), "[a-c*.@:/]{0,6}", any::<String>()],
        0..8,
    );
    let timestamps = prop::collection::hash_map(index(), (any::<i64>(), any::<i32>()), 0..3);
    let durations = prop::collection::hash_map(index(), (any::<i64>(), any::<i32>()), 0..3);
    let maps = prop::collection::hash_map(index(), prop::collection::hash_map(index(), index(), 0..4), 0..3);
    let scalars = (
        prop::collection::hash_map(index(), index(), 0..6),
        prop::collection::hash_map(index(), any::<i64>(), 0..3),
        prop::collection::hash_map(index(), any::<f64>(), 0..3),
        prop::collection::hash_map(index(), any::<bool>(), 0..3),
        prop::collection::hash_map(index(), prop::collection::vec(any::<u8>(), 0..18), 0..3),
    );
    (words, scalars, timestamps, durations, maps).prop_map(
        |(words, (strings, int64s, doubles, bools, bytes), timestamps, durations, maps)| mixer::CompressedAttributes {
            words,
            strings,
            int64s,
            doubles,
            bools,
            timestamps: timestamps
                .into_iter()
                .map(|(key, (seconds, nanos))| (key, prost_types::Timestamp { seconds, nanos }))
                .collect(),
            durations: durations
                .into_iter()
                .map(|(key, (seconds, nanos))| (key, prost_types::Duration { seconds, nanos }))
                .collect(),
            bytes: bytes.into_iter().map(|(key, value)| (key, value.into())).collect(),
            string_maps: maps
                .into_iter()
                .map(|(key, entries)| (key, mixer::StringMap { entries }))
                .collect(),
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_a_check(bytes: Vec<u8>, now: u64) {
        let engine = Engine::default();
        engine.load(&everything().bytes()).unwrap();
        if let Ok(answer) = engine.check(&bytes, now) {
            prop_assert!(mixer::CheckResponse::decode(answer.as_slice()).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_a_policy(bytes: Vec<u8>) {
        let _ = Program::load(&bytes);
    }

    #[test]
    fn a_damaged_policy_is_taken_or_refused(position: prop::sample::Index, byte: u8) {
        let mut bytes = everything().bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(program) = Program::load(&bytes) {
            let engine = Engine::default();
            engine.load(&bytes).unwrap();
            let request = Attributes::default().text("request.path", "/a").map("request.headers", &[("x", "y")]);
            let _ = engine.check(&request.request().encode_to_vec(), 0);
            let bag = Bag::new(program.names());
            let _ = (program.wants(&bag), program.evaluate_report(&bag, 0, |_, _, _| {}));
        }
    }

    #[test]
    fn any_attributes_are_checked_and_reported(
        attributes in compressed(), id: String, words in 0..223u32, now: u64, delta: bool,
        quotas in prop::collection::hash_map(prop_oneof![Just("count".to_owned()), any::<String>()], (any::<i64>(), any::<bool>()), 0..3)
    ) {
        let engine = Engine::default();
        engine.load(&everything().bytes()).unwrap();
        let quotas = quotas.into_iter().map(|(name, (amount, best_effort))| {
            (name, mixer::check_request::QuotaParams { amount, best_effort })
        });
        let request = mixer::CheckRequest {
            attributes: Some(attributes.clone()),
            global_word_count: words,
            deduplication_id: id,
            quotas: quotas.collect(),
        };
        let bytes = request.encode_to_vec();
        let plain = engine.check(&bytes, now);
        // Explaining changes nothing, and no input can break it.
        let program = engine.program();
        if let (Ok(plain), Ok(bag)) = (plain, CheckRequest::read(&bytes).and_then(|request| request.bag(&program))) {
            let code = mixer::CheckResponse::decode(plain.as_slice()).unwrap().precondition.unwrap().status.unwrap().code;
            prop_assert_eq!(explained(&program, bag.explained(), now).code, code);
        }
        let report = mixer::ReportRequest {
            attributes: vec![attributes.clone(), attributes],
            default_words: vec!["x.double".into()],
            global_word_count: words,
            repeated_attributes_semantics: i32::from(!delta),
        };
        let program = engine.program();
        for attributes in expand(&report).into_iter().flatten() {
            if let Ok(bag) = Bag::plain(program.names(), &attributes) {
                let _ = (program.wants(&bag), program.evaluate_report(&bag, now, |_, _, _| {}));
            }
        }
    }

    /// The tables decide as the expressions would, and refer to the same attributes.
    #[test]
    fn keys_are_only_quicker(
        rules in prop::collection::vec((prop::collection::vec((0..5usize, alternatives()), 0..4), any::<bool>()), 1..8),
        request in prop::collection::vec((0..5usize, "[ab]{0,3}"), 0..6)
    ) {
        let (mut quick, mut plain) = (Builder::new(), Builder::new());
        for builder in [&mut quick, &mut plain] {
            for code in [7, 16] {
                builder.denier(&format!("deny{code}"), code, "no");
            }
            builder.nothing();
        }
        for (keys, which) in rules {
            let made: Vec<_> = keys.iter().map(|(subject, texts)| key(&mut quick, *subject, texts)).collect();
            quick.rule(None, which.into(), 0).keys = made;
            let conjuncts: Vec<u32> = keys.iter().map(|(subject, texts)| disjunction(&mut plain, *subject, texts)).collect();
            let condition = conjuncts.into_iter().reduce(|left, right| plain.node(Operation::And, &[left, right]));
            plain.rule(condition, which.into(), 0);
        }
        let request = asked(&request);
        prop_assert_eq!(answer(&quick, &request), answer(&plain, &request));
    }

    /// Keys from anywhere in a condition, and alternatives over several attributes, change no decision; and what is
    /// referred to still decides: another request in which it is the same is answered alike.
    #[test]
    fn the_index_leaves_out_only_rules_that_do_not_match(
        rules in prop::collection::vec((prop::collection::vec((0..5usize, alternatives()), 1..4), any::<bool>(), any::<bool>()), 1..8),
        request in prop::collection::vec((0..5usize, "[ab]{0,3}"), 0..6),
        others in prop::collection::vec(prop::collection::vec((0..5usize, "[ab]{0,3}"), 0..6), 1..6)
    ) {
        let (mut quick, mut plain) = (Builder::new(), Builder::new());
        for builder in [&mut quick, &mut plain] {
            for code in [7, 16] {
                builder.denier(&format!("deny{code}"), code, "no");
            }
            builder.nothing();
        }
        for (keys, which, is_either) in rules {
            let operation = if is_either { Operation::Or } else { Operation::And };
            let condition = |builder: &mut Builder, keys: &[(usize, Alternatives)]| {
                let parts: Vec<u32> = keys.iter().map(|(subject, texts)| disjunction(builder, *subject, texts)).collect();
                parts.into_iter().reduce(|left, right| builder.node(operation, &[left, right]))
            };
            if is_either {
                let whole = condition(&mut quick, &keys);
                let made: Vec<_> = keys.iter().map(|(subject, texts)| key(&mut quick, *subject, texts)).collect();
                quick.rule(whole, which.into(), 0).either = made;
            } else {
                // The last conjunct is looked up before the others are evaluated.
                let (last, others) = keys.split_last().unwrap();
                let others = condition(&mut quick, others);
                let made = vec![key(&mut quick, last.0, &last.1)];
                quick.rule(others, which.into(), 0).keys = made;
            }
            let whole = condition(&mut plain, &keys);
            plain.rule(whole, which.into(), 0);
        }
        let (given, references) = answer(&quick, &asked(&request));
        prop_assert_eq!(&given.status, &answer(&plain, &asked(&request)).0.status);
        for other in others {
            let is_alike = references.iter().all(|reference| match reference.strip_prefix('-') {
                Some(absent) => value(&other, absent).is_none(),
                None => value(&other, reference) == value(&request, reference),
            });
            if is_alike && given.valid_use_count != 0 {
                prop_assert_eq!(&given.status, &answer(&quick, &asked(&other)).0.status, "{:?} {:?}", references, other);
            }
        }
    }
}

const SUBJECTS: [&str; 4] = [
    "destination.service.host",
    "request.path",
    "context.protocol",
    "request.method",
];

/// Texts that equal, and prefixes.
type Alternatives = (Vec<String>, Vec<String>);

fn alternatives() -> impl Strategy<Value = Alternatives> {
    let texts = |least| prop::collection::vec("[ab]{0,2}", least..3);
    prop_oneof![(texts(1), texts(0)), (texts(0), texts(1))]
}

/// The last subject is an entry of a map.
fn subject(builder: &mut Builder, number: usize) -> u32 {
    match SUBJECTS.get(number) {
        Some(name) => builder.read(name, Type::String),
        None => builder.index("request.headers", "x-tier"),
    }
}

fn key(builder: &mut Builder, number: usize, (equals, prefixes): &Alternatives) -> compiled::Key {
    let subject = subject(builder, number);
    let texts = |texts: &[String]| texts.iter().map(|text| text.to_owned()).collect::<Vec<_>>();
    let (equals, prefixes) = (texts(equals), texts(prefixes));
    let equals: Vec<&str> = equals.iter().map(String::as_str).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    builder.key(subject, &equals, &prefixes)
}

fn disjunction(builder: &mut Builder, number: usize, (equals, prefixes): &Alternatives) -> u32 {
    let mut parts = Vec::new();
    for (operation, texts) in [(Operation::Equal, equals), (Operation::StartsWith, prefixes)] {
        for text in texts {
            let (subject, text) = (subject(builder, number), builder.text(text));
            parts.push(builder.node(operation, &[subject, text]));
        }
    }
    let parts = parts.into_iter();
    parts
        .reduce(|left, right| builder.node(Operation::Or, &[left, right]))
        .unwrap()
}

fn asked(values: &[(usize, String)]) -> Vec<u8> {
    let mut attributes = Attributes::default();
    for (number, value) in values {
        attributes = match SUBJECTS.get(*number) {
            Some(name) => attributes.text(name, value),
            None => attributes.map("request.headers", &[("x-tier", value)]),
        };
    }
    attributes.request().encode_to_vec()
}

/// Of an attribute as references name it.
fn value<'a>(values: &'a [(usize, String)], name: &str) -> Option<&'a str> {
    let number = SUBJECTS.iter().position(|known| *known == name);
    let is_map = name.starts_with("request.headers");
    let mut found = values
        .iter()
        .rev()
        .filter(|(subject, _)| Some(*subject) == number || is_map && *subject == 4);
    found
        .next()
        .map(|(_, value)| if name == "request.headers" { "" } else { value.as_str() })
}

/// The precondition and its references.
fn answer(builder: &Builder, request: &[u8]) -> (mixer::check_response::PreconditionResult, Vec<String>) {
    let engine = Engine::default();
    engine.load(&builder.bytes()).unwrap();
    let answer = mixer::CheckResponse::decode(engine.check(request, 0).unwrap().as_slice()).unwrap();
    let mut precondition = answer.precondition.unwrap();
    let references = names(&precondition.referenced_attributes.take().unwrap());
    (precondition, references)
}

/// Decides with nobody to ask, as `Engine::check` does.
fn explained(program: &Program, bag: Bag<'_>, now: u64) -> Decision {
    let unasked =
        |questions: Vec<Question>| -> Vec<Answer> { questions.iter().map(|_| Err(Failed::TimedOut)).collect() };
    let mut generating = program.generate(&bag, now).unwrap().unwrap();
    let answers = unasked(generating.questions());
    let generated = generating.finish(program, &bag, answers).unwrap();
    let bag = bag.with(&generated);
    let mut deciding = program.check(&bag, now).unwrap();
    let answers = unasked(deciding.questions());
    let decision = deciding.finish(program, &bag, answers).unwrap();
    let explanation = decision.explanation.as_ref().unwrap();
    assert!(
        explanation
            .rules
            .iter()
            .any(|tried| tried.actions.iter().any(|acted| acted.decides))
            == (decision.code != 0)
    );
    decision
}
