//! Everything that takes part in a measurement.

use potemkin_front_core::RemoteOptions;
use potemkin_testkit::Process;
use potemkin_testkit::certs::DevCerts;

use crate::args::{Client, Loopback, Transport};
use crate::error::BenchError;
use crate::path::{Path, Way};
use crate::workspace::Workspace;
use crate::yardstick::Yardsticks;

use super::deployment::{Front, Pool};
use super::library::Library;
use super::vcpu::Vcpu;
use super::vfio::Vfio;

/// The paths and the processes behind them. Dropped in this order: who uses a process goes before it.
#[derive(Debug)]
pub(crate) struct Parties {
    /// The plain relay is the first.
    paths: Vec<Path>,
    fronts: Vec<Front>,
    pools: Vec<(Transport, Pool)>,
    _yardsticks: [Process; 2],
    certs: DevCerts,
}

impl Parties {
    /// Starts all and attaches all devices.
    pub(crate) fn start(args: &Loopback, workspace: &Workspace) -> Result<Self, BenchError> {
        let certs = DevCerts::new()?;
        let yardsticks = Yardsticks::start(workspace)?;
        let mut parties = Self {
            paths: vec![
                Path::new(Way::Relay, yardsticks.relay),
                Path::new(Way::Tcp, yardsticks.tcp),
                Path::new(Way::Unix, yardsticks.unix),
            ],
            fronts: Vec::new(),
            pools: Vec::new(),
            _yardsticks: yardsticks.processes,
            certs,
        };
        parties.start_pools(args, workspace)?;
        for &transport in &args.transport {
            let host_transport = args.host_transport.beside(transport);
            for &client in &args.path {
                let way = Way::Potemkin {
                    client,
                    transport,
                    host_transport,
                };
                parties.add(way, client, transport, host_transport, workspace)?;
            }
        }
        Ok(parties)
    }

    pub(crate) fn paths_mut(&mut self) -> &mut [Path] {
        &mut self.paths
    }

    /// Gives all devices back, ends all processes, and leaves the figures.
    pub(crate) fn into_paths(mut self) -> Vec<Path> {
        self.paths.iter_mut().for_each(Path::end);
        self.paths
    }

    /// One pool for each transport of a host's leg: the choice is the broker's.
    fn start_pools(&mut self, args: &Loopback, workspace: &Workspace) -> Result<(), BenchError> {
        for host_transport in [Transport::Quic, Transport::Grpc] {
            let agents = args.transport.iter().copied();
            let devices: Vec<_> = agents
                .filter(|&agent| args.host_transport.beside(agent) == host_transport)
                .flat_map(|agent| args.path.iter().map(move |&path| device_id(agent, path)))
                .collect();
            if !devices.is_empty() {
                let pool = Pool::start(workspace, &self.certs, host_transport, &devices)?;
                self.pools.push((host_transport, pool));
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        way: Way,
        client: Client,
        transport: Transport,
        host_transport: Transport,
        workspace: &Workspace,
    ) -> Result<(), BenchError> {
        let Some((_, pool)) = self.pools.iter().find(|(kind, _)| *kind == host_transport) else {
            unreachable!("a pool was started for each host transport");
        };
        let name = way.to_string();
        let id = device_id(transport, client);
        let options =
            || -> Result<RemoteOptions, BenchError> { pool.remote_options(&self.certs, transport) };
        let path = match client {
            Client::Library => Path::new(way, Library::attach(&name, options()?, id)?),
            Client::LibraryV1 => {
                let options = RemoteOptions {
                    version_max: 1,
                    ..options()?
                };
                Path::new(way, Library::attach(&name, options, id)?)
            }
            Client::Vcpu => Path::new(way, Vcpu::attach(&name, options()?, id)?),
            Client::Vfio => {
                let front = pool.start_front(workspace, &self.certs, transport, &id)?;
                let path = Path::new(way, Vfio::connect(&name, &front.socket)?);
                self.fronts.push(front);
                path
            }
        };
        self.paths.push(path);
        Ok(())
    }
}

/// Each path has a device of its own: only one agent can have it.
fn device_id(transport: Transport, client: Client) -> String {
    format!("{}-{}", transport.as_str(), client.as_str())
}
