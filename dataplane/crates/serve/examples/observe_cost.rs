//! What counting, tracing and the access log add to a call: a server and its client on one thread, unary health checks,
//! each configuration in turn with the bare server in windows of a few milliseconds; printed is the median difference
//! of CPU time a call. Then what counting costs when several threads count calls of one method and do nothing else.
//! `cargo run --release -p meshwright-serve --example observe_cost [rounds]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwright_serve::telemetry::access_log::Which;
use meshwright_serve::telemetry::meter::Timed;
use meshwright_serve::telemetry::span::Recorder;
use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::{AccessLog, Channel, Limits, Listener, Meter, Running, Server, Services};
use nix::time::{ClockId, clock_gettime};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CALLS: usize = 200;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

/// What a side has on, and what its callers send.
#[derive(Clone, Copy, Default)]
struct Side {
    name: &'static str,
    metrics: bool,
    spans: bool,
    traced: Option<char>,
    access: Option<Which>,
}

struct Measured {
    side: Side,
    client: HealthClient<Channel>,
    recorder: Arc<Recorder>,
    log: Arc<AccessLog>,
    _server: Running,
}

impl Measured {
    fn new(side: Side) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        let (recorder, log) = (
            Recorder::new(8192),
            AccessLog::new(side.access.map(|which| (String::new(), which))),
        );
        let mut builder = Server::builder().services(Services::default().add(health, &["Check", "Watch"]));
        if side.metrics {
            builder = builder.meter(Meter::new());
        }
        if side.spans {
            builder = builder.spans(recorder.clone(), 0.0);
        }
        if side.access.is_some() {
            builder = builder.access_log(log.clone());
        }
        let server = builder.serve(vec![Listener::bind("127.0.0.1:0", 0o600).expect("bound")]);
        let anyone = Expected::parse("").expect("anyone");
        let channel = Channel::new(&server.addresses()[0], None, anyone, Limits::default()).expect("channel");
        Self {
            side,
            client: HealthClient::new(channel),
            recorder,
            log,
            _server: server,
        }
    }

    /// Nanoseconds of CPU time a call.
    async fn window(&mut self) -> f64 {
        let begun = cpu();
        for _ in 0..CALLS {
            let mut request = Request::new(HealthCheckRequest::default());
            if let Some(flag) = self.side.traced {
                let place = format!("{TRACEPARENT}{flag}").parse().expect("ASCII");
                request.metadata_mut().insert("traceparent", place);
            }
            self.client.check(request).await.expect("served");
        }
        let took = cpu() - begun;
        // Taking them away is another thread's work in a service.
        self.recorder.drain(8192, Duration::ZERO);
        self.log.take(8192);
        took as f64 / CALLS as f64
    }
}

fn cpu() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

/// Nanoseconds of CPU time for the beginning and end of a counted call, on so many threads at once.
fn counting(threads: usize) -> f64 {
    const TURNS: u32 = 2_000_000;
    let meter = Meter::new();
    let count = || {
        let (begun, method) = (cpu(), meter.method("", "/a.B/C"));
        for _ in 0..TURNS {
            let began = Instant::now();
            Timed::begin(method.clone(), began).end(Code::Ok, began.elapsed(), None);
        }
        (cpu() - begun) as f64 / f64::from(TURNS)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        median(
            running
                .into_iter()
                .map(|thread| thread.join().expect("counted"))
                .collect(),
        )
    })
}

fn median(mut series: Vec<f64>) -> f64 {
    series.sort_by(f64::total_cmp);
    series[series.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds: usize = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(300);
    let bare = Side::default();
    let header = |flag| Side {
        traced: Some(flag),
        ..bare
    };
    let sides = [
        // The header itself costs a caller and HTTP/2 something, whoever reads it: compare alike.
        (
            Side {
                name: "metrics",
                metrics: true,
                ..bare
            },
            bare,
        ),
        (
            Side {
                name: "spans on, no trace",
                spans: true,
                ..bare
            },
            bare,
        ),
        (
            Side {
                name: "spans on, trace not recorded",
                spans: true,
                ..header('0')
            },
            header('0'),
        ),
        (
            Side {
                name: "spans on, every trace recorded",
                spans: true,
                ..header('1')
            },
            header('1'),
        ),
        (
            Side {
                name: "access log, failed",
                access: Some(Which::Failed),
                ..bare
            },
            bare,
        ),
        (
            Side {
                name: "access log, all",
                access: Some(Which::All),
                ..bare
            },
            bare,
        ),
        (
            Side {
                name: "metrics, spans, trace not recorded",
                metrics: true,
                spans: true,
                ..header('0')
            },
            header('0'),
        ),
        (
            Side {
                name: "metrics, spans, access log failed (a service's default)",
                metrics: true,
                spans: true,
                access: Some(Which::Failed),
                ..header('0')
            },
            header('0'),
        ),
    ];
    println!("{:55} {:>10} {:>10}", "on", "ns a call", "of bare ns");
    for (on, off) in sides {
        let (mut on, mut off) = (Measured::new(on), Measured::new(off));
        let (mut differences, mut bares) = (Vec::new(), Vec::new());
        for round in 0..rounds + 10 {
            // The second of two windows may find a warmer cache: take turns.
            let (with, without) = if round % 2 == 0 {
                let with = on.window().await;
                (with, off.window().await)
            } else {
                let without = off.window().await;
                (on.window().await, without)
            };
            if round >= 10 {
                differences.push(with - without);
                bares.push(without);
            }
        }
        println!(
            "{:55} {:>10.0} {:>10.0}",
            on.side.name,
            median(differences),
            median(bares)
        );
    }
    for threads in [1, 2, 4] {
        println!("counting on {threads} threads at once: {:.0} ns", counting(threads));
    }
}
