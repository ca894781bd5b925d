//! libvfio-user's sample `gpio-pci-idio-16`, started from a path that the user gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use potemkin_testkit::{Process, Spawn};

use super::path::ServerKind;
use crate::error::BenchError;
use crate::workspace::Workspace;

/// Longest until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The flag of a socket that listens, in `/proc/net/unix` (`__SO_ACCEPTCON` in `linux/net.h`).
const LISTENS: &str = "00010000";

/// Starts it and waits until it listens. It serves one client, so no connection may be spent on finding out.
pub(super) fn start(
    program: &Path,
    workspace: &Workspace,
) -> Result<(Process, PathBuf), BenchError> {
    let who = ServerKind::LibvfioUser.as_str();
    let socket = workspace.file("libvfio-user.sock");
    // Without a slash it would be looked up on PATH.
    let program = std::path::absolute(program)
        .map_err(BenchError::io(format!("{} is no path", program.display())))?;
    let mut process = Spawn::new(program)
        .name(who)
        .arg(&socket)
        .log(workspace.file("libvfio-user.log"))
        .start()?;
    let deadline = Instant::now() + LISTEN_LIMIT;
    while !listens(&socket) {
        if let Ok(status) = process.wait(LOOK_EVERY) {
            let what = format!("ended before it listened ({status})");
            return Err(BenchError::Peer { who, what });
        }
        if Instant::now() > deadline {
            let what = format!("does not listen on {}", socket.display());
            return Err(BenchError::Peer { who, what });
        }
    }
    Ok((process, socket))
}

fn listens(socket: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    listens_in(&sockets, &socket.to_string_lossy())
}

/// Lines of `Num RefCount Protocol Flags Type St Inode Path`.
fn listens_in(sockets: &str, socket: &str) -> bool {
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some(LISTENS) && fields.nth(3) == Some(socket)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn socket_listens_once_it_does_and_not_for_its_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let bound = folder.path().join("bound.sock");
        let listening = folder.path().join("listening.sock");
        let _datagram = UnixDatagram::bind(&bound).unwrap();
        let _listener = UnixListener::bind(&listening).unwrap();

        assert!(listens(&listening));
        assert!(!listens(&bound));
        assert!(!listens(&folder.path().join("none.sock")));
    }
}
