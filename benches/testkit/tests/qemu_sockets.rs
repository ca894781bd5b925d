//! The QMP and qtest clients against a real socket, with the other end played by the test.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_testkit::qemu::pci::{BarKind, Pci};
use potemkin_testkit::qemu::{Qmp, Qtest};
use serde_json::json;

const LONG: Duration = Duration::from_secs(30);

/// Says `greeting`, answers the n-th line with the n-th answer, as it is, and returns the lines.
fn greeting(
    greeting: &'static str,
    answers: &'static [&'static str],
) -> (UnixStream, JoinHandle<Vec<String>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(greeting.as_bytes()).unwrap();
    let thread = std::thread::spawn(move || {
        let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
        let answer = |text: &&str| {
            let line = lines.next()?.ok()?;
            theirs.write_all(text.as_bytes()).ok()?;
            Some(line)
        };
        answers.iter().map_while(answer).collect()
    });
    (ours, thread)
}

fn answering(answers: &'static [&'static str]) -> (UnixStream, JoinHandle<Vec<String>>) {
    greeting("", answers)
}

const QMP_GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

#[test]
fn qtest_reads_and_writes_are_one_line_each() {
    let (stream, server) = answering(&["OK 0xff\n", "OK\n", "OK 0x123456789abcdef0\n"]);
    let mut qtest = Qtest::start(stream).unwrap();

    let byte = qtest.inb(0x3f8).unwrap();
    qtest.writel(0xc000_0004, 7).unwrap();
    let quad = qtest.readq(0xc000_0080).unwrap();

    assert_eq!((byte, quad), (0xff, 0x1234_5678_9abc_def0));
    assert_eq!(
        server.join().unwrap(),
        ["inb 0x3f8", "writel 0xc0000004 0x7", "readq 0xc0000080"]
    );
}

#[test]
fn qtest_memory_is_hexadecimal() {
    let (stream, server) = answering(&["OK 0x00ff10\n", "OK\n"]);
    let mut qtest = Qtest::start(stream).unwrap();

    let bytes = qtest.read(0x1000, 3).unwrap();
    qtest.write(0x2000, &[1, 0xab]).unwrap();

    assert_eq!(bytes, [0, 0xff, 0x10]);
    assert_eq!(
        server.join().unwrap(),
        ["read 0x1000 0x3", "write 0x2000 0x2 0x01ab"]
    );
}

#[test]
fn qtest_interrupts_between_answers_are_kept() {
    let (stream, server) = answering(&[
        "OK\n",
        "IRQ raise 16\nIRQ raise 9\nIRQ lower 9\nOK 0x1\nIRQ lower 16\n",
    ]);
    let mut qtest = Qtest::start(stream).unwrap();
    qtest.irq_intercept_in("ioapic").unwrap();

    qtest.readl(0).unwrap();

    assert_eq!(qtest.raised_lines().collect::<Vec<_>>(), [16]);
    assert_eq!(qtest.raised(9), 1);
    assert_eq!(qtest.wait_irq(LONG).unwrap(), (16, false));
    assert!(!qtest.line(16));
    server.join().unwrap();
}

#[test]
fn qtest_refusals_and_nonsense_are_errors() {
    let (stream, _server) = answering(&[
        "FAIL Unknown command\n",
        "OK banana\n",
        "OK 0x100\n",
        "OK 0x0102\n",
    ]);
    let mut qtest = Qtest::start(stream).unwrap();

    let refused = qtest.command("frobnicate").unwrap_err();
    let no_number = qtest.readl(0).unwrap_err();
    let too_wide = qtest.inb(0).unwrap_err();
    let too_short = qtest.read(0, 3).unwrap_err();
    let closed = qtest.readl(0).unwrap_err();

    assert!(refused.to_string().contains("Unknown command"), "{refused}");
    assert!(no_number.to_string().contains("banana"), "{no_number}");
    assert!(too_wide.to_string().contains("0x100"), "{too_wide}");
    assert!(too_short.to_string().contains("0x0102"), "{too_short}");
    assert!(closed.to_string().starts_with("qtest"), "{closed}");
}

#[test]
fn a_64_bit_bar_is_sized_from_both_halves_and_put_back() {
    // Each configuration access is one write of the address port and one of the data port.
    let (stream, server) = answering(&[
        "OK\n",
        "OK 0x7\n", // the command register...
        "OK\n",
        "OK\n", // ...without decoding
        "OK\n",
        "OK 0xc\n",
        "OK\n",
        "OK\n",
        "OK\n",
        "OK 0x0000000c\n",
        "OK\n",
        "OK\n", // low half: 0, then nothing
        "OK\n",
        "OK 0x20\n",
        "OK\n",
        "OK\n",
        "OK\n",
        "OK 0xfffffffe\n",
        "OK\n",
        "OK\n", // high half: 8 GiB
        "OK\n",
        "OK\n", // the command register as it was
    ]);
    let mut qtest = Qtest::start(stream).unwrap();
    let mut pci = Pci::new(&mut qtest);
    let at = potemkin_testkit::qemu::pci::Address {
        bus: 0,
        device: 3,
        function: 0,
    };

    let bar = pci.size_bar(at, 2).unwrap().unwrap();

    assert_eq!(bar.kind, BarKind::Memory64 { prefetchable: true });
    assert_eq!(bar.size, 8 << 30);
    let lines = server.join().unwrap();
    assert_eq!(lines[0], "outl 0xcf8 0x80001804");
    assert_eq!(lines[3], "outw 0xcfc 0x4");
    assert_eq!(lines[4], "outl 0xcf8 0x80001818");
    assert_eq!(lines[12], "outl 0xcf8 0x8000181c");
    assert_eq!(lines[19], "outl 0xcfc 0x20");
    assert_eq!(lines[21], "outw 0xcfc 0x7");
}

#[test]
fn qmp_keeps_events_that_come_before_an_answer() {
    let answers = &[
        "{\"return\": {}}\n",
        "{\"event\": \"STOP\"}\n{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\"}}\n",
    ];
    let (stream, server) = greeting(QMP_GREETING, answers);
    let mut qmp = Qmp::start(stream).unwrap();

    let status = qmp.execute("query-status", json!({})).unwrap();

    assert_eq!(status["status"], "running");
    assert_eq!(qmp.wait_event("RESUME", LONG).unwrap()["event"], "RESUME");
    assert_eq!(qmp.events().count(), 1);
    assert!(server.join().unwrap()[1].contains("query-status"));
}

#[test]
fn qmp_refusals_carry_class_and_description() {
    let answers = &[
        "{\"return\": {}}\n",
        "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}}\n",
    ];
    let (stream, _server) = greeting(QMP_GREETING, answers);
    let mut qmp = Qmp::start(stream).unwrap();

    let error = qmp.device_del("x", LONG).unwrap_err();

    let text = error.to_string();
    assert!(
        text.contains("DeviceNotFound") && text.contains("Device 'x' not found"),
        "{text}"
    );
}

#[test]
fn qmp_waits_for_the_deletion_of_the_device_that_was_named() {
    let answers = &[
        "{\"return\": {}}\n",
        "{\"return\": {}}\n{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/p\"}}\n\
         {\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"edu0\"}}\n",
    ];
    let (stream, _server) = greeting(QMP_GREETING, answers);
    let mut qmp = Qmp::start(stream).unwrap();

    qmp.device_del("edu0", LONG).unwrap();

    assert_eq!(qmp.events().count(), 0);
}

#[test]
fn a_peer_that_is_no_monitor_is_an_error() {
    let (stream, _server) = greeting("hello\n", &[]);

    let error = Qmp::start(stream).unwrap_err();

    assert!(error.to_string().contains("hello"), "{error}");
}

#[test]
fn a_monitor_that_closes_is_an_error() {
    let (stream, server) = greeting(QMP_GREETING, &["{\"return\": {}}\n"]);
    let mut qmp = Qmp::start(stream).unwrap();
    server.join().unwrap();

    let error = qmp.wait_event("SHUTDOWN", LONG).unwrap_err();

    assert!(error.to_string().contains("closed"), "{error}");
}
