//! Many xDS clients in one process: each opens an aggregated stream of its own connection, subscribes like a sidecar,
//! acknowledges what it gets, and counts the responses of one type. Prints `ready` when every client has had its first
//! answers, then one line for each round in which all clients had another response of the counted type.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshwright_floors::arguments::Arguments;
use meshwright_floors::discovery::{DiscoveryRequest, DiscoveryResponse, Node, STREAM};
use meshwright_floors::tls;
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

struct Counts {
    subscribed: AtomicUsize,
    received: AtomicUsize,
    changed: Notify,
}

async fn follow(
    channel: Channel,
    node: String,
    counted: String,
    names: Vec<String>,
    wildcards: Vec<String>,
    counts: Arc<Counts>,
) {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("ready");
    let (requests, outgoing) = mpsc::channel(64);
    let node = Node {
        id: node,
        cluster: "bench".into(),
    };
    let mut awaited: Vec<String> = wildcards.clone();
    for type_url in wildcards {
        let request = DiscoveryRequest {
            node: Some(node.clone()),
            type_url,
            ..Default::default()
        };
        requests.send(request).await.expect("open");
    }
    let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let path = STREAM.parse().expect("a path");
    let stream = client
        .streaming(Request::new(ReceiverStream::new(outgoing)), path, codec)
        .await
        .expect("stream");
    let mut responses = stream.into_inner();
    let mut named = Some(names.clone()).filter(|names| !names.is_empty());
    let mut resource_names = Vec::new();
    // The floor pushes only on demand: its clients are ready once their streams are open.
    let mut first = !names.is_empty();
    if !first {
        counts.subscribed.fetch_add(1, Ordering::Relaxed);
        counts.changed.notify_one();
    }
    while let Some(response) = responses.next().await {
        let response = response.expect("a response");
        awaited.retain(|type_url| *type_url != response.type_url);
        let is_counted = response.type_url == counted;
        let request = DiscoveryRequest {
            version_info: response.version_info,
            response_nonce: response.nonce,
            type_url: response.type_url,
            resource_names: if is_counted { resource_names.clone() } else { Vec::new() },
            node: None,
        };
        requests.send(request).await.expect("open");
        if is_counted {
            if first {
                first = false;
                counts.subscribed.fetch_add(1, Ordering::Relaxed);
            } else {
                counts.received.fetch_add(1, Ordering::Relaxed);
            }
            counts.changed.notify_one();
        }
        if awaited.is_empty()
            && let Some(names) = named.take()
        {
            resource_names = names.clone();
            let request = DiscoveryRequest {
                type_url: counted.clone(),
                resource_names: names,
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
    let counts = Arc::new(Counts {
        subscribed: AtomicUsize::new(0),
        received: AtomicUsize::new(0),
        changed: Notify::new(),
    });
    for (index, channel) in channels.into_iter().enumerate() {
        let node = arguments.get("node").replace("{}", &index.to_string());
        tokio::spawn(follow(
            channel,
            node,
            arguments.get("count").into(),
            list("names"),
            list("types"),
            counts.clone(),
        ));
    }
    while counts.subscribed.load(Ordering::Relaxed) < count {
        counts.changed.notified().await;
    }
    println!("ready");
    for round in 1.. {
        while counts.received.load(Ordering::Relaxed) < round * count {
            counts.changed.notified().await;
        }
        println!("{round}");
    }
}
