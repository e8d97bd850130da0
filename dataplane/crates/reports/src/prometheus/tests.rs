use std::sync::Arc;

use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_api::meshwright::policy::v1::handler::prometheus::{Kind, Label, Metric};
use meshwright_serve::telemetry::span::Context;
use prost::Message;

use super::*;
use crate::trace::Trace;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A policy whose one instance measures `x.size` by `x.host`, shown as `kind`.
fn parameters(kind: Kind, max_series: u32) -> (Parameters, Program) {
    let mut policy = compiled::Policy {
        format: 1,
        ..Default::default()
    };
    let mut read = |name: &str, kind: compiled::Type| {
        let number = policy.attributes.len() as u32;
        policy.words.push(name.to_owned());
        policy.attributes.push(compiled::Attribute {
            name: number,
            r#type: kind.into(),
        });
        policy.nodes.push(compiled::Node {
            operation: compiled::Operation::Attribute.into(),
            attribute: number,
            ..Default::default()
        });
        number
    };
    let fields = vec![
        compiled::Field {
            name: "dimensions.host".into(),
            value: read("x.host", compiled::Type::String),
        },
        compiled::Field {
            name: "value".into(),
            value: read("x.size", compiled::Type::Double),
        },
    ];
    policy.instances.push(compiled::Instance {
        name: "size".into(),
        namespace: "mesh".into(),
        template: "metric".into(),
        variety: compiled::Variety::Report.into(),
        fields,
        ..Default::default()
    });
    let parameters = Parameters {
        metrics: vec![Metric {
            instance: 0,
            name: "mesh_size_total".into(),
            help: "Sizes\nof \"things\".".into(),
            kind: kind.into(),
            bounds: vec![1.0, 10.0],
            labels: vec![Label {
                name: "to".into(),
                dimension: "host".into(),
            }],
        }],
        expiry_nanos: 60_000_000_000,
        max_series,
        ..Default::default()
    };
    (parameters, Program::load(&policy.encode_to_vec()).expect("a policy"))
}

fn add(prometheus: &Prometheus, host: &str, size: f64) -> bool {
    let record = Record {
        id: 1,
        redelivered: false,
        time_nanos: 1_500_000_000,
        reporter: "",
        kind: 0,
        trace: Context::parse(TRACE).map(|context| Trace { context }),
    };
    let values = [Value::text(host), Value::Double(size)];
    prometheus.lock().add(0, &record, &values, Instant::now())
}

fn shown(prometheus: &Arc<Prometheus>, format: Format) -> String {
    write(std::slice::from_ref(prometheus), format)
}

fn made(kind: Kind, max_series: u32) -> (Arc<Prometheus>, Parameters, Program) {
    let (parameters, program) = parameters(kind, max_series);
    let prometheus = Arc::new(Prometheus::default());
    prometheus.configure(&parameters, &program);
    (prometheus, parameters, program)
}

#[tokio::test]
async fn counters_add_up_and_outlive_a_policy_that_keeps_them() {
    let (prometheus, mut parameters, program) = made(Kind::Counter, 10);
    assert!(add(&prometheus, "a\"\\\n", 2.0));
    parameters.metrics[0].help = "New words.".into();
    prometheus.configure(&parameters, &program);
    add(&prometheus, "a\"\\\n", 3.5);
    add(&prometheus, "a\"\\\n", -7.0);
    let text = shown(&prometheus, Format::Text);
    assert_eq!(
        text,
        "# HELP mesh_size_total New words.\n# TYPE mesh_size_total counter\nmesh_size_total{to=\"a\\\"\\\\\\n\"} 5.5\n"
    );
    let open = shown(&prometheus, Format::OpenMetrics);
    assert!(open.contains("# TYPE mesh_size counter\n"), "{open}");
    let sample = open
        .lines()
        .find(|line| line.starts_with("mesh_size_total"))
        .expect("a sample");
    assert!(sample.ends_with("span_id=\"00f067aa0ba902b7\"} 3.5 1.500"), "{sample}");
    parameters.metrics[0].kind = Kind::Gauge.into();
    prometheus.configure(&parameters, &program);
    assert!(!shown(&prometheus, Format::Text).contains("5.5"));
}

#[tokio::test]
async fn distributions_have_buckets_with_exemplars_of_sampled_traces() {
    let (prometheus, _, _) = made(Kind::Distribution, 10);
    for size in [0.5, 1.0, 7.0, 100.0] {
        add(&prometheus, "a", size);
    }
    let text = shown(&prometheus, Format::Text);
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        [
            "mesh_size_total_bucket{to=\"a\",le=\"1.0\"} 2",
            "mesh_size_total_bucket{to=\"a\",le=\"10.0\"} 3",
            "mesh_size_total_bucket{to=\"a\",le=\"+Inf\"} 4",
            "mesh_size_total_sum{to=\"a\"} 108.5",
            "mesh_size_total_count{to=\"a\"} 4",
        ]
    );
    let open = shown(&prometheus, Format::OpenMetrics);
    let last = "mesh_size_total_bucket{to=\"a\",le=\"+Inf\"} 4 # \
                {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\",span_id=\"00f067aa0ba902b7\"} 100.0 1.500";
    assert!(open.contains(last), "{open}");
}

#[tokio::test(start_paused = true)]
async fn series_are_bounded_and_expire() {
    let (prometheus, _, _) = made(Kind::Gauge, 1);
    assert!(add(&prometheus, "a", 1.0));
    assert!(!add(&prometheus, "b", 1.0));
    assert!(add(&prometheus, "a", 2.0));
    assert!(shown(&prometheus, Format::Text).contains("{to=\"a\"} 2.0"));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(!shown(&prometheus, Format::Text).contains("{to="));
    assert!(add(&prometheus, "b", 3.0));
}
