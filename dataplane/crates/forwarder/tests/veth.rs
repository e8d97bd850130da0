//! The forwarder in real network namespaces. Without the rights to make them each test says so and ends; the Python
//! tests count that as a skip.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use meshwright_forwarder::{Error, Forwarder, KernelPort, Namespace, Neighbor, Route};
use nix::sched::{CloneFlags, setns, unshare};

/// A namespace of this test's own, or the reason why there can't be one.
fn namespace() -> Result<Namespace, String> {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("can't make a network namespace: {error}"))?;
        Namespace::current().map_err(|error| error.to_string())
    })
    .join()
    .expect("the thread ends")
}

fn two() -> Option<(Namespace, Namespace)> {
    match (namespace(), namespace()) {
        (Ok(one), Ok(other)) => Some((one, other)),
        (Err(reason), _) | (_, Err(reason)) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn port(namespace: &Namespace, interface: &str, address: &str) -> KernelPort {
    KernelPort {
        namespace: namespace.clone(),
        interface: interface.into(),
        addresses: vec![address.parse().expect("a prefix")],
        routes: Vec::new(),
        neighbors: Vec::new(),
        mac: None,
        mtu: Some(1400),
    }
}

fn within<T: Send + 'static>(namespace: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.clone();
    std::thread::spawn(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter");
        work()
    })
    .join()
    .expect("the work ends")
}

fn interfaces(namespace: &Namespace) -> Vec<String> {
    within(namespace, || {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("readable");
        let names = table.lines().skip(2).filter_map(|line| line.split(':').next());
        names
            .map(|name| name.trim().to_owned())
            .filter(|name| name != "lo")
            .collect()
    })
}

/// Send a datagram from one namespace to an address in the other and give back what arrived.
fn datagram(from: &Namespace, to: &Namespace, address: IpAddr) -> Vec<u8> {
    let receiver = within(to, move || UdpSocket::bind((address, 0)).expect("bind"));
    receiver
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("timeout");
    let target = receiver.local_addr().expect("bound");
    let sender = within(from, move || {
        let any: IpAddr = if target.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            [0u16; 8].into()
        };
        UdpSocket::bind((any, 0)).expect("bind")
    });
    let mut buffer = [0; 64];
    // UDP promises nothing: a machine without a free core has been seen to lose one.
    for _ in 0..5 {
        sender.send_to(b"through", target).expect("send");
        if let Ok((length, _)) = receiver.recv_from(&mut buffer) {
            return buffer[..length].to_vec();
        }
    }
    panic!("nothing arrives at {target}");
}

#[test]
fn packets_flow_and_nothing_is_left_after_close() {
    let Some((client, endpoint)) = two() else { return };
    let forwarder = Forwarder::default();
    let connected = forwarder
        .connect(
            "c1",
            port(&client, "nsm-1", "172.16.0.2/30"),
            port(&endpoint, "vl-c1", "172.16.0.1/30"),
        )
        .expect("connected");
    assert_eq!(
        (
            connected.client.interface.as_str(),
            connected.endpoint.interface.as_str()
        ),
        ("nsm-1", "vl-c1")
    );
    assert_eq!(datagram(&client, &endpoint, [172, 16, 0, 1].into()), b"through");
    let listed = forwarder.list();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].endpoint.counters.rx_packets > 0, "{listed:?}");
    forwarder.close("c1").expect("closed");
    assert!(interfaces(&client).is_empty() && interfaces(&endpoint).is_empty());
    assert!(matches!(forwarder.close("c1"), Err(Error::Unknown(id)) if id == "c1"));
}

#[test]
fn ipv6_routes_and_neighbours_work_at_once() {
    let Some((client, endpoint)) = two() else { return };
    let forwarder = Forwarder::default();
    let mut here = port(&client, "nsm-1", "fd00::2/126");
    here.routes.push(Route {
        prefix: "fd01::/64".parse().unwrap(),
        next_hop: Some("fd00::1".parse().unwrap()),
    });
    here.neighbors.push(Neighbor {
        ip: "fd00::1".parse().unwrap(),
        mac: [2, 0, 0, 0, 0, 1],
    });
    let mut there = port(&endpoint, "vl-c1", "fd00::1/126");
    there.mac = Some([2, 0, 0, 0, 0, 1]);
    there.addresses.push("fd01::1/128".parse().unwrap());
    forwarder.connect("c1", here, there).expect("connected");
    assert_eq!(datagram(&client, &endpoint, "fd01::1".parse().unwrap()), b"through");
    forwarder.close("c1").expect("closed");
}

#[test]
fn the_same_id_again_changes_addresses_in_place_and_a_new_process_adopts() {
    let Some((client, endpoint)) = two() else { return };
    let first = Forwarder::default();
    let before = first
        .connect(
            "c1",
            port(&client, "nsm-1", "172.16.0.2/30"),
            port(&endpoint, "vl-c1", "172.16.0.1/30"),
        )
        .expect("connected");
    drop(first); // as after a kill: the pair stays
    let second = Forwarder::default();
    let after = second
        .connect(
            "c1",
            port(&client, "nsm-1", "172.16.9.2/30"),
            port(&endpoint, "vl-c1", "172.16.9.1/30"),
        )
        .expect("adopted");
    assert_eq!(before.client.mac, after.client.mac);
    assert_eq!(datagram(&client, &endpoint, [172, 16, 9, 1].into()), b"through");
    let old = within(&endpoint, || UdpSocket::bind("172.16.0.1:0").map(|_| ()));
    assert!(old.is_err(), "the old address is gone");
    second.close("c1").expect("closed");
    assert!(interfaces(&client).is_empty() && interfaces(&endpoint).is_empty());
}

#[test]
fn a_new_process_removes_what_it_finds_by_its_mark() {
    let Some((client, endpoint)) = two() else { return };
    let first = Forwarder::default();
    for (id, number) in [("c1", 1), ("c2", 2)] {
        let here = port(&client, &format!("nsm-{number}"), &format!("172.16.{number}.2/30"));
        let there = port(&endpoint, &format!("vl-{number}"), &format!("172.16.{number}.1/30"));
        first.connect(id, here, there).expect("connected");
    }
    drop(first);
    let second = Forwarder::default();
    second.remove("c1", &client).expect("removed");
    second.remove("c1", &endpoint).expect("nothing there is success");
    assert_eq!(interfaces(&client), ["nsm-2"]);
    assert_eq!(interfaces(&endpoint), ["vl-2"]);
}

#[test]
fn a_taken_name_is_refused_and_leaves_nothing() {
    let Some((client, endpoint)) = two() else { return };
    let forwarder = Forwarder::default();
    forwarder
        .connect(
            "c1",
            port(&client, "nsm-1", "172.16.0.2/30"),
            port(&endpoint, "vl-c1", "172.16.0.1/30"),
        )
        .expect("connected");
    let refused = forwarder
        .connect(
            "c2",
            port(&client, "nsm-1", "172.16.1.2/30"),
            port(&endpoint, "vl-c2", "172.16.1.1/30"),
        )
        .expect_err("the name is taken");
    assert!(
        refused.to_string().contains("make the pair nsm-1 and vl-c2"),
        "{refused}"
    );
    assert_eq!(interfaces(&endpoint), ["vl-c1"]);
    forwarder.close("c1").expect("closed");
}

#[test]
fn a_failed_step_removes_the_pair_again() {
    let Some((client, endpoint)) = two() else { return };
    let mut here = port(&client, "nsm-1", "172.16.0.2/30");
    // No next hop that the kernel could reach.
    here.routes.push(Route {
        prefix: "10.0.0.0/8".parse().unwrap(),
        next_hop: Some([192, 0, 2, 1].into()),
    });
    let refused = Forwarder::default()
        .connect("c1", here, port(&endpoint, "vl-c1", "172.16.0.1/30"))
        .expect_err("no");
    assert!(
        refused.to_string().contains("route 10.0.0.0/8 through nsm-1"),
        "{refused}"
    );
    assert!(interfaces(&client).is_empty() && interfaces(&endpoint).is_empty());
}

#[test]
fn closing_after_a_namespace_lost_its_interface_is_success() {
    let Some((client, endpoint)) = two() else { return };
    let forwarder = Forwarder::default();
    let ports = || {
        (
            port(&client, "nsm-1", "172.16.0.2/30"),
            port(&endpoint, "vl-c1", "172.16.0.1/30"),
        )
    };
    let (here, there) = ports();
    forwarder.connect("c1", here, there).expect("connected");
    let (here, there) = ports();
    let other = Forwarder::default();
    other.connect("c1", here, there).expect("adopted");
    other.close("c1").expect("closed by another");
    assert!(forwarder.list().is_empty());
    forwarder.close("c1").expect("closed");
}

#[test]
fn bad_ports_are_refused_before_anything_is_touched() {
    let namespace = Namespace::current().expect("own namespace");
    for (change, field) in [
        (
            (|port: &mut KernelPort| port.interface = "a/b".into()) as fn(&mut KernelPort),
            "client.interface",
        ),
        (|port| port.interface = "sixteen-letters-".into(), "client.interface"),
        (|port| port.interface = String::new(), "client.interface"),
        (|port| port.mac = Some([1, 0, 0, 0, 0, 0]), "client.mac"),
        (|port| port.mtu = Some(10), "client.mtu"),
        (
            |port| {
                port.routes.push(Route {
                    prefix: "10.0.0.0/8".parse().unwrap(),
                    next_hop: Some("fd00::1".parse().unwrap()),
                })
            },
            "client.routes[0]",
        ),
    ] {
        let mut bad = port(&namespace, "nsm-1", "172.16.0.2/30");
        change(&mut bad);
        let refused = Forwarder::default()
            .connect("c1", bad, port(&namespace, "x", "172.16.0.1/30"))
            .expect_err("bad");
        assert!(refused.to_string().starts_with(field), "{refused}");
    }
    let no_namespace = Namespace::new(File::open("/dev/null").unwrap().into());
    assert!(no_namespace.is_err(), "a descriptor of something else is refused");
}
