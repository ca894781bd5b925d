//! Everything that takes part in a comparison.

use std::path::{Path, PathBuf};

use potemkin_testkit::Process;

use crate::args::{Peers, RoleName};
use crate::error::BenchError;
use crate::workspace::{Listening, Workspace};
use crate::yardstick::start_unix;

use super::bounded::{BoundedGuest, CONNECT_LIMIT};
use super::libvfio;
use super::path::{GuestKind, PeerPath, PeerWay, Probe, ServerKind};

/// The paths and the processes behind them. A server serves one client: each path has one of its own.
#[derive(Debug)]
pub(super) struct Parties {
    /// Our server with our client is the first.
    paths: Vec<PeerPath>,
    processes: Vec<Process>,
}

impl Parties {
    /// Starts all and connects all.
    pub(super) fn start(args: &Peers, workspace: &Workspace) -> Result<Self, BenchError> {
        let mut parties = Self {
            paths: Vec::new(),
            processes: Vec::new(),
        };
        for (server, client) in [
            (ServerKind::Potemkin, GuestKind::Potemkin),
            (ServerKind::Crate, GuestKind::Potemkin),
            (ServerKind::Crate, GuestKind::Crate),
            (ServerKind::Potemkin, GuestKind::Crate),
        ] {
            let (process, socket) = start_server(server, client, workspace)?;
            parties.add(server, client, process, &socket)?;
        }
        if let Some(program) = &args.libvfio_user {
            let (process, socket) = libvfio::start(program, workspace)?;
            let (server, client) = (ServerKind::LibvfioUser, GuestKind::Potemkin);
            parties.add(server, client, process, &socket)?;
        }
        let (echo, process) = start_unix(workspace)?;
        let yardstick = PeerPath::new(PeerWay::Unix, Probe::Unix(echo));
        parties.paths.push(yardstick);
        parties.processes.push(process);
        Ok(parties)
    }

    pub(super) fn paths_mut(&mut self) -> &mut [PeerPath] {
        &mut self.paths
    }

    /// Ends all processes, and leaves the figures.
    pub(super) fn into_paths(self) -> Vec<PeerPath> {
        self.paths
    }

    fn add(
        &mut self,
        server: ServerKind,
        client: GuestKind,
        process: Process,
        socket: &Path,
    ) -> Result<(), BenchError> {
        let way = PeerWay::VfioUser { server, client };
        let guest = BoundedGuest::connect(client, &way.to_string(), socket, CONNECT_LIMIT)?;
        self.paths.push(PeerPath::new(way, Probe::Guest(guest)));
        self.processes.push(process);
        Ok(())
    }
}

fn start_server(
    server: ServerKind,
    client: GuestKind,
    workspace: &Workspace,
) -> Result<(Process, PathBuf), BenchError> {
    let role = match server {
        ServerKind::Crate => RoleName::VfioCrate,
        _ => RoleName::Vfio,
    };
    let guest = match client {
        GuestKind::Potemkin => "potemkin",
        GuestKind::Crate => "crate",
    };
    let name = format!("{}-{guest}", role.as_str());
    let socket = workspace.file(format!("{name}.sock"));
    let Listening { process, addresses } =
        workspace.start_plain::<PathBuf>(role, &name, socket.as_os_str())?;
    Ok((process, addresses))
}
