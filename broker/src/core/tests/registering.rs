//! Hosts, leases, offers.

use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1::{CloseCode, DeviceDescriptor, DeviceState};

use super::super::dial::Dial;
use super::super::*;
use super::world::*;

#[test]
fn offered_devices_are_free() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1"]);
    assert_eq!(world.rejected(conn), []);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert_eq!(world.state("edu-1"), DeviceState::Free);
}

#[test]
fn a_device_that_was_never_used_is_not_fenced() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert_eq!(world.stored("edu-0"), None);
}

#[test]
fn devices_that_the_policy_denies_are_rejected_and_the_others_served() {
    let mut world = World::new();
    let stranger = "spiffe://elsewhere.dev/host/one";
    let conn = world.register(stranger, hello(1, vec![offer("edu-0")]));
    let rejected = world.rejected(conn);
    assert_eq!(rejected[0].device, "edu-0");
    assert!(rejected[0].reason.contains("policy.offer"));
    assert!(world.core.list_devices(&Viewer::Operator).is_empty());
}

#[test]
fn rejections_from_the_door_are_passed_on() {
    let mut world = World::new();
    let mut hello = hello(1, vec![offer("edu-0")]);
    let broken = Rejected {
        cause: RejectCause::Malformed,
        device: "edu-1".into(),
        reason: "descriptor: broken".into(),
    };
    hello.rejected.push(broken.clone());
    let conn = world.register(HOST, hello);
    assert_eq!(world.rejected(conn), [broken]);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_lost_stream_takes_the_devices_away_but_sessions_live_as_long_as_the_lease() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    let dial = Dial {
        session: session.id,
        epoch: session.epoch,
        attach_number: 1,
    };
    world.core.open_leg(&name(AGENT), dial, LegId(1)).unwrap();

    world.lose_host(conn);
    assert_eq!(world.state("edu-0"), DeviceState::Away);
    world.advance(LEASE - Duration::from_millis(1));
    assert_eq!(world.core.list_sessions(&Viewer::Operator).len(), 1);
    world.advance(Duration::from_millis(1));

    assert!(world.core.list_sessions(&Viewer::Operator).is_empty());
    assert_eq!(world.closed_legs(), [(LegId(1), CloseCode::Unreachable)]);
}

#[test]
fn the_same_incarnation_goes_on_where_it_was() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.lose_host(conn);
    world.advance(Duration::from_secs(1));

    let conn = world.host(&["edu-0"]);

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert!(
        world
            .core
            .session_info(session.id, &Viewer::Operator)
            .is_some()
    );
}

#[test]
fn a_new_incarnation_ends_the_sessions() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");

    let conn = world.register(HOST, hello(2, vec![offer("edu-0")]));

    assert!(
        world
            .core
            .session_info(session.id, &Viewer::Operator)
            .is_none()
    );
    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_newer_stream_of_the_same_host_replaces_the_older() {
    let mut world = World::new();
    let older = world.host(&["edu-0"]);
    let newer = world.host(&["edu-0"]);
    assert!(world.was_closed(older));
    world.lose_host(older);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    world.lose_host(newer);
    assert_eq!(world.state("edu-0"), DeviceState::Away);
}

#[test]
fn heartbeats_keep_the_lease_and_silence_ends_it() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    for _ in 0..5 {
        world.advance(LEASE - Duration::from_millis(1));
        world.heartbeat(conn);
    }
    assert_eq!(world.state("edu-0"), DeviceState::Free);

    world.advance(LEASE);

    assert!(world.was_closed(conn));
    assert_eq!(world.state("edu-0"), DeviceState::Away);
}

#[test]
fn a_device_stays_its_hosts_until_lease_and_drift_are_over() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let other = world.register(OTHER_HOST, hello(7, vec![offer("edu-0"), offer("edu-1")]));
    assert!(world.rejected(other)[0].reason.contains(HOST));
    assert_eq!(world.state("edu-1"), DeviceState::Free);

    world.lose_host(conn);
    world.advance(LEASE);
    let other = world.register(OTHER_HOST, hello(7, vec![offer("edu-0"), offer("edu-1")]));
    assert_eq!(world.rejected(other).len(), 1);
    world.advance(DRIFT);
    let other = world.register(OTHER_HOST, hello(7, vec![offer("edu-0"), offer("edu-1")]));

    assert_eq!(world.rejected(other), []);
    assert_eq!(world.info("edu-0").host, OTHER_HOST);
}

#[test]
fn a_device_that_moved_is_fenced_on_its_new_host() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.lose_host(conn);
    world.advance(LEASE + DRIFT);

    let other = world.register(OTHER_HOST, hello(7, vec![offer("edu-0")]));

    let (epoch, allowed) = world.confirm(other, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
}

#[test]
fn a_hosts_higher_epoch_lifts_ours() {
    let mut world = World::new();
    let mut known = offer("edu-0");
    known.highest_epoch = 40;
    let conn = world.register(HOST, hello(1, vec![known]));
    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > 40);
    assert_eq!(allowed, None);
    assert!(world.attach(conn, "edu-0").epoch > epoch);
}

#[test]
fn a_device_that_is_not_offered_any_more_is_gone_with_its_session() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1"]);
    let session = world.attach(conn, "edu-0");

    world.host(&["edu-1"]);

    assert!(
        world
            .core
            .session_info(session.id, &Viewer::Operator)
            .is_none()
    );
    assert!(
        world
            .core
            .device_info(&id("edu-0"), &Viewer::Operator)
            .is_none()
    );
    assert_eq!(world.state("edu-1"), DeviceState::Free);
}

#[test]
fn an_epoch_is_remembered_while_the_device_is_not_offered() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let first = world.attach(conn, "edu-0");
    world.host(&[]);
    let conn = world.host(&["edu-0"]);
    world.confirm(conn, "edu-0");
    assert!(world.attach(conn, "edu-0").epoch > first.epoch);
}

#[test]
fn a_changed_descriptor_ends_the_session() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    let mut changed = offer("edu-0");
    changed.descriptor = Arc::new(DeviceDescriptor {
        rom: vec![0; 2048].into(),
        ..DeviceDescriptor::default()
    });
    world.register(HOST, hello(1, vec![changed]));
    assert!(
        world
            .core
            .session_info(session.id, &Viewer::Operator)
            .is_none()
    );
}

#[test]
fn a_fence_that_was_lost_with_its_stream_is_sent_on_the_next() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    let lost = world.fence_on(conn, "edu-0").unwrap();
    world.lose_host(conn);

    let conn = world.host(&["edu-0"]);

    assert_eq!(world.fence_on(conn, "edu-0"), Some(lost));
}

#[test]
fn answers_on_a_stream_that_is_not_the_hosts_newest_are_ignored() {
    let mut world = World::new();
    let older = world.host(&["edu-0"]);
    let newer = world.host(&["edu-0"]);
    let request = world.ask_attach(AGENT, &target("edu-0"));
    let (epoch, _) = world.fence_on(newer, "edu-0").unwrap();
    world.fence_done(older, "edu-0", epoch, "");
    assert!(world.reply(request).is_none());
}

#[test]
fn hosts_beyond_the_limit_are_refused() {
    let mut world = World::new();
    for n in 0..limits().hosts {
        world.register(&format!("spiffe://potemkin.dev/host/{n}"), hello(1, vec![]));
    }
    let refused = world.core.register(
        world.now,
        ConnId(999),
        &name("spiffe://potemkin.dev/host/more"),
        hello(1, vec![]),
    );
    assert!(matches!(refused, Err(Refusal::Exhausted(_))));
}

#[test]
fn a_host_that_offered_nothing_is_forgotten_when_it_goes() {
    let mut world = World::new();
    for n in 0..10 * limits().hosts {
        let conn = world.register(&format!("spiffe://potemkin.dev/host/{n}"), hello(1, vec![]));
        world.lose_host(conn);
    }
    world.host(&["edu-0"]);
    assert_eq!(world.core.tally().hosts, 1);
}

#[test]
fn devices_beyond_the_limit_are_rejected() {
    let mut world = World::new();
    let offers = (0..=limits().devices).map(|n| offer(&format!("edu-{n}")));
    let conn = world.register(HOST, hello(1, offers.collect()));
    assert_eq!(world.rejected(conn).len(), 1);
    assert!(world.rejected(conn)[0].reason.contains("limit"));
}

#[test]
fn a_host_that_stays_away_is_forgotten_with_its_devices() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.lose_host(conn);
    world.advance(LEASE);
    world.advance(FORGET);
    assert!(world.core.list_devices(&Viewer::Operator).is_empty());
    // There is room again for as many other hosts.
    for n in 0..limits().hosts {
        world.register(&format!("spiffe://potemkin.dev/host/{n}"), hello(1, vec![]));
    }
}

#[test]
fn what_is_not_taken_is_told_with_its_kind_of_reason() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let offers = (0..9).map(|n| offer(&format!("edu-{n}"))).collect();

    let conn = world.register(OTHER_HOST, hello(1, offers));

    let rejected = world.rejected(conn);
    let told = rejected.iter().map(|r| (r.device.as_str(), r.cause));
    let wanted = [("edu-0", RejectCause::Owned), ("edu-8", RejectCause::Full)];
    assert!(told.eq(wanted), "{rejected:?}");
    let stranger = world.register("spiffe://else.where/host/x", hello(1, vec![offer("edu-0")]));
    assert_eq!(world.rejected(stranger)[0].cause, RejectCause::Policy);
}
