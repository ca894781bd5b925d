#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn at(offset: u64, width: Width) -> Register {
    Register::new(Space::Bar(BarIndex::new(0).unwrap()), offset, width)
}

fn map() -> RegisterMap<char> {
    RegisterMap::bar(BarIndex::B0, 0x100)
        .add('w', Entry::window("window", 0x40, 0x20, Widths::ALL))
        .add('i', Entry::register("id", 0x00, Widths::FOUR).read_only())
        .add('a', Entry::register("ack", 0x04, Widths::FOUR).write_only())
        .add(
            'd',
            Entry::register("dma", 0x08, Widths::FOUR | Widths::EIGHT),
        )
        .build()
        .unwrap()
}

#[test]
fn register_is_found_at_its_offset_and_width() {
    let map = map();

    assert_eq!(
        map.readable(at(0, Width::B4)),
        Ok(Hit {
            key: 'i',
            within: 0
        })
    );
    assert_eq!(
        map.writable(at(8, Width::B8)),
        Ok(Hit {
            key: 'd',
            within: 0
        })
    );
}

#[test]
fn window_is_found_at_multiples_of_the_width() {
    let map = map();

    assert_eq!(
        map.readable(at(0x5e, Width::B2)),
        Ok(Hit {
            key: 'w',
            within: 0x1e
        })
    );
    let crooked = at(0x41, Width::B2);
    assert_eq!(map.readable(crooked), Err(AccessError::Width(crooked)));
}

#[test]
fn wrong_width_is_refused() {
    let narrow = at(0, Width::B2);

    assert_eq!(map().readable(narrow), Err(AccessError::Width(narrow)));
}

#[test]
fn middle_of_a_register_is_no_register() {
    let middle = at(0x0c, Width::B4);

    assert_eq!(map().readable(middle), Err(AccessError::NoRegister(middle)));
}

#[test]
fn gap_and_end_are_no_register() {
    for offset in [0x10, 0x3f, 0x60, 0xff, u64::MAX] {
        let at = at(offset, Width::B1);
        assert_eq!(map().readable(at), Err(AccessError::NoRegister(at)));
    }
}

#[test]
fn other_spaces_have_no_registers_of_this_map() {
    for space in [Space::Bar(BarIndex::B1), Space::Rom, Space::Config] {
        let at = Register::new(space, 0, Width::B4);
        assert_eq!(map().readable(at), Err(AccessError::NoRegister(at)));
    }
}

#[test]
fn direction_is_checked() {
    let (id, ack) = (at(0, Width::B4), at(4, Width::B4));

    assert_eq!(map().writable(id), Err(AccessError::Direction(id)));
    assert_eq!(map().readable(ack), Err(AccessError::Direction(ack)));
}

#[test]
fn overlap_is_refused_with_both_names() {
    let error = RegisterMap::bar(BarIndex::B0, 0x100)
        .add((), Entry::register("late", 0x0c, Widths::FOUR))
        .add((), Entry::register("early", 0x08, Widths::EIGHT))
        .build()
        .unwrap_err();

    assert_eq!(
        error,
        RegisterMapError::Overlap {
            first: "early",
            second: "late",
            offset: 0x0c
        }
    );
}

#[test]
fn register_beyond_the_space_is_refused() {
    for offset in [0xfd, 0x100, u64::MAX - 1] {
        let error = RegisterMap::bar(BarIndex::B0, 0x100)
            .add((), Entry::register("far", offset, Widths::FOUR))
            .build()
            .unwrap_err();
        assert!(matches!(
            error,
            RegisterMapError::BeyondSpace { name: "far", .. }
        ));
    }
}

#[test]
fn empty_window_is_refused() {
    let error = RegisterMap::bar(BarIndex::B0, 0x100)
        .add((), Entry::window("none", 0, 0, Widths::ALL))
        .build()
        .unwrap_err();

    assert_eq!(error, RegisterMapError::Empty { name: "none" });
}

proptest! {
    #[test]
    fn accepted_maps_give_each_byte_to_one_window_at_most(
        windows in proptest::collection::vec((0u64..64, 1u64..16), 0..6),
        offset in 0u64..96,
    ) {
        let mut builder = RegisterMap::bar(BarIndex::B0, 64);
        for (n, &(start, length)) in windows.iter().enumerate() {
            builder = builder.add(n, Entry::window("w", start, length, Widths::ALL));
        }
        let holders: Vec<usize> = windows
            .iter()
            .enumerate()
            .filter(|(_, (start, length))| (*start..start + length).contains(&offset))
            .map(|(n, _)| n)
            .collect();

        if let Ok(map) = builder.build() {
            let hit = map.readable(at(offset, Width::B1)).ok().map(|hit| hit.key);
            prop_assert_eq!(hit, holders.first().copied());
            prop_assert!(holders.len() <= 1);
        }
    }
}
