//! Which of several brokers a device is attached through, and given back.

use std::{sync::Arc, time::Duration};

use potemkin_front_core::{AttachError, NoBus, RemoteFunction, RemoteOptions, Target};
use tonic::Code;

use crate::{
    pool::{COUNTER, Manner, Pool},
    rig::{enable_memory, read_u32},
};

fn target() -> Target {
    Target::Device("edu-0".to_owned())
}

async fn pool_of_two() -> (Pool, RemoteOptions) {
    let pool = Pool::start(&[Manner::Serve, Manner::Serve]).await;
    let options = pool.options(Duration::from_secs(30));
    (pool, options)
}

async fn refusal(options: &RemoteOptions) -> AttachError {
    RemoteFunction::attach(options, &target())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_broker_that_only_relays_is_passed_over() {
    let (pool, options) = pool_of_two().await;
    pool.brokers[0].grants.answers().refusal = Some(Code::Unavailable);

    let function = RemoteFunction::attach(&options, &target()).await.unwrap();

    assert_eq!(pool.brokers[1].grants.answers().attaches.len(), 1);
    let device = Arc::clone(function.device());
    let (drive, lease) = function.into_parts(NoBus);
    let driver = tokio::spawn(drive);
    device.session().opened().await.unwrap();
    enable_memory(&device).await;
    assert_eq!(read_u32(&device, COUNTER).await, 0);
    assert_eq!(pool.streams(1).await[0].0, 1, "the one that granted it");
    device.session().close("done");
    driver.await.unwrap();
    lease.detach().await.unwrap();
    assert_eq!(pool.brokers[1].grants.answers().detaches, 1);
    assert_eq!(pool.brokers[0].grants.answers().detaches, 0);
}

#[tokio::test]
async fn a_broker_that_is_dead_is_passed_over() {
    let (mut pool, options) = pool_of_two().await;
    pool.brokers[0].kill().await;

    let function = RemoteFunction::attach(&options, &target()).await.unwrap();

    assert_eq!(function.attachment().device_id, "edu-0");
    assert_eq!(pool.brokers[1].grants.answers().attaches.len(), 1);
}

#[tokio::test]
async fn what_a_broker_refuses_by_its_rules_no_other_is_asked() {
    for code in [
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::NotFound,
    ] {
        let (pool, options) = pool_of_two().await;
        pool.brokers[0].grants.answers().refusal = Some(code);

        let error = refusal(&options).await;

        let refused = matches!(error, AttachError::Refused { code: said, .. } if said == code);
        assert!(refused, "{error}");
        assert!(pool.brokers[1].grants.answers().attaches.is_empty());
    }
}

#[tokio::test]
async fn when_no_broker_grants_it_each_is_named_with_its_reason() {
    let (mut pool, options) = pool_of_two().await;
    pool.brokers[0].grants.answers().refusal = Some(Code::Unavailable);
    pool.brokers[1].kill().await;

    let error = refusal(&options).await;

    assert!(error.may_pass());
    let told = error.to_string();
    for part in [
        "none of 2 brokers",
        "unavailable: says the test",
        &pool.brokers[0].address.to_string(),
        &pool.brokers[1].address.to_string(),
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn without_a_broker_nothing_is_attached() {
    let (_pool, options) = pool_of_two().await;
    let options = RemoteOptions {
        brokers: Vec::new(),
        ..options
    };

    let error = refusal(&options).await;

    assert!(matches!(error, AttachError::NoBroker), "{error}");
}

#[tokio::test]
async fn a_device_whose_broker_has_died_is_given_back_by_another() {
    let (mut pool, options) = pool_of_two().await;
    let function = RemoteFunction::attach(&options, &target()).await.unwrap();
    let (drive, lease) = function.into_parts(NoBus);
    drop(drive);
    pool.brokers[0].kill().await;

    lease.detach().await.unwrap();

    assert_eq!(pool.brokers[1].grants.answers().detaches, 1);
}

#[tokio::test]
async fn an_attach_offers_both_versions() {
    let (pool, options) = pool_of_two().await;

    RemoteFunction::attach(&options, &target()).await.unwrap();

    let answers = pool.brokers[0].grants.answers();
    let asked = &answers.attaches[0];
    assert_eq!((asked.version_min, asked.version_max), (1, 2));
}
