//! The tool as its users run it: processes, exit codes and what is printed.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

/// Runs the tool without settings of the user's or the environment's.
fn potemkin(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_potemkin"))
        .args(args)
        .env_clear()
        .env("HOME", home)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A front agent that gives `reply` to one request; joining gives the request.
fn agent(path: &Path, reply: &'static str) -> JoinHandle<serde_json::Value> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        writeln!(stream, "{reply}").unwrap();
        serde_json::from_str(&line).unwrap()
    })
}

#[test]
fn version_and_help_succeed() {
    let home = tempfile::tempdir().unwrap();

    let version = potemkin(home.path(), &["--version"]);
    let help = potemkin(home.path(), &["--help"]);

    assert!(version.status.success() && stdout(&version).starts_with("potemkin 0."));
    assert!(help.status.success() && stdout(&help).contains("Examples:"));
}

#[test]
fn no_command_is_exit_code_2() {
    let home = tempfile::tempdir().unwrap();

    let output = potemkin(home.path(), &[]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("potemkin --help"));
}

#[test]
fn unknown_key_in_the_settings_is_exit_code_2_and_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/potemkin");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("cli.toml"), "broker = \"a:1\"\nagnet = \"x\"\n").unwrap();

    let output = potemkin(home.path(), &["devices"]);

    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    assert!(
        error.contains("cli.toml:2:1: unknown key `agnet`"),
        "{error}"
    );
    assert!(error.contains("did you mean `agent`?"), "{error}");
}

#[test]
fn check_config_prints_what_the_settings_come_to() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("my.toml");
    std::fs::write(&file, "broker = \"broker.example:7640\"\n").unwrap();

    let output = potemkin(
        home.path(),
        &["--check-config", "--config", file.to_str().unwrap()],
    );

    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("configuration OK\n"), "{text}");
    assert!(text.contains("broker = \"broker.example:7640\""), "{text}");
}

#[test]
fn certs_dev_then_issue_gives_usable_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("certs");
    let dir = dir.to_str().unwrap();

    let made = json(&potemkin(home.path(), &["certs", "dev", dir, "-o", "json"]));
    let issued = json(&potemkin(
        home.path(),
        &[
            "certs", "issue", dir, "--role", "agent", "--name", "vm7", "-o", "json",
        ],
    ));

    assert_eq!(made["certificates"].as_array().unwrap().len(), 5);
    let issued = &issued["certificates"][0];
    assert_eq!(issued["identity"], "spiffe://potemkin.dev/agent/vm7");
    assert!(Path::new(issued["key"].as_str().unwrap()).exists());
}

#[test]
fn certs_dev_twice_says_how_to_replace() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("certs");
    let dir = dir.to_str().unwrap();
    assert!(
        potemkin(home.path(), &["certs", "dev", dir])
            .status
            .success()
    );

    let output = potemkin(home.path(), &["certs", "dev", dir]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
}

#[test]
fn attach_asks_the_agent_and_prints_the_reply() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("admin.sock");
    let agent = agent(
        &path,
        r#"{"ok":{"name":"edu0","device":"edu-7","socket":"/tmp/edu0.sock","session":"00ff","epoch":2,"vendor_id":4660,"device_id":4584}}"#,
    );

    let output = potemkin(
        home.path(),
        &[
            "attach",
            "edu0",
            "--selector",
            "zone=a,class=edu",
            "--socket",
            "/tmp/edu0.sock",
            "--agent",
            path.to_str().unwrap(),
        ],
    );

    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("edu0 is edu-7 (1234:11e8), session 00ff, epoch 2"));
    let request = agent.join().unwrap();
    assert_eq!(request["attach"]["selector"], "class=edu,zone=a");
    assert_eq!(request["attach"]["device"], serde_json::Value::Null);
}

#[test]
fn relative_socket_is_relative_to_where_the_tool_runs() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("admin.sock");
    let agent = agent(&path, r#"{"error":"enough"}"#);

    potemkin(
        home.path(),
        &[
            "attach",
            "edu0",
            "--device",
            "edu-0",
            "--socket",
            "edu0.sock",
            "--agent",
            path.to_str().unwrap(),
        ],
    );

    let here = std::env::current_dir().unwrap();
    assert_eq!(
        agent.join().unwrap()["attach"]["socket"],
        here.join("edu0.sock").to_str().unwrap()
    );
}

#[test]
fn refusal_of_the_agent_is_exit_code_1() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("admin.sock");
    let agent = agent(&path, r#"{"error":"nothing is attached as edu9"}"#);

    let output = potemkin(
        home.path(),
        &["detach", "edu9", "--agent", path.to_str().unwrap()],
    );

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: the front agent says: nothing is attached as edu9\n"
    );
    agent.join().unwrap();
}

#[test]
fn status_is_a_table_or_json() {
    let reply = r#"{"ok":{"devices":[{"name":"edu0","device":"edu-0","socket":"/tmp/s","session":"00ff","epoch":2,"state":"live","broker":"b1:7640","transport":"quic","counters":{"config_reads":263,"config_writes":9,"bar_reads":4,"bar_writes":5,"frames_sent":6,"frames_received":7,"round_trips":4,"bytes_sent":8,"bytes_received":9}}]}}"#;
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("1.sock"), home.path().join("2.sock"));
    let (first, second) = (agent(&one, reply), agent(&two, reply));

    let table = potemkin(home.path(), &["status", "--agent", one.to_str().unwrap()]);
    let document = json(&potemkin(
        home.path(),
        &["status", "-o", "json", "--agent", two.to_str().unwrap()],
    ));

    let row = stdout(&table).lines().nth(1).unwrap().to_owned();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "edu0", "edu-0", "live", "b1:7640", "quic", "2", "263/9", "4/5", "6/7", "4", "/tmp/s"
        ]
    );
    assert_eq!(document["devices"][0]["counters"]["round_trips"], 4);
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn device_whose_path_is_dialled_anew_is_interrupted() {
    let reply = r#"{"ok":{"devices":[{"name":"edu0","device":"edu-0","socket":"/tmp/s","session":"00ff","epoch":2,"state":"interrupted","reason":"the path is lost","state_age_ms":1234,"broker":"b1:7640","transport":"quic","counters":{}}]}}"#;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("1.sock");
    let agent = agent(&path, reply);

    let table = potemkin(home.path(), &["status", "--agent", path.to_str().unwrap()]);

    assert_eq!(
        stdout(&table).lines().last(),
        Some("edu0 is interrupted for 1 s: the path is lost")
    );
    agent.join().unwrap();
}

#[test]
fn status_says_why_and_for_how_long_a_device_is_lost() {
    let reply = r#"{"ok":{"devices":[{"name":"edu0","device":"edu-0","socket":"/tmp/s","session":"00ff","epoch":2,"state":"lost","reason":"broker: connection lost","state_age_ms":12345,"transport":"quic","counters":{}}]}}"#;
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("1.sock"), home.path().join("2.sock"));
    let (first, second) = (agent(&one, reply), agent(&two, reply));

    let table = potemkin(home.path(), &["status", "--agent", one.to_str().unwrap()]);
    let document = json(&potemkin(
        home.path(),
        &["status", "-o", "json", "--agent", two.to_str().unwrap()],
    ));

    assert_eq!(
        stdout(&table).lines().last(),
        Some("edu0 is lost for 12 s: broker: connection lost")
    );
    let device = &document["devices"][0];
    assert_eq!(device["reason"], "broker: connection lost");
    assert_eq!(device["state_age_ms"], 12_345);
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn absent_agent_is_exit_code_1_and_says_what_to_look_for() {
    let home = tempfile::tempdir().unwrap();

    let output = potemkin(home.path(), &["status", "--agent", "/absent/admin.sock"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is potemkin-front running"));
}

#[test]
fn broker_that_is_not_there_is_exit_code_1_and_says_what_to_look_for() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("certs");
    let dir = dir.to_str().unwrap();
    assert!(
        potemkin(home.path(), &["certs", "dev", dir])
            .status
            .success()
    );
    let (_nobody, broker) = address_that_refuses();

    let output = potemkin(
        home.path(),
        &["devices", "--broker", &broker, "--tls-dir", dir],
    );

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let error = stderr(&output);
    assert!(
        error.contains(&format!("cannot reach the broker at {broker}")),
        "{error}"
    );
    assert!(
        error.contains("is potemkin-broker running there"),
        "{error}"
    );
}

/// A port that is bound and not listened on, so that nobody else takes it meanwhile.
fn address_that_refuses() -> (std::os::fd::OwnedFd, String) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    let reserved = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&reserved, &any).unwrap();
    let bound: std::net::SocketAddr = getsockname(&reserved).unwrap().try_into().unwrap();
    (reserved, bound.to_string())
}

#[test]
fn wrong_value_in_the_settings_is_told_with_its_line_checked_or_used() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("certs");
    let dir = dir.to_str().unwrap();
    assert!(
        potemkin(home.path(), &["certs", "dev", dir])
            .status
            .success()
    );
    let file = home.path().join("my.toml");
    let text = "broker = \"127.0.0.1:1\"\n[tls]\nca = \"certs/ca.pem\"\ncert = \"certs/broker.pem\"\nkey = \"certs/broker.key\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    for command in ["--check-config", "devices"] {
        let output = potemkin(home.path(), &[command, "--config", file]);

        assert_eq!(output.status.code(), Some(2), "{command}");
        let error = stderr(&output);
        assert!(
            error.contains("my.toml:4:8: `tls.cert`: ") && error.contains("of role broker"),
            "{error}"
        );
    }
}
