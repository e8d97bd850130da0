//! The policies and requests that the examples measure with: about 1 KB of attributes, 100 rules or many more.
#![allow(dead_code, unreachable_pub, reason = "each example uses its part of it")]

use meshwright_api::istio::mixer::v1 as mixer;

use crate::common::{Attributes, Builder, Operation, Type, limit};

/// A hundred rules with a quota, by the host that they are for or one by one.
pub fn policy(indexed: bool) -> Builder {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("deny", 7, "not allowed"), builder.nothing());
    let subject = builder.read("destination.service.host", Type::String);
    for number in 0..100 {
        let host = format!("service-{number}.demo.svc.cluster.local");
        let (path, pattern) = (builder.read("request.path", Type::String), builder.text("/admin/*"));
        let is_path = builder.node(Operation::Match, &[path, pattern]);
        let (header, nobody) = (builder.index("request.headers", "x-user"), builder.text("nobody"));
        let user = builder.node(Operation::Default, &[header, nobody]);
        let is_user = builder.node(Operation::Equal, &[user, nobody]);
        let rest = builder.node(Operation::And, &[is_path, is_user]);
        if indexed {
            let key = builder.key(subject, &[&host], &[]);
            builder.rule(Some(rest), denier, nothing).keys = vec![key];
        } else {
            let is_host = builder.equals("destination.service.host", &host);
            let condition = builder.node(Operation::And, &[is_host, rest]);
            builder.rule(Some(condition), denier, nothing);
        }
    }
    let source = builder.read("source.principal", Type::String);
    let quota = builder.quota("requestcount", &[("source", source)]);
    let quotas = builder.quotas(vec![limit(quota, i64::MAX)]);
    builder.rule(None, quotas, quota);
    builder
}

/// How the rules of `many` begin.
pub const SHAPES: [&str; 3] = ["an equality", "a prefix", "one of two attributes"];

/// So many rules of which three can match.
pub fn many(count: usize, shape: &str) -> Builder {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("deny", 7, "not allowed"), builder.nothing());
    let host = builder.read("destination.service.host", Type::String);
    let path = builder.read("request.path", Type::String);
    let (agent, size) = (
        builder.read("request.useragent", Type::String),
        builder.read("request.scheme", Type::String),
    );
    let length = builder.node(Operation::Size, &[size]);
    let long = builder.constant(meshwright_api::meshwright::policy::v1::constant::Value::Int64Value(100));
    let is_long = builder.node(Operation::Greater, &[length, long]);
    for number in 0..count {
        let service = if number < 3 { 50 } else { 1000 + number };
        let name = format!("service-{service}.demo.svc.cluster.local");
        let prefix = if number < 3 {
            "/admin/".to_owned()
        } else {
            format!("/service/{service}/")
        };
        match shape {
            "an equality" => {
                let key = builder.key(host, &[&name], &[]);
                builder.rule(Some(is_long), denier, nothing).keys = vec![key];
            }
            "a prefix" => {
                let key = builder.key(path, &[], &[&prefix]);
                builder.rule(Some(is_long), denier, nothing).keys = vec![key];
            }
            _ => {
                let (is_host, is_agent) = (
                    builder.equals("destination.service.host", &name),
                    builder.equals("request.useragent", &name),
                );
                let is_either = builder.node(Operation::Or, &[is_host, is_agent]);
                let condition = builder.node(Operation::And, &[is_either, is_long]);
                let keys = vec![builder.key(host, &[&name], &[]), builder.key(agent, &[&name], &[])];
                builder.rule(Some(condition), denier, nothing).either = keys;
            }
        }
    }
    builder
}

/// A request, and the same with one charge of the quota.
pub fn requests() -> (mixer::CheckRequest, mixer::CheckRequest) {
    let mut headers = vec![
        ("x-user", "ann"),
        (":path", "/admin/users"),
        (":method", "GET"),
        ("user-agent", "curl/8.4.0"),
    ];
    let names: Vec<String> = (0..10).map(|number| format!("x-header-number-{number}")).collect();
    headers.extend(names.iter().map(|name| (name.as_str(), "some value of a header")));
    let attributes = Attributes::default()
        .text("context.reporter.kind", "inbound")
        .text("destination.namespace", "demo")
        .text("destination.service.host", "service-50.demo.svc.cluster.local")
        .text("destination.service.name", "service-50")
        .text("destination.workload.name", "service-50-v1")
        .text("source.principal", "spiffe://mesh.local/ns/demo/sa/shop")
        .text("destination.principal", "spiffe://mesh.local/ns/demo/sa/catalog")
        .text("source.namespace", "demo")
        .text("request.path", "/admin/users")
        .text("request.method", "GET")
        .text("request.host", "service-50.demo:8080")
        .text("request.scheme", "http")
        .text("request.id", "3b2f1c5e-8a4d-4b6e-9f7a-1c2d3e4f5a6b")
        .text("request.useragent", "curl/8.4.0")
        .text("context.protocol", "http")
        .map("request.headers", &headers);
    let plain = attributes.clone().request();
    let mut charged = plain.clone();
    let quota = mixer::check_request::QuotaParams {
        amount: 1,
        best_effort: false,
    };
    charged.quotas.insert("requestcount".into(), quota);
    (plain, charged)
}
