//! The socket in the file system.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use potemkin_vfio_server::{BindError, Options, Server};

fn bind(path: &Path) -> Result<Server, BindError> {
    Server::bind(path, Options::default())
}

#[test]
fn only_the_owner_may_connect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");

    let server = bind(&path).unwrap();

    assert_eq!(
        std::fs::metadata(server.path())
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o600
    );
}

#[test]
fn members_of_a_given_group_may_connect_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let own = std::fs::metadata(directory.path()).unwrap().gid();

    let _server = Server::bind(
        &path,
        Options {
            group: Some(own),
            ..Options::default()
        },
    )
    .unwrap();

    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.permissions().mode() & 0o7777, metadata.gid()),
        (0o660, own)
    );
}

#[test]
fn the_socket_is_removed_with_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");

    drop(bind(&path).unwrap());

    assert!(!path.exists());
}

#[test]
fn what_has_taken_the_sockets_place_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();

    drop(server);

    assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let server = bind(&path).unwrap();

    assert_eq!(server.path(), path);
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let first = bind(&path).unwrap();

    let error = bind(&path).unwrap_err();

    assert!(matches!(error, BindError::InUse(_)), "{error}");
    drop(first);
    assert!(!path.exists());
}

#[test]
fn a_file_in_the_way_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    std::fs::write(&path, "data").unwrap();

    let error = bind(&path).unwrap_err();

    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn a_path_that_is_too_long_is_named_with_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(120));

    let error = bind(&path).unwrap_err();

    assert!(
        matches!(error, BindError::PathTooLong { most: 107, .. }),
        "{error}"
    );
}

#[test]
fn a_missing_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();

    let error = bind(&directory.path().join("missing/s")).unwrap_err();

    assert!(matches!(error, BindError::Os { .. }), "{error}");
}

#[test]
fn of_many_servers_that_start_at_once_over_a_stale_socket_one_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());

    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || bind(&path))
        })
        .collect();
    let servers: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();

    assert_eq!(servers.iter().filter(|server| server.is_ok()).count(), 1);
    assert!(path.exists());
}
