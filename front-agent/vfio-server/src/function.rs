//! What a server serves: the trait, and what it says about itself.

use std::fs::File;
use std::sync::Arc;

use potemkin_pci::{BarIndex, Space};
use potemkin_vfio_user::Errno;
use potemkin_vfio_user::message::Protection;

use crate::control::ClientControl;

/// The PCI function behind a socket.
///
/// Everything is called on the one thread that [`Server::serve`](crate::Server::serve) runs on; no future has to be
/// `Send`. One access is carried out at a time, in the order of the client's messages. An access's future is dropped
/// when the server is shut down meanwhile.
///
/// The client is a VMM whose vCPU, and maybe whose every thread, waits for the answer of an access that is not posted:
/// it should come within 4 seconds (QEMU gives up after 5), and must not depend on [`ClientControl::dma_read`] or
/// [`ClientControl::dma_write`], which go on only after it.
pub trait Function {
    /// Sizes and rights of the regions, and the number of interrupts. Asked once for each client.
    fn info(&self) -> FunctionInfo;

    /// Fills `out` from configuration space at `offset`. The range is inside `info().config_size`.
    fn config_read(&self, offset: u16, out: &mut [u8]) -> impl Future<Output = ()>;

    /// Writes `data` to configuration space at `offset`. The range is inside `info().config_size`. `may_post` as of
    /// [`Self::region_write`].
    fn config_write(&self, offset: u16, data: &[u8], may_post: bool) -> impl Future<Output = ()>;

    /// Fills `out` from a BAR or the ROM at `offset`. The range is inside the region, which is readable; what cannot
    /// be read becomes all-ones. `out` comes filled with zeros and has 1 byte up to 64 KiB: 1, 2, 4 or 8 bytes are one
    /// access of that width.
    fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) -> impl Future<Output = ()>;

    /// Writes `data` to a BAR or the ROM at `offset`. The range is inside the region, which is writable.
    ///
    /// With `may_post` the client does not wait for this one by itself. Without, the answer goes out when the
    /// future is ready.
    fn region_write(
        &self,
        space: Space,
        offset: u64,
        data: &[u8],
        may_post: bool,
    ) -> impl Future<Output = ()>;

    /// Everything that could be read from the client has been handled, and the answers are on their way: the time to
    /// send what was gathered. Comes at least once after each run of accesses, and not between those that came
    /// together. A function that waits for the network in an access has to send what it gathered before by itself.
    fn end_of_input(&self);

    /// Resets the function. Must not wait for anything remote: the whole VM stands still meanwhile.
    ///
    /// Pending interrupts are forgotten, what the client has connected stays.
    fn reset(&self);

    /// The client announces guest memory. The window overlaps no other, its descriptor (if any) is a file long enough
    /// and opened for what the protection says. The file may be shortened later, so a mapping of it can fault: read and
    /// write it as a file, or be ready for that.
    ///
    /// # Errors
    ///
    /// An error number for the client; the window does not exist then.
    fn dma_map(&self, window: DmaWindow) -> Result<(), Errno>;

    /// The client withdraws a window, one that was announced just so. When this returns, nothing touches it any more.
    /// Must not wait for anything remote.
    fn dma_unmap(&self, address: u64, size: u64);

    /// The guest has acknowledged or unmasked INTx. `control` has it unmasked already.
    ///
    /// The default delivers it again if its level is still up. A function that hears of its level late should instead
    /// find out first, and then call [`ClientControl::resample_intx`].
    fn intx_unmasked(&self, control: &ClientControl) {
        control.resample_intx();
    }

    /// A client has agreed on a version. `control` works until [`Self::disconnected`].
    fn connected(&self, control: ClientControl);

    /// The client has gone. Every window has been withdrawn through [`Self::dma_unmap`] before, and its interrupts are
    /// disconnected. The function keeps its state: the next client may be the same VMM.
    fn disconnected(&self);
}

/// A range of guest memory that the client lets the device use.
#[derive(Debug)]
pub struct DmaWindow {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// What the device may do with it.
    pub protection: Protection,
    /// The file that the memory is, and where the window begins in it; windows of one file share it. Without, there are only
    /// [`ClientControl::dma_read`] and [`ClientControl::dma_write`].
    pub file: Option<(Arc<File>, u64)>,
}

/// What a function has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// The BARs. The index of a 64-bit one is its lower half's, and the upper half's has size 0.
    pub bars: [Region; BarIndex::COUNT],
    /// The expansion ROM; the client reads it whatever its enable bit says.
    pub rom: Region,
    /// Size of configuration space in bytes: 256 or 4096.
    pub config_size: u16,
    /// Whether there is an INTx pin.
    pub intx: bool,
    /// Number of MSI vectors, 0 to 32.
    pub msi_vectors: u16,
    /// Number of MSI-X vectors, 0 to 2048.
    pub msix_vectors: u16,
}

/// A BAR or the ROM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Size in bytes; 0 if there is none.
    pub size: u64,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
}

impl Region {
    /// No region.
    pub const NONE: Self = Self {
        size: 0,
        readable: false,
        writable: false,
    };

    /// One that can be read and written.
    #[must_use]
    pub const fn read_write(size: u64) -> Self {
        Self {
            size,
            readable: true,
            writable: true,
        }
    }

    /// One that can only be read.
    #[must_use]
    pub const fn read_only(size: u64) -> Self {
        Self {
            size,
            readable: true,
            writable: false,
        }
    }
}
