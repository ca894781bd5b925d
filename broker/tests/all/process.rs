//! The program: arguments, configuration, ready-file, signals, metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use potemkin_service::certs::{DevOptions, write_dev};
use rustix::process::{Pid, Signal, kill_process};

const CONFIG: &str = r#"listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[tls]
ca = "ca.pem"
cert = "broker.pem"
key = "broker.key"
"#;

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_potemkin-broker"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    broker(arguments).output().unwrap()
}

/// A folder with certificates and this configuration.
fn folder(config: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    write_dev(folder.path(), &DevOptions::default()).unwrap();
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn version_and_help_are_told() {
    let version = output(&["--version"]);
    assert!(version.status.success());
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let help = output(&["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("Examples:"));
}

#[test]
fn a_good_configuration_is_checked_and_printed() {
    let (_folder, file) = folder(CONFIG);
    let checked = output(&["--config", &file, "--check-config"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("lease = \"10s\""));
}

#[test]
fn bad_configurations_name_the_key() {
    let cases = [
        ("surprise = 1\n", "surprise"),
        ("[hosts]\nlease = \"0s\"\n", "hosts.lease"),
        (
            "[[policy.claim]]\nagent = \"someone\"\n",
            "policy.claim[0].agent",
        ),
        (
            "[connections]\nidle_timeout = \"1s\"\n",
            "connections.idle_timeout",
        ),
        ("[limits]\nqueued_bytes = 1\n", "limits.queued_bytes"),
    ];
    for (extra, key) in cases {
        let config = if extra.starts_with('[') {
            format!("{CONFIG}{extra}")
        } else {
            format!("{extra}{CONFIG}")
        };
        let (_folder, file) = folder(&config);
        let checked = output(&["--config", &file, "--check-config"]);
        assert_eq!(checked.status.code(), Some(2), "{extra}");
        assert!(
            text(&checked.stderr).contains(key),
            "{}",
            text(&checked.stderr)
        );
    }
}

#[test]
fn a_missing_certificate_is_named() {
    let (folder, file) = folder(CONFIG);
    std::fs::remove_file(folder.path().join("broker.pem")).unwrap();
    let checked = output(&["--config", &file, "--check-config"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(text(&checked.stderr).contains("broker.pem"));
}

struct Running {
    child: Child,
    ready: serde_json::Value,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &Path, config: &str) -> Running {
    let ready_file = folder.join("ready.json");
    let child = broker(&["--config", config, "--ready-file"])
        .arg(&ready_file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running {
        child,
        ready: serde_json::Value::Null,
    };
    while running.ready.is_null() {
        assert!(running.child.try_wait().unwrap().is_none(), "it ended");
        if let Ok(contents) = std::fs::read(&ready_file) {
            running.ready = serde_json::from_slice(&contents).unwrap();
        } else {
            std::thread::yield_now();
        }
    }
    running
}

#[test]
fn it_says_where_it_listens_serves_metrics_and_stops_on_sigterm() {
    let (folder, file) = folder(CONFIG);
    let mut running = start(folder.path(), &file);
    let address =
        |key: &str| -> SocketAddr { running.ready[key].as_str().unwrap().parse().unwrap() };
    assert_ne!(address("listen").port(), 0);

    let metrics = get(address("metrics"));
    for name in [
        "potemkin_broker_devices",
        "potemkin_broker_frames_total",
        "potemkin_broker_hosts",
    ] {
        assert!(
            metrics.contains(&format!("# HELP {name}")),
            "{name}:\n{metrics}"
        );
    }

    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    let status = running.child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!folder.path().join("ready.json").exists());
}

#[test]
fn a_second_broker_on_the_same_state_is_refused() {
    let (folder, file) = folder(CONFIG);
    let _running = start(folder.path(), &file);
    let second = output(&["--config", &file]);
    assert_eq!(second.status.code(), Some(1));
    let error = text(&second.stderr);
    assert!(error.contains("is another broker running"), "{error}");
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
