//! A function to probe: the PCI model's configuration space and, behind its BAR, a real edu device.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use potemkin_devices::Edu;
use potemkin_pci::{BarIndex, ConfigSpace, Descriptor, Space, Width};
use potemkin_sdk::testing::Harness;
use potemkin_sdk::{Device as _, Register};
use potemkin_service::Shutdown;
use potemkin_vfio_server::{ClientControl, DmaWindow, FunctionInfo, Region, Server};
use potemkin_vfio_user::client::BurstWrite;
use potemkin_vfio_user::{ClientError, Errno};

use crate::probe::function::{CONFIG_REGION, Function};

/// A function, and what is wrong with it.
pub(super) struct Card {
    config: ConfigSpace,
    /// None: reads of its BARs give zeros.
    edu: Option<Harness<Edu>>,
    /// Bytes that read so, whatever is written.
    poked: BTreeMap<usize, u8>,
    /// All reads give all-ones.
    pub(super) gone: bool,
    /// All reads of its BARs give all-ones: its session is lost.
    pub(super) lost: bool,
    /// Writes that begin here are dropped.
    pub(super) stuck: Option<usize>,
    /// Regions are larger than their BARs.
    pub(super) region_size_factor: u64,
    /// Of several posted writes at once, the last is lost.
    pub(super) drops_bursts: bool,
}

impl Card {
    pub(super) fn new(descriptor: &Descriptor) -> Self {
        Self {
            config: ConfigSpace::new(descriptor),
            edu: None,
            poked: BTreeMap::new(),
            gone: false,
            lost: false,
            stuck: None,
            region_size_factor: 1,
            drops_bursts: false,
        }
    }

    pub(super) fn edu() -> Self {
        let mut edu = Harness::new(Edu::new().unwrap());
        let descriptor = edu.device().descriptor().clone();
        Self {
            edu: Some(edu),
            ..Self::new(&descriptor)
        }
    }

    /// All of configuration space.
    pub(super) fn dump(&self) -> Vec<u8> {
        let mut image = vec![0; self.config.descriptor().config_image().len()];
        let _ = self.config.read(0, &mut image);
        image
    }

    pub(super) fn peek(&self, offset: usize) -> u8 {
        self.dump()[offset]
    }

    pub(super) fn poke(&mut self, offset: usize, value: u8) {
        self.poked.insert(offset, value);
    }

    fn read_config(&self, offset: u64, out: &mut [u8]) {
        let offset = u16::try_from(offset).unwrap();
        let _ = self.config.read(offset, out);
        for (index, byte) in out.iter_mut().enumerate() {
            if let Some(poked) = self.poked.get(&(usize::from(offset) + index)) {
                *byte = *poked;
            }
        }
    }

    fn read_bar(&mut self, bar: BarIndex, offset: u64, out: &mut [u8]) {
        let Some(edu) = &mut self.edu else {
            return out.fill(0);
        };
        // The device computes on a thread of its own: let it tell of its result.
        edu.deliver();
        let value = edu.read(register(bar, offset, out.len()));
        out.copy_from_slice(&value.to_le_bytes()[..out.len()]);
    }

    fn write_bar(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(value);
        if let Some(edu) = &mut self.edu {
            edu.deliver();
            edu.write(register(bar, offset, data.len()), value).unwrap();
        }
    }

    fn size(&self, bar: BarIndex) -> u64 {
        let bar = self.config.descriptor().bar(bar);
        bar.map_or(0, |bar| bar.size * self.region_size_factor)
    }
}

fn register(bar: BarIndex, offset: u64, bytes: usize) -> Register {
    Register::new(Space::Bar(bar), offset, Width::from_bytes(bytes).unwrap())
}

fn bar(region: u32) -> BarIndex {
    BarIndex::new(u8::try_from(region).unwrap()).unwrap()
}

impl Function for Card {
    fn read(&mut self, region: u32, offset: u64, out: &mut [u8]) -> Result<(), ClientError> {
        match region {
            _ if self.gone => out.fill(0xff),
            CONFIG_REGION => self.read_config(offset, out),
            _ if self.lost => out.fill(0xff),
            _ => self.read_bar(bar(region), offset, out),
        }
        Ok(())
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        if region != CONFIG_REGION {
            self.write_bar(bar(region), offset, data);
        } else if self.stuck != usize::try_from(offset).ok() {
            let _ = self.config.write(u16::try_from(offset).unwrap(), data);
        }
        Ok(())
    }

    fn post(&mut self, writes: &[BurstWrite<'_>]) -> Result<(), ClientError> {
        let lost = usize::from(self.drops_bursts && writes.len() > 1);
        for (region, offset, data) in &writes[..writes.len() - lost] {
            self.write_bar(bar(*region), *offset, data);
        }
        Ok(())
    }

    fn region_size(&mut self, region: u32) -> Result<u64, ClientError> {
        Ok(match region {
            CONFIG_REGION => self.config.descriptor().config_image().len() as u64,
            _ => self.size(bar(region)),
        })
    }
}

/// A card behind a real vfio-user server, on a thread of its own.
pub(super) struct Served {
    stop: Shutdown,
    thread: JoinHandle<()>,
}

/// Serves an edu card at `socket`, which exists when this returns.
pub(super) fn serve(socket: &Path) -> Served {
    let stop = Shutdown::new();
    let stopped = stop.clone();
    let server = Server::bind(socket, potemkin_vfio_server::Options::default()).unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let card = Shared(RefCell::new(Card::edu()));
        runtime
            .block_on(server.serve(&card, stopped.cancelled()))
            .unwrap();
    });
    Served { stop, thread }
}

impl Served {
    pub(super) fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

struct Shared(RefCell<Card>);

impl potemkin_vfio_server::Function for Shared {
    fn info(&self) -> FunctionInfo {
        let card = self.0.borrow();
        FunctionInfo {
            bars: std::array::from_fn(|index| {
                Region::read_write(card.size(bar(u32::try_from(index).unwrap())))
            }),
            rom: Region::NONE,
            config_size: 256,
            intx: true,
            msi_vectors: 1,
            msix_vectors: 0,
        }
    }

    async fn config_read(&self, offset: u16, out: &mut [u8]) {
        self.0.borrow().read_config(offset.into(), out);
    }

    async fn config_write(&self, offset: u16, data: &[u8], _may_post: bool) {
        let _ = self.0.borrow_mut().config.write(offset, data);
    }

    async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) {
        let Space::Bar(bar) = space else { return };
        self.0.borrow_mut().read_bar(bar, offset, out);
    }

    async fn region_write(&self, space: Space, offset: u64, data: &[u8], _may_post: bool) {
        let Space::Bar(bar) = space else { return };
        self.0.borrow_mut().write_bar(bar, offset, data);
    }

    fn end_of_input(&self) {}

    fn reset(&self) {}

    fn dma_map(&self, _window: DmaWindow) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_unmap(&self, _address: u64, _size: u64) {}

    fn connected(&self, _control: ClientControl) {}

    fn disconnected(&self) {}
}
