//! Two ends of a session, joined by a transport: the front device, and a device of memory with some registers that do something.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use potemkin_front_core::{
    BrokerAddress, Bus, FrontDevice, Leg, NoBus, RemoteOptions, Session, drive,
};
use potemkin_pci::{Bar, BarIndex, BarKind, Descriptor, DescriptorBuilder, Space};
use potemkin_service::certs::{self, DevOptions};
use potemkin_session::{
    access::{Access, Operation, Payload, Status, Vector},
    front::FrontConfig,
    host::{Host, Opening, Work},
    ids::{AttachNumber, Epoch, Incarnation, Path as SessionPath, SessionId},
};
use potemkin_transport::{
    FrameStream, Identity, IdentityPattern, ListenOptions, Role, SessionHandler, TlsMaterial,
    TransportKind, listen,
};
use tokio::{sync::oneshot, task::JoinHandle};

/// The command register; its bit 1 turns memory decode on.
const COMMAND: u16 = 4;
const DEADLINE: Duration = Duration::from_millis(300);

pub(crate) fn incarnation() -> Incarnation {
    Incarnation::from_bytes([3; 16])
}

pub(crate) fn bar0() -> Space {
    Space::Bar(BarIndex::new(0).unwrap())
}

pub(crate) fn descriptor() -> Descriptor {
    let bar = Bar {
        kind: BarKind::Memory32,
        size: 4_096,
        prefetchable: false,
    };
    DescriptorBuilder::new(0x1234, 0x0001)
        .bar(BarIndex::new(0).unwrap(), bar)
        .build()
        .unwrap()
}

/// Bytes of the device's memory, which all its spaces show.
const MEMORY: usize = 1 << 20;

/// Registers of BAR 0 that do something when they are written.
pub(crate) mod reg {
    /// Never answers a read.
    pub(crate) const SILENT: u64 = 0xff0;
    /// Fires that MSI-X vector.
    pub(crate) const MSIX: u64 = 0xf00;
    /// Fires that MSI vector.
    pub(crate) const MSI: u64 = 0xf04;
    /// Sets the level of INTx.
    pub(crate) const INTX: u64 = 0xf08;
    /// Writes the 8 bytes that stand in it to that guest address, then fires MSI-X vector 7.
    pub(crate) const DMA: u64 = 0xf10;
}

/// What the device applied, in order: offset and value of writes, accesses in full; and the frames that brought it.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) writes: Vec<(u64, u64)>,
    pub(crate) accesses: Vec<Access>,
    pub(crate) frames: usize,
}

/// Serves sessions with a device that reads back what was written.
struct Memory {
    applied: Arc<Mutex<Applied>>,
}

impl SessionHandler for Memory {
    async fn session(
        &self,
        _peer: Identity,
        _kind: TransportKind,
        _remote: SocketAddr,
        mut stream: FrameStream,
    ) {
        let open = stream.receiver.recv().await.unwrap().unwrap();
        let opening = Opening::decode(open).unwrap();
        let mut host = Host::accept(&opening, incarnation(), 1).unwrap();
        let mut bytes = vec![0; MEMORY];
        loop {
            while let Some(frame) = host.poll_transmit() {
                stream.sender.send(frame).unwrap();
            }
            if stream.sender.flushed().await.is_err() {
                return;
            }
            let Ok(Some(frame)) = stream.receiver.recv().await else {
                return;
            };
            host.handle_frame(frame).unwrap();
            self.applied.lock().unwrap().frames += 1;
            while let Some(work) = host.next_work() {
                let Work::Access(access) = work else {
                    bytes.fill(0);
                    host.complete(Status::Ok, &[]);
                    continue;
                };
                self.applied.lock().unwrap().accesses.push(access.clone());
                let start = usize::try_from(access.at.offset).unwrap();
                let place = &mut bytes[start..start + access.bytes()];
                match &access.operation {
                    Operation::Read if access.at.offset == reg::SILENT => {
                        return std::future::pending().await;
                    }
                    Operation::Read => host.complete(Status::Ok, place),
                    Operation::Write(_, payload) => {
                        let value = match payload {
                            Payload::Value(value) => {
                                place.copy_from_slice(&value.to_le_bytes()[..place.len()]);
                                *value
                            }
                            Payload::Block(block) => {
                                place.copy_from_slice(block);
                                block.len() as u64
                            }
                        };
                        let mut applied = self.applied.lock().unwrap();
                        applied.writes.push((access.at.offset, value));
                        drop(applied);
                        act(&mut host, &access, value);
                        host.complete(Status::Ok, &[]);
                    }
                }
            }
        }
    }
}

/// What a write starts.
pub(crate) fn act(host: &mut Host, access: &Access, value: u64) {
    if access.at.space != bar0() {
        return;
    }
    let generation = host.generations().newest;
    let vector = u16::try_from(value).unwrap_or(u16::MAX);
    match access.at.offset {
        reg::MSIX => host.raise(generation, Vector::Msix(vector)),
        reg::MSI => host.raise(generation, Vector::Msi(vector)),
        reg::INTX => host.set_intx(value != 0),
        reg::DMA => {
            let data = Bytes::copy_from_slice(&value.to_le_bytes());
            host.dma_write(generation, value, data);
            host.raise(generation, Vector::Msix(7));
        }
        _ => {}
    }
}

pub(crate) struct Rig {
    pub(crate) device: Arc<FrontDevice>,
    pub(crate) applied: Arc<Mutex<Applied>>,
    pub(crate) driver: JoinHandle<()>,
    /// The server stops when this is dropped.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<()>,
    _certs: tempfile::TempDir,
}

pub(crate) fn material(dir: &Path, role: &str) -> TlsMaterial {
    let file = |suffix| dir.join(format!("{role}.{suffix}"));
    TlsMaterial::load(&dir.join("ca.pem"), &file("pem"), &file("key")).unwrap()
}

/// How an agent reaches the broker at this address.
pub(crate) fn options(dir: &Path, address: SocketAddr, role: Role) -> RemoteOptions {
    let tls = material(dir, "agent");
    let identity = IdentityPattern::same_domain(tls.identity(), role);
    let broker = BrokerAddress {
        address: address.to_string(),
        identity,
    };
    RemoteOptions::new(tls, broker)
}

/// A session that nobody has granted.
pub(crate) fn front_config(deadline: Duration) -> FrontConfig {
    FrontConfig {
        path: SessionPath {
            session: SessionId::from_halves(1, 2),
            epoch: Epoch(1),
            attach_number: AttachNumber(1),
        },
        host_incarnation: incarnation(),
        deadline,
    }
}

/// A function that keeps no interrupt tables, of one BAR.
pub(crate) async fn rig(kind: TransportKind) -> Rig {
    let function = |session| (Arc::new(FrontDevice::new(descriptor(), session)), NoBus);
    rig_of(kind, function).await
}

pub(crate) async fn rig_of<B: Bus + Send + Sync + 'static>(
    kind: TransportKind,
    function: impl FnOnce(Session) -> (Arc<FrontDevice>, B),
) -> Rig {
    let certs = tempfile::tempdir().unwrap();
    let dir = certs.path().join("certs");
    certs::write_dev(&dir, &DevOptions::default()).unwrap();
    let applied = Arc::new(Mutex::new(Applied::default()));

    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = listen(ListenOptions::new(any, material(&dir, "host")))
        .await
        .unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let memory = Memory {
        applied: Arc::clone(&applied),
    };
    let server = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        listener
            .serve(memory, tonic::service::Routes::default(), stopped)
            .await
            .unwrap();
    });

    let options = RemoteOptions {
        transport: kind,
        deadline: DEADLINE,
        ..options(&dir, address, Role::Host)
    };
    let leg = Leg::dial(&options).await.unwrap();
    let session = Session::new(front_config(DEADLINE));
    let (device, bus) = function(session.clone());
    let driver = tokio::spawn(drive(Arc::clone(&device), leg, options, bus));
    session.opened().await.unwrap();
    Rig {
        device,
        applied,
        driver,
        stop,
        server,
        _certs: certs,
    }
}

pub(crate) async fn enable_memory(device: &FrontDevice) {
    device.config_write(COMMAND, &[2, 0]).await;
}

pub(crate) async fn read_u32(device: &FrontDevice, offset: u64) -> u32 {
    let mut out = [0; 4];
    device.region_read(bar0(), offset, &mut out).await;
    u32::from_le_bytes(out)
}
