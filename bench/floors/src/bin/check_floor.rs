//! The floor of a policy check and of a report: decode the attributes into maps, answer OK. One thread, mutual TLS.
//! `--adapter ADDRESS --method PATH --question FILE`: each check first asks a server this, through a bare tonic client.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use meshwright_api::istio::mixer::v1::check_response::PreconditionResult;
use meshwright_api::istio::mixer::v1::mixer_server::{Mixer, MixerServer};
use meshwright_api::istio::mixer::v1::{
    CheckRequest, CheckResponse, CompressedAttributes, ReportRequest, ReportResponse,
};
use meshwright_floors::arguments::Arguments;
use meshwright_floors::raw::Raw;
use meshwright_floors::tls;
use tonic::client::Grpc;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

struct Floor {
    global: Vec<String>,
    adapter: Option<Adapter>,
}

/// Who is asked about each request, and what.
struct Adapter {
    channel: Channel,
    method: PathAndQuery,
    question: Bytes,
}

impl Adapter {
    async fn open(arguments: &Arguments, address: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Adapter {
            channel: Endpoint::from_shared(format!("http://{address}"))?.connect().await?,
            method: arguments.get("method").parse()?,
            question: std::fs::read(arguments.get("question"))?.into(),
        })
    }

    async fn ask(&self) -> Result<(), Status> {
        let mut client = Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(self.question.clone());
        request.set_timeout(Duration::from_secs(1));
        let answer: Response<Bytes> = client.unary(request, self.method.clone(), Raw).await?;
        std::hint::black_box(answer);
        Ok(())
    }
}

/// A value as a policy would look at it.
enum Value {
    Text(String),
    Int64(i64),
    Double(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    Map(HashMap<String, String>),
    Time(i64, i32),
}

impl Floor {
    fn word(&self, words: &[String], index: i32) -> String {
        if index < 0 {
            words.get((-index - 1) as usize).cloned().unwrap_or_default()
        } else {
            self.global.get(index as usize).cloned().unwrap_or_default()
        }
    }

    fn decode(&self, sent: &CompressedAttributes, words: &[String]) -> HashMap<String, Value> {
        let word = |index: i32| self.word(words, index);
        let mut bag = HashMap::new();
        bag.extend(
            sent.strings
                .iter()
                .map(|(name, value)| (word(*name), Value::Text(word(*value)))),
        );
        bag.extend(
            sent.int64s
                .iter()
                .map(|(name, value)| (word(*name), Value::Int64(*value))),
        );
        bag.extend(
            sent.doubles
                .iter()
                .map(|(name, value)| (word(*name), Value::Double(*value))),
        );
        bag.extend(
            sent.bools
                .iter()
                .map(|(name, value)| (word(*name), Value::Bool(*value))),
        );
        bag.extend(
            sent.bytes
                .iter()
                .map(|(name, value)| (word(*name), Value::Bytes(value.to_vec()))),
        );
        bag.extend(
            sent.timestamps
                .iter()
                .map(|(name, value)| (word(*name), Value::Time(value.seconds, value.nanos))),
        );
        bag.extend(
            sent.durations
                .iter()
                .map(|(name, value)| (word(*name), Value::Time(value.seconds, value.nanos))),
        );
        bag.extend(sent.string_maps.iter().map(|(name, map)| {
            let entries = map.entries.iter().map(|(key, value)| (word(*key), word(*value)));
            (word(*name), Value::Map(entries.collect()))
        }));
        bag
    }
}

fn weigh(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Int64(number) => *number as usize & 1,
        Value::Double(number) => usize::from(*number > 0.0),
        Value::Bool(flag) => usize::from(*flag),
        Value::Bytes(bytes) => bytes.len(),
        Value::Map(map) => map.len(),
        Value::Time(seconds, nanos) => (*seconds as usize ^ *nanos as usize) & 1,
    }
}

#[tonic::async_trait]
impl Mixer for Floor {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let sent = request.into_inner().attributes.unwrap_or_default();
        // The bag is looked at, so that nobody optimizes it away.
        std::hint::black_box(self.decode(&sent, &sent.words).values().map(weigh).sum::<usize>());
        if let Some(adapter) = &self.adapter {
            adapter.ask().await?;
        }
        Ok(Response::new(CheckResponse {
            precondition: Some(PreconditionResult {
                status: Some(Default::default()),
                valid_use_count: 10_000,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let sent = request.into_inner();
        for element in &sent.attributes {
            let own = !element.words.is_empty();
            let words = if own { &element.words } else { &sent.default_words };
            std::hint::black_box(self.decode(element, words).values().map(weigh).sum::<usize>());
        }
        Ok(Response::new(ReportResponse {}))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read();
    let listener = tokio::net::TcpListener::bind(arguments.get("listen")).await?;
    println!("{}", listener.local_addr()?);
    let global = std::fs::read_to_string(arguments.get("words"))?
        .lines()
        .map(str::to_owned)
        .collect();
    let adapter = match arguments.find("adapter") {
        Some(address) => Some(Adapter::open(&arguments, address).await?),
        None => None,
    };
    tonic::transport::Server::builder()
        .tls_config(tls::server(arguments.get("tls")))?
        .add_service(MixerServer::new(Floor { global, adapter }))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
