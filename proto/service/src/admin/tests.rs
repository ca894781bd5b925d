#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A socket whose one client gets `reply` for its first line; joining gives that line.
struct Agent {
    _folder: tempfile::TempDir,
    path: PathBuf,
    thread: JoinHandle<String>,
}

impl Agent {
    fn replying(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            // The client may have hung up on a reply that it does not like.
            let _ = stream.write_all(&reply);
            line
        });
        Self {
            _folder: folder,
            path,
            thread,
        }
    }

    fn connect(&self) -> AdminClient {
        AdminClient::connect(&self.path, PATIENCE).unwrap()
    }
}

fn edu0() -> AttachRequest {
    AttachRequest {
        name: "edu0".to_owned(),
        device: Some("edu-0".to_owned()),
        selector: None,
        socket: "/run/edu0.sock".into(),
        after_loss: None,
    }
}

#[test]
fn attach_sends_one_line_and_reads_the_reply() {
    let agent = Agent::replying(
        "{\"ok\":{\"name\":\"edu0\",\"device\":\"edu-0\",\"socket\":\"/run/edu0.sock\",\"session\":\"00ff\",\
         \"epoch\":3,\"vendor_id\":4660,\"device_id\":4584}}\n",
    );

    let attached = agent.connect().attach(edu0()).unwrap();

    assert_eq!(attached.epoch, 3);
    assert_eq!(attached.vendor_id, 0x1234);
    assert_eq!(
        agent.thread.join().unwrap(),
        "{\"attach\":{\"name\":\"edu0\",\"device\":\"edu-0\",\"selector\":null,\"socket\":\"/run/edu0.sock\"}}\n"
    );
}

#[test]
fn detach_reads_an_empty_reply() {
    let agent = Agent::replying("{\"ok\":{}}\n");

    agent.connect().detach("edu0").unwrap();

    assert_eq!(
        agent.thread.join().unwrap(),
        "{\"detach\":{\"name\":\"edu0\"}}\n"
    );
}

#[test]
fn status_reads_devices_and_tolerates_what_a_newer_agent_adds() {
    let agent = Agent::replying(
        "{\"ok\":{\"devices\":[{\"name\":\"edu0\",\"device\":\"edu-0\",\"socket\":\"/s\",\"session\":\"00\",\
         \"epoch\":1,\"state\":\"hibernating\",\"transport\":\"quic\",\"mood\":1,\
         \"counters\":{\"config_reads\":120,\"novel\":1}}]}}\n",
    );

    let status = agent.connect().status().unwrap();

    assert_eq!(status.devices[0].counters.config_reads, 120);
    assert_eq!(status.devices[0].counters.round_trips, 0);
    assert_eq!(status.devices[0].state, DeviceState::Unknown);
}

#[test]
fn refusal_carries_the_agents_message() {
    let agent = Agent::replying("{\"error\":\"no device `edu-9`\"}\n");

    let error = agent.connect().attach(edu0()).unwrap_err();

    assert_eq!(error.to_string(), "the front agent says: no device `edu-9`");
}

#[test]
fn reply_that_is_no_json_is_malformed() {
    let agent = Agent::replying("SSH-2.0-OpenSSH\n");

    let error = agent.connect().status().unwrap_err();

    assert!(matches!(error, AdminError::Malformed { .. }), "{error}");
}

#[test]
fn reply_without_end_is_malformed_at_the_limit() {
    let agent = Agent::replying(vec![b' '; REPLY_BYTES_MAX + 1]);

    let error = agent.connect().status().unwrap_err();

    assert!(matches!(error, AdminError::Malformed { .. }), "{error}");
}

#[test]
fn agent_that_hangs_up_is_lost() {
    let agent = Agent::replying("{\"ok\":");

    let error = agent.connect().status().unwrap_err();

    assert!(matches!(error, AdminError::Lost { .. }), "{error}");
}

#[test]
fn silent_agent_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let mut client = AdminClient::connect(&path, Duration::from_millis(20)).unwrap();

    let error = client.status().unwrap_err();

    assert!(matches!(error, AdminError::Timeout { .. }), "{error}");
}

#[test]
fn absent_socket_says_what_to_look_for() {
    let error = AdminClient::connect(Path::new("/absent/admin.sock"), PATIENCE).unwrap_err();

    assert_eq!(
        error.to_string(),
        "cannot connect to the front agent at /absent/admin.sock: is potemkin-front running, and is this its admin socket?"
    );
}

#[test]
fn request_with_an_unknown_field_is_refused() {
    let line = "{\"attach\":{\"name\":\"a\",\"socket\":\"/s\",\"devise\":\"edu-0\"}}";

    let error = serde_json::from_str::<Request>(line).unwrap_err();

    assert!(error.to_string().contains("unknown field `devise`"));
}
