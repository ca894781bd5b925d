//! An ordinary client: what it asks, reads and writes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::sync::atomic::Ordering;

use potemkin_vfio_user::message::{IrqIndex, RegionAccess, WriteOne};
use potemkin_vfio_user::{ClientError, Command, Errno};
use support::{
    BAR0_SIZE, BAR2_SIZE, BAR4_SIZE, CONFIG_SIZE, MSI_VECTORS, MSIX_VECTORS, ROM_BYTE, ROM_SIZE,
};
use support::{Running, Seen};

const BAR0: u32 = 0;
const BAR2: u32 = 2;
const BAR4: u32 = 4;
const ROM: u32 = 6;
const CONFIG: u32 = 7;

fn refused(result: Result<(), ClientError>) -> Errno {
    match result {
        Err(ClientError::Refused { errno, .. }) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn version_is_the_older_of_both_and_limits_are_ours() {
    let server = Running::start();

    let client = server.client();

    let version = client.version();
    assert_eq!((version.major, version.minor), (0, 2));
    assert_eq!(version.capabilities.max_dma_maps, Some(65_535));
    assert_eq!(client.max_data_xfer(), 1 << 16);
    assert_eq!(client.max_msg_fds(), 16);
}

#[test]
fn device_regions_and_interrupts_are_described() {
    let server = Running::start();
    let mut client = server.client();

    let info = client.device_info().unwrap();
    let sizes: Vec<u64> = (0..9)
        .map(|index| client.region_info(index).unwrap().size)
        .collect();
    let counts = IrqIndex::ALL.map(|index| client.irq_info(index).unwrap().count);

    assert!(info.reset && info.pci);
    assert_eq!((info.num_regions, info.num_irqs), (9, 5));
    let expected = [
        BAR0_SIZE,
        0,
        BAR2_SIZE,
        0,
        BAR4_SIZE,
        0,
        ROM_SIZE,
        CONFIG_SIZE.into(),
        0,
    ];
    assert_eq!(sizes, expected);
    assert_eq!(counts, [1, MSI_VECTORS.into(), MSIX_VECTORS.into(), 1, 1]);
}

#[test]
fn regions_are_never_mappable_and_the_rom_is_read_only() {
    let server = Running::start();
    let mut client = server.client();

    let flags: Vec<_> = (0..9)
        .map(|index| client.region_info(index).unwrap().flags)
        .collect();

    assert!(
        flags.iter().all(|flags| !flags.mmap),
        "QEMU posts writes only without"
    );
    assert!(flags[0].read && flags[0].write);
    assert!(flags[6].read && !flags[6].write);
    assert!(flags[7].read && flags[7].write);
}

#[test]
fn message_interrupts_are_maskable_and_intx_masks_itself() {
    let server = Running::start();
    let mut client = server.client();

    let [intx, msi, msix, err, req] =
        IrqIndex::ALL.map(|index| client.irq_info(index).unwrap().flags);

    assert!(intx.eventfd && intx.maskable && intx.automasked);
    for flags in [msi, msix] {
        assert!(flags.eventfd && flags.maskable && !flags.automasked && !flags.noresize);
    }
    for flags in [err, req] {
        assert!(flags.eventfd && !flags.maskable);
    }
}

#[test]
fn region_and_irq_indices_that_do_not_exist_are_refused() {
    let server = Running::start();
    let mut client = server.client();

    assert_eq!(refused(client.region_info(9).map(drop)), Errno::INVAL);
    assert_eq!(
        refused(client.region_info(u32::MAX).map(drop)),
        Errno::INVAL
    );
    assert!(client.device_info().is_ok());
}

#[test]
fn every_width_reads_what_was_written_in_every_writable_region() {
    let server = Running::start();
    let mut client = server.client();

    for region in [BAR0, BAR2, BAR4, CONFIG] {
        for width in [1, 2, 4, 8] {
            for posted in [false, true] {
                let data: Vec<u8> = (0..width)
                    .map(|at| (0x11 * (at as u8 + 1)) ^ region as u8)
                    .collect();
                let mut back = vec![0; width];
                client.region_write(region, 16, &data, posted).unwrap();
                client.region_read(region, 16, &mut back).unwrap();
                assert_eq!(
                    back, data,
                    "region {region}, {width} bytes, posted: {posted}"
                );
                client
                    .region_write(region, 16, &vec![0; width], false)
                    .unwrap();
            }
        }
    }
}

#[test]
fn odd_lengths_and_unaligned_places_are_blocks() {
    let server = Running::start();
    let mut client = server.client();
    let data: Vec<u8> = (0..=254).collect();

    client.region_write(BAR2, 3, &data, false).unwrap();
    let mut back = vec![0; 255];
    client.region_read(BAR2, 3, &mut back).unwrap();

    assert_eq!(back, data);
}

#[test]
fn a_block_of_the_largest_size_goes_both_ways() {
    let server = Running::start();
    let mut client = server.client();
    let data: Vec<u8> = (0..1 << 16).map(|at: u32| (at % 251) as u8).collect();

    client
        .region_write(BAR2, BAR2_SIZE / 2, &data, false)
        .unwrap();
    let mut back = vec![0; data.len()];
    client.region_read(BAR2, BAR2_SIZE / 2, &mut back).unwrap();

    assert!(back == data);
}

#[test]
fn rom_is_read_and_not_written() {
    let server = Running::start();
    let mut client = server.client();
    let mut rom = vec![0; 2048];

    client.region_read(ROM, 0, &mut rom).unwrap();

    assert!(rom.iter().all(|&byte| byte == ROM_BYTE));
    assert_eq!(
        refused(client.region_write(ROM, 0, &[1], false)),
        Errno::ACCESS
    );
}

#[test]
fn an_access_past_the_end_of_a_region_is_refused() {
    let server = Running::start();
    let mut client = server.client();

    for (region, size) in [
        (BAR0, BAR0_SIZE),
        (BAR2, BAR2_SIZE),
        (BAR4, BAR4_SIZE),
        (CONFIG, 4096),
        (1, 0),
        (8, 0),
    ] {
        for (offset, len) in [
            (size, 1),
            (size.saturating_sub(1), 2),
            (1 << 40, 4),
            (u64::MAX - 4, 4),
        ] {
            let read = client.region_read(region, offset, &mut vec![0; len]);
            assert_eq!(
                refused(read),
                Errno::INVAL,
                "read of {len} at {offset:#x} in {region}"
            );
            let write = client.region_write(region, offset, &vec![0; len], false);
            assert_eq!(
                refused(write),
                Errno::INVAL,
                "write of {len} at {offset:#x} in {region}"
            );
        }
    }
    assert_eq!(
        refused(client.region_read(ROM, ROM_SIZE, &mut [0])),
        Errno::INVAL
    );
}

#[test]
fn a_posted_write_past_the_end_is_dropped_without_a_reply() {
    let server = Running::start();
    let mut client = server.client();

    client
        .region_write(BAR0, BAR0_SIZE, &[1, 2, 3, 4], true)
        .unwrap();
    client.region_write(BAR0, 8, &[5; 4], true).unwrap();
    let mut back = [0; 4];
    client.region_read(BAR0, 8, &mut back).unwrap();

    assert_eq!(back, [5; 4]);
    assert_eq!(Seen::get(&server.seen.posted), 1);
}

#[test]
fn a_burst_of_a_thousand_posted_writes_is_applied_in_order_with_few_ends_of_input() {
    let server = Running::start();
    let mut client = server.client();
    let values: Vec<[u8; 8]> = (0..1000_u64).map(u64::to_ne_bytes).collect();
    // Every place is written four times: the last value has to stay.
    let writes: Vec<_> = values
        .iter()
        .zip(0..)
        .map(|(value, at)| (BAR2, at % 250 * 8, &value[..]))
        .collect();
    let before = server.seen.ends_of_input.load(Ordering::SeqCst);

    client.write_burst(&writes).unwrap();
    let mut back = vec![0; 250 * 8];
    client.region_read(BAR2, 0, &mut back).unwrap();

    let last: Vec<u8> = values[750..].concat();
    assert!(back == last);
    assert_eq!(Seen::get(&server.seen.posted), 1000);
    let ends = server.seen.ends_of_input.load(Ordering::SeqCst) - before;
    assert!(ends <= 16, "{ends} ends of input for 1000 writes");
}

#[test]
fn a_write_that_waits_is_told_apart_from_a_posted_one() {
    let server = Running::start();
    let mut client = server.client();

    client.region_write(BAR0, 0, &[1; 4], false).unwrap();
    client.region_write(BAR0, 0, &[1; 4], true).unwrap();
    client.region_write(BAR0, 0, &[1; 4], false).unwrap();

    assert_eq!(
        (
            Seen::get(&server.seen.waited),
            Seen::get(&server.seen.posted)
        ),
        (2, 1)
    );
}

fn one(region: u32, offset: u64, data: &[u8]) -> WriteOne<'_> {
    let count = u32::try_from(data.len()).unwrap();
    WriteOne {
        access: RegionAccess {
            offset,
            region,
            count,
        },
        data,
    }
}

#[test]
fn several_writes_in_one_message_are_applied_in_order() {
    let server = Running::start();
    let mut client = server.client();

    let writes = [
        one(BAR0, 0, &[1; 8]),
        one(BAR0, 4, &[2]),
        one(BAR4, 0, &[3; 2]),
        one(BAR0, 0, &[4; 2]),
    ];
    let done = client.region_write_multi(&writes).unwrap();

    let mut bar0 = [0; 8];
    client.region_read(BAR0, 0, &mut bar0).unwrap();
    assert_eq!(done, 4);
    assert_eq!(bar0, [4, 4, 1, 1, 2, 1, 1, 1]);
}

#[test]
fn of_several_writes_none_is_done_when_one_is_impossible() {
    let server = Running::start();
    let mut client = server.client();

    let writes = [one(BAR0, 0, &[1; 8]), one(BAR0, BAR0_SIZE - 1, &[2; 2])];
    let result = client.region_write_multi(&writes).map(drop);

    let mut bar0 = [9; 8];
    client.region_read(BAR0, 0, &mut bar0).unwrap();
    assert_eq!(refused(result), Errno::INVAL);
    assert_eq!(bar0, [0; 8]);
}

#[test]
fn a_client_that_reads_late_gets_every_reply_in_order() {
    let server = Running::start();
    let mut raw = server.raw();
    raw.negotiate();
    const READS: u16 = 100;
    let mut payload = Vec::new();
    RegionAccess {
        offset: 0,
        region: BAR2,
        count: 64 << 10,
    }
    .encode(&mut payload);

    // 6 MiB of replies: far more than the socket holds.
    for id in 0..READS {
        raw.send(&support::message(id, Command::RegionRead, &payload));
    }

    for id in 0..READS {
        let (header, payload) = raw.reply().unwrap();
        assert_eq!((header.id, payload.len()), (id, 16 + (64 << 10)));
    }
}

#[test]
fn reset_reaches_the_function() {
    let server = Running::start();
    let mut client = server.client();
    client.region_write(BAR0, 0, &[1; 4], false).unwrap();

    client.reset().unwrap();

    let mut back = [9; 4];
    client.region_read(BAR0, 0, &mut back).unwrap();
    assert_eq!(back, [0; 4]);
    assert_eq!(Seen::get(&server.seen.resets), 1);
}

#[test]
fn a_client_comes_back_and_finds_the_state_it_left() {
    let server = Running::start();
    for round in 0..20_u8 {
        let mut client = server.client();
        let mut back = [0];
        client.region_read(BAR0, 0, &mut back).unwrap();
        assert_eq!(back, [round]);
        client.region_write(BAR0, 0, &[round + 1], false).unwrap();
    }

    // The last of them has gone for certain when the next one is answered.
    drop(server.client());
    drop(server.client());
    let connects = Seen::get(&server.seen.connects);
    assert!(connects >= 21, "{connects}");
    assert!(Seen::get(&server.seen.disconnects) >= 20);
}

#[test]
fn a_second_client_waits_until_the_first_has_gone() {
    let server = Running::start();
    let mut first = server.client();
    let path = server.path();
    let second = std::thread::spawn(move || support::patient(&path));

    first.region_write(BAR0, 0, &[7], false).unwrap();
    drop(first);
    let mut second = second.join().unwrap();

    let mut back = [0];
    second.region_read(BAR0, 0, &mut back).unwrap();
    assert_eq!(back, [7]);
}

#[test]
fn shutdown_disconnects_the_client_and_removes_the_socket() {
    let mut server = Running::start();
    let mut client = server.client();
    let path = server.path();

    server.stop();

    assert!(matches!(client.device_info(), Err(ClientError::Closed)));
    assert!(!path.exists());
    assert_eq!(Seen::get(&server.seen.disconnects), 1);
}
