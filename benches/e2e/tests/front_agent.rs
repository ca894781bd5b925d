//! A front agent on its own: devices of its configuration that are not to be had yet, and its admin socket.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::admin::{AdminClient, DeviceState, DeviceStatus};
use potemkin_testkit::{Spawn, certs::Role};
use potemkin_vfio_user::Client;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(30);
const DEVICE: &str = "[[devices]]\nname = \"vm\"\ndevice = \"edu-0\"\nsocket = \"late.sock\"\n";

fn admin(stack: &Stack) -> AdminClient {
    AdminClient::connect(&stack.dir().join("late-admin.sock"), LIMIT).unwrap()
}

fn only_device(stack: &Stack) -> DeviceStatus {
    let mut devices = admin(stack).status().unwrap().devices;
    assert_eq!(devices.len(), 1);
    devices.remove(0)
}

/// Has a front agent that was configured be another agent.
fn show_another_certificate(stack: &Stack, config: &Path) {
    let usual = stack.certs.role(Role::Agent).toml();
    let other = stack.certs.issue(Role::Agent, "other").unwrap().toml();
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains(&usual), "{text}");
    fs::write(config, text.replace(&usual, &other)).unwrap();
}

/// Runs a front agent that is to end with this code; gives what it says.
fn failing_front(config: &Path, code: i32) -> String {
    let output = Spawn::new(ROLE)
        .arg("front")
        .arg("--config")
        .arg(config)
        .run(LIMIT)
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
    output.stderr
}

#[test]
fn a_configured_device_is_attached_once_the_broker_is_up() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.broker.kill().unwrap();
    stack.configure_front("late", DEVICE).unwrap();

    let mut front = stack.start_front("late").unwrap();
    let waiting = only_device(&stack);
    stack.restart_broker().unwrap();
    front.wait_log("attached name=\"vm\"", LIMIT).unwrap();

    assert_eq!(waiting.state, DeviceState::Waiting);
    assert_eq!(waiting.device, Stack::DEVICE);
    let reason = waiting.reason.unwrap();
    let broker = stack.broker_address.to_string();
    assert!(reason.contains(&broker), "{reason}");
    assert!(waiting.next_try_ms.is_some());
    let warned = front.wait_log("not attached yet", LIMIT).unwrap();
    for word in ["WARN", "vm", "edu-0", &broker, "cannot connect"] {
        assert!(warned.contains(word), "{word}: {warned}");
    }
    let attached = only_device(&stack);
    assert_eq!(attached.state, DeviceState::Live);
    assert_eq!(attached.reason, None);
    Client::connect(&attached.socket).unwrap();
}

#[test]
fn a_configured_device_that_is_busy_is_attached_once_it_is_free() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.attach("first");
    let config = stack.configure_front("late", DEVICE).unwrap();
    // A newer process of the same agent would take the device over.
    show_another_certificate(&stack, &config);

    let mut front = stack.start_front("late").unwrap();
    let waiting = only_device(&stack);
    stack.admin().detach("first").unwrap();
    front.wait_log("attached name=\"vm\"", LIMIT).unwrap();

    assert_eq!(waiting.state, DeviceState::Waiting);
    assert_eq!(only_device(&stack).state, DeviceState::Live);
}

#[test]
fn a_detach_ends_the_tries_of_a_waiting_device() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.broker.kill().unwrap();
    stack.configure_front("late", DEVICE).unwrap();
    let mut front = stack.start_front("late").unwrap();

    admin(&stack).detach("vm").unwrap();

    assert!(admin(&stack).status().unwrap().devices.is_empty());
    assert!(front.terminate(LIMIT).unwrap().success());
    assert!(!stack.dir().join("late.sock").exists());
}

#[test]
fn an_agent_with_a_waiting_device_stops_on_sigterm() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.broker.kill().unwrap();
    stack.configure_front("late", DEVICE).unwrap();
    let mut front = stack.start_front("late").unwrap();

    let status = front.terminate(LIMIT).unwrap();

    assert!(status.success());
    assert!(!stack.dir().join("late-admin.sock").exists());
    assert!(!stack.dir().join("late.sock").exists());
}

#[test]
fn a_configured_socket_that_cannot_be_made_ends_the_agent() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.broker.kill().unwrap();
    let device = DEVICE.replace("late.sock", "absent/late.sock");
    let config = stack.configure_front("late", &device).unwrap();

    let said = failing_front(&config, 2);

    assert!(said.contains("devices[0].socket"), "{said}");
    assert!(said.contains("absent does not exist"), "{said}");
}

#[test]
fn a_configured_device_that_the_brokers_rules_deny_ends_the_agent() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    stack.broker.kill().unwrap();
    let rules = stack.dir().join("broker.toml");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, text.replace("/agent/*", "/agent/somebody-else")).unwrap();
    stack.restart_broker().unwrap();
    let config = stack.configure_front("late", DEVICE).unwrap();

    let said = failing_front(&config, 1);

    assert!(said.contains("devices: `vm`"), "{said}");
    assert!(said.contains("permission denied"), "{said}");
}

/// What the admin socket answers to a line; none: it hangs up.
fn say(stream: &UnixStream, line: &str) -> Option<String> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut writer = stream;
    // One that is sent away may be too late to ask.
    let _ = writeln!(writer, "{line}");
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    (!reply.is_empty()).then_some(reply)
}

#[test]
fn idle_admin_clients_do_not_keep_others_out() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let connect = || UnixStream::connect(stack.admin_socket()).unwrap();
    let idle: Vec<UnixStream> = (0..20).map(|_| connect()).collect();

    let reply = say(&connect(), r#"{"status":{}}"#).unwrap();

    assert!(reply.contains("ok"), "{reply}");
    drop(idle);
}

#[test]
fn too_many_admin_clients_are_told_so() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let mut clients = Vec::new();

    let refusal = (0..200).find_map(|_| {
        let client = UnixStream::connect(stack.admin_socket()).unwrap();
        let reply = say(&client, r#"{"status":{}}"#).unwrap();
        clients.push(client);
        reply.contains("error").then_some(reply)
    });

    let refusal = refusal.unwrap();
    assert!(
        refusal.contains("clients are connected already"),
        "{refusal}"
    );
}

#[test]
fn a_wrong_admin_request_is_answered_with_the_valid_ones() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    for wrong in ["status", r#"{"reboot":{}}"#, r#"{"detach":{"nam":"vm"}}"#] {
        let client = UnixStream::connect(stack.admin_socket()).unwrap();

        let reply = say(&client, wrong).unwrap();

        for valid in ["error", "attach", "detach", "status"] {
            assert!(reply.contains(valid), "{wrong}: {reply}");
        }
        let next = say(&client, r#"{"status":{}}"#).unwrap();
        assert!(next.contains("ok"), "the connection goes on: {next}");
    }
}
