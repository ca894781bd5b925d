//! A function that is kept when its device is lost, over real processes: the guest finds it failed, and resets it.

#![allow(clippy::unwrap_used)]

use std::{fs, time::Duration};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::admin::{AfterLoss, AttachRequest, DeviceState};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use potemkin_vfio_user::Client;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(60);
const CONFIG: u32 = 7;
const BASE: [u8; 4] = 0xe000_0000_u32.to_le_bytes();

/// Registers of `order` in BAR 0.
mod reg {
    pub(crate) const IDENTIFICATION: u64 = 0x00;
    pub(crate) const SCRATCH: u64 = 0x10;
    pub(crate) const TICKET: u64 = 0x18;
    pub(crate) const STATUS: u64 = 0x20;
    pub(crate) const RESET: u64 = 0xa0;
}
const ORDR: u32 = u32::from_le_bytes(*b"ORDR");
const FAILED: u32 = 1 << 31;

/// A guest that has placed BAR 0 and turned decode on.
struct Guest {
    stack: Stack,
    client: Client,
}

impl Guest {
    fn new(kind: TransportKind) -> Self {
        let options = StackOptions::on(kind).with_order(8);
        let stack = Stack::start(ROLE, &options).unwrap();
        let socket = stack.dir().join("vm.sock");
        let attached = stack.admin().attach(AttachRequest {
            name: "vm".to_owned(),
            device: Some(Stack::ORDER.to_owned()),
            selector: None,
            socket,
            after_loss: Some(AfterLoss::Reset),
        });
        let mut client = Client::connect(&attached.unwrap().socket).unwrap();
        client.region_write(CONFIG, 0x10, &BASE, false).unwrap();
        client.region_write(CONFIG, 4, &[6, 0], false).unwrap();
        Self { stack, client }
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, value: u32) {
        let bytes = value.to_le_bytes();
        self.client.region_write(0, offset, &bytes, false).unwrap();
    }

    fn base(&mut self) -> [u8; 4] {
        let mut base = [0; 4];
        self.client.region_read(CONFIG, 0x10, &mut base).unwrap();
        base
    }

    fn await_front(&mut self, line: &str) {
        self.stack.front.wait_log(line, LIMIT).unwrap();
    }
}

#[test]
fn a_device_whose_host_was_killed_comes_back_after_the_guests_reset() {
    for kind in [Quic, Grpc] {
        let mut guest = Guest::new(kind);
        guest.write(reg::SCRATCH, 7);
        assert_eq!(guest.read(reg::TICKET), 1, "{kind}");
        let before = guest.stack.status("vm");

        guest.stack.host.kill().unwrap();
        assert_eq!(guest.read(reg::STATUS), FAILED, "{kind}");
        guest.write(reg::SCRATCH, 8);
        assert_eq!(guest.read(reg::SCRATCH), u32::MAX, "{kind}");
        let lost = guest.stack.status("vm");
        assert_eq!(lost.state, DeviceState::Reattaching, "{kind}");
        guest.stack.restart_host().unwrap();
        guest.await_front("attached again session=");
        assert_eq!(guest.read(reg::IDENTIFICATION), ORDR, "{kind}");
        assert_eq!(guest.read(reg::STATUS), FAILED, "{kind}");

        guest.write(reg::RESET, 1);
        guest.await_front("it is live again");

        assert_eq!(guest.read(reg::STATUS), 0, "{kind}");
        assert_eq!(guest.read(reg::SCRATCH), 0, "{kind}: the device was reset");
        assert_eq!(guest.read(reg::TICKET), 1, "{kind}");
        assert_eq!(guest.base(), BASE, "{kind}");
        let after = guest.stack.status("vm");
        assert_eq!(after.state, DeviceState::Live, "{kind}");
        assert!(after.epoch > before.epoch, "{kind}");
        assert_ne!(after.session, before.session, "{kind}");
        assert!(after.counters.frames_sent >= before.counters.frames_sent);
    }
}

#[test]
fn a_function_level_reset_before_the_host_is_back_is_enough() {
    let mut guest = Guest::new(Quic);
    assert_eq!(guest.read(reg::TICKET), 1);
    guest.stack.host.kill().unwrap();
    assert_eq!(guest.read(reg::STATUS), FAILED);

    guest.client.reset().unwrap();
    guest
        .client
        .region_write(CONFIG, 0x10, &BASE, false)
        .unwrap();
    guest
        .client
        .region_write(CONFIG, 4, &[6, 0], false)
        .unwrap();
    assert_eq!(guest.read(reg::STATUS), u32::MAX);
    guest.stack.restart_host().unwrap();
    guest.await_front("it is live again");

    let answers = std::iter::repeat_with(|| guest.read(reg::TICKET));
    let first = answers.into_iter().find(|ticket| *ticket != u32::MAX);
    assert_eq!(first, Some(1), "it answers once it has reset");
}

#[test]
fn a_device_that_comes_back_as_another_stays_lost_and_the_log_says_why() {
    let mut guest = Guest::new(Quic);
    guest.stack.host.kill().unwrap();
    assert_eq!(guest.read(reg::STATUS), FAILED);
    let path = guest.stack.dir().join("host.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("vectors = 8", "vectors = 9")).unwrap();

    guest.stack.restart_host().unwrap();

    guest.await_front("difference=config_image at 0x");
    guest.await_front("the VMM is asked to unplug the function");
    assert_eq!(guest.read(reg::STATUS), u32::MAX);
    assert_eq!(guest.stack.status("vm").state, DeviceState::Lost);
}
