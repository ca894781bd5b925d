//! A function's live configuration space: what the guest reads and writes, answered without the host.

mod message;
mod register;
mod saved;
mod special;
#[cfg(test)]
mod tests;
mod volatile;
mod write;

pub use saved::{SavedConfig, SavedConfigError, SavedRegister, SavedWide};
pub use volatile::Volatile;
pub use write::WriteOutcome;

use crate::{
    Bar, BarIndex, Descriptor,
    bytes::le16,
    capability::LINK_CONTROL_KEPT,
    registers::{
        COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, STATUS,
        STATUS_INTERRUPT,
    },
};
use register::Registers;
use special::Special;

/// What an access reads where there is no register. Beyond a conventional function's 256 bytes the request is unsupported, and the
/// host bridge answers all-ones (PCIe 4.0 section 2.3.2); this is also how software finds out that there are no more.
const ABSENT: u8 = 0xff;

/// The enable bits of a function that has no command register.
const ALWAYS_ON: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;

/// The configuration space of one function, from power-on.
///
/// Reads and writes may have any offset and length. Nothing here waits, allocates or fails. A platform function has none: reads give
/// all-ones, and decode and bus mastering are always on.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    descriptor: Descriptor,
    /// As the guest reads it, volatile bits aside.
    image: Box<[u8]>,
    /// BARs and the ROM register; `image` shows their values.
    registers: Registers,
    special: Special,
    has_volatile: bool,
}

impl ConfigSpace {
    /// The configuration space of a function that was just powered on.
    #[must_use]
    pub fn new(descriptor: &Descriptor) -> Self {
        Self {
            image: descriptor.config_image().into(),
            registers: Registers::new(descriptor),
            special: Special::find(descriptor.config_image()),
            has_volatile: descriptor.volatile().iter().any(|&mask| mask != 0),
            descriptor: descriptor.clone(),
        }
    }

    /// What this is the configuration space of.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Back to power-on: all bases 0, decode and bus mastering off.
    pub fn reset(&mut self) {
        self.image.copy_from_slice(self.descriptor.config_image());
        self.registers.reset();
    }

    /// The function reset itself: as [`Self::reset`], but what concerns the link stays, which is not the function's alone (PCIe 4.0
    /// section 6.6.2).
    pub fn function_level_reset(&mut self) {
        let link = self.special.link_control;
        let before = link.map(|at| le16(&self.image, at));
        self.reset();
        if let (Some(at), Some(before)) = (link, before) {
            let kept = LINK_CONTROL_KEPT & le16(self.descriptor.writable(), at);
            let value = le16(&self.image, at) & !kept | before & kept;
            self.image[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Fills `out` with what stands at `offset`, and says where the host must be asked.
    ///
    /// Bytes beyond the end of the image read as all-ones. If the result is not empty, ask the host for those bytes and put its
    /// answer in with [`Self::merge_volatile`].
    #[inline]
    pub fn read(&self, offset: u16, out: &mut [u8]) -> Volatile {
        let offset = usize::from(offset);
        let present = self.image.get(offset..).unwrap_or_default();
        let present = &present[..present.len().min(out.len())];
        let (known, absent) = out.split_at_mut(present.len());
        known.copy_from_slice(present);
        absent.fill(ABSENT);
        if self.has_volatile {
            Volatile::within(
                &self.descriptor.volatile()[offset.min(self.image.len())..],
                present.len(),
            )
        } else {
            Volatile::NONE
        }
    }

    /// Puts the volatile bits of `host`, the host's bytes at `offset`, into `out`, the local ones at the same `offset`.
    pub fn merge_volatile(&self, offset: u16, out: &mut [u8], host: &[u8]) {
        let masks = self.descriptor.volatile().get(usize::from(offset)..);
        let masks = masks.unwrap_or_default();
        for ((local, host), mask) in out.iter_mut().zip(host).zip(masks) {
            *local = *local & !mask | host & mask;
        }
    }

    /// The BAR's base, where it answers when its kind of decode is on; `None` when there is no such BAR. 0, as at power-on, is a base.
    ///
    /// The patterns that software writes to find out a BAR's size move nothing, and neither does one half of a 64-bit BAR that decodes:
    /// the base is the last address that counted. It counts when it is written whole (a 64-bit BAR: all 8 bytes, in any order),
    /// with the next write to another register, or at once while decode is off. What no BAR is placed at is a size question: the last 64 KiB
    /// below 4 GiB (below 2^64, the last 2^48 bytes), and a value with ones in all bits below the size.
    #[must_use]
    pub fn bar_address(&self, index: BarIndex) -> Option<u64> {
        let bar = self.descriptor.bar(index)?;
        Some(self.registers.bar_address(index, bar))
    }

    /// The expansion ROM's base; `None` when there is no ROM.
    #[must_use]
    pub fn rom_address(&self) -> Option<u64> {
        self.descriptor.rom().map(|_| self.registers.rom_address())
    }

    /// Whether the expansion ROM's own enable bit is set. [`Self::memory_enabled`] counts too. As the base, it stays while the register
    /// holds a size question.
    #[must_use]
    pub fn rom_enabled(&self) -> bool {
        self.registers.rom_enabled()
    }

    /// The command register, as the guest reads it.
    #[must_use]
    pub fn command(&self) -> u16 {
        if self.image.is_empty() {
            return ALWAYS_ON;
        }
        le16(&self.image, COMMAND)
    }

    /// Whether the function answers port accesses: the command register says so and the function is in D0 (PCI PM 1.2 section 5.4).
    #[must_use]
    pub fn io_enabled(&self) -> bool {
        self.active(COMMAND_IO)
    }

    /// Whether the function answers memory accesses: the command register says so and the function is in D0.
    #[must_use]
    pub fn memory_enabled(&self) -> bool {
        self.active(COMMAND_MEMORY)
    }

    /// Whether the function may start transactions, DMA and MSI: the command register says so and the function is in D0.
    #[must_use]
    pub fn bus_master_enabled(&self) -> bool {
        self.active(COMMAND_BUS_MASTER)
    }

    /// Whether the guest has turned INTx off.
    #[must_use]
    pub fn intx_disabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE != 0
    }

    /// How many MSI vectors the guest has allocated to the function: 1 to 32, a power of two; 0 while MSI is off.
    #[must_use]
    pub fn msi_vectors(&self) -> u16 {
        self.special.msi_vectors(&self.image)
    }

    /// Whether the guest has turned MSI-X on.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        self.special.msix_enabled(&self.image)
    }

    /// Whether INTx may be asserted: it is not turned off, neither MSI nor MSI-X takes its place (PCI 3.0 sections 6.2.2 and
    /// 6.8.1.3), and the function is in D0 (in other states it may at most signal power management events; PCI PM 1.2 section 5.4).
    #[must_use]
    pub fn intx_allowed(&self) -> bool {
        let awake = self.power_state() == 0;
        awake && !self.intx_disabled() && self.msi_vectors() == 0 && !self.msix_enabled()
    }

    /// The power state's number, 0 (D0) to 3 (D3hot); 0 without power management.
    #[must_use]
    pub fn power_state(&self) -> u8 {
        self.special.power_state(&self.image)
    }

    /// Turns bus mastering off, as a write to the command register does.
    pub fn clear_bus_master(&mut self) {
        let [bit, _] = COMMAND_BUS_MASTER.to_le_bytes();
        if let Some(command) = self.image.get_mut(COMMAND) {
            *command &= !bit;
        }
    }

    /// Shows in the status register whether the function has an INTx interrupt pending. This does not depend on whether INTx is
    /// disabled (PCI 3.0 section 6.2.3).
    pub fn set_interrupt_status(&mut self, pending: bool) {
        let [bit, _] = STATUS_INTERRUPT.to_le_bytes();
        let Some(status) = self.image.get_mut(STATUS) else {
            return;
        };
        if pending {
            *status |= bit;
        } else {
            *status &= !bit;
        }
    }

    /// The BARs with their bases.
    pub fn bar_addresses(&self) -> impl Iterator<Item = (BarIndex, &Bar, u64)> {
        let base = |(index, bar)| (index, bar, self.registers.bar_address(index, bar));
        self.descriptor.bars().map(base)
    }

    fn active(&self, bit: u16) -> bool {
        self.command() & bit != 0 && self.power_state() == 0
    }
}
