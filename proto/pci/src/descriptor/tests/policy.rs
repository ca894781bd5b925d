//! Which range an access falls into.

use proptest::prelude::*;

use super::parts;
use crate::{
    Bar, BarIndex, Descriptor, DescriptorBuilder, RegisterRange, Space, WritePolicy,
    WritePolicy::{NonPosted, Posted},
};

const B0: Space = Space::Bar(BarIndex::B0);
const B1: Space = Space::Bar(BarIndex::B1);
const B2: Space = Space::Bar(BarIndex::B2);

fn descriptor() -> Descriptor {
    Descriptor::try_from(parts()).unwrap()
}

#[test]
fn without_a_range_the_kind_of_space_decides() {
    let descriptor = descriptor();
    assert_eq!(descriptor.write_policy(B0, 0, 1), Posted);
    assert_eq!(descriptor.write_policy(B1, 0, 1), NonPosted);
    assert_eq!(
        descriptor.write_policy(Space::Bar(BarIndex::B4), 0, 1),
        Posted
    );
    assert_eq!(descriptor.write_policy(Space::Config, 0x100, 1), NonPosted);
    assert_eq!(descriptor.write_policy(Space::Rom, 0, 1), Posted);
}

#[test]
fn a_device_may_have_its_configuration_writes_posted() {
    let descriptor = DescriptorBuilder::new(1, 2)
        .forwarded(0x04, &[0x04])
        .config_writes(Posted)
        .build()
        .unwrap();
    assert_eq!(descriptor.write_policy(Space::Config, 4, 1), Posted);
    assert_eq!(Descriptor::try_from(descriptor.to_parts()), Ok(descriptor));
}

#[test]
fn a_range_overrides_exactly_its_bytes() {
    let descriptor = descriptor();
    for (offset, policy) in [
        (0x2ff, Posted),
        (0x300, NonPosted),
        (0x30f, NonPosted),
        (0x310, Posted),
    ] {
        assert_eq!(
            descriptor.write_policy(B0, offset, 1),
            policy,
            "{offset:#x}"
        );
    }
    assert_eq!(descriptor.write_policy(B1, 8, 1), Posted);
    assert_eq!(descriptor.write_policy(B1, 7, 1), NonPosted);
}

#[test]
fn a_range_without_a_policy_leaves_the_default() {
    assert_eq!(descriptor().write_policy(B0, 0x100, 1), Posted);
}

#[test]
fn an_access_across_ranges_takes_the_stricter_policy_and_any_doorbell() {
    let descriptor = descriptor();
    assert_eq!(descriptor.write_policy(B0, 0x2fc, 4), Posted);
    assert_eq!(descriptor.write_policy(B0, 0x2fc, 8), NonPosted);
    assert_eq!(descriptor.write_policy(B0, 0x30c, 8), NonPosted);
    assert_eq!(descriptor.write_policy(B0, 0, u64::MAX), NonPosted);
    assert_eq!(
        descriptor.write_policy(B1, 8, 16),
        NonPosted,
        "past its range"
    );
    assert!(descriptor.is_doorbell(B0, 0xfc, 8));
    assert!(!descriptor.is_doorbell(B0, 0xfc, 4));
}

#[test]
fn doorbells_are_told_by_their_bytes() {
    let descriptor = descriptor();
    assert!(descriptor.is_doorbell(B0, 0x100, 1) && descriptor.is_doorbell(B0, 0x10f, 1));
    assert!(!descriptor.is_doorbell(B0, 0xff, 1) && !descriptor.is_doorbell(B0, 0x110, 1));
    assert!(!descriptor.is_doorbell(B2, 0x100, 1));
    assert!(!descriptor.is_doorbell(Space::Config, 0x100, 1));
}

#[test]
fn combining_and_constant_need_the_whole_access() {
    let descriptor = descriptor();
    assert!(descriptor.is_combining(B0, 0x200, 0x100));
    assert!(!descriptor.is_combining(B0, 0x2fc, 8));
    assert!(!descriptor.is_combining(B0, 0x100, 4));
    assert!(descriptor.is_constant(B2, 0x1000, 8));
    assert!(!descriptor.is_constant(B2, 0x1004, 8));
    assert!(!descriptor.is_constant(B2, 0x1000, u64::MAX));
    assert!(descriptor.is_constant(Space::Rom, 0, 4));
    assert!(!descriptor.is_constant(Space::Config, 0x1000, 4));
}

#[test]
fn offsets_past_the_bar_have_no_range() {
    let descriptor = descriptor();
    assert_eq!(descriptor.range_at(BarIndex::B0, u64::MAX), None);
    assert_eq!(descriptor.range_at(BarIndex::B5, 0), None);
}

proptest! {
    #[test]
    fn the_range_found_is_the_one_a_search_through_all_finds(
        gaps in prop::collection::vec((0_u64..20, 1_u64..20, any::<bool>()), 0..30),
        offset in 0_u64..1200,
    ) {
        let mut next = [0; 2];
        let mut ranges = Vec::new();
        for (gap, length, second) in gaps {
            let start = next[usize::from(second)] + gap;
            let bar = if second { BarIndex::B3 } else { BarIndex::B0 };
            ranges.push(RegisterRange::new(bar, start, length).writes(WritePolicy::NonPosted));
            next[usize::from(second)] = start + length;
        }
        let mut builder = DescriptorBuilder::new(1, 1)
            .bar(BarIndex::B0, Bar::memory32(2048))
            .bar(BarIndex::B3, Bar::memory32(2048));
        for range in &ranges {
            builder = builder.range(*range);
        }
        let descriptor = builder.build().unwrap();
        for bar in [BarIndex::B0, BarIndex::B3] {
            let expected = ranges.iter().find(|range| {
                range.bar == bar && (range.offset..range.offset + range.length).contains(&offset)
            });
            prop_assert_eq!(descriptor.range_at(bar, offset), expected);
        }
    }
}
