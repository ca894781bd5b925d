//! The list of register ranges.

use super::{
    super::{
        DescriptorError, RangeConflict, RangeParts, Region, RegisterRange, WritePolicy,
        policy::Ranges,
    },
    Regions,
};
use crate::BarIndex;

/// More than any device needs: a range covers registers that are treated alike, however many.
const RANGES_MAX: usize = 1024;

pub(super) fn validate(parts: &[RangeParts], regions: &Regions) -> Result<Ranges, DescriptorError> {
    let count = parts.len();
    if count > RANGES_MAX {
        return Err(DescriptorError::TooManyRanges {
            count,
            max: RANGES_MAX,
        });
    }
    let mut ranges = Vec::with_capacity(count);
    for (position, part) in parts.iter().enumerate() {
        ranges.push((position, range(position, part, regions)?));
    }
    ranges.sort_by_key(|(_, range)| (range.bar, range.offset));
    validate_disjoint(&ranges)?;
    let sorted = ranges.into_iter().map(|(_, range)| range).collect();
    Ok(Ranges::from_sorted(sorted))
}

fn range(
    position: usize,
    part: &RangeParts,
    regions: &Regions,
) -> Result<RegisterRange, DescriptorError> {
    let (index, region) = region(part.bar, regions).ok_or(DescriptorError::RangeBar {
        position,
        bar: part.bar,
    })?;
    let range = RegisterRange {
        bar: index,
        offset: part.offset,
        length: part.length,
        writes: part.writes,
        combining: part.combining,
        doorbell: part.doorbell,
        constant: part.constant,
    };
    validate_extent(position, &range, region.size)?;
    match conflict(&range, region) {
        Some(conflict) => Err(DescriptorError::RangeConflict { position, conflict }),
        None => Ok(range),
    }
}

fn region(index: u32, regions: &Regions) -> Option<(BarIndex, Region)> {
    let index = BarIndex::new(u8::try_from(index).ok()?)?;
    Some((index, regions[index.as_usize()]?))
}

fn validate_extent(
    position: usize,
    range: &RegisterRange,
    size: u64,
) -> Result<(), DescriptorError> {
    let &RegisterRange { offset, length, .. } = range;
    if length == 0 {
        return Err(DescriptorError::RangeEmpty { position });
    }
    if offset >= size || length > size - offset {
        return Err(DescriptorError::RangeTooLong {
            position,
            offset,
            length,
            size,
        });
    }
    Ok(())
}

fn conflict(range: &RegisterRange, region: Region) -> Option<RangeConflict> {
    let posted = match range.writes {
        Some(policy) => policy == WritePolicy::Posted,
        None => region.memory,
    };
    if range.combining && !posted {
        Some(RangeConflict::CombiningNonPosted)
    } else if range.constant && range.doorbell {
        Some(RangeConflict::ConstantDoorbell)
    } else {
        None
    }
}

/// `ranges` is sorted by BAR and offset.
fn validate_disjoint(ranges: &[(usize, RegisterRange)]) -> Result<(), DescriptorError> {
    for pair in ranges.windows(2) {
        let [(other, before), (position, after)] = pair else {
            continue;
        };
        if before.bar == after.bar && before.contains(after.offset, 1) {
            return Err(DescriptorError::RangesOverlap {
                position: *position,
                offset: after.offset,
                other: *other,
            });
        }
    }
    Ok(())
}
