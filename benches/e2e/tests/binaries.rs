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

/// The example configuration of a role, beside certificates that it can find; its sockets' directory is `dir`.
fn example(role: &str, dir: &Path) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config");
    let text = fs::read_to_string(examples.join(format!("{role}.toml"))).unwrap();
    let path = dir.join(format!("{role}.toml"));
    fs::write(&path, text.replace(SOCKETS, dir.to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Where the example configurations have their sockets.
const SOCKETS: &str = "/run/potemkin";

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

/// What `--check-config` and a start say: both must say it, and end with exit code 2.
fn refusal(role: &str, path: &str, env: &[(&str, &str)]) -> String {
    let [checked, started] = [true, false].map(|check| {
        let args = ["--config", path, "--check-config"];
        let output = run(role, &args[..if check { 3 } else { 2 }], env);
        assert_eq!(output.status.code(), Some(2), "{role}: {}", output.stderr);
        output.stderr
    });
    assert_eq!(checked, started, "{role}");
    checked
}

#[test]
fn a_certificate_of_another_role_is_refused_with_its_line() {
    let certs = with_certs();
    for (role, own, other) in [
        ("broker", "broker", "host"),
        ("host", "host", "agent"),
        ("front", "agent", "operator"),
    ] {
        let path = example(role, certs.folder());
        let text = fs::read_to_string(&path).unwrap();
        let files = |role: &str| format!("cert = \"certs/{role}.pem\"\nkey = \"certs/{role}.key\"");
        fs::write(&path, text.replace(&files(own), &files(other))).unwrap();
        let line = text.lines().position(|l| l.starts_with("cert = ")).unwrap() + 1;

        let said = refusal(role, &path, &[]);

        assert!(
            said.contains(&format!("{role}.toml:{line}:8: `tls.cert`: ")),
            "{said}"
        );
        assert!(
            said.contains(&format!("spiffe://potemkin.dev/{other}/dev")),
            "{said}"
        );
    }
}

#[test]
fn a_wrong_value_names_its_line_or_its_variable() {
    let certs = with_certs();
    for (role, key, good, bad, variable) in [
        (
            "broker",
            "hosts.lease",
            "\nlease = \"10s\"",
            "\nlease = \"0s\"",
            "HOSTS__LEASE=0s",
        ),
        (
            "host",
            "brokers[0].addr",
            "\naddr = \"127.0.0.1:7640\"",
            "\naddr = \"x\"",
            "BROKERS=[{addr=\"x\"}]",
        ),
        (
            "front",
            "session.deadline",
            "\ndeadline = \"1s\"",
            "\ndeadline = \"9s\"",
            "SESSION__DEADLINE=9s",
        ),
    ] {
        let path = example(role, certs.folder());
        let text = fs::read_to_string(&path).unwrap();
        let (before, _) = text.split_once(good).unwrap();
        let line = before.lines().count() + 1;

        let (name, value) = variable.split_once('=').unwrap();
        let name = format!("POTEMKIN_{}__{name}", role.to_uppercase());
        let said = refusal(role, &path, &[(&name, value)]);
        assert!(
            said.contains(&format!("environment variable {name}: `{key}`: ")),
            "{said}"
        );

        fs::write(&path, text.replace(good, bad)).unwrap();
        let said = refusal(role, &path, &[]);
        assert!(said.contains(&format!("{role}.toml:{line}:")), "{said}");
        assert!(said.contains(&format!("`{key}`: ")), "{said}");
    }
}

#[test]
fn a_socket_in_a_directory_that_is_not_there_is_refused_with_the_remedy() {
    let certs = with_certs();
    let path = example("front", certs.folder());
    let text = fs::read_to_string(&path).unwrap();
    let absent = certs.folder().join("absent");
    let (here, there) = (certs.folder().to_str().unwrap(), absent.to_str().unwrap());
    fs::write(
        &path,
        text.replace(
            &format!("{here}/admin.sock"),
            &format!("{there}/admin.sock"),
        ),
    )
    .unwrap();

    let said = refusal("front", &path, &[]);

    assert!(said.contains("`admin_socket`: the directory"), "{said}");
    assert!(said.contains(&format!("`mkdir -p {there}`")), "{said}");
}
