//! Clients that lie, stop in the middle, or talk nonsense: each costs itself its connection at most.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use potemkin_vfio_server::Options;
use potemkin_vfio_user::message::{
    DmaAccess, DmaMap, IrqAction, IrqData, IrqIndex, Protection, RegionAccess, SetIrqs,
};
use potemkin_vfio_user::{Command, MAX_MESSAGE};
use rustix::fs::{MemfdFlags, memfd_create};
use support::{Raw, Running, message};

/// How many clients of each kind.
const CLIENTS: usize = 200;

/// What a hostile client does once it is connected; a version is agreed on for those that say so.
struct Kind {
    name: &'static str,
    negotiated: bool,
    /// Whether the server has to close the connection by itself; with the others the client does.
    closed: bool,
    act: fn(&mut Raw),
}

const KINDS: &[Kind] = &[
    kind("says nothing", false, false, |_| ()),
    kind("stops in the middle of a header", false, false, |raw| {
        raw.send(&[1, 0, 1, 0, 40])
    }),
    kind("stops in the middle of a payload", true, false, |raw| {
        raw.send(&message(1, Command::RegionWrite, &[0; 64])[..40]);
    }),
    kind("announces less than a header", true, true, |raw| {
        raw.send(&with_size(Command::RegionRead, 15))
    }),
    kind(
        "announces more than the longest message",
        true,
        true,
        |raw| {
            raw.send(&with_size(Command::RegionWrite, MAX_MESSAGE + 1));
        },
    ),
    kind("announces 4 GiB", true, true, |raw| {
        raw.send(&with_size(Command::RegionWrite, u32::MAX))
    }),
    kind(
        "announces the longest message and sends none of it",
        true,
        false,
        |raw| {
            raw.send(&with_size(Command::RegionWrite, MAX_MESSAGE));
        },
    ),
    kind("has unknown flags", true, true, |raw| {
        let mut bytes = message(1, Command::DeviceGetInfo, &[0; 16]);
        bytes[8..12].copy_from_slice(&0xffff_fff0_u32.to_ne_bytes());
        raw.send(&bytes);
    }),
    kind("does not begin with VERSION", false, true, |raw| {
        raw.send(&read(0, 0, 4))
    }),
    kind("speaks another major version", false, true, |raw| {
        raw.send(&message(1, Command::Version, &[9, 0, 0, 0]));
    }),
    kind("sends a version text that never ends", false, true, |raw| {
        raw.send(&message(1, Command::Version, &[b'['; 100_000]));
    }),
    kind("agrees on a version twice", true, false, |raw| {
        refused(raw, Command::Version, &[0, 0, 0, 0], &[]);
    }),
    kind("sends an unknown command", true, false, |raw| {
        let mut bytes = message(1, Command::DeviceReset, &[]);
        bytes[2..4].copy_from_slice(&0xfffe_u16.to_ne_bytes());
        raw.send(&bytes);
        assert!(raw.reply().unwrap().0.failed);
    }),
    kind(
        "reads nothing, too much, and past the end",
        true,
        false,
        |raw| {
            for (offset, count) in [
                (0, 0),
                (0, u32::MAX),
                (0, (1 << 16) + 1),
                (4095, 2),
                (u64::MAX, 1),
            ] {
                raw.send(&read(0, offset, count));
                assert!(raw.reply().unwrap().0.failed);
            }
        },
    ),
    kind("reads regions that do not exist", true, false, |raw| {
        for region in [1, 8, 9, u32::MAX] {
            raw.send(&read(region, 0, 4));
            assert!(raw.reply().unwrap().0.failed);
        }
    }),
    kind(
        "writes another number of bytes than it says",
        true,
        false,
        |raw| {
            for data in [0, 3, 5] {
                let mut payload = Vec::new();
                RegionAccess {
                    offset: 0,
                    region: 0,
                    count: 4,
                }
                .encode(&mut payload);
                payload.extend(vec![0; data]);
                refused(raw, Command::RegionWrite, &payload, &[]);
            }
        },
    ),
    kind("lies about how many writes it sends", true, false, |raw| {
        for count in [0_u64, 2, u64::MAX, 1 << 61] {
            let mut payload = count.to_ne_bytes().to_vec();
            RegionAccess {
                offset: 0,
                region: 0,
                count: 8,
            }
            .encode(&mut payload);
            payload.extend([0; 8]);
            refused(raw, Command::RegionWriteMulti, &payload, &[]);
        }
    }),
    kind("lies about the length of its memory", true, false, |raw| {
        let file = memory();
        for (offset, size) in [
            (0, 1 << 40),
            (4096, 1),
            (1 << 62, 4096),
            (u64::MAX - 1, 4096),
        ] {
            refused(raw, Command::DmaMap, &map(offset, size), &[file.as_fd()]);
        }
    }),
    kind("sends descriptors that are no memory", true, false, |raw| {
        let null = File::open("/dev/null").unwrap();
        refused(raw, Command::DmaMap, &map(0, 4096), &[null.as_fd()]);
    }),
    kind(
        "sends sixteen descriptors where one belongs",
        true,
        false,
        |raw| {
            let file = memory();
            refused(raw, Command::DmaMap, &map(0, 4096), &[file.as_fd(); 16]);
        },
    ),
    kind(
        "sends descriptors with messages that have no use for them",
        true,
        false,
        |raw| {
            let file = memory();
            refused(
                raw,
                Command::DeviceGetInfo,
                &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[file.as_fd()],
            );
            refused(raw, Command::DeviceReset, &[], &[file.as_fd()]);
        },
    ),
    kind(
        "sends descriptors without a whole message, again and again",
        true,
        true,
        |raw| {
            let file = memory();
            raw.send(&with_size(Command::DmaMap, 4096));
            for _ in 0..40 {
                raw.send_with(&[0], &[file.as_fd(); 16]);
            }
        },
    ),
    kind(
        "keeps memory and interrupts connected and leaves",
        true,
        false,
        |raw| {
            let file = memory();
            for page in 0..8_u64 {
                let mut payload = Vec::new();
                let protection = Protection::READ_WRITE;
                DmaMap {
                    protection,
                    offset: 0,
                    address: page << 12,
                    size: 4096,
                }
                .encode(&mut payload);
                assert!(!raw.ask(Command::DmaMap, &payload, &[file.as_fd()]).0.failed);
            }
            let eventfds: Vec<_> = (0..4).map(|_| eventfd()).collect();
            let fds: Vec<_> = eventfds.iter().map(AsFd::as_fd).collect();
            for (index, action, count) in [
                (IrqIndex::Msi, IrqAction::Trigger, 4),
                (IrqIndex::Msix, IrqAction::Trigger, 4),
                (IrqIndex::Intx, IrqAction::Trigger, 1),
                (IrqIndex::Intx, IrqAction::Mask, 1),
                (IrqIndex::Intx, IrqAction::Unmask, 1),
            ] {
                let set = SetIrqs {
                    index,
                    start: 0,
                    count,
                    action,
                    data: IrqData::Eventfd,
                };
                let mut payload = Vec::new();
                set.encode(&mut payload);
                assert!(
                    !raw.ask(Command::DeviceSetIrqs, &payload, &fds[..count as usize])
                        .0
                        .failed
                );
            }
        },
    ),
    kind("lies about interrupts", true, false, |raw| {
        let eventfd = eventfd();
        for (start, count, flags) in [
            (0, u32::MAX, 0x21),
            (u32::MAX, 1, 0x21),
            (0, 1, 0),
            (0, 1, 0x3f),
            (0, 1, 0xffff_ffff),
            (0, 5, 0x22),
        ] {
            let mut payload = Vec::new();
            for field in [20, flags, 2, start, count] {
                payload.extend_from_slice(&u32::to_ne_bytes(field));
            }
            refused(raw, Command::DeviceSetIrqs, &payload, &[]);
            refused(raw, Command::DeviceSetIrqs, &payload, &[eventfd.as_fd()]);
        }
    }),
    kind("replies to what was not asked", true, true, |raw| {
        let mut payload = Vec::new();
        DmaAccess {
            address: 0,
            count: 4,
        }
        .encode(&mut payload);
        let mut bytes = message(0, Command::DmaWrite, &payload);
        bytes[8] = 1;
        raw.send(&bytes);
    }),
    kind(
        "asks for megabytes, reads nothing and leaves",
        true,
        false,
        |raw| {
            for _ in 0..20 {
                raw.send(&read(2, 0, 1 << 16));
            }
        },
    ),
    kind("sends zeros", false, true, |raw| raw.send(&[0; 4096])),
    kind("sends ones", false, true, |raw| raw.send(&[0xff; 4096])),
    kind("sends text", false, true, |raw| {
        raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }),
];

const fn kind(name: &'static str, negotiated: bool, closed: bool, act: fn(&mut Raw)) -> Kind {
    Kind {
        name,
        negotiated,
        closed,
        act,
    }
}

/// A header that announces this size, and no payload.
fn with_size(command: Command, size: u32) -> Vec<u8> {
    let mut bytes = message(1, command, &[]);
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes
}

fn read(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    RegionAccess {
        offset,
        region,
        count,
    }
    .encode(&mut payload);
    message(1, Command::RegionRead, &payload)
}

fn map(offset: u64, size: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    DmaMap {
        protection: Protection::READ_WRITE,
        offset,
        address: 0,
        size,
    }
    .encode(&mut payload);
    payload
}

/// One page of memory.
fn memory() -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(4096).unwrap();
    file
}

fn eventfd() -> std::os::fd::OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

fn refused(raw: &mut Raw, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) {
    assert!(
        raw.ask(command, payload, fds).0.failed,
        "{} is not refused",
        command.name()
    );
}

/// Open descriptors of this process, which is the server's as well.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The server answers, and what was before it has been cleaned up: clients are served one after the other.
fn assert_serving(server: &Running) {
    let mut client = server.client();
    client.region_write(4, 0, &[1, 2, 3, 4], false).unwrap();
    let mut back = [0; 4];
    client.region_read(4, 0, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);
}

/// One test, because others in this process would have descriptors open meanwhile.
#[test]
fn two_hundred_of_each_hostile_kind_leave_nothing_behind() {
    let server = Running::start();
    assert_serving(&server);
    // The one before may not be closed yet; after a second one it is.
    drop(server.client());
    let before = descriptors();

    for kind in KINDS {
        for _ in 0..CLIENTS {
            let mut raw = server.raw();
            if kind.negotiated {
                raw.negotiate();
            }
            (kind.act)(&mut raw);
            if kind.closed {
                raw.until_closed();
            }
        }
        assert_serving(&server);
        let mut last = server.client();
        last.device_info().unwrap();
        drop(last);
        let now = descriptors();
        // The last client's two ends may still be there.
        assert!(
            now <= before + 2,
            "{}: {now} descriptors after {before}",
            kind.name
        );
    }

    a_client_that_never_agrees_on_a_version_is_sent_away();
}

fn a_client_that_never_agrees_on_a_version_is_sent_away() {
    let options = Options {
        handshake_timeout: Duration::from_millis(20),
        ..Options::default()
    };
    let server = Running::start_with(options);

    let mut raw = server.raw();

    assert!(raw.reply().is_none(), "the server says nothing and closes");
    assert_serving(&server);
}
