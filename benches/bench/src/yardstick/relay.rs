//! The relay: a process that copies bytes between a client and the echo server, a blocking thread for each direction.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use potemkin_service::BoxError;
use potemkin_service::ready::ReadyFile;
use serde::{Deserialize, Serialize};

/// Most connections that are relayed over the process's life; a measurement makes one.
const CONNECTIONS_MAX: usize = 16;
/// Bytes copied at a time, at most.
const BUFFER_BYTES: usize = 16 << 10;

/// The contents of the ready-file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) tcp: SocketAddr,
}

/// Relays to `upstream` until it is killed.
pub(crate) fn serve(ready_file: &Path, upstream: SocketAddr) -> Result<(), BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addresses = Addresses {
        tcp: listener.local_addr()?,
    };
    let _ready = ReadyFile::write(ready_file, &addresses)?;
    for client in listener.incoming().take(CONNECTIONS_MAX) {
        let client = client?;
        let server = TcpStream::connect(upstream)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || copy(from_client, to_server));
        thread::spawn(move || copy(server, client));
    }
    Ok(())
}

/// Copies until one end is gone. `std::io::copy` would splice through a pipe, which is not what a plain relay does.
fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let bytes = from.read(&mut buffer)?;
        if bytes == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        to.write_all(&buffer[..bytes])?;
    }
}
