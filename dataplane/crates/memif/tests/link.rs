//! Server and client against each other, in one process.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use meshwright_memif::{
    Address, Agent, Answer, Client, MESSAGE, MemifPort, Message, Mode, Options, Said, Secret, Server,
};
use meshwright_ports::{Burst, DropReason, Pair, Piece, Port, Settings, Workers};
use proptest::prelude::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn address(name: &str) -> Address {
    Address::Abstract {
        name: format!("meshwright-test-{}-{name}", std::process::id()).into_bytes(),
        namespace: None,
    }
}

/// A connected pair of ports.
fn connected(name: &str, server: Options, client: Options) -> (MemifPort, MemifPort) {
    let agent = Agent::start().unwrap();
    let mut server = agent.serve(address(name), server).unwrap();
    let mut client = agent.dial(address(name), client).unwrap();
    for port in [&mut server, &mut client] {
        let state = port.status().wait_up(DEADLINE);
        assert!(state.up, "{state:?}");
        port.take_up();
    }
    (server, client)
}

/// Send packets, each cut into pieces of `cut` bytes.
fn send(port: &mut impl Port, packets: &[Vec<u8>], cut: usize, queue: usize) -> Burst {
    let mut burst = Burst::new();
    burst.queue = queue;
    for packet in packets {
        let parts: Vec<&[u8]> = if packet.is_empty() {
            vec![&[]]
        } else {
            packet.chunks(cut).collect()
        };
        for (number, part) in parts.iter().enumerate() {
            assert!(burst.room() > 0);
            burst.push(Piece {
                data: part.as_ptr(),
                length: part.len() as u32,
                spare: 0,
                more: u16::from(number + 1 < parts.len()),
            });
        }
    }
    port.send(&mut burst);
    burst
}

/// Receive what has come.
fn receive(port: &mut impl Port) -> (Vec<Vec<u8>>, Burst) {
    let mut burst = Burst::new();
    port.receive(&mut burst);
    let mut packets = vec![Vec::new()];
    for piece in burst.pieces() {
        // SAFETY: the port says so, and nobody writes to it here meanwhile.
        let part = unsafe { std::slice::from_raw_parts(piece.data, piece.length as usize) };
        packets.last_mut().unwrap().extend_from_slice(part);
        if piece.more == 0 {
            packets.push(Vec::new());
        }
    }
    packets.pop();
    port.release(&mut burst);
    (packets, burst)
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn packets_pass_both_ways_round_and_round_the_ring() {
    let small = Options {
        log2_ring: 3,
        ..Options::default()
    };
    let (mut server, mut client) = connected("round", Options::default(), small);
    for round in 0..100_u8 {
        let packets: Vec<Vec<u8>> = (0..5)
            .map(|number| vec![round ^ number; 60 + usize::from(number)])
            .collect();
        assert_eq!(send(&mut server, &packets, 4096, 0).sent.packets, 5);
        assert_eq!(receive(&mut client).0, packets);
        assert_eq!(send(&mut client, &packets, 4096, 0).sent.packets, 5);
        assert_eq!(receive(&mut server).0, packets);
    }
}

#[test]
fn what_the_ring_has_no_room_for_is_dropped_and_counted() {
    let small = Options {
        log2_ring: 2,
        ..Options::default()
    };
    let (mut server, mut client) = connected("full", Options::default(), small);
    let packets = vec![vec![7; 60]; 6];
    for _ in 0..2 {
        let (one, other) = (&mut server, &mut client);
        let sent = send(one, &packets, 4096, 0).sent;
        assert_eq!((sent.packets, sent.drops[DropReason::Full as usize]), (4, 2));
        let (got, burst) = receive(other);
        assert_eq!(got.len(), 4);
        assert_eq!((burst.received.packets, burst.received.bytes), (4, 240));
        std::mem::swap(&mut server, &mut client);
    }
}

#[test]
fn several_rings_keep_the_order_of_each_queue() {
    let options = Options {
        queues: 4,
        ..Options::default()
    };
    let (mut server, mut client) = connected("rings", options.clone(), options);
    for queue in 0..4 {
        send(
            &mut client,
            &[vec![queue as u8; 60], vec![queue as u8 + 10; 60]],
            4096,
            queue,
        );
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (packets, burst) = receive(&mut server);
        assert_eq!(packets[0][0] + 10, packets[1][0]);
        assert_eq!(usize::from(packets[0][0]), burst.queue);
        seen.push(burst.queue);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the sizes of packets, pieces and buffers: what was sent whole arrives whole and in order.
    #[test]
    fn chained_buffers_carry_any_packet(
        lengths in proptest::collection::vec(0_usize..3000, 1..6),
        cut in 300_usize..3000,
        buffer in 1_u32..20,
        from_client: bool,
    ) {
        let client = Options { buffer: buffer * 64, ..Options::default() };
        let name = format!("chain-{lengths:?}-{cut}-{buffer}-{from_client}");
        let (mut server, mut client) = connected(&name[..name.len().min(60)], Options::default(), client);
        let packets: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(seed, length)| (0..*length).map(|at| (at * 7 + seed) as u8).collect())
            .collect();
        let (from, to) = if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        prop_assert_eq!(send(from, &packets, cut, 0).sent.packets as usize, packets.len());
        let mut got = Vec::new();
        while got.len() < packets.len() {
            let (some, burst) = receive(to);
            prop_assert!(!some.is_empty(), "{:?}", burst.received);
            got.extend(some);
        }
        prop_assert_eq!(got, packets);
    }
}

#[test]
fn a_peer_that_comes_back_is_connected_again() {
    let agent = Agent::start().unwrap();
    let server = agent.serve(address("again"), Options::default()).unwrap();
    let status = server.status();
    for links in 1..=3 {
        let client = agent.dial(address("again"), Options::default()).unwrap();
        wait("up", || status.get().up);
        assert_eq!(status.get().links, links);
        drop(client);
        wait("down", || !status.get().up);
    }
    drop(server);
    let client = agent.dial(address("again"), Options::default()).unwrap();
    wait("the reason", || client.status().get().fault.contains("connect to"));
    let server = agent.serve(address("again"), Options::default()).unwrap();
    wait("up", || client.status().get().up && server.status().get().up);
}

#[test]
fn who_doesn_t_fit_is_told_why() {
    let agent = Agent::start().unwrap();
    let secret = Secret::new(b"open sesame").unwrap();
    let wanted = Options {
        secret,
        ..Options::default()
    };
    let _server = agent.serve(address("fit"), wanted.clone()).unwrap();
    for (options, reason) in [
        (Options::default(), "secret"),
        (
            Options {
                id: 7,
                ..wanted.clone()
            },
            "no interface 7",
        ),
        (
            Options {
                mode: Mode::Ip,
                ..wanted.clone()
            },
            "Ethernet",
        ),
    ] {
        let client = agent.dial(address("fit"), options).unwrap();
        wait(reason, || client.status().get().fault.contains(reason));
    }
    let client = agent.dial(address("fit"), wanted).unwrap();
    assert!(client.status().wait_up(DEADLINE).up);
}

#[test]
fn a_worker_carries_packets_and_sleeps_when_there_are_none() {
    let agent = Agent::start().unwrap();
    let mut ends = Vec::new();
    let mut inner: Vec<Box<dyn Port>> = Vec::new();
    for name in ["left", "right"] {
        inner.push(Box::new(agent.serve(address(name), Options::default()).unwrap()));
        ends.push(agent.dial(address(name), Options::default()).unwrap());
    }
    let workers = Workers::start(&Settings {
        workers: 1,
        ..Settings::default()
    })
    .unwrap();
    let right = inner.pop().unwrap();
    let pair = Pair::new(inner.pop().unwrap(), right);
    workers.add("c", pair).unwrap();
    for end in &mut ends {
        assert!(end.status().wait_up(DEADLINE).up);
        end.take_up();
    }
    let [left, right] = &mut ends[..] else { unreachable!() };
    // Up on this side is not yet up at the worker: the first packets may find the other side down.
    let mut arrived = 0;
    wait_mut("the first packet", || {
        send(left, &[vec![1; 60]], 4096, 0);
        arrived += receive(right).0.len();
        arrived > 0
    });
    let counters = workers.counters("c").unwrap();
    let before = idle_cpu(Duration::from_secs(1));
    assert!(
        before < Duration::from_millis(100),
        "an idle worker used {before:?} in a second"
    );
    send(left, &[vec![2; 60]], 4096, 0);
    wait_mut("a packet that wakes the worker", || {
        receive(right).0.contains(&vec![2; 60])
    });
    assert!(counters[0].received.read().packets >= 2);
    assert_eq!(counters[1].sent.read().bytes, counters[1].sent.read().packets * 60);
    workers.remove("c").unwrap();
    wait("the peers see the end", || {
        ends.iter().all(|end| !end.status().get().up)
    });
}

fn wait_mut(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// The CPU time that the thread "worker-0" uses while this one waits in the kernel.
fn idle_cpu(time: Duration) -> Duration {
    let used = || -> Duration {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of_workers = tasks.filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let used = schedstat.split(' ').next()?.parse().ok()?;
            name.starts_with("worker-").then(|| Duration::from_nanos(used))
        });
        of_workers.sum()
    };
    let before = used();
    // Nothing is waited for: this is the stretch of time that is measured.
    std::thread::park_timeout(time);
    used() - before
}

/// A client's messages, up to the link.
fn talk(server: &mut Server, client: &mut Client) -> Result<(), String> {
    let mut message = server.hello();
    loop {
        let (said, descriptor): (Message, Option<OwnedFd>) = match client.handle(&message.bytes()) {
            Ok(Said::Say(said, descriptor)) => (said, descriptor),
            Ok(Said::Connected(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        message = match server.handle(&said.bytes(), descriptor) {
            Ok(Answer::Say(answer) | Answer::Connect(answer, _)) => answer,
            Err(error) => return Err(error.to_string()),
        };
    }
}

#[test]
fn the_conversation_needs_no_socket() {
    talk(
        &mut Server::new(&Options::default()),
        &mut Client::new(&Options::default()),
    )
    .unwrap();
}

#[test]
fn memory_that_could_shrink_is_refused() {
    let region = |descriptor: OwnedFd, size: u64| {
        let mut server = Server::new(&Options::default());
        let init = Message::Init {
            version: 0x200,
            id: 0,
            mode: 0,
            secret: [0; 24],
            name: String::new(),
        };
        server.handle(&init.bytes(), None).unwrap();
        let message = Message::AddRegion { index: 0, size };
        server.handle(&message.bytes(), Some(descriptor)).map(|_| ())
    };
    let path = std::env::temp_dir().join(format!("meshwright-memif-{}", std::process::id()));
    let file = std::fs::File::create_new(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(8192).unwrap();
    assert!(region(file.into(), 8192).unwrap_err().to_string().contains("memfd"));

    let memfd = |flags| {
        let memfd = nix::sys::memfd::memfd_create(c"test", flags).unwrap();
        nix::unistd::ftruncate(&memfd, 8192).unwrap();
        memfd
    };
    use nix::sys::memfd::MFdFlags;
    let unsealable = memfd(MFdFlags::MFD_CLOEXEC);
    assert!(
        region(unsealable, 8192)
            .unwrap_err()
            .to_string()
            .contains("F_SEAL_SHRINK")
    );
    let short = memfd(MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    assert!(region(short, 8193).unwrap_err().to_string().contains("8192 bytes"));
    let good = memfd(MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    let kept = good.as_fd().try_clone_to_owned().unwrap();
    region(good, 8192).unwrap();
    assert!(
        nix::unistd::ftruncate(&kept, 0).is_err(),
        "it is sealed by who takes it"
    );
}

#[test]
fn a_descriptor_that_isn_t_an_eventfd_is_no_bell() {
    let mut server = Server::new(&Options::default());
    let init = Message::Init {
        version: 0x200,
        id: 0,
        mode: 0,
        secret: [0; 24],
        name: String::new(),
    };
    server.handle(&init.bytes(), None).unwrap();
    let ring = Message::AddRing {
        to_server: true,
        index: 0,
        region: 0,
        offset: 0,
        log2_size: 10,
        private_header: 0,
    };
    let pipe = nix::unistd::pipe().unwrap().1;
    let error = server.handle(&ring.bytes(), Some(pipe)).unwrap_err();
    assert!(error.to_string().contains("eventfd"), "{error}");
}

proptest! {
    /// Whatever a peer says, it is an answer or an error.
    #[test]
    fn any_messages_are_survived(bytes in proptest::collection::vec(any::<[u8; 32]>(), 1..8)) {
        let (mut server, mut client) = (Server::new(&Options::default()), Client::new(&Options::default()));
        for message in bytes {
            let mut whole = [0; MESSAGE];
            whole[..32].copy_from_slice(&message);
            whole[0] %= 10;
            whole[1] = 0;
            let _ = server.handle(&whole, None);
            let _ = client.handle(&whole);
        }
    }
}
