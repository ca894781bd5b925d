//! `potemkin-bench peers` with all its processes, small. What it measures is not judged here, only that it measures all.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use potemkin_testkit::Spawn;
use serde_json::Value;
use tempfile::TempDir;

/// Far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(300);
const SMALL: [&str; 7] = ["peers", "--rounds", "2", "--warm-up", "1", "--reads", "5"];

/// The bench, with `folder` for its temporary files.
fn bench(folder: &TempDir, args: &[&str]) -> Spawn {
    Spawn::new(env!("CARGO_BIN_EXE_potemkin-bench"))
        .args(SMALL)
        .args(args)
        .env("TMPDIR", folder.path())
}

/// A folder whose path leaves room for sockets in it: 108 bytes are all that the path of one may have.
fn short_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("pp-")
        .tempdir_in("/tmp")
        .unwrap()
}

#[test]
fn small_run_measures_every_server_and_leaves_nothing_behind() {
    let folder = short_folder();

    let output = bench(&folder, &["--one-cpu", "--output", "json"])
        .run(LIMIT)
        .unwrap()
        .success()
        .unwrap();

    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["measurement"], "peers");
    assert!(report["placement"]["one_cpu"].is_number(), "{report}");
    assert_eq!(report["peers"][1]["version"], "0.1.7");
    assert_eq!(report["peers"][2]["given"], false);
    let paths = report["paths"].as_array().unwrap();
    let names: Vec<_> = paths.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "potemkin-vfio-server (potemkin)",
            "vfio_user (potemkin)",
            "vfio_user (vfio_user)",
            "potemkin-vfio-server (vfio_user)",
            "UNIX socket"
        ]
    );
    for path in &paths[..4] {
        for access in ["read", "write", "config_read"] {
            assert_eq!(path[access]["ns"]["count"], 10, "{access}: {path}");
            assert!(path[access]["to_ours"]["median"].is_number(), "{path}");
        }
        let posts = path["way"]["client"] == "potemkin-vfio-user";
        let posted = path["posted_write"]["to_ours"]["median"].is_number();
        assert_eq!(posted, posts, "{path}");
    }
    assert_eq!(paths[4]["read"]["ns"]["count"], 10);
    assert!(paths[4]["write"].is_null());
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn libvfio_user_that_is_no_server_is_named_and_ends_the_run() {
    let folder = short_folder();

    let output = bench(&folder, &["--libvfio-user", "/bin/false"])
        .run(LIMIT)
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(
        output
            .stderr
            .contains("libvfio-user: ended before it listened"),
        "{}",
        output.stderr
    );
}
