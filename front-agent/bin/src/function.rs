//! The front device as a vfio-user server serves it.

use std::sync::Arc;

use potemkin_front_core::{FrontDevice, GuestMemory, Mapper, Window};
use potemkin_pci::{BarIndex, MsixLayout, MsixPlace, Space};
use potemkin_vfio_server::{ClientControl, DmaWindow, Function, FunctionInfo, Region};
use potemkin_vfio_user::Errno;

use crate::bus::VfioBus;

/// One attached device behind one socket.
#[derive(Debug)]
pub(crate) struct VfioFunction {
    device: Arc<FrontDevice>,
    bus: VfioBus,
    msix: Option<MsixLayout>,
    /// For the guest's memory.
    mapper: Mapper,
}

impl VfioFunction {
    pub(crate) fn new(device: Arc<FrontDevice>, bus: VfioBus) -> Self {
        let msix = MsixLayout::of(device.descriptor());
        Self {
            device,
            bus,
            msix,
            mapper: Mapper::default(),
        }
    }

    async fn write(&self, space: Space, offset: u64, data: &[u8], posted: bool) {
        if posted {
            self.device.region_write_posted(space, offset, data).await;
        } else {
            self.device.region_write(space, offset, data).await;
        }
    }

    /// The MSI-X areas, if some are in this space. None while the function does not decode them: whoever asks then finds nothing there.
    fn msix(&self, space: Space) -> Option<MsixLayout> {
        let decoded = || self.device.with_config(|config| config.memory_enabled());
        self.msix.filter(|msix| msix.touches(space) && decoded())
    }
}

impl Function for VfioFunction {
    fn info(&self) -> FunctionInfo {
        let descriptor = self.device.descriptor();
        let mut bars = [Region::NONE; BarIndex::COUNT];
        for (index, bar) in descriptor.bars() {
            bars[usize::from(index.get())] = Region::read_write(bar.size);
        }
        let interrupts = descriptor.interrupts();
        FunctionInfo {
            bars,
            rom: descriptor
                .rom()
                .map_or(Region::NONE, |rom| Region::read_only(rom.len() as u64)),
            config_size: if descriptor.config_image().len() > 256 {
                4_096
            } else {
                256
            },
            intx: interrupts.intx_pin != 0,
            msi_vectors: interrupts.msi_vectors.into(),
            msix_vectors: interrupts.msix_vectors,
        }
    }

    async fn config_read(&self, offset: u16, out: &mut [u8]) {
        self.device.config_read(offset, out).await;
    }

    async fn config_write(&self, offset: u16, data: &[u8], may_post: bool) {
        let written = if may_post {
            self.device.config_write_posted(offset, data).await
        } else {
            self.device.config_write(offset, data).await
        };
        if written.reset {
            self.bus.forget_interrupts();
        } else if written.bus_master_off {
            self.bus.forget_messages();
        }
    }

    async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) {
        let Some(msix) = self.msix(space) else {
            self.device.region_read(space, offset, out).await;
            return;
        };
        for (part, place) in msix.parts(space, offset, out.len()) {
            let at = offset + part.start as u64;
            let out = &mut out[part];
            match place {
                MsixPlace::Elsewhere => drop(self.device.region_read(space, at, out).await),
                MsixPlace::Table(_) => out.fill(0),
                MsixPlace::Pending(first) => self.bus.pending_bits(first, out),
            }
        }
    }

    /// The device's own policy decides what is posted: a client that waits for a posted write is answered at once. What the client has
    /// posted itself is posted: its guest goes on already, and what it does next would wait here instead.
    async fn region_write(&self, space: Space, offset: u64, data: &[u8], may_post: bool) {
        let Some(msix) = self.msix(space) else {
            return self.write(space, offset, data, may_post).await;
        };
        for (part, place) in msix.parts(space, offset, data.len()) {
            if place == MsixPlace::Elsewhere {
                let at = offset + part.start as u64;
                self.write(space, at, &data[part], may_post).await;
            }
        }
    }

    /// The session's driver runs on the same thread: it sends as soon as the server waits for more input.
    fn end_of_input(&self) {}

    fn reset(&self) {
        self.device.reset();
        self.bus.forget_interrupts();
    }

    fn dma_map(&self, window: DmaWindow) -> Result<(), Errno> {
        let DmaWindow {
            address,
            size,
            protection,
            file,
        } = window;
        let memory = match file {
            None => None,
            Some((file, start)) => {
                let memory = self.mapper.open(file, start, size, protection.write);
                let memory = memory.map_err(|error| {
                    tracing::warn!(%error, address, size, "a window's file cannot be used");
                    Errno::NOMEM
                })?;
                Some(Arc::new(memory) as Arc<dyn GuestMemory>)
            }
        };
        let window = Window {
            address,
            size,
            readable: protection.read,
            writable: protection.write,
            memory,
        };
        // The server has checked the same before.
        self.device.map_window(window).map_err(|_| Errno::INVAL)
    }

    fn dma_unmap(&self, address: u64, size: u64) {
        self.device.unmap_window(address, size);
    }

    fn intx_unmasked(&self, _: &ClientControl) {
        self.bus.end_of_intx(&self.device.session());
    }

    fn connected(&self, control: ClientControl) {
        tracing::info!("a VMM is connected");
        self.bus.connect(control);
    }

    fn disconnected(&self) {
        tracing::info!("the VMM is gone; the device stays attached");
        self.device.stop_bus_mastering();
        self.bus.disconnect();
    }
}
