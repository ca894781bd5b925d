//! Network namespaces and their counters. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use potemkin_testkit::Spawn;
use potemkin_testkit::netns::{Netns, Traffic, remove_leftovers};

const LONG: Duration = Duration::from_secs(30);

/// Two namespaces, `left` with 10.9.0.1 on `to-right` and `right` with 10.9.0.2 on `to-left`.
fn pair() -> (Netns, Netns) {
    let left = Netns::new("left").unwrap();
    let right = Netns::new("right").unwrap();
    left.join("to-right", "10.9.0.1/24", &right, "to-left", "10.9.0.2/24")
        .unwrap();
    (left, right)
}

#[test]
fn tcp_passes_between_namespaces_and_is_counted_by_port() {
    let (left, right) = pair();
    let all = left.count("to-right", Traffic::All).unwrap();
    let ours = left.count("to-right", Traffic::Tcp(7640)).unwrap();
    let others = left.count("to-right", Traffic::Tcp(7641)).unwrap();
    let udp = left.count("to-right", Traffic::Udp(7640)).unwrap();
    assert_eq!(all.read().unwrap().packets(), 0);
    let listener = right
        .enter(|| TcpListener::bind("10.9.0.2:7640"))
        .unwrap()
        .unwrap();

    let mut client = left
        .enter(|| TcpStream::connect("10.9.0.2:7640"))
        .unwrap()
        .unwrap();
    let (mut server, from) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();

    assert_eq!(from.ip().to_string(), "10.9.0.1");
    let ours = ours.read().unwrap();
    // SYN, ACK and data out; SYN-ACK in.
    assert!(
        ours.sent_packets >= 3 && ours.received_packets >= 1,
        "{ours:?}"
    );
    assert!(ours.sent_bytes > 120, "{ours:?}");
    assert!(all.read().unwrap().packets() >= ours.packets());
    assert_eq!(others.read().unwrap().packets(), 0);
    assert_eq!(udp.read().unwrap().packets(), 0);
}

#[test]
fn udp_is_counted_in_each_direction_once() {
    let (left, right) = pair();
    let udp = left.count("to-right", Traffic::Udp(7640)).unwrap();
    let client = left
        .enter(|| UdpSocket::bind("10.9.0.1:7640"))
        .unwrap()
        .unwrap();
    let server = right
        .enter(|| UdpSocket::bind("10.9.0.2:7640"))
        .unwrap()
        .unwrap();
    let mut buffer = [0; 8];

    client.send_to(b"a", "10.9.0.2:7640").unwrap();
    client.send_to(b"b", "10.9.0.2:7640").unwrap();
    server.recv(&mut buffer).unwrap();
    server.recv(&mut buffer).unwrap();
    server.send_to(b"c", "10.9.0.1:7640").unwrap();
    client.recv(&mut buffer).unwrap();

    let count = udp.read().unwrap();
    assert_eq!((count.sent_packets, count.received_packets), (2, 1));
    assert_eq!(count.bytes(), 3 * 29);
}

#[test]
fn a_link_that_is_down_carries_nothing_until_it_is_up() {
    let (left, right) = pair();
    let server = right
        .enter(|| UdpSocket::bind("10.9.0.2:9"))
        .unwrap()
        .unwrap();
    let client = left
        .enter(|| UdpSocket::bind("10.9.0.1:0"))
        .unwrap()
        .unwrap();

    left.link_down("to-right").unwrap();
    let down = client.send_to(b"lost", "10.9.0.2:9");
    left.link_up("to-right").unwrap();
    client.send_to(b"kept", "10.9.0.2:9").unwrap();

    assert!(down.is_err());
    let mut buffer = [0; 8];
    let count = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"kept");
}

#[test]
fn a_child_runs_inside_and_a_drop_removes_the_name() {
    let (left, _right) = pair();
    let name = left.name().to_owned();

    let inside = Spawn::new("ip")
        .args(["-br", "link"])
        .in_netns(&left)
        .run(LONG)
        .unwrap()
        .success()
        .unwrap();
    drop(left);

    assert!(inside.stdout.contains("to-right"), "{}", inside.stdout);
    assert!(!Path::new("/run/netns").join(name).exists());
}

#[test]
fn a_middle_namespace_forwards() {
    let (left, middle) = pair();
    let right = Netns::new("far").unwrap();
    middle
        .join("to-far", "10.9.1.1/24", &right, "to-middle", "10.9.1.2/24")
        .unwrap();
    middle.forward().unwrap();
    left.default_route("10.9.0.2".parse().unwrap()).unwrap();
    right.default_route("10.9.1.1".parse().unwrap()).unwrap();
    let through = middle.count("to-far", Traffic::Tcp(80)).unwrap();
    let listener = right
        .enter(|| TcpListener::bind("10.9.1.2:80"))
        .unwrap()
        .unwrap();

    let client = left
        .enter(|| TcpStream::connect("10.9.1.2:80"))
        .unwrap()
        .unwrap();

    let (_server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert!(through.read().unwrap().packets() >= 2);
}

#[test]
fn what_a_dead_process_left_is_removed_and_the_rest_is_kept() {
    let ours = Netns::new("ours").unwrap();
    let own_path = Path::new("/run/netns").join(ours.name());
    // A process that has been reaped owns nothing any more.
    let mut owner = Spawn::new("true").start().unwrap();
    owner.wait(LONG).unwrap();
    let leftover = format!("potemkin-{}-1-0-left", owner.pid());
    Spawn::new("ip")
        .args(["netns", "add", &leftover])
        .run(LONG)
        .unwrap()
        .success()
        .unwrap();

    remove_leftovers();

    assert!(!Path::new("/run/netns").join(leftover).exists());
    assert!(own_path.exists());
}

/// Two UDP sockets that know each other, `left`'s and `right`'s; none waits for long.
fn sockets(left: &Netns, right: &Netns) -> (UdpSocket, UdpSocket) {
    let bind = |netns: &Netns, own: &str, other: &str| {
        let socket = netns.enter(|| UdpSocket::bind(own)).unwrap().unwrap();
        socket.connect(other).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    (
        bind(left, "10.9.0.1:7640", "10.9.0.2:7640"),
        bind(right, "10.9.0.2:7640", "10.9.0.1:7640"),
    )
}

#[test]
fn a_cut_stops_one_direction_until_it_is_lifted() {
    let (left, right) = pair();
    let (ours, theirs) = sockets(&left, &right);
    let mut byte = [0];

    right.drop_incoming("to-left").unwrap();
    ours.send(&[1]).unwrap();
    theirs.send(&[2]).unwrap();
    ours.recv(&mut byte).unwrap();
    assert_eq!(byte, [2], "the other direction");
    right.accept_incoming("to-left").unwrap();
    ours.send(&[3]).unwrap();

    theirs.recv(&mut byte).unwrap();
    assert_eq!(byte, [3], "1 was dropped");
}

#[test]
fn a_limited_rate_drops_what_cannot_wait_until_it_is_lifted() {
    const PACKETS: u64 = 200;
    let (left, right) = pair();
    let (ours, _theirs) = sockets(&left, &right);
    let counter = right.count("to-left", Traffic::Udp(7640)).unwrap();
    let burst = || {
        for _ in 0..PACKETS {
            ours.send(&[0; 1400]).unwrap();
        }
    };

    left.limit_rate("to-right", 256).unwrap();
    burst();
    let limited = counter.read().unwrap().received_packets;
    left.unlimit_rate("to-right").unwrap();
    let before = counter.read().unwrap().received_packets;
    burst();

    assert!(limited < PACKETS / 2, "{limited}");
    let after = counter.read().unwrap().received_packets;
    assert_eq!(after - before, PACKETS);
}
