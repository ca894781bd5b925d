//! Every message: what is encoded is decoded, and nothing shorter, longer or contradictory is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use potemkin_vfio_user::message::{
    Capabilities, DeviceInfo, DmaAccess, DmaMap, DmaUnmap, IrqAction, IrqData, IrqIndex, IrqInfo,
    IrqInfoFlags, Protection, RegionAccess, RegionInfo, RegionInfoFlags, Request, SetIrqs, Version,
    WriteMulti, WriteOne,
};
use potemkin_vfio_user::{
    Command, DecodeError, Errno, HEADER_LEN, Header, MAX_DATA_XFER, MAX_MESSAGE, MessageType,
};
use proptest::prelude::*;

const LIMIT: u32 = 4096;

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

fn decode(command: Command, payload: &[u8]) -> Result<Request<'_>, DecodeError> {
    let header = Header::command(1, command, u32::try_from(payload.len()).unwrap());
    Request::decode(&header, payload, LIMIT)
}

fn access() -> RegionAccess {
    RegionAccess {
        offset: 0x1234,
        region: 2,
        count: 4,
    }
}

/// One good payload of each command.
fn good() -> Vec<(Command, Vec<u8>)> {
    let one = WriteOne {
        access: access(),
        data: &[1, 2, 3, 4],
    };
    let set = |data| SetIrqs {
        index: IrqIndex::Msix,
        start: 1,
        count: 3,
        action: IrqAction::Trigger,
        data,
    };
    let version = Version {
        major: 0,
        minor: 1,
        capabilities: Capabilities::ours(1),
    };
    let map = DmaMap {
        protection: Protection::READ,
        offset: 0x1000,
        address: 1 << 40,
        size: 0x2000,
    };
    vec![
        (Command::Version, encoded(|out| version.encode(out))),
        (Command::DmaMap, encoded(|out| map.encode(out))),
        (
            Command::DmaUnmap,
            encoded(|out| {
                DmaUnmap::Range {
                    address: 1,
                    size: 2,
                }
                .encode(out)
            }),
        ),
        (Command::DmaUnmap, encoded(|out| DmaUnmap::All.encode(out))),
        (Command::DeviceGetInfo, encoded(DeviceInfo::encode_request)),
        (
            Command::DeviceGetRegionInfo,
            encoded(|out| RegionInfo::encode_request(7, out)),
        ),
        (
            Command::DeviceGetRegionIoFds,
            [16_u32, 0, 3, 0]
                .iter()
                .flat_map(|field| field.to_ne_bytes())
                .collect(),
        ),
        (
            Command::DeviceGetIrqInfo,
            encoded(|out| IrqInfo::encode_request(IrqIndex::Req, out)),
        ),
        (
            Command::DeviceSetIrqs,
            encoded(|out| set(IrqData::None).encode(out)),
        ),
        (
            Command::DeviceSetIrqs,
            encoded(|out| set(IrqData::Bool(&[1, 0, 1])).encode(out)),
        ),
        (
            Command::DeviceSetIrqs,
            encoded(|out| set(IrqData::Eventfd).encode(out)),
        ),
        (Command::RegionRead, encoded(|out| access().encode(out))),
        (
            Command::RegionWrite,
            [encoded(|out| access().encode(out)), vec![1, 2, 3, 4]].concat(),
        ),
        (
            Command::RegionWriteMulti,
            encoded(|out| WriteMulti::encode(&[one, one], out)),
        ),
        (Command::DeviceReset, vec![]),
    ]
}

#[test]
fn good_payloads_of_every_command_are_decoded() {
    for (command, payload) in good() {
        assert!(decode(command, &payload).is_ok(), "{}", command.name());
    }
}

#[test]
fn a_payload_cut_at_any_byte_is_refused_by_name() {
    for (command, payload) in good() {
        for len in 0..payload.len() {
            // A version without its text is complete.
            if (command, len) == (Command::Version, 4) {
                continue;
            }
            let error = decode(command, &payload[..len]).expect_err(command.name());
            assert_eq!(error.message, command.name());
            assert!(error.to_string().starts_with(command.name()), "{error}");
        }
    }
}

#[test]
fn a_payload_with_a_byte_too_many_is_refused() {
    for (command, mut payload) in good() {
        payload.push(1);
        assert!(decode(command, &payload).is_err(), "{}", command.name());
    }
}

/// Puts a value at a field of a good payload; the error has to name that field.
fn assert_refused(command: Command, at: usize, value: &[u8], field: &str) {
    let (_, mut payload) = good()
        .into_iter()
        .find(|(good, _)| *good == command)
        .unwrap();
    payload[at..at + value.len()].copy_from_slice(value);
    let error = decode(command, &payload).expect_err(field);
    assert_eq!(
        (error.message, error.field),
        (command.name(), field),
        "{error}"
    );
    assert_eq!(error.errno(), Errno::INVAL);
}

#[test]
fn region_accesses_that_cannot_be_are_refused() {
    for command in [Command::RegionRead, Command::RegionWrite] {
        assert_refused(command, 0, &u64::MAX.to_ne_bytes(), "offset");
        assert_refused(command, 8, &9_u32.to_ne_bytes(), "region");
        assert_refused(command, 12, &0_u32.to_ne_bytes(), "count");
        assert_refused(command, 12, &(LIMIT + 1).to_ne_bytes(), "count");
        assert_refused(command, 12, &u32::MAX.to_ne_bytes(), "count");
    }
    assert_refused(Command::RegionWrite, 12, &5_u32.to_ne_bytes(), "data");
    assert_refused(Command::RegionWrite, 12, &3_u32.to_ne_bytes(), "size");
}

#[test]
fn several_writes_that_cannot_be_are_refused() {
    let command = Command::RegionWriteMulti;
    for count in [0, 1, 3, u64::MAX] {
        assert_refused(command, 0, &count.to_ne_bytes(), "wr_cnt");
    }
    // The second entry.
    assert_refused(command, 8 + 24 + 12, &9_u32.to_ne_bytes(), "count");
    assert_refused(command, 8 + 24 + 8, &9_u32.to_ne_bytes(), "region");
    assert_eq!(
        decode(command, &0_u64.to_ne_bytes()).unwrap_err().field,
        "wr_cnt"
    );
}

#[test]
fn windows_that_cannot_be_are_refused() {
    assert_refused(Command::DmaMap, 0, &31_u32.to_ne_bytes(), "argsz");
    assert_refused(Command::DmaMap, 4, &0_u32.to_ne_bytes(), "flags");
    assert_refused(Command::DmaMap, 4, &0x13_u32.to_ne_bytes(), "flags");
    assert_refused(Command::DmaMap, 8, &u64::MAX.to_ne_bytes(), "offset");
    assert_refused(Command::DmaMap, 16, &u64::MAX.to_ne_bytes(), "address");
    assert_refused(Command::DmaMap, 24, &0_u64.to_ne_bytes(), "size");
    assert_refused(Command::DmaUnmap, 8, &u64::MAX.to_ne_bytes(), "address");
    assert_refused(Command::DmaUnmap, 16, &0_u64.to_ne_bytes(), "size");
    assert_refused(Command::DmaUnmap, 4, &4_u32.to_ne_bytes(), "flags");
    // "All" has no address.
    assert_refused(Command::DmaUnmap, 4, &2_u32.to_ne_bytes(), "address");
}

#[test]
fn a_dirty_bitmap_is_not_supported() {
    let (_, mut payload) = good()
        .into_iter()
        .find(|(command, _)| *command == Command::DmaUnmap)
        .unwrap();
    payload[4] = 1;

    assert_eq!(
        decode(Command::DmaUnmap, &payload).unwrap_err().errno(),
        Errno::NOTSUP
    );
}

#[test]
fn interrupt_requests_that_cannot_be_are_refused() {
    let command = Command::DeviceSetIrqs;
    assert_refused(command, 0, &19_u32.to_ne_bytes(), "argsz");
    for flags in [0, 1, 2, 4, 8, 0x20, 0x23, 0x31, 0x28, 0x19, 0x61, u32::MAX] {
        assert_refused(command, 4, &flags.to_ne_bytes(), "flags");
    }
    assert_refused(command, 8, &5_u32.to_ne_bytes(), "index");
    assert_refused(command, 12, &u32::MAX.to_ne_bytes(), "count");
    // Nothing of a range that begins at 1 is not "all".
    assert_refused(command, 16, &0_u32.to_ne_bytes(), "count");
    // Booleans for 3, and there are none.
    assert_refused(command, 4, &0x22_u32.to_ne_bytes(), "data");
}

#[test]
fn indices_that_do_not_exist_are_refused() {
    assert_refused(
        Command::DeviceGetRegionInfo,
        8,
        &9_u32.to_ne_bytes(),
        "index",
    );
    assert_refused(
        Command::DeviceGetRegionIoFds,
        8,
        &9_u32.to_ne_bytes(),
        "index",
    );
    assert_refused(Command::DeviceGetIrqInfo, 8, &5_u32.to_ne_bytes(), "index");
    for command in [
        Command::DeviceGetInfo,
        Command::DeviceGetRegionInfo,
        Command::DeviceGetIrqInfo,
    ] {
        assert_refused(command, 0, &0_u32.to_ne_bytes(), "argsz");
    }
}

#[test]
fn commands_that_are_unknown_or_not_a_clients_are_not_supported() {
    for code in [0, 11, 12, 14, 16, 17, 18, u16::MAX] {
        let header = Header {
            command: code,
            ..Header::command(1, Command::Version, 0)
        };
        assert_eq!(
            Request::decode(&header, &[], LIMIT).unwrap_err().errno(),
            Errno::NOTSUP,
            "{code}"
        );
    }
}

#[test]
fn replies_are_decoded_as_they_were_encoded() {
    let device = DeviceInfo {
        reset: true,
        pci: true,
        num_regions: 9,
        num_irqs: 5,
    };
    assert_eq!(
        DeviceInfo::decode(&encoded(|out| device.encode(out))),
        Ok(device)
    );

    let flags = RegionInfoFlags {
        read: true,
        write: false,
        mmap: true,
    };
    let region = RegionInfo {
        index: 6,
        flags,
        size: 1 << 40,
    };
    assert_eq!(
        RegionInfo::decode(&encoded(|out| region.encode(out))),
        Ok(region)
    );

    let flags = IrqInfoFlags {
        eventfd: true,
        maskable: false,
        automasked: true,
        noresize: true,
    };
    let irq = IrqInfo {
        index: IrqIndex::Msix,
        flags,
        count: 2048,
    };
    assert_eq!(IrqInfo::decode(&encoded(|out| irq.encode(out))), Ok(irq));

    assert_eq!(
        WriteMulti::decode_reply(&encoded(|out| WriteMulti::encode_reply(3, out))),
        Ok(3)
    );
}

#[test]
fn replies_cut_at_any_byte_are_refused() {
    for len in 0..16 {
        assert!(DeviceInfo::decode(&vec![0xff; len]).is_err());
        assert!(IrqInfo::decode(&vec![0xff; len]).is_err());
        assert!(RegionInfo::decode(&vec![0xff; len * 2]).is_err());
    }
    assert!(WriteMulti::decode_reply(&[0; 7]).is_err());
}

#[test]
fn dma_accesses_are_decoded_with_their_data() {
    let access = DmaAccess {
        address: 0x1000,
        count: 3,
    };
    let mut bytes = encoded(|out| access.encode(out));
    assert_eq!(DmaAccess::decode("DMA_READ", &bytes, LIMIT), Ok(access));
    assert_eq!(DmaAccess::decode_write_reply(&bytes, LIMIT), Ok(access));
    assert_eq!(
        DmaAccess::decode_write_reply(&bytes[..12], LIMIT),
        Ok(access),
        "a count of 4 bytes"
    );

    bytes.extend([7, 8, 9]);
    assert_eq!(
        DmaAccess::decode_with_data("DMA_WRITE", &bytes, LIMIT),
        Ok((access, &[7, 8, 9][..]))
    );
    for len in 0..bytes.len() {
        assert!(
            DmaAccess::decode_with_data("DMA_WRITE", &bytes[..len], LIMIT).is_err(),
            "{len}"
        );
    }
}

#[test]
fn dma_accesses_that_cannot_be_are_refused() {
    for (address, count, field) in [
        (0, 0, "count"),
        (0, u64::from(LIMIT) + 1, "count"),
        (0, u64::MAX, "count"),
        (0, 1 << 32 | 4, "count"),
        (u64::MAX, 1, "address"),
    ] {
        let bytes = [address.to_ne_bytes(), count.to_ne_bytes()].concat();
        assert_eq!(
            DmaAccess::decode("DMA_READ", &bytes, LIMIT)
                .unwrap_err()
                .field,
            field,
            "{address:#x} {count:#x}"
        );
    }
}

#[test]
fn a_header_is_decoded_as_it_was_encoded() {
    let command = Header {
        no_reply: true,
        ..Header::command(0xabcd, Command::RegionWrite, 20)
    };
    for header in [command, command.reply(8), command.error_reply(Errno::NOSPC)] {
        assert_eq!(
            Header::decode(&encoded(|out| header.encode(out))),
            Ok(Some(header))
        );
    }
}

#[test]
fn a_reply_repeats_id_and_command() {
    let command = Header {
        no_reply: true,
        ..Header::command(7, Command::DmaMap, 32)
    };

    let reply = command.error_reply(Errno::EXIST);

    assert_eq!(
        (reply.id, reply.command, reply.size),
        (7, Command::DmaMap.code(), 16)
    );
    assert_eq!(reply.message_type, MessageType::Reply);
    assert_eq!(
        (reply.failed, reply.no_reply, reply.error),
        (true, false, 17)
    );
}

#[test]
fn a_header_cut_at_any_byte_is_waited_for() {
    let bytes = encoded(|out| Header::command(1, Command::Version, 0).encode(out));

    for len in 0..HEADER_LEN {
        assert_eq!(Header::decode(&bytes[..len]), Ok(None));
    }
}

#[test]
fn impossible_sizes_and_flags_are_refused_with_the_header_as_it_came() {
    let good = encoded(|out| Header::command(5, Command::Version, 0).encode(out));
    let with = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        Header::decode(&bytes)
    };

    for size in [0, 15, MAX_MESSAGE + 1, u32::MAX] {
        let error = with(4, size).unwrap_err();
        assert_eq!((error.header.id, error.cause.field), (5, "size"));
    }
    for flags in [2, 15, 0x40, 0xffff_ff00] {
        assert_eq!(with(8, flags).unwrap_err().cause.field, "flags");
    }
    assert!(with(4, MAX_MESSAGE).is_ok());
    assert_eq!(MAX_MESSAGE, 16 + 16 + MAX_DATA_XFER);
}

proptest! {
    #[test]
    fn no_payload_panics_the_decoder(code in 0..20_u16, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = Header { command: code, ..Header::command(1, Command::Version, 0) };
        let _ = Request::decode(&header, &payload, LIMIT);
    }

    #[test]
    fn no_change_of_a_good_payload_panics_the_decoder(
        which in 0..15_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (command, mut payload) = good().swap_remove(which);
        for (at, byte) in changes {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        if let Ok(Request::RegionRead(access) | Request::RegionWrite(access, _)) = decode(command, &payload) {
            prop_assert!(access.count >= 1 && access.count <= LIMIT && access.region < 9);
            prop_assert!(access.offset.checked_add(access.count.into()).is_some());
        }
    }

    #[test]
    fn region_accesses_survive(offset in 0..u64::MAX - u64::from(LIMIT), region in 0..9_u32, count in 1..=LIMIT) {
        let access = RegionAccess { offset, region, count };
        let bytes = encoded(|out| access.encode(out));
        prop_assert_eq!(RegionAccess::decode("REGION_READ", &bytes, LIMIT), Ok(access));
    }
}
