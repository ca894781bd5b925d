#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{Bar, Capability, DescriptorBuilder};

/// The table at 0x1000 of BAR 2, the pending bits at 8 of BAR 4.
fn table(vectors: u16) -> MsixTable {
    let msix = Capability::msix(vectors, (BarIndex::B2, 0x1000), (BarIndex::B4, 8)).unwrap();
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B2, Bar::memory64(1 << 20))
        .bar(BarIndex::B4, Bar::memory32(4096))
        .capability(msix)
        .build()
        .unwrap();
    MsixTable::new(&descriptor).unwrap()
}

fn set(table: &mut MsixTable, vector: usize, dword: usize, value: u32) {
    let place = MsixPlace::Table(vector * 16 + dword * 4);
    table.write(place, &value.to_le_bytes());
}

fn get(table: &MsixTable, vector: usize, dword: usize) -> u32 {
    let mut bytes = [0; 4];
    table.read(MsixPlace::Table(vector * 16 + dword * 4), &mut bytes);
    u32::from_le_bytes(bytes)
}

fn pending(table: &MsixTable, word: usize) -> u64 {
    let mut bytes = [0; 8];
    table.read(MsixPlace::Pending(word * 8), &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Unmasks a vector and gives it a message of its own.
fn arm(table: &mut MsixTable, vector: usize) -> Message {
    let data = u32::try_from(vector).unwrap() + 0x40;
    for (dword, value) in [0xfee0_1000, 0x12, data, 0].into_iter().enumerate() {
        set(table, vector, dword, value);
    }
    Message {
        address: 0x12_fee0_1000,
        data,
    }
}

#[test]
fn at_power_on_every_vector_is_masked() {
    let table = table(2048);
    for vector in 0..2048 {
        assert_eq!(get(&table, vector, CONTROL), 1);
    }
    assert_eq!(table.vectors(), 2048);
    assert_eq!(pending(&table, 31), 0);
}

#[test]
fn an_unmasked_vector_is_sent_at_once() {
    let mut table = table(2048);
    let message = arm(&mut table, 2047);
    assert_eq!(table.signal(2047, true), Some(message));
    assert_eq!(table.signal(2047, true), Some(message));
    assert_eq!(pending(&table, 31), 0);
}

#[test]
fn a_masked_vector_is_sent_once_when_it_is_unmasked() {
    let mut table = table(65);
    let message = arm(&mut table, 64);
    set(&mut table, 64, CONTROL, 1);
    assert_eq!(table.signal(64, true), None);
    assert_eq!(table.signal(64, true), None);
    assert_eq!((pending(&table, 0), pending(&table, 1)), (0, 1));
    assert_eq!(table.next_due(true), None);

    set(&mut table, 64, CONTROL, 0);

    assert_eq!(table.next_due(true), Some(message));
    assert_eq!(table.next_due(true), None);
    assert_eq!(pending(&table, 1), 0);
}

#[test]
fn a_closed_function_keeps_all_its_vectors_pending() {
    let mut table = table(8);
    let messages = [0, 3, 7].map(|vector| arm(&mut table, vector));
    for vector in [7, 0, 3] {
        assert_eq!(table.signal(vector, false), None);
    }
    assert_eq!(pending(&table, 0), 0b1000_1001);
    assert_eq!(table.next_due(false), None);
    for message in messages {
        assert_eq!(table.next_due(true), Some(message));
    }
    assert_eq!(table.next_due(true), None);
}

#[test]
fn a_message_goes_where_the_entry_says_when_it_is_sent() {
    let mut table = table(1);
    arm(&mut table, 0);
    assert_eq!(table.signal(0, false), None);
    set(&mut table, 0, 2, 0x99);
    assert_eq!(table.next_due(true).unwrap().data, 0x99);
}

#[test]
fn a_vector_beyond_the_table_is_none() {
    let mut table = table(1);
    assert_eq!(table.signal(1, true), None);
    assert_eq!(table.signal(u16::MAX, false), None);
    assert_eq!(pending(&table, 0), 0);
}

#[test]
fn reserved_bits_stay_0() {
    let mut table = table(1);
    for dword in 0..4 {
        set(&mut table, 0, dword, u32::MAX);
    }
    let entry: Vec<_> = (0..4).map(|dword| get(&table, 0, dword)).collect();
    assert_eq!(entry, [0xffff_fffc, u32::MAX, u32::MAX, 1]);
}

#[test]
fn quadwords_write_two_dwords_and_parts_of_dwords_nothing() {
    let mut table = table(2);
    table.write(MsixPlace::Table(16), &0x1_fee0_0000_u64.to_le_bytes());
    assert_eq!((get(&table, 1, 0), get(&table, 1, 1)), (0xfee0_0000, 1));
    table.write(MsixPlace::Table(24), &0x55_u64.to_le_bytes());
    assert_eq!((get(&table, 1, 2), get(&table, 1, 3)), (0x55, 0));
    for (offset, length) in [(24, 1), (24, 2), (25, 4), (26, 2), (24, 6)] {
        table.write(MsixPlace::Table(offset), &vec![0xff; length]);
    }
    assert_eq!((get(&table, 1, 2), get(&table, 1, 3)), (0x55, 0));
    let mut bytes = [0; 3];
    table.read(MsixPlace::Table(15), &mut bytes);
    assert_eq!(bytes, [0, 0, 0], "parts are read");
    table.read(MsixPlace::Table(18), &mut bytes);
    assert_eq!(bytes, [0xe0, 0xfe, 1]);
}

#[test]
fn pending_bits_are_read_only_and_past_the_end_there_is_nothing() {
    let mut table = table(1);
    assert_eq!(table.signal(0, true), None);
    table.write(MsixPlace::Pending(0), &[0; 8]);
    assert_eq!(pending(&table, 0), 1);
    table.write(MsixPlace::Table(16), &[0xff; 64]);
    assert_eq!(get(&table, 1, 0), 0);
    assert_eq!(pending(&table, 1), 0);
}

#[test]
fn reset_masks_all_and_forgets_what_was_pending() {
    let mut table = table(1);
    arm(&mut table, 0);
    assert_eq!(table.signal(0, false), None);
    table.reset();
    assert_eq!(table.next_due(true), None);
    assert_eq!((get(&table, 0, 2), get(&table, 0, 3)), (0, 1));
}

#[test]
fn places_are_found_with_their_lengths() {
    let layout = table(65).layout();
    let (b2, b4) = (Space::Bar(BarIndex::B2), Space::Bar(BarIndex::B4));
    for (space, offset, place, length) in [
        (b2, 0, MsixPlace::Elsewhere, 0x1000),
        (b2, 0xfff, MsixPlace::Elsewhere, 1),
        (b2, 0x1000, MsixPlace::Table(0), 1040),
        (b2, 0x140f, MsixPlace::Table(1039), 1),
        (b2, 0x1410, MsixPlace::Elsewhere, u64::MAX),
        (b4, 7, MsixPlace::Elsewhere, 1),
        (b4, 8, MsixPlace::Pending(0), 16),
        (b4, 24, MsixPlace::Elsewhere, u64::MAX),
        (
            Space::Bar(BarIndex::B0),
            0x1000,
            MsixPlace::Elsewhere,
            u64::MAX,
        ),
        (Space::Rom, 0x1000, MsixPlace::Elsewhere, u64::MAX),
    ] {
        assert_eq!(
            layout.place(space, offset),
            (place, length),
            "{space} {offset:#x}"
        );
    }
}

#[test]
fn without_the_capability_there_is_no_table() {
    let descriptor = DescriptorBuilder::new(1, 1).build().unwrap();
    assert!(MsixTable::new(&descriptor).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Mask(u16, bool),
    Open(bool),
    Signal(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..70_u16, any::<bool>()).prop_map(|(vector, masked)| Step::Mask(vector, masked)),
        any::<bool>().prop_map(Step::Open),
        (0..70_u16).prop_map(Step::Signal),
    ]
}

proptest! {
    /// Signals coalesce while they wait, and none is lost: after each step a vector is pending exactly if it was
    /// signalled since it could last be sent.
    #[test]
    fn no_signal_is_lost(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut table = table(70);
        for vector in 0..70 {
            arm(&mut table, vector);
        }
        let (mut masked, mut waits, mut open) = ([false; 70], [false; 70], true);
        for step in steps {
            let mut sent = Vec::new();
            let mut expected = Vec::new();
            match step {
                Step::Mask(vector, mask) => {
                    masked[usize::from(vector)] = mask;
                    set(&mut table, vector.into(), CONTROL, mask.into());
                }
                Step::Open(is_open) => open = is_open,
                Step::Signal(vector) => {
                    sent.extend(table.signal(vector, open));
                    waits[usize::from(vector)] = true;
                }
            }
            while let Some(message) = table.next_due(open) {
                sent.push(message);
            }
            for vector in 0..70 {
                if waits[vector] && open && !masked[vector] {
                    waits[vector] = false;
                    expected.push(u32::try_from(vector).unwrap() + 0x40);
                }
                let bit = pending(&table, vector / 64) >> (vector % 64) & 1 == 1;
                prop_assert_eq!(bit, waits[vector]);
            }
            let sent: Vec<_> = sent.iter().map(|message| message.data).collect();
            prop_assert_eq!(sent, expected);
        }
    }
}

#[test]
fn an_access_across_borders_is_cut_at_them() {
    // 65 vectors: the table at 0x1000 (0x410 bytes), 16 bytes of pending bits at 0x1410.
    let msix = Capability::msix(65, (BarIndex::B2, 0x1000), (BarIndex::B2, 0x1410)).unwrap();
    let descriptor = DescriptorBuilder::new(1, 2)
        .bar(BarIndex::B0, Bar::memory32(0x2000))
        .bar(BarIndex::B2, Bar::memory32(0x2000))
        .capability(msix)
        .build()
        .unwrap();
    let layout = MsixLayout::of(&descriptor).unwrap();
    let (b0, b2) = (Space::Bar(BarIndex::B0), Space::Bar(BarIndex::B2));

    let parts: Vec<_> = layout.parts(b2, 0xff8, 0x430).collect();

    assert_eq!(
        parts,
        [
            (0..8, MsixPlace::Elsewhere),
            (8..0x418, MsixPlace::Table(0)),
            (0x418..0x428, MsixPlace::Pending(0)),
            (0x428..0x430, MsixPlace::Elsewhere),
        ]
    );
    assert!(
        layout
            .parts(b0, 0x1000, 8)
            .eq([(0..8, MsixPlace::Elsewhere)])
    );
    assert!(layout.touches(b2) && !layout.touches(b0));
}
