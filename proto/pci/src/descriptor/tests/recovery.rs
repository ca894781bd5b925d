//! What a failed function shows, what resets it, and in what two descriptors differ.

use super::{error, parts};
use crate::{
    BarIndex, Descriptor, DescriptorError, DescriptorParts, FailedRegisterParts, RecoveryError,
    RecoveryList, ResetWriteParts, Space,
};

const B0: Space = Space::Bar(BarIndex::B0);

const FAILED: FailedRegisterParts = FailedRegisterParts {
    bar: 0,
    offset: 0x1c,
    width: 4,
    value: 0x0000_0302,
};
const RESET: ResetWriteParts = ResetWriteParts {
    bar: 0,
    offset: 0x14,
    width: 4,
    mask: 0x0000_0101,
    value: 0x0000_0100,
};

fn with(change: impl FnOnce(&mut DescriptorParts)) -> Descriptor {
    let mut parts = parts();
    change(&mut parts);
    Descriptor::try_from(parts).unwrap()
}

fn wrong_image(change: impl Fn(&mut FailedRegisterParts)) -> RecoveryError {
    let found = error(|parts| {
        let mut wrong = FAILED;
        change(&mut wrong);
        parts.recovery.failed_image = vec![
            FailedRegisterParts {
                offset: 0,
                ..FAILED
            },
            wrong,
        ];
    });
    let DescriptorError::Recovery {
        list: RecoveryList::FailedImage,
        position: 1,
        error,
    } = found
    else {
        panic!("{found}");
    };
    error
}

fn wrong_reset(change: impl Fn(&mut ResetWriteParts)) -> RecoveryError {
    let found = error(|parts| {
        let mut wrong = RESET;
        change(&mut wrong);
        parts.recovery.reset_writes = vec![wrong];
    });
    let DescriptorError::Recovery { error, .. } = found else {
        panic!("{found}");
    };
    error
}

#[test]
fn a_failed_function_gives_its_image_and_all_ones_around() {
    let descriptor = with(|parts| parts.recovery.failed_image = vec![FAILED]);
    let read = |space, offset, length| {
        let mut out = vec![0; length];
        descriptor.read_failed(space, offset, &mut out);
        out
    };

    assert_eq!(read(B0, 0x1c, 4), [2, 3, 0, 0]);
    assert_eq!(read(B0, 0x1d, 1), [3]);
    assert_eq!(read(B0, 0x18, 8), [0xff, 0xff, 0xff, 0xff, 2, 3, 0, 0]);
    assert_eq!(read(B0, 0x1e, 4), [0, 0, 0xff, 0xff]);
    assert_eq!(read(B0, 0x20, 4), [0xff; 4]);
    assert_eq!(read(Space::Bar(BarIndex::B1), 0xc, 4), [0xff; 4]);
    assert_eq!(read(Space::Config, 0x1c, 4), [0xff; 4]);
}

#[test]
fn a_reset_write_has_all_bits_that_count_and_as_they_are_asked_for() {
    let descriptor = with(|parts| parts.recovery.reset_writes = vec![RESET]);

    for (offset, data, resets) in [
        (0x14, &[0x00, 0x01, 0, 0][..], true),
        (0x14, &[0xfe, 0xff, 0xff, 0xff], true),
        (0x14, &[0x00, 0x01], true),
        (0x10, &[0, 0, 0, 0, 0x10, 0x11, 0, 0], true),
        (0x14, &[0x01, 0x01, 0, 0], false),
        (0x14, &[0x00, 0x00, 0, 0], false),
        (0x14, &[0x00], false),
        (0x15, &[0x01], false),
        (0x18, &[0x00, 0x01, 0, 0], false),
    ] {
        assert_eq!(
            descriptor.resets(B0, offset, data),
            resets,
            "{offset:#x} {data:x?}"
        );
    }
    assert!(!descriptor.resets(Space::Bar(BarIndex::B2), 0x14, &[0, 1, 0, 0]));
    assert!(!descriptor.resets(Space::Config, 0x14, &[0, 1, 0, 0]));
}

#[test]
fn registers_that_cannot_be_are_refused_by_their_field() {
    let outside = |error| matches!(error, RecoveryError::Offset { .. });
    for bar in [3, 6, 256] {
        assert_eq!(wrong_image(|r| r.bar = bar), RecoveryError::Bar { bar });
    }
    for width in [0, 3, 16, u32::MAX] {
        assert_eq!(
            wrong_image(|r| r.width = width),
            RecoveryError::Width { width }
        );
    }
    for offset in [0x1d, 4096, u64::MAX, u64::MAX - 3] {
        assert!(outside(wrong_image(|r| r.offset = offset)), "{offset:#x}");
    }
    assert!(outside(wrong_image(
        |r| (r.bar, r.offset, r.width) = (1, 16, 1)
    )));
    let wide = wrong_image(|r| r.width = 1);
    assert_eq!(wide.to_string(), "value: 0x302 does not fit into 1 bytes");
    assert_eq!(
        wrong_image(|r| (r.offset, r.width) = (0, 2)),
        RecoveryError::Overlaps { other: 0 }
    );
    assert_eq!(
        wrong_reset(|r| (r.mask, r.value) = (0, 0)),
        RecoveryError::NoMask
    );
    assert_eq!(
        wrong_reset(|r| r.value = 0x200),
        RecoveryError::Unmasked { value: 0x200 }
    );
    assert_eq!(
        wrong_reset(|r| r.mask = 1 << 32).to_string(),
        "mask: 0x100000000 does not fit into 4 bytes"
    );
}

#[test]
fn each_list_has_a_bound() {
    let many = |count: u64| {
        (0..count).map(|n| FailedRegisterParts {
            offset: n * 4,
            ..FAILED
        })
    };

    with(|parts| parts.recovery.failed_image = many(16).collect());
    let found = error(|parts| parts.recovery.failed_image = many(17).collect());

    let text = "recovery.failed_image: 17 of them, at most 16 are allowed";
    assert_eq!(found.to_string(), text);
}

#[test]
fn the_order_of_a_list_says_nothing() {
    let other = ResetWriteParts { offset: 0, ..RESET };

    let one = with(|parts| parts.recovery.reset_writes = vec![RESET, other]);
    let two = with(|parts| parts.recovery.reset_writes = vec![other, RESET]);

    assert_eq!(one, two);
    assert_eq!(one.difference(&two), None);
    assert_eq!(Descriptor::try_from(one.to_parts()), Ok(two));
}

#[test]
fn a_difference_names_the_first_field_and_what_stands_there() {
    let before = with(|_| {});
    type Change = fn(&mut DescriptorParts);
    let changes: [(&str, Change); 5] = [
        ("config_image at 0x8: was 0x00, is 0x07", |parts| {
            parts.config_image[8] = 7
        }),
        ("rom: was 4096 bytes, is 0 bytes", |parts| parts.rom.clear()),
        ("bars: was ", |parts| parts.bars[0].size = 8192),
        ("ranges: was ", |parts| parts.ranges.truncate(1)),
        ("recovery: was ", |parts| {
            parts.recovery.failed_image.push(FAILED)
        }),
    ];
    for (text, change) in changes {
        let after = with(change);
        let found = before.difference(&after).unwrap().to_string();
        assert!(found.starts_with(text), "{found}");
    }
}
