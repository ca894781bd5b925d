//! Paths that are lost, and others that are found.

use std::time::Duration;

use potemkin_front_core::{Outcome, RemoteOptions};
use potemkin_proto::v1::CloseCode;
use potemkin_session::front::FrontState;
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    pool::{Agent, COUNTER, Fault, Manner, Pool, tcp_only},
    rig::{bar0, read_u32},
};

/// So long that no test comes near it, on whatever machine.
const LONG: Duration = Duration::from_secs(30);

async fn count(agent: &Agent) -> u32 {
    read_u32(&agent.device, COUNTER).await
}

#[tokio::test]
async fn an_access_whose_stream_is_cut_is_answered_over_the_next_and_executed_once() {
    for kind in [Quic, Grpc] {
        for fault in [Fault::CutBefore, Fault::CutAfter] {
            let pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
            let transport = kind;
            let options = RemoteOptions {
                transport,
                ..pool.options(LONG)
            };
            let agent = pool.agent(options).await;
            assert_eq!(count(&agent).await, 0);
            pool.inject(fault);

            let value = count(&agent).await;

            assert_eq!(value, 1, "{kind} {fault:?}");
            assert_eq!(count(&agent).await, 2, "{kind} {fault:?}");
            assert_eq!(pool.world().reads, 3, "{kind} {fault:?}");
            let link = agent.session().link();
            assert_eq!(link.resumes, 1, "{kind} {fault:?}");
            assert!(link.interrupted.is_none());
            assert_eq!(agent.broker(), pool.brokers[1].address, "the next one");
        }
    }
}

#[tokio::test]
async fn posted_writes_around_a_cut_are_applied_once_and_in_order() {
    let pool = Pool::start(&[Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;
    pool.inject(Fault::CutAfter);

    for n in 0..500_u32 {
        let data = n.to_le_bytes();
        agent.device.region_write(bar0(), 0, &data).await;
    }
    agent.session().settled().await;

    let expected: Vec<u64> = (0..500).collect();
    assert_eq!(pool.world().writes, expected);
    assert_eq!(agent.session().link().resumes, 1);
}

#[tokio::test]
async fn a_session_that_is_idle_is_resumed_before_somebody_needs_it() {
    let pool = Pool::start(&[Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;

    pool.end_stream(None);

    assert_eq!(pool.streams(2).await, [(0, Quic), (0, Quic)]);
    assert_eq!(count(&agent).await, 0);
    assert_eq!(agent.session().link().resumes, 1);
}

#[tokio::test]
async fn when_its_broker_dies_a_session_goes_on_through_the_second() {
    for kind in [Quic, Grpc] {
        let mut pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
        let options = RemoteOptions {
            transport: kind,
            ..pool.options(LONG)
        };
        let agent = pool.agent(options).await;
        pool.brokers[0].kill().await;

        assert_eq!(count(&agent).await, 0, "{kind}");

        assert_eq!(agent.broker(), pool.brokers[1].address, "{kind}");
    }
}

#[tokio::test]
async fn what_one_transport_does_not_let_through_the_other_may() {
    let mut pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
    let mut options = pool.options(LONG);
    let behind_tcp = tcp_only(pool.brokers[1].address).await;
    options.brokers[1].address = behind_tcp.to_string();
    let agent = pool.agent(options).await;
    pool.brokers[0].kill().await;

    assert_eq!(count(&agent).await, 0);

    let route = agent.session().link().route.unwrap();
    assert_eq!((route.address, route.transport), (behind_tcp, Grpc));
}

#[tokio::test]
async fn a_path_that_stands_still_is_left_for_another() {
    let pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
    let agent = pool.agent(pool.options(Duration::from_secs(4))).await;
    pool.inject(Fault::Freeze);

    assert_eq!(count(&agent).await, 0);

    assert_eq!(agent.broker(), pool.brokers[1].address);
    assert_eq!(agent.session().link().resumes, 1);
}

#[tokio::test]
async fn a_broker_that_takes_streams_and_answers_nothing_is_left_for_another() {
    let mut pool = Pool::start(&[Manner::Serve, Manner::Mute, Manner::Serve]).await;
    let agent = pool.agent(pool.options(Duration::from_secs(4))).await;
    pool.brokers[0].kill().await;

    assert_eq!(count(&agent).await, 0);

    assert_eq!(agent.broker(), pool.brokers[2].address);
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_session_yet_is_asked_again() {
    let pool = Pool::start(&[Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;
    pool.brokers[0].becomes(Manner::RefuseAtFirst(3));
    pool.inject(Fault::CutAfter);

    assert_eq!(count(&agent).await, 0);

    assert_eq!(agent.session().link().resumes, 1);
    assert_eq!(pool.streams(5).await.len(), 5);
}

#[tokio::test]
async fn of_a_broker_that_goes_away_a_session_moves_to_another() {
    let pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;
    let leaving = CloseCode::GoingAway;
    pool.brokers[0].becomes(Manner::Refuse(leaving));

    pool.end_stream(Some(leaving));

    assert_eq!(pool.streams(2).await[1], (1, Quic));
    assert_eq!(count(&agent).await, 0);
    assert_eq!(agent.session().link().resumes, 1);
}

#[tokio::test]
async fn an_access_for_which_no_path_is_found_is_contained_at_its_deadline() {
    let mut pool = Pool::start(&[Manner::Serve]).await;
    let agent = pool.agent(pool.options(Duration::from_millis(300))).await;
    pool.brokers[0].kill().await;

    assert_eq!(count(&agent).await, u32::MAX);

    assert_eq!(agent.session().state(), FrontState::Contained);
    let lost = agent.session().lost().unwrap();
    assert!(lost.reason.contains("within 300 ms"), "{}", lost.reason);
    let mut word = [0; 4];
    let outcome = agent.device.region_read(bar0(), COUNTER, &mut word).await;
    assert_eq!((outcome, word), (Outcome::Failed, [0xff; 4]));
    agent.driver.await.unwrap();
}

#[tokio::test]
async fn a_path_that_nobody_waits_for_is_looked_for_as_long_as_the_window() {
    let mut pool = Pool::start(&[Manner::Serve]).await;
    let options = RemoteOptions {
        resume_window: Duration::from_millis(200),
        ..pool.options(LONG)
    };
    let agent = pool.agent(options).await;
    pool.brokers[0].kill().await;

    agent.driver.await.unwrap();

    assert_eq!(agent.device.session().state(), FrontState::Contained);
    let lost = agent.device.session().lost().unwrap();
    assert!(lost.reason.contains("no other path"), "{}", lost.reason);
    assert!(agent.device.session().link().dials > 1);
}

#[tokio::test]
async fn without_a_window_a_session_ends_with_its_path() {
    let pool = Pool::start(&[Manner::Serve]).await;
    let options = RemoteOptions {
        resume_window: Duration::ZERO,
        ..pool.options(LONG)
    };
    let agent = pool.agent(options).await;
    pool.inject(Fault::CutAfter);

    assert_eq!(count(&agent).await, u32::MAX);

    assert_eq!(agent.session().state(), FrontState::Contained);
    assert_eq!(agent.session().link().dials, 0);
}

#[tokio::test]
async fn a_session_of_version_1_is_contained_when_its_path_is_lost() {
    let pool = Pool::start(&[Manner::ServeOld, Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;
    assert_eq!(count(&agent).await, 0);
    pool.inject(Fault::CutAfter);

    assert_eq!(count(&agent).await, u32::MAX);

    assert_eq!(agent.session().state(), FrontState::Contained);
    assert_eq!(agent.session().link().dials, 0);
}

#[tokio::test]
async fn a_session_that_is_closed_while_it_has_no_path_ends_at_once() {
    let pool = Pool::start(&[Manner::Serve]).await;
    let agent = pool.agent(pool.options(LONG)).await;
    pool.brokers[0].becomes(Manner::Mute);
    pool.end_stream(None);
    pool.streams(2).await;
    assert_eq!(agent.session().state(), FrontState::Resuming);

    agent.session().close("done");

    agent.driver.await.unwrap();
}
