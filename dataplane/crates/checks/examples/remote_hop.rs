//! What it costs to ask an adapter in another process, beside a bare tonic client that calls the same method: one question
//! at a time to the same server (on a thread of its own), both in turn in windows of a few milliseconds. Printed are the
//! medians of the client thread's CPU time a call, and of the time that a call takes.
//! `cargo run --release -p meshwright-checks --example remote_hop [rounds]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meshwright_api::istio::mixer::v1::attributes::AttributeValue;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_checks::{Ask, Settings, State};
use meshwright_policy::{Asked, Host, Question, Subject, Variety};
use meshwright_serve::{Listener, Server, Services};
use nix::time::{ClockId, clock_gettime};
use prost::Message;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CALLS: usize = 200;
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// A field that the server doesn't know, so that it answers any instance.
const UNKNOWN: u32 = 15;

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(200, |text| text.parse().expect("a number"));
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async move {
            let (_, health) = tonic_health::server::health_reporter();
            let services = Services::default().add(health, &["Check", "Watch"]);
            let listener = Listener::bind("127.0.0.1:0", 0o600).expect("bound");
            let server = Server::builder().services(services).serve(vec![listener]);
            told.send(server.addresses()[0].clone()).expect("heard");
            std::future::pending::<()>().await;
        });
    });
    let address = address.recv().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(measure(&address, rounds));
}

async fn measure(address: &str, rounds: usize) {
    let state = State::new(Settings::default());
    state.load(&policy(address).encode_to_vec()).expect("a policy");
    let question = question();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let client = HealthClient::new(endpoint.connect().await.expect("connected"));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..rounds + 5 {
        let asked = window(|| {
            let answer = state.remotes.ask(question.clone(), None);
            async { drop(answer.await.expect("answered")) }
        })
        .await;
        let called = window(|| {
            let mut client = client.clone();
            async move {
                let mut request = tonic::Request::new(HealthCheckRequest::default());
                request.set_timeout(Duration::from_secs(1));
                drop(client.check(request).await.expect("answered"));
            }
        })
        .await;
        if round >= 5 {
            ours.push(asked);
            bare.push(called);
        }
    }
    let (ours, bare) = (medians(ours), medians(bare));
    println!("asked:      {:7.1} µs CPU, {:7.1} µs", ours.0, ours.1);
    println!("bare tonic: {:7.1} µs CPU, {:7.1} µs", bare.0, bare.1);
    println!("ratio:      {:7.2} CPU, {:7.2}", ours.0 / bare.0, ours.1 / bare.1);
}

async fn window<F: Future<Output = ()>>(mut call: impl FnMut() -> F) -> (f64, f64) {
    let (cpu_before, began) = (cpu(), Instant::now());
    for _ in 0..CALLS {
        call().await;
    }
    let took = began.elapsed().as_nanos() as f64;
    let cpu = (cpu() - cpu_before) as f64;
    (cpu / CALLS as f64 / 1e3, took / CALLS as f64 / 1e3)
}

fn cpu() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

fn medians(windows: Vec<(f64, f64)>) -> (f64, f64) {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (cpu, time) = windows.into_iter().unzip();
    (middle(cpu), middle(time))
}

/// A handler at `address`, and an instance with five fields, one of them in a map.
fn policy(address: &str) -> compiled::Policy {
    let scalar = |field: &str, number| compiled::Piece {
        piece: Some(compiled::piece::Piece::Scalar(compiled::piece::Scalar {
            field: field.to_owned(),
            number,
            wire: compiled::Wire::AnyValue.into(),
            r#type: 1,
        })),
    };
    let nested = compiled::piece::Nested {
        number: 5,
        is_entry: true,
        pieces: vec![
            compiled::Piece {
                piece: Some(compiled::piece::Piece::Literal(Bytes::from_static(b"\x0a\x03key"))),
            },
            scalar("map.key", 2),
        ],
    };
    let mut pieces: Vec<_> = (1..5).map(|number| scalar(&format!("field{number}"), number)).collect();
    pieces.push(compiled::Piece {
        piece: Some(compiled::piece::Piece::Nested(nested)),
    });
    compiled::Policy {
        format: 1,
        instances: vec![compiled::Instance {
            name: "i".to_owned(),
            namespace: "ns".to_owned(),
            template: "t".to_owned(),
            variety: compiled::Variety::AttributeGenerator.into(),
            encoding: Some(compiled::Encoding {
                method: METHOD.to_owned(),
                name: "i.instance.ns".to_owned(),
                instance: UNKNOWN,
                dedup_id: UNKNOWN + 1,
                pieces,
                ..Default::default()
            }),
            ..Default::default()
        }],
        handlers: vec![compiled::Handler {
            name: "h".to_owned(),
            namespace: "ns".to_owned(),
            adapter: Some(compiled::handler::Adapter::Asked(compiled::handler::Asked {
                adapter: "a".to_owned(),
                host: compiled::handler::asked::Host::Remote.into(),
                timeout_nanos: 1_000_000_000,
                remote: Some(compiled::Remote {
                    address: address.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            })),
        }],
        ..Default::default()
    }
}

fn question() -> Question {
    let text = |text: &str| AttributeValue {
        value: Some(Value::StringValue(text.to_owned())),
    };
    let mut fields: Vec<(Arc<str>, AttributeValue)> = (1..5)
        .map(|number| (format!("field{number}").into(), text("a value of twenty b")))
        .collect();
    fields.push(("map.key".into(), text("another value")));
    Question {
        asked: Arc::new(Asked {
            handler: "h.ns".into(),
            adapter: "a".into(),
            host: Host::Remote,
            is_open: false,
            timeout: Duration::from_secs(1),
        }),
        subject: Arc::new(Subject {
            instance: "i.ns".into(),
            template: "t".into(),
            variety: Variety::AttributeGenerator,
        }),
        fields,
        wanted: None,
    }
}
