//! `potemkin-bench loopback` with all its processes, small. What it measures is not judged here, only that it measures all.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use potemkin_testkit::{Output, Spawn};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(300);

/// The bench, with `folder` for its temporary files.
fn bench(folder: &TempDir, args: &[&str]) -> Spawn {
    Spawn::new(env!("CARGO_BIN_EXE_potemkin-bench"))
        .args(args)
        .env("TMPDIR", folder.path())
}

/// A folder whose path leaves room for sockets in it: 108 bytes are all that the path of one may have.
fn short_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("pb-")
        .tempdir_in("/tmp")
        .unwrap()
}

fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).unwrap().next().is_none()
}

/// Processes whose command line names something in `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&needle))
        .collect()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn small_run_measures_every_path_and_leaves_nothing_behind() {
    let folder = short_folder();
    let small = ["--rounds", "2", "--warm-up", "1", "--reads", "5"];
    let all = ["--path", "library,vfio,vcpu", "--output", "json"];
    let args = [&["loopback", "--one-cpu"][..], &small, &all].concat();

    let output = bench(&folder, &args).run(LIMIT).unwrap().success().unwrap();

    let report = json(&output);
    let paths = report["paths"].as_array().unwrap();
    let names: Vec<_> = paths.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "plain TCP relay",
            "TCP",
            "UNIX socket",
            "quic library",
            "quic vfio",
            "quic vcpu",
            "grpc library",
            "grpc vfio",
            "grpc vcpu"
        ]
    );
    for path in paths {
        assert_eq!(path["read_ns"]["count"], 10, "{path}");
        assert!(path["read_to_relay"]["median"].is_number(), "{path}");
    }
    assert_eq!(report["rounds"], 2);
    assert!(report["placement"]["one_cpu"].is_number(), "{report}");
    assert!(is_empty(&folder));
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[test]
fn posted_writes_and_the_read_behind_them_share_few_frames_and_one_round_trip() {
    let folder = short_folder();
    let args = [
        "loopback",
        "--rounds",
        "1",
        "--warm-up",
        "0",
        "--reads",
        "1",
    ];
    let library = ["--path", "library", "--output", "json"];

    let output = bench(&folder, &[&args[..], &library].concat())
        .run(LIMIT)
        .unwrap()
        .success()
        .unwrap();

    let report = json(&output);
    for index in [3, 4] {
        let writes = &report["paths"][index]["posted_writes"];
        assert_eq!(writes["burst_writes"], 1_000, "{writes}");
        assert_eq!(writes["burst_round_trips_max"], 1, "{writes}");
        assert!(
            writes["burst_frames_sent_max"].as_u64().unwrap() <= 8,
            "{writes}"
        );
    }
}

#[test]
fn sigterm_ends_all_processes_and_removes_the_folder() {
    let folder = short_folder();
    let args = ["loopback", "--transport", "grpc", "--rounds", "10000"];
    let mut process = bench(&folder, &args).start().unwrap();
    process.wait_log("measuring", LIMIT).unwrap();
    assert_ne!(processes_of(folder.path()), Vec::<String>::new());

    let status = process.terminate(LIMIT).unwrap();

    assert_eq!(status.code(), Some(1));
    assert!(process.log().unwrap().contains("stopped by a signal"));
    assert!(is_empty(&folder));
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[test]
fn process_that_fails_is_named_with_its_log_which_is_kept() {
    let folder = short_folder();

    let output = bench(&folder, &["loopback", "--path", "library"])
        .env("POTEMKIN_HOST__NONSENSE", "1")
        .run(LIMIT)
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let message = &output.stderr;
    assert!(
        message.contains("host-quic") && message.contains("NONSENSE"),
        "{message}"
    );
    assert!(message.contains("logs are kept in"), "{message}");
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(kept.path().join("host-quic.log").is_file());
    assert!(
        !files(&kept.path()).any(|file| Path::new(&file).extension() == Some(OsStr::new("key"))),
        "keys are not kept"
    );
}

fn files(folder: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
}
