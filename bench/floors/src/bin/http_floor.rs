//! The cheapest HTTP/1.1 server: every request's end is answered with the same bytes. `--work N` busies the core for N
//! microseconds a request first, so that the server and not the client is what limits a closed loop.

use std::time::{Duration, Instant};

use meshwright_floors::arguments::Arguments;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let listener = TcpListener::bind(arguments.get("listen")).await.expect("a free port");
    println!("{}", listener.local_addr().expect("bound"));
    let work = Duration::from_micros(arguments.number("work", 0) as u64);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(serve(stream, work));
    }
}

async fn serve(mut stream: TcpStream, work: Duration) {
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
                let begun = Instant::now();
                while begun.elapsed() < work {
                    std::hint::spin_loop();
                }
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        }
    }
}
