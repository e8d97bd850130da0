//! The policy that tests of arbitrary input and fuzz targets run; whoever includes this has `common` beside it.
#![allow(unreachable_pub, reason = "included by tests and fuzz targets")]

use crate::common::{Builder, Operation, Type, limit};

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
    builder
}
