//! What a Check costs in the handler, from request bytes to response bytes: about 1 KB of attributes, 100 rules.
//! `cargo run --release -p meshwright-policy --example check_cost`

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{Attributes, Builder, Operation, Type, limit};
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::Engine;
use prost::Message;

fn policy(indexed: bool) -> Builder {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("deny", 7, "not allowed"), builder.nothing());
    let attribute = builder.attribute("destination.service.host", Type::String);
    for number in 0..100 {
        let host = format!("service-{number}.demo.svc.cluster.local");
        let (path, pattern) = (builder.read("request.path", Type::String), builder.text("/admin/*"));
        let is_path = builder.node(Operation::Match, &[path, pattern]);
        let (header, nobody) = (builder.index("request.headers", "x-user"), builder.text("nobody"));
        let user = builder.node(Operation::Default, &[header, nobody]);
        let is_user = builder.node(Operation::Equal, &[user, nobody]);
        let rest = builder.node(Operation::And, &[is_path, is_user]);
        if indexed {
            let word = builder.word(&host);
            builder.rule(Some(rest), denier, nothing).leading = vec![compiled::Equality { attribute, word }];
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

fn main() {
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
    let quota = meshwright_api::istio::mixer::v1::check_request::QuotaParams {
        amount: 1,
        best_effort: false,
    };
    charged.quotas.insert("requestcount".into(), quota);
    for (what, indexed, request) in [
        ("100 rules by host", true, &plain),
        ("100 rules by host, one quota", true, &charged),
        ("100 rules one by one", false, &plain),
    ] {
        let engine = Engine::default();
        engine.load(&policy(indexed).bytes()).expect("a policy");
        let bytes = request.encode_to_vec();
        let mut best = f64::MAX;
        for _ in 0..9 {
            let began = Instant::now();
            const CALLS: u32 = 20_000;
            for now in 0..u64::from(CALLS) {
                black_box(engine.check(black_box(&bytes), now).expect("an answer"));
            }
            best = best.min(began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
        }
        println!("{what}: {best:.2} µs a check of {} bytes", bytes.len());
    }
}
