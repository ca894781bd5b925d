//! Lays out configuration space.

use super::{BuildError, DescriptorBuilder, Edit};
use crate::{
    Bar, BarIndex, BarParts, Capability, Class, DescriptorParts, ExtendedCapability,
    InterruptParts, Mask, RangeParts,
    capability::{Block, MsiView, MsixView, id, or_into},
    registers::{
        BAR0, CACHE_LINE_SIZE, CAPABILITIES_POINTER, CLASS_CODE, COMMAND, COMMAND_BUS_MASTER,
        COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, COMMAND_PARITY, COMMAND_SERR,
        CONFIG_SIZE, DEVICE_ID, EXTENDED_CONFIG_SIZE, HEADER_END, INTERRUPT_LINE, INTERRUPT_PIN,
        LATENCY_TIMER, REVISION_ID, STATUS, STATUS_CAPABILITIES, STATUS_WRITE_ONE_TO_CLEAR,
        SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VENDOR_ID,
    },
};

pub(super) fn lay_out(mut builder: DescriptorBuilder) -> Result<DescriptorParts, BuildError> {
    builder.bars.sort_by_key(|&(index, _)| index);
    check_bars(&builder.bars)?;
    let mut layout = Layout::new(builder.extended_config);
    layout.header(&builder);
    layout.capabilities(&builder.capabilities)?;
    layout.extended_capabilities(&builder.extended)?;
    layout.edits(&builder.edits)?;
    let block = layout.block;
    Ok(DescriptorParts {
        config_image: block.bytes,
        config_writable: block.writable,
        config_write_one_to_clear: block.write_one_to_clear,
        config_volatile: block.volatile,
        config_forwarded: block.forwarded,
        config_writes: builder.config_writes,
        bars: builder
            .bars
            .iter()
            .map(|(index, bar)| BarParts::from((*index, bar)))
            .collect(),
        rom: builder.rom,
        ranges: builder.ranges.iter().map(RangeParts::from).collect(),
        interrupts: interrupts(builder.intx_pin, &builder.capabilities),
        platform: None,
        recovery: builder.recovery,
    })
}

/// `bars` is sorted by index.
fn check_bars(bars: &[(BarIndex, Bar)]) -> Result<(), BuildError> {
    for &(index, bar) in bars {
        bar.validate()
            .map_err(|error| BuildError::Bar { index, error })?;
        if bar.is_64_bit() && index.next().is_none() {
            return Err(BuildError::BarHalf { index });
        }
    }
    for pair in bars.windows(2) {
        let [(by, before), (index, _)] = *pair else {
            continue;
        };
        if by == index || before.is_64_bit() && by.next() == Some(index) {
            return Err(BuildError::BarTaken { index, by });
        }
    }
    Ok(())
}

fn interrupts(intx_pin: u8, capabilities: &[(Option<u8>, Capability)]) -> InterruptParts {
    let find = |id| {
        let mut bytes = capabilities
            .iter()
            .map(|(_, capability)| capability.bytes());
        bytes.find(|bytes| bytes[0] == id)
    };
    let msi = find(id::MSI).and_then(|bytes| MsiView::at(bytes, 0).vectors());
    let msix = find(id::MSIX).map(|bytes| MsixView::at(bytes, 0).vectors());
    InterruptParts {
        intx_pin: intx_pin.into(),
        msi_vectors: msi.unwrap_or(0).into(),
        msix_vectors: msix.unwrap_or(0).into(),
    }
}

/// Configuration space in the making.
struct Layout {
    block: Block,
}

impl Layout {
    fn new(extended: bool) -> Self {
        let size = if extended {
            EXTENDED_CONFIG_SIZE
        } else {
            CONFIG_SIZE
        };
        Self {
            block: Block::read_only(vec![0; size]),
        }
    }

    fn header(&mut self, builder: &DescriptorBuilder) {
        let Class {
            base,
            sub,
            interface,
        } = builder.class;
        let (subsystem_vendor, subsystem) = builder.subsystem;
        self.put(VENDOR_ID, &builder.vendor_id.to_le_bytes());
        self.put(DEVICE_ID, &builder.device_id.to_le_bytes());
        self.put(REVISION_ID, &[builder.revision]);
        self.put(CLASS_CODE, &[interface, sub, base]);
        self.put(SUBSYSTEM_VENDOR_ID, &subsystem_vendor.to_le_bytes());
        self.put(SUBSYSTEM_ID, &subsystem.to_le_bytes());
        self.put(INTERRUPT_PIN, &[builder.intx_pin]);
        for (index, bar) in &builder.bars {
            self.put(BAR0 + 4 * index.as_usize(), &bar.type_bits().to_le_bytes());
        }
        self.header_masks(builder);
    }

    fn header_masks(&mut self, builder: &DescriptorBuilder) {
        let writable = &mut self.block.writable;
        or_into(writable, COMMAND, &command_mask(builder).to_le_bytes());
        or_into(writable, CACHE_LINE_SIZE, &[0xff]);
        or_into(writable, LATENCY_TIMER, &[0xff]);
        or_into(writable, INTERRUPT_LINE, &[0xff]);
        or_into(
            &mut self.block.write_one_to_clear,
            STATUS,
            &STATUS_WRITE_ONE_TO_CLEAR.to_le_bytes(),
        );
    }

    fn capabilities(
        &mut self,
        capabilities: &[(Option<u8>, Capability)],
    ) -> Result<(), BuildError> {
        let mut taken = Taken::default();
        for (offset, capability) in capabilities {
            if let Some(offset) = *offset {
                taken.claim(offset, capability)?;
            }
        }
        let mut pointer = CAPABILITIES_POINTER;
        for (offset, capability) in capabilities {
            let offset = match *offset {
                Some(offset) => offset,
                None => taken.place(capability)?,
            };
            self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
            self.insert(offset.into(), &capability.block);
            self.put(pointer, &[offset]);
            pointer = usize::from(offset) + 1;
        }
        Ok(())
    }

    /// One behind the other, each on a multiple of 4. The first one's place, 0x100, is fixed.
    fn extended_capabilities(
        &mut self,
        capabilities: &[ExtendedCapability],
    ) -> Result<(), BuildError> {
        let mut offset = CONFIG_SIZE;
        let mut previous = None;
        for capability in capabilities {
            let length = capability.bytes().len();
            if length > EXTENDED_CONFIG_SIZE - offset {
                return Err(BuildError::ExtendedNoRoom {
                    id: capability.id(),
                    length,
                });
            }
            self.insert(offset, &capability.block);
            if let Some(previous) = previous {
                self.link_extended(previous, offset);
            }
            previous = Some(offset);
            offset += length.next_multiple_of(4);
        }
        Ok(())
    }

    /// The pointer has the upper 12 bits of the header; its lowest two are 0, so the version beside it stays.
    fn link_extended(&mut self, from: usize, to: usize) {
        let [low, high, ..] = (to << 4).to_le_bytes();
        or_into(&mut self.block.bytes, from + 2, &[low, high]);
    }

    fn edits(&mut self, edits: &[Edit]) -> Result<(), BuildError> {
        for edit in edits {
            let (offset, length) = (usize::from(edit.offset), edit.bytes.len());
            let size = self.block.bytes.len();
            if length > size.saturating_sub(offset) {
                return Err(BuildError::BeyondConfig {
                    offset: edit.offset,
                    length,
                    size,
                });
            }
            match edit.mask {
                None => self.put(offset, &edit.bytes),
                Some(mask) => or_into(self.mask(mask), offset, &edit.bytes),
            }
        }
        Ok(())
    }

    fn mask(&mut self, mask: Mask) -> &mut [u8] {
        match mask {
            Mask::Writable => &mut self.block.writable,
            Mask::WriteOneToClear => &mut self.block.write_one_to_clear,
            Mask::Volatile => &mut self.block.volatile,
            Mask::Forwarded => &mut self.block.forwarded,
        }
    }

    fn insert(&mut self, offset: usize, block: &Block) {
        self.put(offset, &block.bytes);
        or_into(&mut self.block.writable, offset, &block.writable);
        or_into(
            &mut self.block.write_one_to_clear,
            offset,
            &block.write_one_to_clear,
        );
        or_into(&mut self.block.volatile, offset, &block.volatile);
        or_into(&mut self.block.forwarded, offset, &block.forwarded);
    }

    /// The caller has checked that the bytes fit.
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.block.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// What of the command register the guest may change: the decode bits only where there is something to decode.
fn command_mask(builder: &DescriptorBuilder) -> u16 {
    let has_io = builder.bars.iter().any(|(_, bar)| !bar.kind.is_memory());
    let has_memory = builder.bars.iter().any(|(_, bar)| bar.kind.is_memory());
    let mut mask = COMMAND_BUS_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_DISABLE;
    if has_io {
        mask |= COMMAND_IO;
    }
    if has_memory || !builder.rom.is_empty() {
        mask |= COMMAND_MEMORY;
    }
    mask
}

/// Dwords of conventional configuration space that capabilities have taken.
struct Taken {
    dwords: [bool; CONFIG_SIZE / 4],
}

impl Default for Taken {
    fn default() -> Self {
        let mut dwords = [false; CONFIG_SIZE / 4];
        dwords[..HEADER_END / 4].fill(true);
        Self { dwords }
    }
}

impl Taken {
    fn claim(&mut self, offset: u8, capability: &Capability) -> Result<(), BuildError> {
        let (id, length) = (capability.id(), capability.bytes().len());
        if !offset.is_multiple_of(4) || usize::from(offset) < HEADER_END {
            return Err(BuildError::CapabilityOffset { id, offset });
        }
        if self.try_take(usize::from(offset) / 4, length) {
            Ok(())
        } else {
            Err(BuildError::CapabilityOverlaps { id, offset, length })
        }
    }

    /// The first gap that is large enough.
    fn place(&mut self, capability: &Capability) -> Result<u8, BuildError> {
        let (id, length) = (capability.id(), capability.bytes().len());
        (0..=u8::MAX)
            .step_by(4)
            .find(|&offset| self.try_take(usize::from(offset) / 4, length))
            .ok_or(BuildError::CapabilityNoRoom { id, length })
    }

    fn try_take(&mut self, first: usize, length: usize) -> bool {
        let wanted = first..first + length.div_ceil(4);
        match self.dwords.get_mut(wanted) {
            Some(dwords) if dwords.iter().all(|taken| !taken) => {
                dwords.fill(true);
                true
            }
            _ => false,
        }
    }
}
