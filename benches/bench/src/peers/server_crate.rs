//! The server of the crate `vfio_user`, in a process of its own, used as its example does.

use std::fs::File;
use std::io;
use std::path::Path;

use potemkin_service::BoxError;
use potemkin_service::ready::ReadyFile;
use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use super::registers::{BAR2, BAR2_BYTES, CONFIG, CONFIG_BYTES, IRQS, REGIONS, Registers};

/// Serves one client: that is all this server does.
pub(crate) fn serve(ready_file: &Path, socket: &Path) -> Result<(), BoxError> {
    let regions = (0..REGIONS).map(region).collect();
    let irqs = (0..IRQS).map(no_irqs).collect();
    let server = Server::new(socket, true, irqs, regions)?;
    let _ready = ReadyFile::write(ready_file, &socket)?;
    server.run(&mut Pins(Registers::new()))?;
    Ok(())
}

fn region(index: u32) -> ServerRegion {
    let size = match index {
        BAR2 => BAR2_BYTES,
        CONFIG => CONFIG_BYTES,
        _ => 0,
    };
    let argsz = size_of::<vfio_region_info>();
    ServerRegion {
        region_info: vfio_region_info {
            argsz: u32::try_from(argsz).unwrap_or_default(),
            flags: VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
            index,
            size: size.into(),
            ..vfio_region_info::default()
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    }
}

fn no_irqs(index: u32) -> IrqInfo {
    IrqInfo {
        index,
        flags: 0,
        count: 0,
    }
}

struct Pins(Registers);

impl ServerBackend for Pins {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read(region, offset, data)
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(region, offset, data)
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<File>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.0 = Registers::new();
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}
