#![allow(clippy::unwrap_used)]

mod card;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use card::Card;
use potemkin_pci::{
    Bar, BarIndex, Capability, DescriptorBuilder, ExtendedCapability, registers::COMMAND,
};
use potemkin_service::admin::{DeviceState, DeviceStatus};

use super::bars::Kind;
use super::checks::Checks;
use super::enumerate::{FunctionReport, enumerate, restore};
use super::function::Guest;
use super::run::run;
use super::*;

fn options() -> Options {
    Options {
        socket: "/absent/edu0.sock".into(),
        agent: None,
        agent_timeout: Duration::from_secs(30),
        name: None,
        samples: 20,
        limit: Duration::from_secs(30),
        burst: 100,
        reads: Vec::new(),
    }
}

fn enumerated(card: &mut Card) -> (FunctionReport, Checks) {
    let mut checks = Checks::default();
    let mut guest = Guest::new(card);
    let function = enumerate(&mut guest, &mut checks).unwrap();
    (function, checks)
}

fn many_bars() -> Card {
    let descriptor = DescriptorBuilder::new(0x1af4, 0x1000)
        .bar(BarIndex::B0, Bar::io(0x20))
        .bar(BarIndex::B1, Bar::memory32(0x1000))
        .bar(BarIndex::B2, Bar::memory64(8 << 30).prefetchable())
        .bar(BarIndex::B4, Bar::memory32(0x10_0000))
        .rom(vec![0; 0x1_0000])
        .capability(Capability::power_management())
        .capability(Capability::msi(4, false).unwrap())
        .extended_capability(ExtendedCapability::device_serial_number(7))
        .build()
        .unwrap();
    Card::new(&descriptor)
}

#[test]
fn edu_is_driven_and_passes_all_checks() {
    let mut card = Card::edu();

    let report = run(&mut card, None, &options()).unwrap();

    assert!(report.function.is_edu());
    assert_eq!(report.checks.failed().count(), 0, "{:?}", report.checks);
    let names: Vec<_> = report.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "enumeration",
            "config reads",
            "edu registers",
            "BAR reads",
            "posted writes, then a read",
            "burst of writes, then a read",
            "restore",
        ]
    );
}

#[test]
fn enumeration_makes_over_100_config_accesses_and_no_other() {
    let mut card = Card::edu();

    let report = run(&mut card, None, &options()).unwrap();

    let accesses = report.stages[0].accesses;
    assert!(accesses.config_reads > 100, "{accesses:?}");
    assert_eq!((accesses.bar_reads, accesses.bar_writes), (0, 0));
}

#[test]
fn burst_is_that_many_writes_and_one_read() {
    let mut card = Card::edu();

    let report = run(&mut card, None, &options()).unwrap();

    let burst = &report.stages[5];
    assert_eq!(burst.accesses.bar_writes, 100);
    assert_eq!(burst.accesses.bar_reads, 1);
}

#[test]
fn samples_are_as_many_as_asked_for() {
    let mut card = Card::edu();

    let report = run(&mut card, None, &options()).unwrap();

    let latency = report.stages[3].latency.unwrap();
    assert_eq!(latency.samples, 20);
    assert!(latency.p50_ns <= latency.p99_ns && latency.p99_ns <= latency.max_ns);
}

#[test]
fn bars_of_all_kinds_are_sized_and_placed_apart() {
    let mut card = many_bars();

    let (function, checks) = enumerated(&mut card);

    let found: Vec<_> = function
        .bars
        .iter()
        .map(|bar| (bar.index, bar.kind, bar.size, bar.prefetchable))
        .collect();
    assert_eq!(
        found,
        [
            (0, Kind::Io, 0x20, false),
            (1, Kind::Memory32, 0x1000, false),
            (2, Kind::Memory64, 8 << 30, true),
            (4, Kind::Memory32, 0x10_0000, false),
        ]
    );
    assert_eq!(function.rom_size, 0x1_0000);
    let (one, four) = (&function.bars[1], &function.bars[3]);
    let four_end = four.address.unwrap() + four.size;
    assert!(one.address.unwrap() >= four_end);
    assert_eq!(checks.failed().count(), 0, "{checks:?}");
}

#[test]
fn capabilities_are_listed_with_what_they_say() {
    let mut card = many_bars();

    let (function, _) = enumerated(&mut card);

    let found: Vec<_> = function
        .capabilities
        .iter()
        .map(|c| (c.extended, c.name, c.details.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (false, "power management", "version 3"),
            (false, "MSI", "4 vectors, 64-bit"),
            (true, "device serial number", ""),
        ]
    );
}

#[test]
fn function_is_left_as_it_was_found() {
    let mut card = many_bars();
    let before = card.dump();

    let (function, _) = enumerated(&mut card);
    assert_ne!(card.dump(), before);
    restore(&mut Guest::new(&mut card), &function).unwrap();

    assert_eq!(card.dump(), before);
}

#[test]
fn function_that_is_gone_is_absent() {
    let mut card = Card::edu();
    card.gone = true;

    let error = run(&mut card, None, &options()).unwrap_err();

    assert!(matches!(error, ProbeError::Absent), "{error}");
}

#[test]
fn capability_list_that_runs_in_a_circle_ends() {
    let mut card = many_bars();
    // The first capability's next pointer: itself.
    let first = card.peek(0x34);
    card.poke(usize::from(first) + 1, first);

    let (function, _) = enumerated(&mut card);

    assert!(function.capabilities.len() < 100);
}

#[test]
fn command_register_that_does_not_hold_fails_its_check() {
    let mut card = Card::edu();
    card.stuck = Some(COMMAND);

    let (_, checks) = enumerated(&mut card);

    let failed: Vec<_> = checks.failed().map(|check| check.what.as_str()).collect();
    assert_eq!(failed, ["decoding and bus mastering switch on"]);
}

#[test]
fn region_of_another_size_than_its_bar_fails_its_check() {
    let mut card = Card::edu();
    card.region_size_factor = 2;

    let (_, checks) = enumerated(&mut card);

    assert_eq!(
        checks.failed().next().unwrap().what,
        "BAR 0 has the size of its region"
    );
}

#[test]
fn lost_write_fails_its_check() {
    let mut card = Card::edu();
    card.drops_bursts = true;

    let report = run(&mut card, None, &options()).unwrap();

    let failed: Vec<_> = report.checks.failed().map(|c| c.what.as_str()).collect();
    assert_eq!(failed, ["edu: a read finds the last of the burst applied"]);
}

#[test]
fn lost_device_is_said_to_be_lost_after_one_read_and_is_restored() {
    let mut card = Card::edu();
    let before = card.dump();
    card.lost = true;

    let error = run(&mut card, None, &options()).unwrap_err();

    assert!(matches!(error, ProbeError::AllOnes), "{error}");
    assert_eq!(card.dump(), before);
}

#[test]
fn device_that_the_agent_calls_lost_is_not_probed() {
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&agent).unwrap();
    let answering = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let device = DeviceStatus {
            state: DeviceState::Lost,
            reason: Some("broker: connection lost".to_owned()),
            socket: options().socket,
            ..status()
        };
        let reply = serde_json::json!({ "ok": { "devices": [device] } });
        writeln!(&stream, "{reply}").unwrap();
    });

    let error = probe(&Options {
        agent: Some(agent),
        ..options()
    })
    .unwrap_err();

    assert_eq!(
        error.to_string(),
        "the device edu0 is lost: broker: connection lost. Detach it and attach it again"
    );
    answering.join().unwrap();
}

#[test]
fn registers_of_other_devices_are_left_alone() {
    let mut card = many_bars();

    let report = run(&mut card, None, &options()).unwrap();

    let total: u64 = report
        .stages
        .iter()
        .map(|s| s.accesses.bar_reads + s.accesses.bar_writes)
        .sum();
    assert_eq!(total, 0);
}

#[test]
fn registers_asked_for_are_read_and_measured() {
    let mut card = many_bars();
    let options = Options {
        reads: vec!["1:0x10:4".parse().unwrap()],
        ..options()
    };

    let report = run(&mut card, None, &options).unwrap();

    assert_eq!(report.values[0].register, "1:0x10:4");
    assert_eq!(report.stages[2].accesses.bar_reads, 20);
}

#[test]
fn register_behind_the_end_of_its_bar_is_refused_and_the_function_restored() {
    let mut card = many_bars();
    let before = card.dump();
    let options = Options {
        reads: vec!["1:0xffe:2".parse().unwrap(), "1:0x1000:1".parse().unwrap()],
        ..options()
    };

    let error = run(&mut card, None, &options).unwrap_err();

    assert_eq!(error.to_string(), "--read 1:0x1000:1: BAR 1 has 4096 bytes");
    assert_eq!(card.dump(), before);
}

#[test]
fn report_shows_local_and_remote_by_the_agents_counters() {
    let mut card = Card::edu();
    let mut report = run(&mut card, None, &options()).unwrap();
    for stage in &mut report.stages {
        stage.latency = None;
        stage.remote = Some(counters::Remote {
            round_trips: stage.accesses.bar_reads,
            frames_sent: stage.accesses.bar_reads,
            ..counters::Remote::default()
        });
    }
    report.agent = Some(report::Agent::from(status()));

    let text = report_text(&report);

    let config_reads = text
        .lines()
        .find(|l| l.starts_with("config reads"))
        .unwrap();
    let cells: Vec<_> = config_reads.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "config", "reads", "20", "20", "0", "0", "0", "-", "-", "-", "-", "-"
        ]
    );
    let bar_reads = text.lines().find(|l| l.starts_with("BAR reads")).unwrap();
    let cells: Vec<_> = bar_reads.split_whitespace().collect();
    assert_eq!(cells[2..6], ["20", "0", "20", "20"]);
    assert!(text.contains("Function 1234:11e8"), "{text}");
    assert!(
        text.contains("BAR 0: memory, 32-bit, 1 MiB, placed at 0x80000000"),
        "{text}"
    );
    assert!(
        text.contains("Device edu-0 as edu0, session 00ff, epoch 3, over quic"),
        "{text}"
    );
}

fn status() -> DeviceStatus {
    serde_json::from_str(
        r#"{"name":"edu0","device":"edu-0","socket":"/s","session":"00ff","epoch":3,"state":"live",
            "transport":"quic","counters":{}}"#,
    )
    .unwrap()
}

#[test]
fn socket_that_does_not_exist_says_what_to_look_for() {
    let error = probe(&options()).unwrap_err();

    assert!(
        error
            .to_string()
            .contains("/absent/edu0.sock: is the device attached")
    );
}

#[test]
fn probe_over_a_real_socket_passes_all_checks() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("edu0.sock");
    let server = card::serve(&socket);
    let options = Options {
        socket: socket.clone(),
        ..options()
    };

    let report = probe(&options).unwrap();

    assert_eq!(report.checks.failed().count(), 0, "{:?}", report.checks);
    assert!(Path::new(&socket).exists());
    server.stop();
}
