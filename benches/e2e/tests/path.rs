//! The main job on loopback: three processes, a vfio-user client as the guest.

#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::{
    admin::{AttachRequest, DeviceState},
    certs::{DevOptions, write_dev},
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use potemkin_vfio_user::Client;
use rustix::process::Signal;
use serde_json::Value;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const LIMIT: Duration = Duration::from_secs(30);

/// A guest that has turned memory decode on.
fn guest(stack: &Stack, name: &str) -> Client {
    let attached = stack.attach(name);
    let mut client = Client::connect(&attached.socket).unwrap();
    client.region_write(CONFIG, 4, &[2, 0], false).unwrap();
    client
}

fn read_u32(client: &mut Client, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    client.region_read(BAR0, offset, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn a_guest_drives_the_device_over_every_mix_of_transports() {
    for (agent_leg, host_leg) in [(Quic, Quic), (Grpc, Grpc), (Quic, Grpc), (Grpc, Quic)] {
        let options = StackOptions {
            agent_leg,
            host_leg,
            ..StackOptions::default()
        };
        let stack = Stack::start(ROLE, &options).unwrap();
        let mut client = guest(&stack, "vm");

        assert_eq!(read_u32(&mut client, 0), 0x0100_00ed);
        client
            .region_write(BAR0, 4, &0x1234_5678_u32.to_le_bytes(), true)
            .unwrap();
        assert_eq!(read_u32(&mut client, 4), !0x1234_5678);

        let sessions = stack.operator_json(&["sessions"]);
        let text = sessions.to_string();
        assert!(text.contains(&agent_leg.to_string()), "{text}");
        assert!(text.contains(&host_leg.to_string()), "{text}");
    }
}

#[test]
fn a_thousand_posted_writes_and_a_read_are_few_frames_one_round_trip_and_in_order() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut client = guest(&stack, "vm");
        read_u32(&mut client, 0);
        let before = stack.status("vm").counters;
        let forwarded = stack.broker_counter("potemkin_broker_frames_total");

        let values: Vec<[u8; 4]> = (0..1_000_u32).map(u32::to_le_bytes).collect();
        let burst: Vec<(u32, u64, &[u8])> =
            values.iter().map(|v| (BAR0, 4, v.as_slice())).collect();
        client.write_burst(&burst).unwrap();
        let last = read_u32(&mut client, 4);

        assert_eq!(last, !999);
        let after = stack.status("vm").counters;
        let frames = after.frames_sent - before.frames_sent;
        assert!(frames <= 8, "{kind}: {frames} frames");
        assert_eq!(after.round_trips - before.round_trips, 1, "{kind}");
        let relayed = stack.broker_counter("potemkin_broker_frames_total") - forwarded;
        assert!(relayed <= 16.0, "{kind}: {relayed} frames both ways");
        drop(client);
        stack.admin().detach("vm").unwrap();
        assert_eq!(logged_writes(&stack, 4), (0..1_000).collect::<Vec<_>>());
    }
}

/// Values that the device's own log has for writes to a register, in the order they were applied.
fn logged_writes(stack: &Stack, offset: u64) -> Vec<u64> {
    let text = fs::read_to_string(stack.access_log()).unwrap();
    let lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let writes = lines.filter(|l| l["op"] == "write" && l["space"] == "bar0");
    writes
        .filter(|line| line["offset"].as_u64() == Some(offset))
        .map(|line| line["value"].as_u64().unwrap())
        .collect()
}

#[test]
fn enumeration_causes_no_frame_and_the_probe_says_so() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let attached = stack.attach("vm");
    let socket = attached.socket.to_str().unwrap();

    let report = stack.operator_json(&["probe", socket, "--samples", "200"]);

    let text = report.to_string();
    let stages = report["stages"].as_array().expect(&text);
    let enumeration = stages
        .iter()
        .find(|s| {
            s["name"]
                .as_str()
                .is_some_and(|n| n.contains("enumeration"))
        })
        .expect(&text);
    let reads = enumeration["accesses"]["config_reads"].as_u64();
    assert!(reads.unwrap() > 100, "{text}");
    let remote = &enumeration["remote"];
    assert_eq!(remote["round_trips"].as_u64(), Some(0), "{text}");
    assert_eq!(remote["frames_sent"].as_u64(), Some(0), "{text}");
}

#[test]
fn a_detached_device_is_reset_and_free_for_the_next() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let mut client = guest(&stack, "first");
    client.region_write(BAR0, 4, &[1, 0, 0, 0], false).unwrap();
    drop(client);
    let first = stack.status("first");

    stack.admin().detach("first").unwrap();

    assert!(!first.socket.exists());
    let mut client = guest(&stack, "second");
    assert!(stack.status("second").epoch > first.epoch);
    assert_eq!(read_u32(&mut client, 4), 0, "the device was reset");
}

#[test]
fn a_selector_finds_a_free_device_and_only_one_agent_gets_it() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let by_selector = |name: &str, selector: &str| {
        stack.admin().attach(AttachRequest {
            name: name.to_owned(),
            device: None,
            selector: Some(selector.to_owned()),
            socket: stack.dir().join(format!("{name}.sock")),
            after_loss: None,
        })
    };

    let nothing = by_selector("a", "class=edu,zone=b")
        .unwrap_err()
        .to_string();
    let attached = by_selector("b", "class=edu,zone=a").unwrap();
    let taken = by_selector("c", "class=edu").unwrap_err().to_string();

    assert_eq!(attached.device, Stack::DEVICE);
    assert!(nothing.contains("zone=b"), "{nothing}");
    assert!(taken.contains("class=edu"), "{taken}");
    let mode = fs::metadata(&attached.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        !stack.dir().join("c.sock").exists(),
        "nothing is left of a refused attach"
    );
}

#[test]
fn a_device_that_no_host_offers_is_a_clear_error() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();

    let error = stack
        .admin()
        .attach(AttachRequest {
            name: "vm".to_owned(),
            device: Some("nvme-7".to_owned()),
            selector: None,
            socket: stack.dir().join("vm.sock"),
            after_loss: None,
        })
        .unwrap_err()
        .to_string();

    assert!(
        error.contains("nvme-7") && error.contains("not found"),
        "{error}"
    );
}

/// Neither the idle time-out nor the grace can help within the test.
fn patient(kind: TransportKind) -> StackOptions {
    StackOptions {
        silent: true,
        broker_extra: "sessions.grace = \"1h\"".to_owned(),
        ..StackOptions::on(kind)
    }
}

#[test]
fn a_killed_agent_gets_its_device_back_when_it_starts_again() {
    for kind in [Quic, Grpc] {
        let mut stack = Stack::start(ROLE, &patient(kind)).unwrap();
        let mut client = guest(&stack, "vm");
        client.region_write(BAR0, 4, &[1, 0, 0, 0], false).unwrap();
        let before = stack.status("vm");

        stack.front.kill().unwrap();
        let _front = stack.another_front("again").unwrap();
        let attached = stack.attach_by("again", "vm", Stack::DEVICE).unwrap();

        assert!(attached.epoch > before.epoch, "{kind}");
        let mut client = Client::connect(&attached.socket).unwrap();
        client.region_write(CONFIG, 4, &[2, 0], false).unwrap();
        assert_eq!(read_u32(&mut client, 4), 0, "{kind}: the device was reset");
    }
}

#[test]
fn of_two_live_agents_with_one_identity_the_newer_wins_and_the_older_says_why() {
    let mut stack = Stack::start(ROLE, &patient(Quic)).unwrap();
    let mut older = guest(&stack, "older");
    assert_eq!(read_u32(&mut older, 0), 0x0100_00ed);

    let _front = stack.another_front("second").unwrap();
    stack.attach_by("second", "newer", Stack::DEVICE).unwrap();

    let line = "superseded by a newer process of the same agent";
    stack.front.wait_log(line, LIMIT).unwrap();
    assert_eq!(read_u32(&mut older, 0), u32::MAX);
    assert_eq!(stack.status("older").state, DeviceState::Lost);
    stack
        .broker
        .wait_log("takes its device over", LIMIT)
        .unwrap();
}

#[test]
fn an_operator_ends_a_session_and_the_agent_says_who_did() {
    let mut stack = Stack::start(ROLE, &patient(Quic)).unwrap();
    let mut client = guest(&stack, "vm");
    let before = stack.status("vm");

    let ended = stack.operator_json(&["sessions", "end", &before.session]);

    assert_eq!(ended["session"], before.session.as_str());
    let line = "ended by operator spiffe://potemkin.dev/operator/";
    stack.front.wait_log(line, LIMIT).unwrap();
    assert_eq!(read_u32(&mut client, 0), u32::MAX);
    assert_eq!(stack.status("vm").state, DeviceState::Lost);
    let device = &stack.operator_json(&["devices"])["devices"][0];
    assert_eq!(device["state"], "free");
    assert!(device["epoch"].as_u64().unwrap() > before.epoch);
    let again = stack
        .operator(&["sessions", "end", &before.session])
        .unwrap();
    assert!(again.stderr.contains("no session"), "{}", again.stderr);
}

#[test]
fn an_operator_claims_for_an_agent_which_then_attaches_by_it() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let agent = "spiffe://potemkin.dev/agent/dev";

    let stranger = stack.operator_json(&["claim", "--for", "stranger", Stack::DEVICE]);
    let refused = stack.admin().attach(AttachRequest {
        name: "vm".to_owned(),
        device: Some(Stack::DEVICE.to_owned()),
        selector: None,
        socket: stack.dir().join("vm.sock"),
        after_loss: None,
    });
    assert!(refused.unwrap_err().to_string().contains("another agent"));
    stack.operator_json(&["release", stranger["claim"].as_str().unwrap()]);

    let claim = stack.operator_json(&["claim", "--for", agent, "--selector", "class=edu"]);
    let mut client = guest(&stack, "vm");
    assert_eq!(read_u32(&mut client, 0), 0x0100_00ed);
    let device = &stack.operator_json(&["devices"])["devices"][0];
    assert_eq!(device["claim"], claim["claim"]);
    assert_eq!(device["claimed_by"], agent);
}

#[test]
fn a_device_that_the_broker_does_not_take_is_in_its_log_and_counted() {
    let options = StackOptions {
        broker_extra: "limits.devices = 1".to_owned(),
        more_devices: vec!["edu-1"],
        ..StackOptions::default()
    };
    let mut stack = Stack::start(ROLE, &options).unwrap();

    let line = stack.broker.wait_log("device rejected", LIMIT).unwrap();

    for word in ["WARN", "spiffe://potemkin.dev/host/dev", "edu-1", "full"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let rejected = stack.broker_counter("potemkin_broker_rejected_devices_total");
    assert!(rejected >= 1.0, "{rejected}");
}

#[test]
fn certificates_of_a_new_authority_are_taken_without_a_restart_and_sessions_go_on() {
    for kind in [Quic, Grpc] {
        let options = StackOptions {
            more_devices: vec!["edu-1"],
            ..StackOptions::on(kind)
        };
        let mut stack = Stack::start(ROLE, &options).unwrap();
        let mut client = guest(&stack, "vm");
        let again = DevOptions {
            force: true,
            ..DevOptions::default()
        };

        write_dev(stack.certs.folder(), &again).unwrap();
        stack.broker.signal(Signal::HUP).unwrap();
        for process in [&mut stack.broker, &mut stack.host, &mut stack.front] {
            process.wait_log("certificates reloaded", LIMIT).unwrap();
        }

        assert_eq!(read_u32(&mut client, 0), 0x0100_00ed, "{kind}");
        stack.attach_device("second", "edu-1");
        let sessions = stack.operator_json(&["sessions"]);
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 2, "{kind}");
    }
}

#[test]
fn losing_the_broker_or_the_host_gives_all_ones_and_no_stuck_guest() {
    for lost in ["broker", "host"] {
        for kind in [Quic, Grpc] {
            let mut stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
            let mut client = guest(&stack, "vm");
            assert_eq!(read_u32(&mut client, 0), 0x0100_00ed);

            let process = if lost == "broker" {
                &mut stack.broker
            } else {
                &mut stack.host
            };
            process.kill().unwrap();

            assert_eq!(read_u32(&mut client, 0), u32::MAX, "{lost} {kind}");
            client.region_write(BAR0, 4, &[0; 4], false).unwrap();
            let mut ids = [0; 4];
            client.region_read(CONFIG, 0, &mut ids).unwrap();
            assert_eq!(ids, [0x34, 0x12, 0xe8, 0x11], "config space is still local");
            let status = stack.status("vm");
            assert_eq!(status.state, DeviceState::Lost);
            // A QUIC peer that was killed does not say so: the deadline is what ends the session then.
            let reason = status.reason.unwrap();
            let silent = reason.contains("1000 ms");
            assert!(silent || reason.contains(lost), "{lost} {kind}: {reason}");
            assert!(status.state_age_ms.is_some());
            let probe = stack.operator(&["probe", status.socket.to_str().unwrap()]);
            let probe = probe.unwrap();
            assert_eq!(probe.status.code(), Some(1));
            assert!(probe.stderr.contains("vm is lost"), "{}", probe.stderr);
        }
    }
}

#[test]
fn a_paused_host_is_contained_after_the_deadline_and_stays_so() {
    let options = StackOptions {
        deadline: Duration::from_millis(200),
        ..StackOptions::default()
    };
    let mut stack = Stack::start(ROLE, &options).unwrap();
    let mut client = guest(&stack, "vm");
    assert_eq!(read_u32(&mut client, 0), 0x0100_00ed);

    stack.host.pause().unwrap();
    let while_paused = read_u32(&mut client, 0);
    stack.host.resume().unwrap();

    assert_eq!(while_paused, u32::MAX);
    assert_eq!(
        read_u32(&mut client, 0),
        u32::MAX,
        "no late result is shown"
    );
    stack.front.wait_log("200 ms", LIMIT).unwrap();
}

#[test]
fn all_processes_stop_gracefully_on_sigterm() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let attached = stack.attach("vm");

    let front = stack.front.terminate(LIMIT).unwrap();
    let sessions = stack.operator_json(&["sessions"]);
    let host = stack.host.terminate(LIMIT).unwrap();
    let broker = stack.broker.terminate(LIMIT).unwrap();

    assert!(front.success() && host.success() && broker.success());
    assert!(
        !sessions.to_string().contains(&attached.session),
        "the session was given back"
    );
    assert!(!attached.socket.exists());
    assert!(!stack.admin_socket().exists());
    assert!(!stack.dir().join("broker.ready").exists());
}
