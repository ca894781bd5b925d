//! Who sees what.

use potemkin_proto::v1::DeviceState;

use super::super::*;
use super::world::*;

#[test]
fn an_agent_sees_the_devices_that_it_may_claim_and_its_own_sessions() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1", "uart-0"]);
    let mine = world.attach(conn, "edu-0");
    let request = world.ask_attach(OTHER_AGENT, &target("edu-1"));
    world.confirm(conn, "edu-1");
    world.attached(request);
    let me = Viewer::Agent(name(AGENT));

    let devices = world.core.list_devices(&me);
    let sessions = world.core.list_sessions(&me);

    let ids: Vec<_> = devices.iter().map(|d| d.device_id.as_str()).collect();
    assert_eq!(ids, ["edu-0", "edu-1"]);
    assert_eq!(devices[0].claim_id.len(), 16);
    assert!(devices[1].claim_id.is_empty());
    assert_eq!(devices[1].claimed_by, OTHER_AGENT);
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].session_id, mine.id.to_bytes());
}

#[test]
fn an_operator_sees_everything() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "uart-0"]);
    world.attach(conn, "edu-0");
    assert_eq!(world.core.list_devices(&Viewer::Operator).len(), 2);
    assert_eq!(world.core.list_sessions(&Viewer::Operator).len(), 1);
}

#[test]
fn a_host_sees_its_own_devices() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    world.register(OTHER_HOST, hello(2, vec![offer("edu-1")]));
    let devices = world.core.list_devices(&Viewer::Host(name(OTHER_HOST)));
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].device_id, "edu-1");
    assert!(devices[0].claim_id.is_empty());
}

#[test]
fn a_session_that_is_not_confirmed_is_not_shown() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    world.ask_attach(AGENT, &target("edu-0"));
    assert!(world.core.list_sessions(&Viewer::Operator).is_empty());
    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
}

#[test]
fn the_tally_counts_devices_by_state() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1", "edu-2"]);
    let away = world.register(OTHER_HOST, hello(2, vec![offer("nvme-0")]));
    world.attach(conn, "edu-0");
    world.ask_claim(AGENT, &target("edu-1"));
    world.lose_host(away);
    let expected = Tally {
        hosts: 1,
        sessions: 1,
        claims: 2,
        free: 1,
        claimed: 1,
        attached: 1,
        away: 1,
    };
    assert_eq!(world.core.tally(), expected);
}

#[test]
fn changes_are_told() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.seen.clear();

    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);

    let device_changed =
        |a: &Action| matches!(a, Action::DeviceChanged(d) if d.as_str() == "edu-0");
    let session_gone =
        |a: &Action| matches!(a, Action::SessionGone { session: s, .. } if *s == session.id);
    assert!(world.seen.iter().any(device_changed));
    assert!(world.seen.iter().any(session_gone));
}
