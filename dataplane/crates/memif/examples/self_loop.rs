//! `self_loop MILLISECONDS LENGTH`: packets that circulate between two memif interfaces joined by a worker.
//!
//! A server and a client on one socket are the two ports of one connection: what one sends, the other receives and gives
//! back. Counters are on, as always. Prints what passed and the CPU time that the whole process used, as JSON.

use std::time::{Duration, Instant};

use meshwright_memif::{Address, Agent, Options};
use meshwright_ports::{Burst, Pair, Piece, Port, Settings, Workers};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// In flight each way: half a ring, so that nothing is ever dropped.
const PACKETS: usize = 512;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u64>().expect("a number"));
    let (milliseconds, length) = (arguments.next().unwrap_or(2000), arguments.next().unwrap_or(64));
    let name = format!("meshwright-self-loop-{}", std::process::id()).into_bytes();
    let address = || Address::Abstract {
        name: name.clone(),
        namespace: None,
    };
    let agent = Agent::start().expect("an agent");
    let mut server = agent.serve(address(), Options::default()).expect("a server");
    let mut client = agent.dial(address(), Options::default()).expect("a client");
    for port in [&server, &client] {
        let state = port.status().wait_up(Duration::from_secs(5));
        assert!(state.up, "{}", state.fault);
    }
    // The server has buffers to send into once the client is up as well.
    for port in [&mut server, &mut client] {
        port.take_up();
        inject(port, length as usize);
    }
    let workers = Workers::start(&Settings {
        workers: 1,
        busy: true,
        ..Settings::default()
    })
    .expect("a worker");
    let pair = Pair::new(Box::new(server), Box::new(client));
    let counters = pair.counters();
    workers.add("loop", pair).expect("added");
    let look = || {
        let sides = [counters[0].received.read(), counters[1].received.read()];
        let sent = [counters[0].sent.read(), counters[1].sent.read()];
        let packets: u64 = sides.iter().map(|flow| flow.packets).sum();
        let bytes: u64 = sides.iter().map(|flow| flow.bytes).sum();
        let drops: u64 = sides.iter().chain(&sent).flat_map(|flow| flow.drops).sum();
        (packets, bytes, drops, cpu(), Instant::now())
    };
    std::thread::sleep(Duration::from_millis(milliseconds / 4)); // memory is touched, clocks are up
    let begun = look();
    std::thread::sleep(Duration::from_millis(milliseconds));
    let ended = look();
    println!(
        "{{\"packets\": {}, \"bytes\": {}, \"drops\": {}, \"cpu_seconds\": {:.6}, \"seconds\": {:.6}}}",
        ended.0 - begun.0,
        ended.1 - begun.1,
        ended.2,
        ended.3 - begun.3,
        (ended.4 - begun.4).as_secs_f64()
    );
}

fn inject(port: &mut impl Port, length: usize) {
    let frame = vec![2_u8; length];
    let mut left = PACKETS;
    while left > 0 {
        let mut burst = Burst::new();
        while burst.room() > 0 && left > 0 {
            burst.push(Piece {
                data: frame.as_ptr(),
                length: length as u32,
                spare: 0,
                more: 0,
            });
            left -= 1;
        }
        port.send(&mut burst);
        assert_eq!(burst.sent.packets as usize, burst.pieces().len());
    }
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}
