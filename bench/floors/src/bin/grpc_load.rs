//! A closed-loop client for unary calls: so many connections, so many calls under way on each, for so long.
//! Prints one line of JSON: calls, failed, seconds, and latencies in microseconds.

use std::time::{Duration, Instant};

use bytes::Bytes;
use meshwright_floors::arguments::Arguments;
use meshwright_floors::raw::Raw;
use meshwright_floors::tls;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let path: PathAndQuery = arguments.get("path").parse().expect("a method path");
    let message = Bytes::from(std::fs::read(arguments.get("message")).expect("the request's bytes"));
    let streams = arguments.number("streams", 16);
    let window = Duration::from_millis(arguments.number("milliseconds", 2000) as u64);
    let channels = tls::connect(
        arguments.get("target"),
        arguments.get("tls"),
        arguments.get("domain"),
        arguments.number("connections", 16),
    )
    .await;

    let begun = Instant::now();
    let workers: Vec<_> = channels
        .iter()
        .flat_map(|channel| std::iter::repeat_n(channel, streams))
        .map(|channel| {
            let (mut client, path, message) = (Grpc::new(channel.clone()), path.clone(), message.clone());
            tokio::spawn(async move {
                let (mut latencies, mut failed) = (Vec::new(), 0u64);
                while begun.elapsed() < window {
                    let sent = Instant::now();
                    let answered = match client.ready().await {
                        Ok(()) => client
                            .unary(Request::new(message.clone()), path.clone(), Raw)
                            .await
                            .is_ok(),
                        Err(_) => false,
                    };
                    latencies.push(sent.elapsed().as_nanos() as u64 / 1000);
                    failed += u64::from(!answered);
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for worker in workers {
        let (times, faults) = worker.await.expect("the worker ends");
        latencies.extend(times);
        failed += faults;
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies
            .get((latencies.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{}",
        serde_json::json!({
            "calls": latencies.len(), "failed": failed, "seconds": seconds,
            "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
        })
    );
}
