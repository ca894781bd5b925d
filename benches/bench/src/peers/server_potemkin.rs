//! Our server, in a process of its own: one function on a thread and a runtime of its own, as the front agent has it.

use std::cell::RefCell;
use std::future::pending;
use std::path::Path;

use potemkin_pci::Space;
use potemkin_service::BoxError;
use potemkin_service::ready::ReadyFile;
use potemkin_vfio_server::{
    ClientControl, DmaWindow, Function, FunctionInfo, Options, Region, Server,
};
use potemkin_vfio_user::Errno;
use tokio::task::LocalSet;

use super::registers::{BAR2, BAR2_BYTES, CONFIG, CONFIG_BYTES, Registers};

/// Serves until it is killed.
pub(crate) fn serve(ready_file: &Path, socket: &Path) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Server::bind(socket, Options::default())?;
    let _ready = ReadyFile::write(ready_file, &socket)?;
    let function = Pins(RefCell::new(Registers::new()));
    LocalSet::new().block_on(&runtime, server.serve(&function, pending()))?;
    Ok(())
}

#[derive(Debug)]
struct Pins(RefCell<Registers>);

impl Pins {
    /// All-ones where there is nothing.
    fn read(&self, region: u32, offset: u64, out: &mut [u8]) {
        if self.0.borrow().read(region, offset, out).is_err() {
            out.fill(0xff);
        }
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) {
        if let Err(error) = self.0.borrow_mut().write(region, offset, data) {
            tracing::debug!(region, offset, %error, "a write without effect");
        }
    }
}

impl Function for Pins {
    fn info(&self) -> FunctionInfo {
        let mut bars = [Region::NONE; 6];
        bars[2] = Region::read_write(BAR2_BYTES.into());
        FunctionInfo {
            bars,
            rom: Region::NONE,
            config_size: CONFIG_BYTES,
            intx: false,
            msi_vectors: 0,
            msix_vectors: 0,
        }
    }

    async fn config_read(&self, offset: u16, out: &mut [u8]) {
        self.read(CONFIG, offset.into(), out);
    }

    async fn config_write(&self, offset: u16, data: &[u8], _may_post: bool) {
        self.write(CONFIG, offset.into(), data);
    }

    /// BAR 2 is the only region.
    async fn region_read(&self, _: Space, offset: u64, out: &mut [u8]) {
        self.read(BAR2, offset, out);
    }

    async fn region_write(&self, _: Space, offset: u64, data: &[u8], _may_post: bool) {
        self.write(BAR2, offset, data);
    }

    fn end_of_input(&self) {}

    fn reset(&self) {
        *self.0.borrow_mut() = Registers::new();
    }

    fn dma_map(&self, _: DmaWindow) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_unmap(&self, _: u64, _: u64) {}

    fn connected(&self, _: ClientControl) {}

    fn disconnected(&self) {}
}
