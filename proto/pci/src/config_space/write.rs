//! Writes to configuration space.

use super::ConfigSpace;
use crate::{
    BarIndex, BarSet,
    registers::{BAR_END, BAR0, ROM, ROM_END},
};

/// What a write changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct WriteOutcome {
    /// The command register changed, or the power state on which its enable bits depend.
    pub command_changed: bool,
    /// Bus mastering was on and is off: what DMA is under way must not land any more.
    pub bus_master_cleared: bool,
    /// The BARs whose address changed. A 64-bit BAR is named by its lower index.
    pub bars_changed: BarSet,
    /// The expansion ROM's address or its enable bit changed.
    pub rom_changed: bool,
    /// Something in the MSI capability changed.
    pub msi_changed: bool,
    /// The MSI-X enable or function mask bit changed.
    pub msix_changed: bool,
    /// The write touches bits whose writes the host must hear of.
    pub forward: bool,
    /// The function is to be reset, here (by [`ConfigSpace::reset`]) and at the host: the guest started a function-level reset, or
    /// went from D3hot to D0 of a function that loses its state on that way.
    pub flr: bool,
}

impl WriteOutcome {
    /// Whether [`ConfigSpace::mappings`] may be others than before.
    #[must_use]
    pub fn moves_mappings(&self) -> bool {
        self.command_changed || self.rom_changed || !self.bars_changed.is_empty()
    }
}

/// What an outcome is found from: the state before and after.
struct State {
    command: u16,
    bus_master: bool,
    memory: bool,
    power: u8,
    bars: [u64; BarIndex::COUNT],
    rom: (Option<u64>, bool),
}

impl ConfigSpace {
    /// Writes `data` at `offset`, each bit by its class. Bytes beyond the end of the image are dropped.
    ///
    /// All bytes take effect at once: eight bytes on a 64-bit BAR move it once.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> WriteOutcome {
        let offset = usize::from(offset);
        let room = self.image.len().saturating_sub(offset);
        let data = &data[..data.len().min(room)];
        if data.is_empty() {
            return WriteOutcome::default();
        }
        let before = self.state();
        let (msi_changed, msix_changed) = self.write_bits(offset, data);
        if self.registers.write(offset, data) {
            self.show_registers();
        }
        let reset_by_power = self.special.settle_power(&mut self.image, before.power);
        let decodes = before.memory && self.memory_enabled();
        self.registers.settle(offset, data.len(), decodes);
        let after = self.state();
        WriteOutcome {
            command_changed: before.command != after.command || before.power != after.power,
            bus_master_cleared: before.bus_master && !after.bus_master,
            bars_changed: changed(&before.bars, &after.bars),
            rom_changed: before.rom != after.rom,
            msi_changed,
            msix_changed,
            forward: self.touches_forwarded(offset, data.len()),
            flr: reset_by_power || self.special.starts_flr(offset, data),
        }
    }

    /// Writes the bits of the image that stand for themselves. Says whether any of MSI's and of MSI-X's changed.
    fn write_bits(&mut self, offset: usize, data: &[u8]) -> (bool, bool) {
        let (mut msi, mut msix) = (false, false);
        let (writable, clears) = (
            self.descriptor.writable(),
            self.descriptor.write_one_to_clear(),
        );
        for (at, &byte) in (offset..).zip(data) {
            let old = self.image[at];
            let new = (old & !writable[at] | byte & writable[at]) & !(byte & clears[at]);
            if new != old {
                self.image[at] = new;
                let within = |range: &Option<std::ops::Range<usize>>| {
                    range.as_ref().is_some_and(|range| range.contains(&at))
                };
                msi |= within(&self.special.msi);
                msix |= within(&self.special.msix_control);
            }
        }
        (msi, msix)
    }

    fn show_registers(&mut self) {
        for (at, value) in self.registers.values() {
            debug_assert!((BAR0..BAR_END).contains(&at) || (ROM..ROM_END).contains(&at));
            self.image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    fn touches_forwarded(&self, offset: usize, length: usize) -> bool {
        let masks = &self.descriptor.forwarded()[offset..offset + length];
        masks.iter().any(|&mask| mask != 0)
    }

    fn state(&self) -> State {
        let mut bars = [0; BarIndex::COUNT];
        for (index, _, address) in self.bar_addresses() {
            bars[index.as_usize()] = address;
        }
        State {
            command: self.command(),
            bus_master: self.bus_master_enabled(),
            memory: self.memory_enabled(),
            power: self.power_state(),
            bars,
            rom: (self.rom_address(), self.rom_enabled()),
        }
    }
}

fn changed(before: &[u64; BarIndex::COUNT], after: &[u64; BarIndex::COUNT]) -> BarSet {
    BarIndex::all()
        .filter(|index| before[index.as_usize()] != after[index.as_usize()])
        .collect()
}
