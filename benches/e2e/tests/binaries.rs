//! What every binary owes its user: help, version, a checked configuration, errors that name what is wrong.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use potemkin_testkit::{Output, Spawn, certs::DevCerts};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const SERVICES: [&str; 3] = ["broker", "host", "front"];
const LIMIT: Duration = Duration::from_secs(30);

fn run(role: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut spawn = Spawn::new(ROLE).arg(role).args(args);
    for (key, value) in env {
        spawn = spawn.env(key, value);
    }
    spawn.run(LIMIT).unwrap()
}

/// The example configuration of a role, beside certificates that it can find.
fn example(role: &str, dir: &Path) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config");
    let text = fs::read_to_string(examples.join(format!("{role}.toml"))).unwrap();
    let path = dir.join(format!("{role}.toml"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn with_certs() -> DevCerts {
    let certs = DevCerts::new().unwrap();
    std::os::unix::fs::symlink(".", certs.folder().join("certs")).unwrap();
    certs
}

#[test]
fn help_has_examples_and_version_has_a_number() {
    for role in ["broker", "host", "front", "cli"] {
        let help = run(role, &["--help"], &[]).success().unwrap().stdout;
        assert!(help.contains("Examples:"), "{role}: {help}");
        let version = run(role, &["--version"], &[]).success().unwrap().stdout;
        assert!(
            version.contains(env!("CARGO_PKG_VERSION")),
            "{role}: {version}"
        );
    }
}

#[test]
fn the_example_configurations_are_good() {
    let certs = with_certs();
    for role in SERVICES {
        let path = example(role, certs.folder());
        let checked = run(role, &["--config", &path, "--check-config"], &[]);
        let checked = checked.success().unwrap().stdout;
        assert!(checked.contains("configuration OK"), "{role}: {checked}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_key_and_line() {
    let certs = with_certs();
    for role in SERVICES {
        let path = example(role, certs.folder());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("metrics_lisen = \"127.0.0.1:1\"\n{text}")).unwrap();

        let output = run(role, &["--config", &path, "--check-config"], &[]);

        assert_eq!(output.status.code(), Some(2), "{role}");
        let said = output.stderr;
        assert!(said.contains("metrics_lisen"), "{role}: {said}");
        assert!(said.contains(&format!("{role}.toml:1:1")), "{role}: {said}");
    }
}

#[test]
fn the_environment_overrides_the_file_and_is_checked_like_it() {
    let certs = with_certs();
    for role in SERVICES {
        let path = example(role, certs.folder());
        let prefix = format!("POTEMKIN_{}__", role.to_uppercase());
        let args = ["--config", &path, "--check-config"];

        let key = format!("{prefix}METRICS_LISTEN");
        let good = run(role, &args, &[(&key, "127.0.0.1:4242")]);
        let good = good.success().unwrap().stdout;
        assert!(good.contains("127.0.0.1:4242"), "{role}: {good}");

        let key = format!("{prefix}METRICS_LISEN");
        let bad = run(role, &args, &[(&key, "127.0.0.1:4242")]);
        assert_eq!(bad.status.code(), Some(2), "{role}");
        assert!(bad.stderr.contains(&key), "{role}: {}", bad.stderr);
    }
}

#[test]
fn a_missing_certificate_is_named() {
    let certs = with_certs();
    fs::remove_file(certs.folder().join("ca.pem")).unwrap();
    for role in SERVICES {
        let path = example(role, certs.folder());
        let output = run(role, &["--config", &path, "--check-config"], &[]);
        assert_eq!(output.status.code(), Some(2), "{role}");
        assert!(
            output.stderr.contains("ca.pem"),
            "{role}: {}",
            output.stderr
        );
    }
}

#[test]
fn a_closed_standard_error_neither_ends_a_process_nor_makes_it_deaf() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    let certs = with_certs();
    let path = example("broker", certs.folder());
    let mut broker = Command::new(ROLE)
        .args(["broker", "--config", &path, "--log-filter", "debug"])
        .env("POTEMKIN_BROKER__LISTEN", "127.0.0.1:0")
        .env("POTEMKIN_BROKER__METRICS_LISTEN", "127.0.0.1:0")
        .env("POTEMKIN_BROKER__STATE_DIR", certs.folder().join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever read the log goes away once the broker is up.
    let mut lines = BufReader::new(broker.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("broker ready")));
    drop(lines);

    let pid = rustix::process::Pid::from_child(&broker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();

    assert!(broker.wait().unwrap().success());
}
