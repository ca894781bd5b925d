//! The yardsticks' client ends, in the process that measures.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use potemkin_testkit::Process;

use super::{MESSAGE_BYTES, echo, relay};
use crate::args::RoleName;
use crate::error::BenchError;
use crate::probe::Probe;
use crate::stats::Latencies;
use crate::workspace::{Listening, Workspace};

/// An echo that takes longer is none.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// The running yardsticks.
#[derive(Debug)]
pub(crate) struct Yardsticks {
    pub(crate) relay: Echo<TcpStream>,
    pub(crate) tcp: Echo<TcpStream>,
    pub(crate) unix: Echo<UnixStream>,
    pub(crate) processes: [Process; 2],
}

impl Yardsticks {
    pub(crate) fn start(workspace: &Workspace) -> Result<Self, BenchError> {
        let echo = start_echo(workspace)?;
        let upstream = OsString::from(echo.addresses.tcp.to_string());
        let role = RoleName::Relay;
        let relay = workspace.start_plain::<relay::Addresses>(role, role.as_str(), &upstream)?;
        Ok(Self {
            relay: connect_tcp(relay.addresses.tcp)?,
            tcp: connect_tcp(echo.addresses.tcp)?,
            unix: connect_unix(&echo.addresses)?,
            processes: [relay.process, echo.process],
        })
    }
}

/// The UNIX socket's echo without the others, and its process.
pub(crate) fn start_unix(workspace: &Workspace) -> Result<(Echo<UnixStream>, Process), BenchError> {
    let echo = start_echo(workspace)?;
    Ok((connect_unix(&echo.addresses)?, echo.process))
}

fn start_echo(workspace: &Workspace) -> Result<Listening<echo::Addresses>, BenchError> {
    let (role, socket) = (RoleName::Echo, workspace.file("echo.sock"));
    workspace.start_plain(role, role.as_str(), socket.as_os_str())
}

/// One connection at whose other end an echo is.
#[derive(Debug)]
pub(crate) struct Echo<S> {
    stream: S,
}

impl<S: Read + Write + Debug> Probe for Echo<S> {
    fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        let mut message = [0x5a; MESSAGE_BYTES];
        for _ in 0..reads {
            let start = Instant::now();
            self.stream
                .write_all(&message)
                .and_then(|()| self.stream.read_exact(&mut message))
                .map_err(BenchError::io("a yardstick's connection broke"))?;
            latencies.record(start.elapsed());
        }
        Ok(latencies)
    }
}

fn connect_tcp(address: SocketAddr) -> Result<Echo<TcpStream>, BenchError> {
    let connect = || {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ECHO_LIMIT))?;
        Ok(Echo { stream })
    };
    connect().map_err(BenchError::io::<std::io::Error>(format!(
        "cannot connect to the yardstick at {address}"
    )))
}

fn connect_unix(addresses: &echo::Addresses) -> Result<Echo<UnixStream>, BenchError> {
    let connect = || {
        let stream = UnixStream::connect(&addresses.unix)?;
        stream.set_read_timeout(Some(ECHO_LIMIT))?;
        Ok(Echo { stream })
    };
    connect().map_err(BenchError::io::<std::io::Error>(format!(
        "cannot connect to the yardstick at {}",
        addresses.unix.display()
    )))
}
