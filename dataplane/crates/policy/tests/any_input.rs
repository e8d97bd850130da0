//! Whatever arrives, the answer is an answer or an error: no input ends the process.

mod common;
#[path = "common/everything.rs"]
mod everything;

use common::{Attributes, Builder, Operation, Type, names};
use everything::everything;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Engine, Program, expand};
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
            let _ = program.report(&Default::default());
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
        let _ = engine.check(&request.encode_to_vec(), now);
        let report = mixer::ReportRequest {
            attributes: vec![attributes.clone(), attributes],
            default_words: vec!["x.double".into()],
            global_word_count: words,
            repeated_attributes_semantics: i32::from(!delta),
        };
        let program = engine.program();
        for attributes in expand(&report).into_iter().flatten() {
            let _ = program.report(&attributes);
        }
    }

    /// The tables decide as the expressions would, and refer to the same attributes.
    #[test]
    fn leading_equalities_are_only_quicker(
        rules in prop::collection::vec((prop::collection::vec((0..4usize, 0..3usize), 0..4), any::<bool>()), 1..8),
        request in prop::collection::vec((0..4usize, 0..3usize), 0..5)
    ) {
        const NAMES: [&str; 4] = ["destination.service.host", "request.path", "context.protocol", "request.method"];
        const VALUES: [&str; 3] = ["a", "b", "c"];
        let (mut quick, mut plain) = (Builder::new(), Builder::new());
        for builder in [&mut quick, &mut plain] {
            for code in [7, 16] {
                builder.denier(&format!("deny{code}"), code, "no");
            }
            builder.nothing();
        }
        for (equalities, which) in rules {
            let leading = equalities.iter().map(|(name, value)| compiled::Equality {
                attribute: quick.attribute(NAMES[*name], Type::String),
                word: quick.word(VALUES[*value]),
            });
            let leading = leading.collect();
            quick.rule(None, which.into(), 0).leading = leading;
            let conjuncts = equalities.iter().map(|(name, value)| plain.equals(NAMES[*name], VALUES[*value]));
            let conjuncts: Vec<u32> = conjuncts.collect();
            let condition = conjuncts.into_iter().reduce(|left, right| plain.node(Operation::And, &[left, right]));
            plain.rule(condition, which.into(), 0);
        }
        let mut attributes = Attributes::default();
        for (name, value) in request {
            attributes = attributes.text(NAMES[name], VALUES[value]);
        }
        let request = attributes.request().encode_to_vec();
        let answers = [quick, plain].map(|builder| {
            let engine = Engine::default();
            engine.load(&builder.bytes()).unwrap();
            let answer = mixer::CheckResponse::decode(engine.check(&request, 0).unwrap().as_slice()).unwrap();
            let mut precondition = answer.precondition.unwrap();
            let references = names(&precondition.referenced_attributes.take().unwrap());
            (precondition, references)
        });
        prop_assert_eq!(&answers[0], &answers[1]);
    }
}
