//! Who may use a device, and since when.

use potemkin_proto::v1::CloseCode;
use potemkin_sdk::Width;
use potemkin_session::ids::AttachNumber;
use potemkin_transport::TransportKind;

use crate::agent::{A, Agent, B, bar0, connect, ticket};
use crate::bed::Bed;

const SCRATCH: &str = "scratch-0";

#[tokio::test]
async fn epoch_is_on_disk_when_the_fence_is_confirmed() {
    let bed = Bed::new();
    let (_broker, _host, mut registration) = bed.start().await;

    assert_eq!(registration.fence("edu-0", 41, Some(A)).await, "");

    let file = std::fs::read_to_string(bed.path().join("state/epochs.json")).unwrap();
    assert!(file.contains(r#""edu-0":41"#), "{file}");
}

#[tokio::test]
async fn fence_that_cannot_be_remembered_is_not_confirmed_and_lets_nobody_in() {
    let bed = Bed::new();
    let (_broker, host, mut registration) = bed.start().await;
    // A folder in the way of the temporary file fails even for root.
    let obstacle = bed.path().join("state/epochs.json.tmp");
    std::fs::create_dir(&obstacle).unwrap();

    let error = registration.fence(SCRATCH, 1, Some(A)).await;
    assert!(error.starts_with("state_dir:"), "{error}");
    let connection = connect(&bed, "broker", host.addresses.listen, TransportKind::Quic).await;
    let ticket = ticket(SCRATCH, 1, A, registration.incarnation());
    let close = Agent::refused(&connection, ticket.clone()).await;
    assert_eq!(close.code(), CloseCode::UnknownSession);

    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(registration.fence(SCRATCH, 1, Some(A)).await, "");
    Agent::open(&connection, ticket).await.close().await;
}

#[tokio::test]
async fn newer_fence_closes_the_session_and_resets_the_device() {
    let bed = Bed::new();
    let (_broker, host, mut registration) = bed.start().await;
    let connection = connect(&bed, "broker", host.addresses.listen, TransportKind::Quic).await;
    assert_eq!(registration.fence(SCRATCH, 1, Some(A)).await, "");
    let older = ticket(SCRATCH, 1, A, registration.incarnation());
    let mut first = Agent::open(&connection, older.clone()).await;
    first.write(bar0(0, Width::B4), 5);
    assert_eq!(first.read(bar0(0, Width::B4)).await, Ok(5));

    assert_eq!(registration.fence(SCRATCH, 2, Some(B)).await, "");

    let close = first.closed().await;
    assert_eq!(close.code(), CloseCode::Superseded);
    assert!(close.message.contains("epoch 2"), "{}", close.message);
    let refused = Agent::refused(&connection, older).await;
    assert_eq!(refused.code(), CloseCode::Superseded);
    let newer = ticket(SCRATCH, 2, B, registration.incarnation());
    let mut second = Agent::open(&connection, newer).await;
    assert_eq!(second.read(bar0(0, Width::B4)).await, Ok(0));
}

#[tokio::test]
async fn newer_dial_takes_over_and_the_older_is_told() {
    let bed = Bed::new();
    let (_broker, host, mut registration) = bed.start().await;
    let connection = connect(&bed, "broker", host.addresses.listen, TransportKind::Grpc).await;
    assert_eq!(registration.fence(SCRATCH, 1, Some(A)).await, "");
    let older = ticket(SCRATCH, 1, A, registration.incarnation());
    let mut newer = older.clone();
    newer.path.attach_number = AttachNumber(2);
    let first = Agent::open(&connection, older.clone()).await;

    let mut second = Agent::open(&connection, newer).await;

    let close = first.closed().await;
    assert_eq!(close.code(), CloseCode::Superseded);
    let refused = Agent::refused(&connection, older).await;
    assert_eq!(refused.code(), CloseCode::Superseded);
    assert!(refused.message.contains("attach_number"));
    assert_eq!(second.read(bar0(0, Width::B4)).await, Ok(0));
}

#[tokio::test]
async fn older_fence_and_unknown_device_are_refused_by_field() {
    let bed = Bed::new();
    let (_broker, _host, mut registration) = bed.start().await;
    assert_eq!(registration.fence(SCRATCH, 5, Some(A)).await, "");

    let error = registration.fence(SCRATCH, 4, Some(B)).await;
    assert!(error.starts_with("epoch:"), "{error}");
    let error = registration.fence("scratch-9", 1, Some(A)).await;
    assert!(error.starts_with("device_id:"), "{error}");
}
