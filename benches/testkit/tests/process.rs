//! Children: their logs, ready-files, signals and ends. No root, no QEMU.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use potemkin_testkit::process::usage_of;
use potemkin_testkit::{Error, Process, Spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

fn shell(script: &str) -> Spawn {
    Spawn::new("sh").args(["-c", script])
}

/// A shell that has said so and waits for a signal, which its `wait` is open to.
fn waiting(script: &str) -> Process {
    let mut process = shell(&format!("{script}\nsleep 1000 & echo started; wait $!"))
        .start()
        .unwrap();
    process.wait_log("started", LONG).unwrap();
    process
}

#[test]
fn a_ready_file_that_is_renamed_into_place_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut process = shell("echo hello > tmp && mv tmp ready && exec sleep 1000")
        .current_dir(folder.path())
        .start()
        .unwrap();

    let content = process.wait_ready(&ready, LONG).unwrap();

    assert_eq!(content, "hello\n");
}

#[test]
fn a_ready_file_of_a_child_that_has_ended_counts() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut process = shell("echo hello > ready")
        .current_dir(folder.path())
        .start()
        .unwrap();
    process.wait(LONG).unwrap();

    let content = process.wait_ready(&ready, LONG).unwrap();

    assert_eq!(content, "hello\n");
}

#[test]
fn a_child_that_ends_before_it_is_ready_shows_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = shell("echo cannot bind >&2; exit 3")
        .name("broker")
        .start()
        .unwrap();

    let error = process
        .wait_ready(&folder.path().join("ready"), LONG)
        .unwrap_err();

    assert!(
        matches!(&error, Error::Exited { status, .. } if status.code() == Some(3)),
        "{error}"
    );
    let text = format!("{error:?}");
    assert!(
        text.contains("broker") && text.contains("cannot bind"),
        "{text}"
    );
}

#[test]
fn a_wait_past_its_bound_shows_the_log_and_leaves_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = waiting("");

    let error = process
        .wait_ready(&folder.path().join("ready"), SHORT)
        .unwrap_err();

    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("started"), "{error}");
    assert!(process.is_running().unwrap());
}

#[test]
fn a_log_line_is_returned_once_it_is_complete() {
    let mut process = shell("printf 'listening on '; echo 127.0.0.1:7; exec sleep 1000")
        .start()
        .unwrap();

    let line = process.wait_log("listening", LONG).unwrap();

    assert_eq!(line, "listening on 127.0.0.1:7");
}

#[test]
fn sigterm_ends_a_child_gracefully() {
    let mut process = waiting("trap 'echo bye; exit 0' TERM");

    let status = process.terminate(LONG).unwrap();

    assert_eq!(status.code(), Some(0));
    assert!(process.log().unwrap().contains("bye"));
}

#[test]
fn terminate_reports_the_signal_of_a_child_that_does_not_catch_it() {
    let mut process = Spawn::new("sleep").arg("1000").start().unwrap();

    let status = process.terminate(LONG).unwrap();

    assert_eq!(status.signal(), Some(15));
}

#[test]
fn a_signal_to_a_child_that_has_ended_is_an_error() {
    let mut process = Spawn::new("true").start().unwrap();
    process.wait(LONG).unwrap();

    let error = process.terminate(LONG).unwrap_err();

    assert!(matches!(error, Error::Exited { .. }), "{error}");
}

#[test]
fn a_paused_child_is_stopped_and_a_resumed_one_goes_on() {
    let mut process = Spawn::new("cat")
        .arg("/dev/zero")
        .log("/dev/null")
        .start()
        .unwrap();

    process.pause().unwrap();
    let state = state_of(process.pid());
    process.resume().unwrap();

    assert_eq!(state, Some('T'));
    assert!(process.is_running().unwrap());
}

#[test]
fn a_drop_kills_the_whole_group() {
    let process = waiting("sleep 1000 & echo grandchild $!");
    let log = process.log().unwrap();
    let grandchild = log
        .lines()
        .find_map(|l| l.strip_prefix("grandchild "))
        .unwrap();
    let grandchild = Pid::from_raw(grandchild.parse().unwrap()).unwrap();
    let end = pidfd_open(grandchild, PidfdFlags::empty()).unwrap();
    let pid = process.pid();

    drop(process);

    assert_eq!(state_of(pid), None);
    // Nobody waits for the grandchild but its pidfd.
    let limit = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1);
}

#[test]
fn a_child_outlives_the_thread_that_started_it() {
    let mut process = std::thread::spawn(|| waiting("")).join().unwrap();

    // Any answer of the child shows it alive; a death signal would have come at the thread's end.
    process.pause().unwrap();
    process.resume().unwrap();

    assert!(process.is_running().unwrap());
}

#[test]
fn output_keeps_the_two_streams_apart() {
    let output = shell("echo out; echo err >&2; exit 4").run(LONG).unwrap();

    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    let error = output.success().unwrap_err();
    assert!(error.to_string().contains("err"), "{error}");
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let error = Spawn::new("/nonexistent/program").start().unwrap_err();

    assert!(
        error.to_string().contains("/nonexistent/program"),
        "{error}"
    );
}

#[test]
fn usage_counts_descriptors_and_memory() {
    let before = usage_of(std::process::id()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();

    let process = waiting("exec 7</dev/null 8</dev/null");

    let usage = process.usage().unwrap();
    // 0 to 2, and the two that it opened.
    assert!(usage.fds >= 5, "{usage:?}");
    assert!(usage.rss_bytes > 0 && usage.threads == 1, "{usage:?}");
    assert!(before.fds > 0);
    drop(file);
}

#[test]
fn usage_of_nobody_is_an_error() {
    let mut process = Spawn::new("true").start().unwrap();
    let pid = process.pid();
    process.kill().unwrap();

    assert!(usage_of(pid).is_err());
}

/// The state letter of a process, `None` if there is none.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn what_a_child_gives_back_is_awaited() {
    let mut process =
        waiting("exec 7</dev/null; trap 'exec 7<&-; echo closed; sleep 1000 & wait' USR1");
    let open = process.usage().unwrap();

    process.signal(rustix::process::Signal::USR1).unwrap();
    let closed = process.wait_usage(LONG, |now| now.fds < open.fds).unwrap();

    assert_eq!(closed.fds, open.fds - 1);
    let error = process.wait_usage(SHORT, |now| now.fds == 0).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}
