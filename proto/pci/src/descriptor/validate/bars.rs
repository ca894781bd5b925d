//! The list of BARs.

use super::super::{BarParts, DescriptorError};
use crate::{Bar, BarIndex};

/// BARs by index.
pub(super) type Bars = [Option<Bar>; BarIndex::COUNT];

pub(super) fn validate(parts: &[BarParts]) -> Result<Bars, DescriptorError> {
    let mut bars = Bars::default();
    let mut previous: Option<(BarIndex, Bar)> = None;
    // Indices grow strictly and end at 5, so this takes at most seven steps however long the list is.
    for (position, part) in parts.iter().enumerate() {
        let index = index(position, part.index)?;
        if let Some(previous) = previous {
            validate_order(position, previous, index)?;
        }
        let bar = bar(position, part, index)?;
        bars[index.as_usize()] = Some(bar);
        previous = Some((index, bar));
    }
    Ok(bars)
}

fn index(position: usize, index: u32) -> Result<BarIndex, DescriptorError> {
    u8::try_from(index)
        .ok()
        .and_then(BarIndex::new)
        .ok_or(DescriptorError::BarIndex { position, index })
}

fn validate_order(
    position: usize,
    (before, bar): (BarIndex, Bar),
    current: BarIndex,
) -> Result<(), DescriptorError> {
    let index = current.get();
    if current <= before {
        return Err(DescriptorError::BarOrder { position, index });
    }
    if bar.is_64_bit() && before.next() == Some(current) {
        return Err(DescriptorError::BarTaken { position, index });
    }
    Ok(())
}

fn bar(position: usize, part: &BarParts, index: BarIndex) -> Result<Bar, DescriptorError> {
    let bar = Bar {
        kind: part.kind,
        size: part.size,
        prefetchable: part.prefetchable,
    };
    bar.validate()
        .map_err(|error| DescriptorError::Bar { position, error })?;
    if bar.is_64_bit() && index.next().is_none() {
        return Err(DescriptorError::BarHalf { position });
    }
    Ok(bar)
}
