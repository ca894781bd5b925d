//! What the guest's accesses become.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use potemkin_front_core::Outcome::{Failed, NotDecoded};
use potemkin_pci::{BarIndex, Space, Width};
use potemkin_service::certs::{self, DevOptions};
use potemkin_session::front::FrontState;
use potemkin_transport::{DialOptions, Dialer, IdentityPattern, Role, TransportKind};
use tokio::{net::UdpSocket, sync::oneshot};

use crate::rig::{bar0, enable_memory, material, read_u32, rig};

/// The command register; its bit 1 turns memory decode on.
const COMMAND: u16 = 4;

#[tokio::test]
async fn a_thousand_posted_writes_and_a_read_travel_in_a_few_frames_and_one_round_trip() {
    for kind in [TransportKind::Quic, TransportKind::Grpc] {
        let rig = rig(kind).await;
        enable_memory(&rig.device).await;
        let before = rig.device.session().counters();

        for n in 0..1_000_u32 {
            let offset = u64::from(n % 16) * 4;
            let data = n.to_le_bytes();
            rig.device.region_write(bar0(), offset, &data).await;
        }
        let value = read_u32(&rig.device, 60).await;

        let after = rig.device.session().counters();
        assert_eq!(value, 991, "the read comes behind all writes");
        assert_eq!(after.round_trips - before.round_trips, 1, "{kind}");
        let frames = after.frames_sent - before.frames_sent;
        assert!(frames <= 8, "{kind}: {frames} frames");
        let applied = rig.applied.lock().unwrap();
        let expected: Vec<_> = (0..1_000).map(|n| ((n % 16) * 4, n)).collect();
        assert_eq!(applied.writes, expected, "complete and in order");
        assert!(applied.frames <= 8, "{kind}: {} frames", applied.frames);
    }
}

#[tokio::test]
async fn reads_of_several_vcpus_are_in_flight_at_the_same_time() {
    for kind in [TransportKind::Quic, TransportKind::Grpc] {
        let rig = rig(kind).await;
        enable_memory(&rig.device).await;
        rig.device.region_write(bar0(), 0, &[1, 2, 3, 4]).await;
        rig.device.session().settled().await;
        let before = rig.device.session().counters();

        // Each waits for its own; nobody drives the session before all of them wait.
        let read = |offset| read_u32(&rig.device, offset);
        let values = tokio::join!(read(0), read(4), read(0), read(8));

        assert_eq!(values, (0x0403_0201, 0, 0x0403_0201, 0), "{kind}");
        let after = rig.device.session().counters();
        assert_eq!(after.round_trips - before.round_trips, 1, "{kind}");
    }
}

#[tokio::test]
async fn configuration_space_causes_no_frame() {
    let rig = rig(TransportKind::Quic).await;
    let before = rig.device.session().counters();

    let mut ids = [0; 4];
    for _ in 0..100 {
        rig.device.config_read(0, &mut ids).await;
    }
    rig.device.config_write(0x10, &[0xff; 4]).await;
    let mut size = [0; 4];
    rig.device.config_read(0x10, &mut size).await;

    assert_eq!(u32::from_le_bytes(ids), 0x0001_1234);
    assert_eq!(u32::from_le_bytes(size), 0xffff_f000);
    assert_eq!(rig.device.session().counters(), before);
}

#[tokio::test]
async fn what_is_not_there_reads_as_all_ones_without_a_frame() {
    let rig = rig(TransportKind::Grpc).await;
    let before = rig.device.session().counters();

    assert_eq!(read_u32(&rig.device, 0).await, u32::MAX, "decode is off");
    enable_memory(&rig.device).await;
    assert_eq!(
        read_u32(&rig.device, 4_094).await,
        u32::MAX,
        "crosses the end"
    );
    assert_eq!(read_u32(&rig.device, u64::MAX).await, u32::MAX);
    let mut byte = [0];
    let bar1 = Space::Bar(BarIndex::new(1).unwrap());
    let outcome = rig.device.region_read(bar1, 0, &mut byte).await;
    assert_eq!((outcome, byte), (NotDecoded, [0xff]), "no such BAR");
    let outcome = rig.device.region_read(Space::Rom, 0, &mut byte).await;
    assert_eq!((outcome, byte), (NotDecoded, [0xff]), "no ROM");
    let outcome = rig.device.memory_read(0x1000, &mut [0]).await;
    assert_eq!(outcome, NotDecoded, "no BAR is placed");
    let outcome = rig.device.port_string_write(0x1000, Width::B2, &[0; 8]);
    assert_eq!(outcome.await, NotDecoded, "no such port");

    assert_eq!(rig.device.session().counters(), before);
}

#[tokio::test]
async fn an_access_of_any_length_is_carried() {
    let rig = rig(TransportKind::Quic).await;
    enable_memory(&rig.device).await;
    let block: Vec<u8> = (0..=255).collect();

    rig.device.region_write(bar0(), 3, &block).await;
    let mut back = vec![0; 256];
    rig.device.region_read(bar0(), 3, &mut back).await;

    assert_eq!(back, block);
}

#[tokio::test]
async fn a_reset_reaches_the_device_in_order() {
    let rig = rig(TransportKind::Quic).await;
    enable_memory(&rig.device).await;
    rig.device.region_write(bar0(), 0, &[1, 2, 3, 4]).await;

    rig.device.reset();
    assert_eq!(
        read_u32(&rig.device, 0).await,
        u32::MAX,
        "decode is off again"
    );
    enable_memory(&rig.device).await;
    assert_eq!(read_u32(&rig.device, 0).await, u32::MAX, "not confirmed");
    rig.device.session().settled().await;

    assert_eq!(read_u32(&rig.device, 0).await, 0);
}

#[tokio::test]
async fn a_read_that_is_never_answered_gives_all_ones_once_and_the_next_at_once() {
    let rig = rig(TransportKind::Grpc).await;
    enable_memory(&rig.device).await;

    assert_eq!(read_u32(&rig.device, 0xff0).await, u32::MAX);
    let frames = rig.device.session().counters().frames_sent;
    assert_eq!(rig.device.session().state(), FrontState::Contained);
    let mut word = [0; 4];
    let outcome = rig.device.region_read(bar0(), 0, &mut word).await;
    assert_eq!((outcome, word), (Failed, [0xff; 4]));
    let outcome = rig.device.region_write(bar0(), 0, &word).await;
    assert_eq!(outcome, Failed);

    assert_eq!(rig.device.session().counters().frames_sent, frames);
    assert!(
        rig.device
            .session()
            .lost()
            .unwrap()
            .reason
            .contains("300 ms")
    );
    rig.driver.await.unwrap();
}

#[tokio::test]
async fn a_driver_that_goes_away_leaves_no_reader_waiting() {
    let rig = rig(TransportKind::Grpc).await;
    enable_memory(&rig.device).await;
    let device = Arc::clone(&rig.device);
    let reader = tokio::spawn(async move { read_u32(&device, 0xff0).await });
    tokio::task::yield_now().await;

    rig.driver.abort();

    assert_eq!(reader.await.unwrap(), u32::MAX);
    assert_eq!(rig.device.session().state(), FrontState::Contained);
}

#[tokio::test]
async fn a_host_that_goes_away_leaves_no_reader_waiting() {
    for kind in [TransportKind::Quic, TransportKind::Grpc] {
        let rig = rig(kind).await;
        enable_memory(&rig.device).await;
        drop(rig.stop);
        rig.server.await.unwrap();

        assert_eq!(read_u32(&rig.device, 0).await, u32::MAX);

        assert_eq!(rig.device.session().state(), FrontState::Contained);
    }
}

#[test]
fn a_vcpu_thread_reads_and_writes_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rig = runtime.block_on(rig(TransportKind::Quic));
    let device = Arc::new(rig.device);
    let (stop, stopped) = oneshot::channel::<()>();
    let network = std::thread::spawn(move || runtime.block_on(stopped));

    device.config_write_blocking(COMMAND, &[2, 0]);
    let vcpus: Vec<_> = (0..4_u64)
        .map(|vcpu| {
            let device = Arc::clone(&device);
            std::thread::spawn(move || {
                let mut out = [0; 8];
                for n in 0..50_u64 {
                    let value = (vcpu << 32 | n).to_le_bytes();
                    device.region_write_blocking(bar0(), vcpu * 8, &value);
                    device.region_read_blocking(bar0(), vcpu * 8, &mut out);
                    assert_eq!(out, value);
                }
            })
        })
        .collect();
    for vcpu in vcpus {
        vcpu.join().unwrap();
    }

    drop(stop);
    let _ = network.join().unwrap();
    // The device never saw a reset or a gap: every write is there.
    assert_eq!(rig.applied.lock().unwrap().writes.len(), 200);
}

#[tokio::test]
async fn an_unused_udp_port_is_a_clear_error() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let certs = tempfile::tempdir().unwrap();
    let dir = certs.path().join("certs");
    certs::write_dev(&dir, &DevOptions::default()).unwrap();
    let tls = material(&dir, "agent");
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Host);
    let options = DialOptions {
        connect_timeout: Duration::from_millis(200),
        ..DialOptions::default()
    };

    let error = Dialer::new(tls, expect, options)
        .connect(TransportKind::Quic, silent.local_addr().unwrap())
        .await
        .unwrap_err();

    let port = silent.local_addr().unwrap().port().to_string();
    assert!(error.to_string().contains(&port), "{error}");
}
