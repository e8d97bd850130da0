//! A closed-loop client: so many connections, so many calls under way on each, for so long. A call has one request and
//! one response, or as many as the server streams. Written on HTTP/2 itself, so that it costs less than the servers it
//! loads. `--traced N` puts every Nth call of a worker into a trace that is recorded. `--rate R` begins calls at R a second
//! instead, evenly, on whichever worker is free; a call's latency then counts from when it was due, so that a server that
//! falls behind doesn't hide it, and how late the client itself began is told beside it. `--numbered TEXT` writes the call's
//! number over this text in the message, so that no two calls are the same. Prints one line of JSON: calls, messages,
//! failed, seconds, and the calls' latencies in microseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request};
use meshwright_floors::arguments::Arguments;
use meshwright_floors::tls::{self, Stream};

/// Between a latency and its double.
const BUCKETS: f64 = 50.0;
const HEADER: usize = 5;
/// Before a call is due, sleeping would miss it.
const COARSE: Duration = Duration::from_millis(3);
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a worker has done.
#[derive(Default)]
struct Done {
    latencies: Vec<u64>,
    /// By how much the client missed the times that it waited for, in nanoseconds.
    late: Vec<u64>,
    messages: u64,
    failed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let target = arguments.get("target");
    let connector = tls::Connector::new(arguments.find("tls"), arguments.find("domain").unwrap_or("localhost"));
    let scheme = if arguments.find("tls").is_some() {
        "https"
    } else {
        "http"
    };
    let authority = arguments.find("domain").unwrap_or(target);
    let request = Request::post(format!("{scheme}://{authority}{}", arguments.get("path")))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "meshwright-load")
        .body(())
        .expect("a request");
    let mut in_trace = request.clone();
    in_trace
        .headers_mut()
        .insert("traceparent", HeaderValue::from_static(TRACEPARENT));
    let message = std::fs::read(arguments.get("message")).expect("the request's bytes");
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let frame = Frame {
        bytes: frame.freeze(),
        number: arguments.find("numbered").map(|text| place(&message, text)),
    };
    let streams = arguments.number("streams", 16);
    let traced = arguments.number("traced", 0);
    let window = Duration::from_millis(arguments.number("milliseconds", 2000) as u64);
    let rate = arguments.number("rate", 0);

    let mut connections = Vec::new();
    for _ in 0..arguments.number("connections", 16) {
        connections.push(open(connector.connect(target).await).await);
    }
    let begun = Instant::now();
    let pace = Arc::new(Pace {
        begun,
        end: begun + window,
        gap: (rate != 0).then(|| Duration::from_secs(1) / rate as u32),
        begun_calls: AtomicU64::new(0),
    });
    let workers: Vec<_> = connections
        .iter()
        .flat_map(|connection| std::iter::repeat_n(connection, streams))
        .map(|connection| {
            let requests = [&request, &in_trace].map(Clone::clone);
            tokio::spawn(work(connection.clone(), requests, traced, frame.clone(), pace.clone()))
        })
        .collect();
    let mut all = Done::default();
    for worker in workers {
        let done = worker.await.expect("the worker ends");
        all.latencies.extend(done.latencies);
        all.late.extend(done.late);
        all.messages += done.messages;
        all.failed += done.failed;
    }
    let seconds = begun.elapsed().as_secs_f64();
    for series in [&mut all.latencies, &mut all.late] {
        series.sort_unstable();
    }
    let at = |series: &[u64], share: f64| {
        let index = (series.len() as f64 * share) as usize;
        series.get(index).copied().unwrap_or_default() as f64 / 1000.0
    };
    println!(
        "{}",
        serde_json::json!({
            "calls": all.latencies.len(), "messages": all.messages, "failed": all.failed, "seconds": seconds,
            "p50_us": at(&all.latencies, 0.5), "p99_us": at(&all.latencies, 0.99), "p999_us": at(&all.latencies, 0.999),
            "late_p99_us": at(&all.late, 0.99), "latencies": counts(&all.latencies),
        })
    );
}

/// How many of the latencies, in order, lie from 2^(number / BUCKETS) microseconds on: `[[number, count], …]`. From these the
/// percentiles of several runs together are told.
fn counts(latencies: &[u64]) -> Vec<(i32, usize)> {
    let number = |nanos: &u64| (BUCKETS * (*nanos as f64 / 1000.0).max(1.0).log2()) as i32;
    let mut counts: Vec<(i32, usize)> = Vec::new();
    for bucket in latencies.iter().map(number) {
        match counts.last_mut().filter(|(last, _)| *last == bucket) {
            Some((_, count)) => *count += 1,
            None => counts.push((bucket, 1)),
        }
    }
    counts
}

/// HTTP/2 on a connection, with windows that never hold a server back.
async fn open(stream: Stream) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(4 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake(stream)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection); // its end shows in the calls
    sender
}

/// When calls begin.
struct Pace {
    begun: Instant,
    end: Instant,
    /// Between two calls of all workers; None: each worker's next call begins when its last has ended.
    gap: Option<Duration>,
    begun_calls: AtomicU64,
}

impl Pace {
    /// Waits for the next call's time and gives it, with how late that was noticed; None when the run is over.
    async fn next(&self) -> Option<(Instant, Duration)> {
        let due = match self.gap {
            None => Instant::now(),
            Some(gap) => self.begun + gap.mul_f64(self.begun_calls.fetch_add(1, Ordering::Relaxed) as f64),
        };
        if due >= self.end {
            return None;
        }
        let mut late = Duration::ZERO;
        // The runtime's clock goes in milliseconds, and rounds up twice, at the timer and at the wait for sockets: what is
        // left is yielded away, so that connections go on.
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            match left.checked_sub(COARSE) {
                Some(coarse) if !coarse.is_zero() => tokio::time::sleep(coarse).await,
                _ => tokio::task::yield_now().await,
            }
            late = due.elapsed();
        }
        Some((due, late))
    }
}

async fn work(
    connection: SendRequest<Bytes>,
    [plain, in_trace]: [Request<()>; 2],
    traced: usize,
    frame: Frame,
    pace: Arc<Pace>,
) -> Done {
    let mut done = Done::default();
    while let Some((due, late)) = pace.next().await {
        done.late.push(late.as_nanos() as u64);
        let is_traced = traced != 0 && done.latencies.len() % traced == 0;
        let request = if is_traced { &in_trace } else { &plain };
        match call(connection.clone(), request.clone(), frame.next()).await {
            Ok(messages) => done.messages += messages,
            Err(_) => done.failed += 1,
        }
        done.latencies.push(due.elapsed().as_nanos() as u64);
    }
    done
}

/// What each call sends.
#[derive(Clone)]
struct Frame {
    bytes: Bytes,
    /// Where the call's number goes, and how many digits it has.
    number: Option<(usize, usize)>,
}

impl Frame {
    fn next(&self) -> Bytes {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let Some((at, digits)) = self.number else {
            return self.bytes.clone();
        };
        let number = format!("{:0digits$x}", CALLS.fetch_add(1, Ordering::Relaxed));
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[at..at + digits].copy_from_slice(&number.as_bytes()[number.len() - digits..]);
        bytes.freeze()
    }
}

/// Where the text is in a frame with this message.
fn place(message: &[u8], text: &str) -> (usize, usize) {
    let at = message.windows(text.len()).position(|window| window == text.as_bytes());
    (HEADER + at.expect("the text is in the message"), text.len())
}

/// Make a call; how many messages came, when its status was OK.
async fn call(connection: SendRequest<Bytes>, request: Request<()>, frame: Bytes) -> Result<u64, String> {
    let explain = |error: h2::Error| error.to_string();
    let mut connection = connection.ready().await.map_err(explain)?;
    let (response, mut sending) = connection.send_request(request, false).map_err(explain)?;
    sending.send_data(frame, true).map_err(explain)?;
    let response = response.await.map_err(explain)?;
    if response.headers().contains_key("grpc-status") {
        return status(response.headers()).map(|()| 0);
    }
    let mut body = response.into_body();
    let (mut messages, mut partial) = (0, BytesMut::new());
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(explain)?;
        body.flow_control().release_capacity(chunk.len()).map_err(explain)?;
        messages += count(&mut partial, chunk);
    }
    status(&body.trailers().await.map_err(explain)?.unwrap_or_default())?;
    Ok(messages)
}

/// How many messages `chunk` completes; what is left of it waits in `partial`.
fn count(partial: &mut BytesMut, chunk: Bytes) -> u64 {
    let (mut messages, mut at) = (0, 0);
    let joined = if partial.is_empty() {
        chunk
    } else {
        partial.extend_from_slice(&chunk);
        partial.split().freeze()
    };
    while let Some(length) = joined.get(at + 1..at + HEADER) {
        let end = at + HEADER + u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        if end > joined.len() {
            break;
        }
        (messages, at) = (messages + 1, end);
    }
    partial.extend_from_slice(&joined[at..]);
    messages
}

fn status(trailers: &HeaderMap) -> Result<(), String> {
    match trailers.get("grpc-status") {
        Some(code) if code == "0" => Ok(()),
        other => Err(format!("status {other:?}")),
    }
}
