//! The cheapest HTTP/1.1 server: every request's end is answered with the same bytes. `--longest N` lets answers wait
//! first, from 2 to N milliseconds, each as often as the others: how long a request takes is the server's doing then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshwright_floors::arguments::Arguments;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHORTEST: u64 = 2;
/// A prime, so that every wait has its turn.
const STRIDE: u64 = 7919;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let listener = TcpListener::bind(arguments.get("listen")).await.expect("a free port");
    println!("{}", listener.local_addr().expect("bound"));
    let longest = arguments.number("longest", 0) as u64;
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(serve(stream, longest));
    }
}

/// The next wait: all of them in turn, far apart from one to the next.
fn wait(longest: u64) -> Duration {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Duration::from_millis(SHORTEST + number * STRIDE % (longest - SHORTEST + 1))
}

async fn serve(mut stream: TcpStream, longest: u64) {
    stream.set_nodelay(true).expect("a socket");
    let (mut buffer, mut ended) = ([0; 4096], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        for byte in &buffer[..count] {
            ended = match (ended, byte) {
                (0 | 2, b'\r') => ended + 1,
                (1, b'\n') => 2,
                (3, b'\n') => 4,
                (_, b'\r') => 1,
                _ => 0,
            };
            if ended == 4 {
                ended = 0;
                if longest > SHORTEST {
                    tokio::time::sleep(wait(longest)).await;
                }
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        }
    }
}
