//! OTLP over gRPC: traces, metrics and logs from proxies and services, forwarded as bytes. Each resource of a request is
//! a record with the sender's identity added; adapters get it from the record queue. A full queue answers
//! RESOURCE_EXHAUSTED and when to come again, as OTLP wants it.

mod export;
mod schema;
pub(crate) mod writer;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use meshwright_api::meshwright::mixer::v1::Record;
use meshwright_api::meshwright::mixer::v1::record::Kind;
use meshwright_policy::{Attributes, Program};
use meshwright_serve::{CallContext, Peer};
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

use self::export::{Rejected, Resource};
use self::schema::Schema;
use crate::attributes::telemetry::{self, Texts};
use crate::counters;
use crate::raw::RawCodec;
use crate::state::State;

/// In seconds: when a sender may come again while the record queue is full.
const PAUSE: u64 = 1;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The number of an item's attributes, and what adds whatever else it says.
type Item = (u32, fn(&mut Attributes, &[u8]));

/// What one of OTLP's services takes.
pub(crate) trait Signal: Clone + Copy + Send + Sync + 'static {
    /// The service's full name.
    const SERVICE: &'static str;
    /// As rules know it.
    const NAME: &'static str;
    const KIND: Kind;

    /// What its items are made of.
    fn schema() -> &'static Schema;
    /// How many points one item counts for.
    fn points(item: &[u8]) -> u64;
    /// Nothing for signals whose items rules don't see.
    fn item() -> Option<Item>;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Traces;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logs;

impl Signal for Traces {
    const SERVICE: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
    const NAME: &'static str = "traces";
    const KIND: Kind = Kind::OtlpTraces;

    fn schema() -> &'static Schema {
        &schema::SPAN
    }

    fn points(_: &[u8]) -> u64 {
        1
    }

    fn item() -> Option<Item> {
        Some((9, telemetry::span))
    }
}

impl Signal for Metrics {
    const SERVICE: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
    const NAME: &'static str = "metrics";
    const KIND: Kind = Kind::OtlpMetrics;

    fn schema() -> &'static Schema {
        &schema::METRIC
    }

    fn points(item: &[u8]) -> u64 {
        export::data_points(item)
    }

    fn item() -> Option<Item> {
        None
    }
}

impl Signal for Logs {
    const SERVICE: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
    const NAME: &'static str = "logs";
    const KIND: Kind = Kind::OtlpLogs;

    fn schema() -> &'static Schema {
        &schema::LOG_RECORD
    }

    fn points(_: &[u8]) -> u64 {
        1
    }

    fn item() -> Option<Item> {
        Some((6, telemetry::log))
    }
}

/// One of OTLP's services. Written by hand where tonic would generate it, because requests aren't decoded.
#[derive(Debug, Clone)]
pub(crate) struct OtlpServer<S> {
    state: Arc<State>,
    signal: S,
}

impl<S: Signal> OtlpServer<S> {
    pub(crate) fn new(state: Arc<State>, signal: S) -> Self {
        OtlpServer { state, signal }
    }
}

impl<S: Signal> NamedService for OtlpServer<S> {
    const NAME: &'static str = S::SERVICE;
}

impl<S: Signal> Service<http::Request<Body>> for OtlpServer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (state, signal) = (self.state.clone(), self.signal);
        Box::pin(async move {
            let path = request.uri().path();
            if path.rsplit('/').next() != Some("Export") {
                return Ok(Status::unimplemented(format!("there is no method {path}")).into_http());
            }
            let mut grpc = Grpc::new(RawCodec).accept_compressed(CompressionEncoding::Gzip);
            Ok(grpc.unary(Export(state, signal), request).await)
        })
    }
}

struct Export<S>(Arc<State>, S);

impl<S: Signal> UnaryService<Bytes> for Export<S> {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { take::<S>(&state, &request).await })
    }
}

async fn take<S: Signal>(state: &State, request: &Request<Bytes>) -> Result<Response<Bytes>, Status> {
    counters::add(&state.counters.otlp_requests);
    let peer = CallContext::of(request).map(|context| &*context.peer);
    let program = state.engine.program();
    let mut rejected = Rejected::default();
    let mut records = Vec::new();
    let mut points = 0;
    let resources = export::read(request.get_ref(), S::schema(), S::points, &mut rejected)
        .map_err(|malformed| Status::invalid_argument(format!("no request of OTLP: {malformed}")))?;
    for resource in &resources {
        points += resource_records::<S>(state, &program, resource, peer, &mut records, &mut rejected);
    }
    let reports = state.reported(S::KIND, records, peer);
    let count = crate::records::count(&reports);
    let stored = state.reports.outbox.offer(reports).map_err(|_| {
        counters::add(&state.counters.otlp_refused_full);
        full()
    })?;
    counters::add_many(&state.counters.records_queued, count);
    state.confirm(stored).await?;
    state.counters.otlp_points.fetch_add(points, Ordering::Relaxed);
    state
        .counters
        .otlp_points_rejected
        .fetch_add(rejected.count, Ordering::Relaxed);
    Ok(Response::new(answer(&rejected)))
}

/// Adds the records of a resource: its items in requests that the queue takes, and single items where rules ask for
/// them. Returns how many points are forwarded.
fn resource_records<S: Signal>(
    state: &State,
    program: &Program,
    resource: &Resource<'_>,
    peer: Option<&Peer>,
    records: &mut Vec<Record>,
    rejected: &mut Rejected,
) -> u64 {
    let sender = peer.and_then(|peer| peer.spiffe_id.as_deref());
    let mut texts = Texts::default();
    texts.add(resource.attributes());
    let attributes = texts.attributes(S::NAME, sender);
    let pieces = match resource.pieces(sender, S::points) {
        Ok(pieces) => pieces,
        Err(malformed) => {
            rejected.add(resource.items().map(S::points).sum(), &malformed.to_string());
            return 0;
        }
    };
    let mut forwarded = 0;
    for (piece, points) in pieces {
        match state.wanted_record(program, attributes.clone(), piece.into()) {
            Ok(Some(record)) => {
                forwarded += points;
                records.push(record);
            }
            Ok(None) => rejected.add(points, "no rule wants it: apply one with an instance of template otlp"),
            Err(error) => rejected.add(points, &error.to_string()),
        }
    }
    // Items cost a record each: only a policy that asks what kind of item it sees gets them.
    if let Some((number, add)) = S::item()
        && program.names().kind_of("otlp.item").is_some()
    {
        for item in resource.items() {
            let mut texts = texts.clone();
            texts.add(telemetry::pairs(item, number));
            let mut attributes = texts.attributes(S::NAME, sender);
            add(&mut attributes, item);
            // A forwarded item isn't rejected because a rule can't read it.
            match state.wanted_record(program, attributes, Bytes::new()) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(_) => counters::add(&state.counters.reports_invalid),
            }
        }
    }
    forwarded
}

/// RESOURCE_EXHAUSTED with RetryInfo, without which OTLP says that the data is lost.
fn full() -> Status {
    let message = "too many records wait to be stored; send again later";
    let mut delay = Vec::new();
    writer::integer(&mut delay, 1, PAUSE);
    let mut info = Vec::new();
    writer::bytes(&mut info, 1, &delay);
    let details = meshwright_api::google::rpc::Status {
        code: tonic::Code::ResourceExhausted as i32,
        message: message.to_owned(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info,
        }],
    };
    Status::with_details(tonic::Code::ResourceExhausted, message, details.encode_to_vec().into())
}

/// Export…ServiceResponse: empty, or with a partial success; its fields have the same numbers for all signals.
fn answer(rejected: &Rejected) -> Bytes {
    if rejected.count == 0 && rejected.reason.is_empty() {
        return Bytes::new();
    }
    let mut partial = Vec::new();
    writer::integer(&mut partial, 1, rejected.count);
    writer::bytes(&mut partial, 2, rejected.reason.as_bytes());
    let mut answer = Vec::new();
    writer::bytes(&mut answer, 1, &partial);
    answer.into()
}

/// For `inside`: what is forwarded must be readable again, with as many points, and small enough for the queue.
#[cfg(feature = "inside")]
pub(crate) fn round_trip<S: Signal>(request: &[u8]) {
    let sender = Some("spiffe://mesh.local/ns/demo/sa/shop");
    let mut rejected = Rejected::default();
    let Ok(resources) = export::read(request, S::schema(), S::points, &mut rejected) else {
        return;
    };
    for resource in &resources {
        let mut texts = Texts::default();
        texts.add(resource.attributes());
        let attributes = texts.attributes(S::NAME, sender);
        if let Some((number, add)) = S::item() {
            for item in resource.items() {
                let mut texts = texts.clone();
                texts.add(telemetry::pairs(item, number));
                let mut attributes = attributes.clone();
                attributes.extend(texts.attributes(S::NAME, sender));
                add(&mut attributes, item);
            }
        }
        let Ok(pieces) = resource.pieces(sender, S::points) else {
            continue;
        };
        let items = resource.items().count();
        let mut forwarded = 0;
        for (piece, points) in pieces {
            assert!(piece.len() <= export::MAX_PIECE, "a piece fits into the queue");
            let again = export::read(&piece, S::schema(), S::points, &mut rejected).expect("a request");
            let [again] = &again[..] else {
                panic!("a piece is one resource");
            };
            assert_eq!(again.items().map(S::points).sum::<u64>(), points);
            forwarded += again.items().count();
        }
        assert_eq!(forwarded, items, "no item is lost");
    }
}
