//! Dials of the data path.

use std::time::Duration;

use potemkin_proto::v1::{CloseCode, DeviceState};

use super::super::dial::Dial;
use super::super::*;
use super::world::*;

fn dial(session: &Live, attach_number: u32) -> Dial {
    Dial {
        session: session.id,
        epoch: session.epoch,
        attach_number,
    }
}

/// A world with one session and its host's stream.
fn attached() -> (World, Live, ConnId) {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    (world, session, conn)
}

fn code(result: Result<Route, DialRefusal>) -> CloseCode {
    result.unwrap_err().code
}

#[test]
fn a_dial_of_ones_own_session_leads_to_its_host() {
    let (mut world, session, _) = attached();
    let route = world
        .core
        .open_leg(&name(AGENT), dial(&session, 1), LegId(1))
        .unwrap();
    assert_eq!(&*route.host, HOST);
    assert_eq!(route.device.as_str(), "edu-0");
    assert_eq!(route.address.to_string(), "127.0.0.1:7641");
}

#[test]
fn foreign_unknown_and_old_dials_are_refused_each_with_its_code() {
    let (mut world, session, _) = attached();
    let me = name(AGENT);
    let other = world
        .core
        .open_leg(&name(OTHER_AGENT), dial(&session, 1), LegId(1));
    assert_eq!(code(other), CloseCode::PermissionDenied);
    let mut unknown = dial(&session, 1);
    unknown.session = SessionId(42);
    let unknown = world.core.open_leg(&me, unknown, LegId(2));
    assert_eq!(code(unknown), CloseCode::Unreachable);
    let mut old = dial(&session, 1);
    old.epoch -= 1;
    let old = world.core.open_leg(&me, old, LegId(3));
    assert_eq!(code(old), CloseCode::Superseded);
    let zero = world.core.open_leg(&me, dial(&session, 0), LegId(4));
    assert_eq!(code(zero), CloseCode::Superseded);
}

#[test]
fn a_session_that_is_not_confirmed_yet_cannot_be_dialled() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.ask_attach(AGENT, &target("edu-0"));
    let (epoch, session) = world.fence_on(conn, "edu-0").unwrap();
    let early = Dial {
        session: session.unwrap(),
        epoch,
        attach_number: 1,
    };
    let refused = world.core.open_leg(&name(AGENT), early, LegId(1));
    assert_eq!(code(refused), CloseCode::Unreachable);
}

#[test]
fn a_newer_dial_closes_the_older_and_an_older_is_refused() {
    let (mut world, session, _) = attached();
    let me = name(AGENT);
    world
        .core
        .open_leg(&me, dial(&session, 5), LegId(1))
        .unwrap();

    world
        .core
        .open_leg(&me, dial(&session, 6), LegId(2))
        .unwrap();
    let stale = world.core.open_leg(&me, dial(&session, 5), LegId(3));
    world.settle();

    assert_eq!(code(stale), CloseCode::Superseded);
    assert_eq!(world.closed_legs(), [(LegId(1), CloseCode::Superseded)]);
    // The end of the older leg is not the end of the newer.
    world.core.leg_closed(world.now, session.id, LegId(1));
    world.advance(GRACE);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
}

#[test]
fn a_session_lives_as_long_as_its_leg_and_the_grace_after_it() {
    let (mut world, session, conn) = attached();
    let me = name(AGENT);
    world
        .core
        .open_leg(&me, dial(&session, 1), LegId(1))
        .unwrap();
    for _ in 0..10 {
        world.heartbeat(conn);
        world.advance(LEASE / 2);
    }
    assert_eq!(world.state("edu-0"), DeviceState::Attached);

    world.core.leg_closed(world.now, session.id, LegId(1));
    world.heartbeat(conn);
    world.advance(GRACE - Duration::from_millis(1));
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    world
        .core
        .open_leg(&me, dial(&session, 2), LegId(2))
        .unwrap();
    world.heartbeat(conn);
    world.advance(GRACE);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);

    world.core.leg_closed(world.now, session.id, LegId(2));
    world.heartbeat(conn);
    world.advance(GRACE);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn detaching_closes_the_leg() {
    let (mut world, session, conn) = attached();
    world
        .core
        .open_leg(&name(AGENT), dial(&session, 1), LegId(9))
        .unwrap();
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    world.confirm(conn, "edu-0");
    assert_eq!(world.closed_legs(), [(LegId(9), CloseCode::Normal)]);
}

#[test]
fn the_session_shows_its_transports_while_both_legs_are_up() {
    let (mut world, session, _) = attached();
    let shown = |world: &World| {
        let info = world.core.session_info(session.id, &Viewer::Operator);
        let info = info.unwrap();
        (info.connected, info.agent_transport, info.host_transport)
    };
    world
        .core
        .open_leg(&name(AGENT), dial(&session, 1), LegId(1))
        .unwrap();
    assert_eq!(shown(&world), (false, String::new(), String::new()));
    world.core.leg_up(session.id, LegId(1), ("quic", "grpc"));
    assert_eq!(shown(&world), (true, "quic".into(), "grpc".into()));
    world.core.leg_closed(world.now, session.id, LegId(1));
    assert_eq!(shown(&world), (false, String::new(), String::new()));
}
