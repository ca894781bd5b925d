//! The failed image and the reset writes.

use super::{
    super::{
        DescriptorError, FailedRegister, FailedRegisterParts, Recovery, RecoveryError,
        RecoveryList, RecoveryParts, ResetWrite, ResetWriteParts,
    },
    Regions,
};
use crate::{BarIndex, Width};

/// More than any device needs to say that it has failed, or to be reset.
const ENTRIES_MAX: usize = 16;

pub(super) fn validate(
    parts: &RecoveryParts,
    regions: &Regions,
) -> Result<Recovery, DescriptorError> {
    Ok(Recovery {
        failed_image: list(
            RecoveryList::FailedImage,
            &parts.failed_image,
            regions,
            failed,
        )?,
        reset_writes: list(
            RecoveryList::ResetWrites,
            &parts.reset_writes,
            regions,
            reset,
        )?,
    })
}

/// Where an entry is: BAR, first byte, bytes.
#[derive(Clone, Copy)]
struct Place {
    bar: BarIndex,
    offset: u64,
    width: Width,
}

/// All entries, each checked and in order.
fn list<P, T>(
    list: RecoveryList,
    parts: &[P],
    regions: &Regions,
    check: impl Fn(&P, &Regions) -> Result<(Place, T), RecoveryError>,
) -> Result<Vec<T>, DescriptorError> {
    let count = parts.len();
    if count > ENTRIES_MAX {
        let max = ENTRIES_MAX;
        return Err(DescriptorError::TooManyRecovery { list, count, max });
    }
    let mut entries = Vec::with_capacity(count);
    for (position, part) in parts.iter().enumerate() {
        let wrong = |error| DescriptorError::Recovery {
            list,
            position,
            error,
        };
        let (place, entry) = check(part, regions).map_err(wrong)?;
        entries.push((position, place, entry));
    }
    entries.sort_by_key(|(_, place, _)| (place.bar, place.offset));
    for pair in entries.windows(2) {
        let [(other, before, _), (position, after, _)] = pair else {
            continue;
        };
        // Both are aligned to their widths.
        let end = before.offset + before.width.bytes() as u64;
        if before.bar == after.bar && after.offset < end {
            return Err(DescriptorError::Recovery {
                list,
                position: *position,
                error: RecoveryError::Overlaps { other: *other },
            });
        }
    }
    Ok(entries.into_iter().map(|(_, _, entry)| entry).collect())
}

fn failed(
    part: &FailedRegisterParts,
    regions: &Regions,
) -> Result<(Place, FailedRegister), RecoveryError> {
    let place = place(part.bar, part.offset, part.width, regions)?;
    fits("value", part.value, place.width)?;
    let register = FailedRegister {
        bar: place.bar,
        offset: place.offset,
        width: place.width,
        value: part.value,
    };
    Ok((place, register))
}

fn reset(part: &ResetWriteParts, regions: &Regions) -> Result<(Place, ResetWrite), RecoveryError> {
    let place = place(part.bar, part.offset, part.width, regions)?;
    fits("mask", part.mask, place.width)?;
    if part.mask == 0 {
        return Err(RecoveryError::NoMask);
    }
    if part.value & !part.mask != 0 {
        return Err(RecoveryError::Unmasked { value: part.value });
    }
    let write = ResetWrite {
        bar: place.bar,
        offset: place.offset,
        width: place.width,
        mask: part.mask,
        value: part.value,
    };
    Ok((place, write))
}

fn place(bar: u32, offset: u64, width: u32, regions: &Regions) -> Result<Place, RecoveryError> {
    let index = u8::try_from(bar).ok().and_then(BarIndex::new);
    let found = index.and_then(|index| Some((index, regions[index.as_usize()]?)));
    let (bar, region) = found.ok_or(RecoveryError::Bar { bar })?;
    let bytes = usize::try_from(width).ok();
    let width = bytes
        .and_then(Width::from_bytes)
        .ok_or(RecoveryError::Width { width })?;
    let bytes = width.bytes() as u64;
    if !offset.is_multiple_of(bytes) || offset >= region.size || bytes > region.size - offset {
        return Err(RecoveryError::Offset {
            offset,
            width: bytes,
            size: region.size,
        });
    }
    Ok(Place { bar, offset, width })
}

fn fits(field: &'static str, value: u64, width: Width) -> Result<(), RecoveryError> {
    if value & !width.all_ones() == 0 {
        return Ok(());
    }
    let width = width.bytes();
    Err(RecoveryError::Wide {
        field,
        value,
        width,
    })
}
