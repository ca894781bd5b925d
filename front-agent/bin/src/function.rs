//! The front device as a vfio-user server serves it.

use std::sync::Arc;

use potemkin_front_core::FrontDevice;
use potemkin_pci::{BarIndex, Space};
use potemkin_vfio_server::{ClientControl, DmaWindow, Function, FunctionInfo, Region};
use potemkin_vfio_user::Errno;

/// One attached device behind one socket.
#[derive(Debug)]
pub(crate) struct VfioFunction {
    device: Arc<FrontDevice>,
}

impl VfioFunction {
    pub(crate) fn new(device: Arc<FrontDevice>) -> Self {
        Self { device }
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

    async fn config_write(&self, offset: u16, data: &[u8]) {
        self.device.config_write(offset, data).await;
    }

    async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) {
        self.device.region_read(space, offset, out).await;
    }

    /// The device's own policy decides what is posted: a client that waits for a posted write is answered at once.
    async fn region_write(&self, space: Space, offset: u64, data: &[u8], _may_post: bool) {
        self.device.region_write(space, offset, data).await;
    }

    /// The session's driver runs on the same thread: it sends as soon as the server waits for more input.
    fn end_of_input(&self) {}

    fn reset(&self) {
        self.device.reset();
    }

    /// The server keeps the window's bounds. Nothing reads or writes guest memory yet: this function's devices do no DMA.
    fn dma_map(&self, _window: DmaWindow) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_unmap(&self, _address: u64, _size: u64) {}

    fn connected(&self, _control: ClientControl) {
        tracing::info!("a VMM is connected");
    }

    fn disconnected(&self) {
        tracing::info!("the VMM is gone; the device stays attached");
    }
}
