//! The policy that tests of arbitrary input and fuzz targets run; whoever includes this has `common` beside it.
#![allow(unreachable_pub, reason = "included by tests and fuzz targets")]

use meshwright_api::meshwright::policy::v1 as compiled;

use crate::common::{Builder, Operation, Type, Variety, limit};

/// A policy that reads every type and uses every operation.
pub fn everything() -> Builder {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    let text = builder.read("request.path", Type::String);
    let other = builder.index("request.headers", "x");
    let pattern = builder.text("^a+(b|c)*$");
    let mut conditions = vec![
        builder.node(Operation::Match, &[text, other]),
        builder.node(Operation::Matches, &[pattern, text]),
        builder.node(Operation::StartsWith, &[text, other]),
        builder.node(Operation::EndsWith, &[text, other]),
    ];
    for (name, kind, function) in [
        ("source.ip", Type::IpAddress, Operation::Ip),
        ("request.time", Type::Timestamp, Operation::ToTimestamp),
        ("destination.uid", Type::DnsName, Operation::ToDnsName),
        ("source.user", Type::EmailAddress, Operation::Email),
        ("request.referer", Type::Uri, Operation::ToUri),
        ("request.host", Type::String, Operation::ToLower),
    ] {
        let (left, right) = (builder.read(name, kind), builder.node(function, &[text]));
        let value = builder.node(Operation::Default, &[right, left]);
        conditions.push(builder.node(Operation::Equal, &[left, value]));
        conditions.push(builder.node(Operation::NotEqual, &[right, left]));
    }
    for (name, kind) in [
        ("request.size", Type::Int64),
        ("request.host", Type::String),
        ("response.duration", Type::Duration),
        ("x.double", Type::Double),
    ] {
        let value = builder.read(name, kind);
        let sum = builder.node(Operation::Add, &[value, value]);
        let orders = [
            Operation::Less,
            Operation::LessEqual,
            Operation::Greater,
            Operation::GreaterEqual,
        ];
        conditions.extend(orders.map(|operation| builder.node(operation, &[sum, value])));
    }
    let (empty, map) = (
        builder.node(Operation::EmptyStringMap, &[]),
        builder.read("request.headers", Type::StringMap),
    );
    let map = builder.node(Operation::Default, &[map, empty]);
    let value = builder.node(Operation::Index, &[map, text]);
    let size = builder.node(Operation::Size, &[value]);
    let length = builder.read("request.size", Type::Int64);
    conditions.push(builder.node(Operation::Equal, &[size, length]));
    let truth = builder.read("connection.mtls", Type::Bool);
    let opposite = builder.node(Operation::Not, &[truth]);
    conditions.push(builder.node(Operation::Conditional, &[truth, opposite, truth]));
    conditions.extend(cel(&mut builder));
    for condition in conditions {
        builder.rule(Some(condition), denier, nothing);
    }
    let (list, entry) = (builder.list(&["GET", "POST"], false), builder.entry(text));
    builder.rule(None, list, entry);
    let quota = builder.quota("count", &[("path", text), ("size", length)]);
    let quotas = builder.quotas(vec![limit(quota, 10)]);
    builder.rule(Some(truth), quotas, quota);
    let (sink, report) = (
        builder.sink("stdio"),
        builder.report("logentry", &[("variables.map", map)]),
    );
    builder.rule(None, sink, report);
    everything_asked(&mut builder, text, map);
    builder
}

/// Adapters outside of the engine, in every variety, and what rules have beside a condition.
fn everything_asked(builder: &mut Builder, text: u32, map: u32) {
    let (open, closed) = (builder.asked("open", true), builder.asked("closed", false));
    let (labels, made) = builder.output("labels", Type::StringMap);
    let generator = builder.instance("pod", "kubernetes", Variety::AttributeGenerator, &[("uid", text)]);
    let headers = builder.attribute("request.headers", Type::StringMap);
    builder.0.instances[generator as usize].outputs = vec![labels];
    builder.0.instances[generator as usize].bindings = vec![compiled::Binding {
        attribute: headers,
        value: made,
    }];
    builder.rule(None, open, generator);
    let (value, node) = builder.output("value", Type::String);
    let lookup = builder.instance(
        "lookup",
        "keyval",
        Variety::CheckWithOutput,
        &[("keys", map), ("key", text)],
    );
    let key = builder.key(text, &["/a"], &["/b", ""]);
    let rule = builder.rule(None, open, lookup);
    rule.actions[0].outputs = vec![value];
    rule.keys = vec![key.clone()];
    rule.request_headers = vec![compiled::HeaderOperation {
        name: "x-value".into(),
        values: vec![node],
        ..Default::default()
    }];
    let (nothing, quota) = (builder.nothing(), builder.quota("elsewhere", &[("path", text)]));
    builder.rule(None, closed, quota).either = vec![key];
    let rate = builder.read("request.size", Type::Int64);
    let rule = builder.rule(None, closed, nothing);
    rule.dry_run = true;
    rule.sampling = Some(compiled::Sampling {
        random: Some(compiled::sampling::Random {
            numerator: 1,
            denominator: 2,
            rate: Some(rate),
            key: Some(text),
        }),
        rate_limit: Some(compiled::sampling::RateLimit {
            window_nanos: 1,
            max_unsampled: 1,
            rate: 2,
        }),
    });
}

/// Every operation that CEL has beside the others, on every type.
fn cel(builder: &mut Builder) -> Vec<u32> {
    let (text, other) = (
        builder.read("request.path", Type::String),
        builder.index("request.headers", "x"),
    );
    let (number, double) = (
        builder.read("request.size", Type::Int64),
        builder.read("x.double", Type::Double),
    );
    let (time, duration) = (
        builder.read("request.time", Type::Timestamp),
        builder.read("response.duration", Type::Duration),
    );
    let (address, truth) = (
        builder.read("source.ip", Type::IpAddress),
        builder.read("connection.mtls", Type::Bool),
    );
    let (block, literal) = (builder.text("10.0.0.0/8"), builder.text("/a"));
    let lower = builder.node(Operation::LowerAscii, &[text]);
    let mut conditions = vec![
        builder.node(Operation::Has, &[other]),
        builder.node(Operation::In, &[lower, literal, block]),
        builder.node(Operation::Contains, &[text, other]),
        builder.node(Operation::Within, &[block, address]),
    ];
    let mut same = |builder: &mut Builder, made: u32, as_is: u32| {
        let value = builder.node(Operation::Otherwise, &[made, as_is]);
        conditions.push(builder.node(Operation::Equal, &[value, as_is]));
    };
    for operation in [
        Operation::CheckedAdd,
        Operation::Subtract,
        Operation::Multiply,
        Operation::Divide,
    ] {
        for value in [number, double] {
            let made = builder.node(operation, &[value, value]);
            same(builder, made, value);
        }
    }
    for (operation, arguments, as_is) in [
        (Operation::Modulo, vec![number, number], number),
        (Operation::Negate, vec![number], number),
        (Operation::Negate, vec![double], double),
        (Operation::CheckedAdd, vec![time, duration], time),
        (Operation::CheckedAdd, vec![duration, time], time),
        (Operation::CheckedAdd, vec![duration, duration], duration),
        (Operation::CheckedAdd, vec![text, other], text),
        (Operation::Subtract, vec![time, duration], time),
        (Operation::Subtract, vec![time, time], duration),
        (Operation::Subtract, vec![duration, duration], duration),
        (Operation::Length, vec![text], number),
        (Operation::ToDuration, vec![text], duration),
    ] {
        let made = builder.node(operation, &arguments);
        same(builder, made, as_is);
    }
    for value in [number, double, text, time] {
        let made = builder.node(Operation::ToInt64, &[value]);
        same(builder, made, number);
    }
    for value in [number, double, text] {
        let made = builder.node(Operation::ToDouble, &[value]);
        same(builder, made, double);
    }
    for value in [number, double, truth, time, duration, address, text] {
        let made = builder.node(Operation::ToString, &[value]);
        same(builder, made, text);
    }
    let (left, right) = (conditions.clone(), conditions.iter().rev());
    for (position, (left, right)) in left.into_iter().zip(right.copied().collect::<Vec<_>>()).enumerate() {
        let operation = if position % 2 == 0 {
            Operation::CelAnd
        } else {
            Operation::CelOr
        };
        conditions.push(builder.node(operation, &[left, right]));
    }
    conditions
}
