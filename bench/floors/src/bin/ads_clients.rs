//! Many xDS clients in one process: each opens an aggregated stream (increments) of its own connection, subscribes like
//! a sidecar, acknowledges what it gets, and counts the responses of one type. Prints `ready BYTES` when every client
//! has had its first answers, then for each round in which all clients had another response of the counted type a line
//! `ROUND P99 LAST BYTES`: when 99 of 100 clients and when all had it (nanoseconds of the system's clock), and the bytes
//! of the round's responses.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use meshwright_floors::arguments::Arguments;
use meshwright_floors::discovery::{DELTA, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use meshwright_floors::tls;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

#[derive(Default)]
struct Counts {
    ready: usize,
    bytes: usize,
    times: Vec<u128>,
}

struct Shared {
    counts: Mutex<Counts>,
    changed: Notify,
    node: String,
    counted: String,
    names: Vec<String>,
    wildcards: Vec<String>,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().expect("no panics"));
        self.changed.notify_one();
    }
}

fn now() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos()
}

async fn follow(channel: Channel, index: usize, shared: Arc<Shared>) {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("ready");
    let (requests, outgoing) = mpsc::channel(64);
    let node = Some(Node {
        id: shared.node.replace("{}", &index.to_string()),
        cluster: "bench".into(),
    });
    let mut awaited = shared.wildcards.clone();
    for type_url in &shared.wildcards {
        let request = DeltaDiscoveryRequest {
            node: node.clone(),
            type_url: type_url.clone(),
            ..Default::default()
        };
        requests.send(request).await.expect("open");
    }
    let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
    let path = DELTA.parse().expect("a path");
    let stream = client
        .streaming(Request::new(ReceiverStream::new(outgoing)), path, codec)
        .await
        .expect("stream");
    let mut responses = stream.into_inner();
    let mut subscribed = shared.names.is_empty();
    // The floor pushes only on demand: its clients are ready once their streams are open.
    let mut ready = subscribed;
    if ready {
        shared.note(|counts| counts.ready += 1);
    }
    while let Some(response) = responses.next().await {
        let response = response.expect("a response");
        let size = response.encoded_len();
        awaited.retain(|type_url| *type_url != response.type_url);
        let is_counted = response.type_url == shared.counted;
        let request = DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            type_url: response.type_url,
            ..Default::default()
        };
        requests.send(request).await.expect("open");
        shared.note(|counts| {
            counts.bytes += size;
            if is_counted && ready {
                counts.times.push(now());
            }
            if is_counted && !ready {
                counts.ready += 1;
            }
        });
        ready = ready || is_counted;
        if awaited.is_empty() && !subscribed {
            subscribed = true;
            let request = DeltaDiscoveryRequest {
                type_url: shared.counted.clone(),
                resource_names_subscribe: shared.names.clone(),
                ..Default::default()
            };
            requests.send(request).await.expect("open");
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let count = arguments.number("clients", 200);
    let list = |name: &str| -> Vec<String> {
        arguments
            .find(name)
            .unwrap_or_default()
            .split(',')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let channels = tls::connect(
        arguments.get("target"),
        arguments.get("tls"),
        arguments.get("domain"),
        count,
    )
    .await;
    let shared = Arc::new(Shared {
        counts: Mutex::default(),
        changed: Notify::new(),
        node: arguments.get("node").into(),
        counted: arguments.get("count").into(),
        names: list("names"),
        wildcards: list("types"),
    });
    for (index, channel) in channels.into_iter().enumerate() {
        tokio::spawn(follow(channel, index, shared.clone()));
    }
    let wait = async |done: fn(&Counts, usize) -> bool| loop {
        {
            let mut counts = shared.counts.lock().expect("no panics");
            if done(&counts, count) {
                return std::mem::take(&mut *counts);
            }
        }
        shared.changed.notified().await;
    };
    println!("ready {}", wait(|counts, all| counts.ready == all).await.bytes);
    for round in 1.. {
        let mut counts = wait(|counts, all| counts.times.len() >= all).await;
        counts.times.sort_unstable();
        let last = counts.times.len() - 1;
        println!(
            "{round} {} {} {}",
            counts.times[last * 99 / 100],
            counts.times[last],
            counts.bytes
        );
    }
}
