//! BARs, ROMs and register ranges that are refused.

use super::{error, parts};
use crate::{
    BarError, BarKind, BarParts, Descriptor, DescriptorError as E, RangeConflict, RangeParts,
    WritePolicy,
};

#[test]
fn bar_lists_out_of_order_are_refused() {
    let bar = |index, kind| BarParts {
        index,
        kind,
        size: 16,
        prefetchable: false,
    };
    let bars = |list: Vec<BarParts>| error(|p| p.bars = list);
    let (m32, m64) = (BarKind::Memory32, BarKind::Memory64);
    assert_eq!(
        bars(vec![bar(6, m32)]),
        E::BarIndex {
            position: 0,
            index: 6
        }
    );
    assert_eq!(
        bars(vec![bar(256, m32)]),
        E::BarIndex {
            position: 0,
            index: 256
        }
    );
    assert_eq!(
        bars(vec![bar(1, m32), bar(0, m32)]),
        E::BarOrder {
            position: 1,
            index: 0
        }
    );
    assert_eq!(
        bars(vec![bar(1, m32); 7]),
        E::BarOrder {
            position: 1,
            index: 1
        }
    );
    assert_eq!(
        bars(vec![bar(2, m64), bar(3, m32)]),
        E::BarTaken {
            position: 1,
            index: 3
        }
    );
    assert_eq!(bars(vec![bar(5, m64)]), E::BarHalf { position: 0 });
}

#[test]
fn an_ill_sized_bar_is_named_by_its_position() {
    let error = error(|p| p.bars[2].size = 48);
    let size = BarError::NotPowerOfTwo { size: 48 };
    assert_eq!(
        error,
        E::Bar {
            position: 2,
            error: size
        }
    );
    assert_eq!(error.to_string(), "bars[2].size: 48 is not a power of two");
}

#[test]
fn roms_of_impossible_sizes_are_refused() {
    for length in [1, 1024, 3000, 32 << 20] {
        assert_eq!(error(|p| p.rom = vec![0; length]), E::RomLength { length });
    }
    let mut largest = parts();
    largest.rom = vec![0; 16 << 20];
    assert!(Descriptor::try_from(largest).is_ok());
}

fn ranges_error(change: impl FnOnce(&mut Vec<RangeParts>)) -> E {
    error(|p| {
        let good = RangeParts {
            bar: 0,
            length: 16,
            ..RangeParts::default()
        };
        p.ranges = vec![RangeParts { offset: 64, ..good }, good];
        change(&mut p.ranges);
    })
}

#[test]
fn ranges_outside_of_their_bar_are_refused() {
    for bar in [3, 5, 6, 256] {
        assert_eq!(
            ranges_error(|r| r[1].bar = bar),
            E::RangeBar { position: 1, bar }
        );
    }
    assert_eq!(
        ranges_error(|r| r[1].length = 0),
        E::RangeEmpty { position: 1 }
    );
    for (offset, length) in [(4096, 1), (4095, 2), (1, u64::MAX), (u64::MAX, 1)] {
        let error = ranges_error(|r| (r[0].offset, r[0].length) = (offset, length));
        let expected = E::RangeTooLong {
            position: 0,
            offset,
            length,
            size: 4096,
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn ranges_that_overlap_are_refused() {
    let error = ranges_error(|r| r[1].length = 65);
    let expected = E::RangesOverlap {
        position: 0,
        offset: 64,
        other: 1,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "ranges[0].offset: 0x40 lies in ranges[1] too"
    );
}

#[test]
fn ranges_that_contradict_themselves_are_refused() {
    let non_posted = ranges_error(|r| {
        r[0].combining = true;
        r[0].writes = Some(WritePolicy::NonPosted);
    });
    let conflict = RangeConflict::CombiningNonPosted;
    assert_eq!(
        non_posted,
        E::RangeConflict {
            position: 0,
            conflict
        }
    );
    let ports = ranges_error(|r| {
        r[1].bar = 1;
        r[1].combining = true;
    });
    assert_eq!(
        ports,
        E::RangeConflict {
            position: 1,
            conflict
        }
    );
    let doorbell = ranges_error(|r| {
        r[0].constant = true;
        r[0].doorbell = true;
    });
    let conflict = RangeConflict::ConstantDoorbell;
    assert_eq!(
        doorbell,
        E::RangeConflict {
            position: 0,
            conflict
        }
    );
}

#[test]
fn more_ranges_than_the_limit_are_refused() {
    let range = RangeParts {
        length: 1,
        ..RangeParts::default()
    };
    let error = error(|p| p.ranges = vec![range; 1025]);
    assert_eq!(
        error,
        E::TooManyRanges {
            count: 1025,
            max: 1024
        }
    );
}
