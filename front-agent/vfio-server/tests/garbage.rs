//! Random bytes and random changes of good messages.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::os::fd::AsFd;

use potemkin_vfio_user::message::{DmaMap, DmaUnmap, Protection, RegionAccess};
use potemkin_vfio_user::{Client, Command};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Running, message};

/// Messages that a client may well send, one behind the other.
fn conversation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |command, encode: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = Vec::new();
        encode(&mut payload);
        bytes.extend(message(1, command, &payload));
    };
    let access = RegionAccess {
        offset: 8,
        region: 0,
        count: 4,
    };
    add(Command::RegionRead, &|out| access.encode(out));
    add(Command::RegionWrite, &|out| {
        access.encode(out);
        out.extend([1, 2, 3, 4]);
    });
    let protection = Protection::READ_WRITE;
    add(Command::DmaMap, &|out| {
        DmaMap {
            protection,
            offset: 0,
            address: 0,
            size: 4096,
        }
        .encode(out)
    });
    add(Command::DmaUnmap, &|out| {
        DmaUnmap::Range {
            address: 0,
            size: 4096,
        }
        .encode(out)
    });
    add(Command::DeviceReset, &|_| ());
    bytes
}

fn assert_serving(server: &Running) {
    let mut client = server.client();
    let mut back = [0; 4];
    client.region_read(0, 0, &mut back).unwrap();
}

#[test]
fn random_bytes_end_at_most_their_own_connection() {
    let server = Running::start();
    let mut runner = TestRunner::new(Config::with_cases(200));
    let input = (
        any::<bool>(),
        proptest::collection::vec(any::<u8>(), 0..300),
    );

    let result = runner.run(&input, |(negotiated, bytes)| {
        let mut raw = server.raw();
        if negotiated {
            raw.negotiate();
        }
        raw.send(&bytes);
        raw.close_writing();
        raw.until_closed();
        Ok(())
    });

    result.unwrap();
    assert_serving(&server);
}

#[test]
fn good_messages_with_changed_bytes_end_at_most_their_own_connection() {
    let server = Running::start();
    let mut runner = TestRunner::new(Config::with_cases(300));
    let good = conversation();
    let changes = proptest::collection::vec((0..good.len(), any::<u8>()), 1..6);

    let result = runner.run(&(changes, 0..good.len()), |(changes, cut)| {
        let mut raw = server.raw();
        raw.negotiate();
        let mut bytes = good.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        raw.send(&bytes[..bytes.len() - cut]);
        raw.close_writing();
        raw.until_closed();
        Ok(())
    });

    result.unwrap();
    assert_serving(&server);
}

#[test]
fn a_client_that_leaves_half_a_message_and_its_own_end_makes_room_for_the_next() {
    let server = Running::start();
    let mut raw = server.raw();
    raw.negotiate();
    let whole = message(9, Command::DmaMap, &[0; 32]);

    let end = raw.end();
    raw.send_with(&whole[..20], &[end.as_fd()]);
    drop(end);
    drop(raw);

    // One try waits for as long as the server does for the rest of the message.
    let served = (0..3).any(|_| Client::connect(server.path()).is_ok());
    assert!(served);
}
