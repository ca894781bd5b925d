//! What goes through the one door.

use proptest::prelude::*;

use super::{bytes_of, parts};
use crate::{Descriptor, Mask, RangeParts};

#[test]
fn parts_survive_the_way_through_a_descriptor() {
    let parts = parts();
    let descriptor = Descriptor::try_from(parts.clone()).unwrap();
    assert_eq!(descriptor.to_parts(), parts);
    assert_eq!(descriptor.writable().len(), 4096);
    assert_eq!(descriptor.write_one_to_clear().len(), 4096);
}

#[test]
fn an_empty_mask_is_a_mask_of_zeros() {
    let mut parts = parts();
    parts.config_volatile = Vec::new();
    let empty = Descriptor::try_from(parts.clone()).unwrap();
    parts.config_volatile = vec![0; 4096];
    let zeros = Descriptor::try_from(parts).unwrap();
    assert_eq!(empty, zeros);
    assert_eq!(empty.volatile(), [0; 4096]);
    assert_eq!(zeros.to_parts().config_volatile, Vec::<u8>::new());
}

#[test]
fn debug_does_not_print_images() {
    let descriptor = Descriptor::try_from(parts()).unwrap();
    let text = format!("{descriptor:?}");
    assert!(text.contains("0x1234") && text.len() < 4096, "{text}");
}

fn any_mask() -> impl Strategy<Value = Mask> {
    prop::sample::select(vec![
        Mask::Writable,
        Mask::WriteOneToClear,
        Mask::Volatile,
        Mask::Forwarded,
    ])
}

proptest! {
    /// Whatever a peer sends: an error, or a descriptor that says the same again.
    #[test]
    fn broken_parts_never_panic(
        image in prop::collection::vec((0_usize..4096, any::<u8>()), 0..6),
        masks in prop::collection::vec((any_mask(), 0_usize..4096, any::<u8>()), 0..3),
        bars in prop::collection::vec((0_usize..4, 0_u32..8, any::<u64>()), 0..2),
        range in (any::<u32>(), any::<u64>(), any::<u64>()),
        add_range in any::<bool>(),
    ) {
        let mut parts = parts();
        for (offset, byte) in image {
            parts.config_image[offset] = byte;
        }
        for (mask, offset, byte) in masks {
            bytes_of(&mut parts, mask)[offset] = byte;
        }
        for (position, index, size) in bars {
            parts.bars[position].index = index;
            parts.bars[position].size = size;
        }
        if add_range {
            let (bar, offset, length) = range;
            parts.ranges.push(RangeParts { bar: bar % 8, offset, length, ..RangeParts::default() });
        }
        if let Ok(descriptor) = Descriptor::try_from(parts) {
            let again = Descriptor::try_from(descriptor.to_parts()).unwrap();
            prop_assert_eq!(&again, &descriptor);
            let mut config = crate::ConfigSpace::new(&descriptor);
            let _ = config.write(0, &[0xff; 4096]);
            let _ = config.read(0, &mut [0; 5000]);
        }
    }
}
