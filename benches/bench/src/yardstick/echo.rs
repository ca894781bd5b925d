//! The echo server: a process that answers each message with itself, on TCP and on a UNIX socket.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use potemkin_service::BoxError;
use potemkin_service::ready::ReadyFile;
use serde::{Deserialize, Serialize};

use super::MESSAGE_BYTES;

/// Most connections that are served over the process's life; a measurement makes two.
const CONNECTIONS_MAX: usize = 16;

/// The contents of the ready-file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
}

/// Serves until it is killed: `args` are the ready-file and where to make the UNIX socket.
pub(crate) fn serve(ready_file: &Path, socket: &Path) -> Result<(), BoxError> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let unix = UnixListener::bind(socket)?;
    let addresses = Addresses {
        tcp: tcp.local_addr()?,
        unix: socket.to_owned(),
    };
    let _ready = ReadyFile::write(ready_file, &addresses)?;
    thread::spawn(move || {
        for stream in unix.incoming().take(CONNECTIONS_MAX).flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    for stream in tcp.incoming().take(CONNECTIONS_MAX) {
        let stream = stream?;
        stream.set_nodelay(true)?;
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

/// Answers until the client is gone, which is an error here and the end of the connection there.
fn echo(mut stream: impl Read + Write) -> io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}
