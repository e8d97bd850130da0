//! A policy that could fail later is refused when it is loaded, with the place, and the one in force stays.

mod common;

use common::{Builder, Operation, Type, limit};
use meshwright_policy::Engine;

/// What the error says, and how to come by it.
type Case = (&'static str, fn(&mut Builder));

#[test]
fn each_mistake_is_named_with_its_place() {
    let cases: [Case; 17] = [
        ("format: is 2, this engine reads 1", |builder| builder.0.format = 2),
        ("nodes[1]: argument 1 doesn't come before", |builder| {
            builder.text("a");
            builder.node(Operation::Size, &[1]);
        }),
        ("nodes[1]: ADD doesn't take (STRING)", |builder| {
            let text = builder.text("a");
            builder.node(Operation::Add, &[text]);
        }),
        ("nodes[2]: EQUAL doesn't take (STRING, INT64)", |builder| {
            let (text, number) = (builder.text("a"), builder.read("request.size", Type::Int64));
            builder.node(Operation::Equal, &[text, number]);
        }),
        ("nodes[2]: regular expression \"(\"", |builder| {
            let (pattern, text) = (builder.text("("), builder.text("a"));
            builder.node(Operation::Matches, &[pattern, text]);
        }),
        ("nodes[1]: the pattern of MATCHES must be a constant", |builder| {
            let text = builder.read("request.path", Type::String);
            builder.node(Operation::Matches, &[text, text]);
        }),
        ("nodes[0]: a constant without a value", |builder| {
            builder.node(Operation::Constant, &[]);
        }),
        ("nodes[0]: there is no attribute 0", |builder| {
            builder.node(Operation::Attribute, &[]);
        }),
        ("deeper than 200", |builder| {
            let mut node = builder.read("connection.mtls", Type::Bool);
            for _ in 0..250 {
                node = builder.node(Operation::Not, &[node]);
            }
        }),
        ("more than 10000 steps", |builder| {
            let mut node = builder.read("connection.mtls", Type::Bool);
            for _ in 0..20 {
                node = builder.node(Operation::And, &[node, node]);
            }
        }),
        (
            "attributes[1]: attribute \"request.path\" has another type already",
            |builder| {
                builder.attribute("request.path", Type::String);
                builder.attribute("request.path", Type::Int64);
            },
        ),
        (
            "attributes[0]: attribute \"source.namespace\" has another type",
            |builder| {
                builder.attribute("source.namespace", Type::Uri);
            },
        ),
        ("handlers[0]: status code 14 can't be a denial", |builder| {
            builder.denier("busy", 14, "");
        }),
        (
            "rules[0] (rule0.mesh).match: is of type STRING, must be BOOL",
            |builder| {
                let (denier, nothing, text) = (builder.denier("no", 7, ""), builder.nothing(), builder.text("a"));
                builder.rule(Some(text), denier, nothing);
            },
        ),
        (
            "rules[0] (rule0.mesh).actions[0]: handler list.mesh can't take instance nothing.mesh",
            |builder| {
                let (list, nothing) = (builder.list(&[], true), builder.nothing());
                builder.rule(None, list, nothing);
            },
        ),
        ("handlers[0]: instance 0 isn't a quota", |builder| {
            let nothing = builder.nothing();
            builder.quotas(vec![limit(nothing, 1)]);
        }),
        (
            "rules[0] (rule0.mesh).keys[0]: is of type INT64, must be STRING",
            |builder| {
                let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
                let subject = builder.read("request.size", Type::Int64);
                let key = builder.key(subject, &["1"], &[]);
                builder.rule(None, denier, nothing).keys = vec![key];
            },
        ),
    ];
    let engine = Engine::default();
    let mut good = Builder::new();
    good.0.revision = "7".into();
    engine.load(&good.bytes()).unwrap();
    for (expected, spoil) in cases {
        let mut builder = Builder::new();
        spoil(&mut builder);
        let error = engine.load(&builder.bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        assert_eq!(engine.program().revision(), "7");
    }
}
