//! A function that is kept when its session is lost: failed until the guest resets it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use potemkin_front_core::{
    AfterLoss, Bus, FrontDevice, Interrupts, Lease, MessageDma, MessageInterrupts, Outcome,
    RemoteFunction, RemoteOptions, Standing, Target, Window,
};
use potemkin_pci::{
    Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, FailedRegister, Message, ResetWrite,
    Space, Width,
};
use potemkin_proto::v1::CloseCode;
use potemkin_session::{access::Vector, front::FrontState};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    pool::{COUNTER, Fault, Manner, Pool},
    rig::{bar0, read_u32},
};

/// Shows that the function has failed.
const STATUS: u64 = 0x1c;
const FAILED: u32 = 0x0302;
/// Bit 0 written as 0 resets it.
const CONTROL: u64 = 0x14;
const EXPRESS: u16 = 0x40;
const MSIX: u16 = 0x80;
const BASE: u32 = 0xe000_0000;
const LONG: Duration = Duration::from_secs(30);

fn descriptor() -> Descriptor {
    let msix = Capability::msix(4, (BarIndex::B2, 0), (BarIndex::B2, 0x800)).unwrap();
    DescriptorBuilder::new(0x1234, 0x0003)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .bar(BarIndex::B2, Bar::memory32(4096))
        .capability_at(0x40, Capability::pci_express_endpoint(true))
        .capability_at(0x80, msix)
        .failed(FailedRegister {
            bar: BarIndex::B0,
            offset: STATUS,
            width: Width::B4,
            value: FAILED.into(),
        })
        .reset_by(ResetWrite {
            bar: BarIndex::B0,
            offset: CONTROL,
            width: Width::B4,
            mask: 1,
            value: 0,
        })
        .build()
        .unwrap()
}

#[derive(Default)]
struct Vmm(Mutex<Vec<Message>>);

impl Interrupts for Vmm {
    fn set_intx(&self, _: bool) {}

    fn message(&self, message: Message) {
        self.0.lock().unwrap().push(message);
    }
}

/// DMA without a window's memory is kept for later.
#[derive(Clone)]
struct Slow {
    messages: MessageInterrupts,
    dma: Arc<Mutex<Vec<MessageDma>>>,
}

impl Bus for Slow {
    fn set_intx(&self, level: bool) {
        self.messages.set_intx(level);
    }

    fn msi(&self, vector: u16) {
        self.messages.msi(vector);
    }

    fn msix(&self, vector: u16) {
        self.messages.msix(vector);
    }

    fn dma_by_message(&self, dma: MessageDma) {
        self.dma.lock().unwrap().push(dma);
    }
}

/// A guest that has placed and enabled all of the function, with vector 0 armed and a window at 0x8000.
struct Guest {
    pool: Pool,
    device: Arc<FrontDevice>,
    vmm: Arc<Vmm>,
    dma: Arc<Mutex<Vec<MessageDma>>>,
    lease: Lease,
    driver: JoinHandle<()>,
}

impl Guest {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RemoteOptions)) -> Self {
        let pool = Pool::start(&[Manner::Serve]).await;
        pool.brokers[0].grants.answers().descriptor = Some(descriptor());
        let mut options = RemoteOptions {
            after_loss: AfterLoss::Reset,
            ..pool.options(LONG)
        };
        change(&mut options);
        let target = Target::Device("edu-0".to_owned());
        let vmm = Arc::new(Vmm::default());
        let function = RemoteFunction::embed(&options, &target, vmm.clone());
        let function = function.await.unwrap();
        let device = Arc::clone(function.device());
        let dma = Arc::default();
        let bus = Slow {
            messages: MessageInterrupts::new(Arc::clone(&device)),
            dma: Arc::clone(&dma),
        };
        let (drive, lease) = function.into_parts(bus);
        let driver = tokio::spawn(drive);
        device.session().opened().await.unwrap();
        let guest = Self {
            pool,
            device,
            vmm,
            dma,
            lease,
            driver,
        };
        guest.set_up().await;
        guest.map();
        guest
    }

    async fn set_up(&self) {
        let base = BASE.to_le_bytes();
        self.device.config_write(0x10, &base).await;
        self.device.config_write(4, &[6]).await;
        self.device.config_write(MSIX + 3, &[0x80]).await;
        let bar2 = Space::Bar(BarIndex::B2);
        self.device.region_write(bar2, 0, &[0; 16]).await;
    }

    fn map(&self) {
        let window = Window {
            address: 0x8000,
            size: 0x1000,
            readable: true,
            writable: true,
            memory: None,
        };
        self.device.map_window(window).unwrap();
    }

    async fn read(&self, offset: u64) -> u32 {
        read_u32(&self.device, offset).await
    }

    async fn write(&self, offset: u64, value: u32) -> Outcome {
        let data = value.to_le_bytes();
        self.device.region_write(bar0(), offset, &data).await
    }

    async fn flr(&self) {
        self.device.config_write(EXPRESS + 9, &[0x80]).await;
    }

    fn refuse(&self, code: Option<Code>) {
        self.pool.brokers[0].grants.answers().refusal = code;
    }

    /// The host has lost the session.
    async fn lose(&self, why: CloseCode) {
        self.pool.end_stream(Some(why));
        self.until(|guest| guest.device.session().state() == FrontState::Contained)
            .await;
    }

    /// Lost, and no broker gives it back for now.
    async fn lose_for_now(&self) {
        self.refuse(Some(Code::NotFound));
        self.lose(CloseCode::UnknownSession).await;
    }

    async fn until(&self, is: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is(self) {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, waiting).await.unwrap();
    }

    async fn attached_again(&self) {
        let waits = |guest: &Self| matches!(guest.device.standing(), Standing::AwaitingReset(_));
        self.until(waits).await;
    }

    async fn live_again(&self) {
        self.until(|guest| {
            let live = guest.device.session().state() == FrontState::Live;
            live && matches!(guest.device.standing(), Standing::Session)
        })
        .await;
        self.device.session().settled().await;
    }

    /// Given back once, and attached anew as the process that it is.
    fn asked_for_once_more(&self) {
        let answers = self.pool.brokers[0].grants.answers();
        assert_eq!((answers.detaches, answers.attaches.len()), (1, 2));
        assert!(!answers.attaches[1].agent_incarnation.is_empty());
    }

    fn frames(&self) -> u64 {
        self.device.session().counters().frames_sent
    }

    /// Address of BAR 0, and the command register.
    async fn placed(&self) -> (u32, u8) {
        let (mut base, mut command) = ([0; 4], [0]);
        self.device.config_read(0x10, &mut base).await;
        self.device.config_read(4, &mut command).await;
        (u32::from_le_bytes(base), command[0])
    }
}

#[tokio::test]
async fn a_function_that_is_not_kept_gives_all_ones() {
    let guest = Guest::with(|options| options.after_loss = AfterLoss::Remove).await;

    guest.lose(CloseCode::UnknownSession).await;
    guest.driver.await.unwrap();

    let mut word = [0; 4];
    guest.device.region_read(bar0(), STATUS, &mut word).await;
    assert_eq!(word, [0xff; 4]);
    assert!(matches!(guest.device.standing(), Standing::Session));
}

#[tokio::test]
async fn while_it_is_attached_again_the_guest_finds_it_failed() {
    let guest = Guest::new().await;
    guest.lose_for_now().await;
    let frames = guest.frames();

    let (status, counter) = (guest.read(STATUS).await, guest.read(COUNTER).await);
    let written = guest.write(0, 7).await;

    assert_eq!((status, counter), (FAILED, u32::MAX));
    assert_eq!(written, Outcome::Failed);
    let mut across = [0; 8];
    guest.device.region_read(bar0(), 0x18, &mut across).await;
    assert_eq!(across, [0xff, 0xff, 0xff, 0xff, 2, 3, 0, 0]);
    let mut string = [0; 4];
    let read = guest
        .device
        .string_read(bar0(), STATUS, Width::B2, &mut string);
    assert_eq!((read.await, string), (Outcome::Failed, [2, 3, 2, 3]));
    assert_eq!(guest.placed().await, (BASE, 6));
    assert_eq!(guest.frames(), frames);
    assert!(matches!(guest.device.standing(), Standing::Reattaching(_)));
}

#[tokio::test]
async fn attached_again_it_stays_failed_until_the_guest_resets_it() {
    let guest = Guest::new().await;
    guest.write(0, 7).await;
    guest.device.session().settled().await;
    guest.lose(CloseCode::UnknownSession).await;

    guest.attached_again().await;

    assert_eq!(guest.device.session().path().epoch.0, 2);
    assert_eq!(guest.lease.attachment().epoch.0, 2);
    guest.asked_for_once_more();
    let frames = guest.frames();
    assert_eq!(guest.read(STATUS).await, FAILED);
    assert_eq!(guest.write(0, 8).await, Outcome::Failed);
    assert_eq!(guest.frames(), frames, "no trip");
    assert_eq!(guest.pool.world().writes, [7]);
}

#[tokio::test]
async fn nothing_that_the_new_device_starts_reaches_a_failed_function() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;

    guest.pool.act(|host| {
        let generation = host.generations().newest;
        host.dma_write(generation, 0x8000, Bytes::from_static(b"late"));
        host.raise(generation, Vector::Msix(0));
    });

    guest
        .until(|guest| guest.device.dma_counters().interrupts_dropped == 1)
        .await;
    assert_eq!(guest.device.dma_counters().refused, 1);
    assert!(guest.dma.lock().unwrap().is_empty());
    assert!(guest.vmm.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_function_level_reset_brings_it_back() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;

    guest.flr().await;
    guest.live_again().await;

    assert_eq!(guest.pool.world().resets, 1);
    assert_eq!(guest.placed().await, (0, 0), "as after any reset");
    guest.set_up().await;
    assert_eq!(guest.read(COUNTER).await, 0);
    assert_eq!(guest.read(COUNTER).await, 1);
}

#[tokio::test]
async fn the_vmms_reset_brings_it_back() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;

    guest.device.reset();
    guest.live_again().await;

    guest.set_up().await;
    assert_eq!(guest.read(COUNTER).await, 0);
}

#[tokio::test]
async fn the_devices_own_reset_brings_it_back_where_the_guest_placed_it() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;
    guest.write(CONTROL, 1).await;
    assert_eq!(guest.read(STATUS).await, FAILED, "that is no reset");

    guest.write(CONTROL, 0x10).await;

    assert_eq!(guest.read(COUNTER).await, 0);
    assert_eq!(guest.placed().await, (BASE, 6));
    assert!(guest.pool.world().writes.is_empty());
    guest.write(0, 9).await;
    guest.device.session().settled().await;
    assert_eq!(guest.pool.world().writes, [9]);
}

#[tokio::test]
async fn after_the_reset_the_device_masters_the_bus_again() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;
    guest.write(CONTROL, 0).await;
    guest.read(COUNTER).await;

    guest.pool.act(|host| {
        let generation = host.generations().newest;
        host.dma_write(generation, 0x8000, Bytes::from_static(b"now"));
        host.raise(generation, Vector::Msix(0));
    });

    guest
        .until(|guest| guest.vmm.0.lock().unwrap().len() == 1)
        .await;
    assert_eq!(guest.dma.lock().unwrap().len(), 1);
    assert_eq!(guest.device.dma_counters().refused, 0);
}

#[tokio::test]
async fn what_the_lost_session_left_behind_has_no_effect_on_the_new_one() {
    let guest = Guest::new().await;
    guest.pool.act(|host| {
        host.dma_write(0, 0x8000, Bytes::from_static(b"late"));
    });
    guest
        .until(|guest| guest.dma.lock().unwrap().len() == 1)
        .await;
    let lost = guest.device.session();
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;
    guest.write(CONTROL, 0).await;
    guest.read(COUNTER).await;

    let late = guest.dma.lock().unwrap().pop().unwrap();
    assert!(!late.is_allowed());
    late.done(None);
    lost.close("late");

    assert_eq!(guest.read(COUNTER).await, 1);
    assert_eq!(guest.device.session().state(), FrontState::Live);
}

#[tokio::test]
async fn a_reset_before_it_is_attached_again_is_remembered() {
    let guest = Guest::new().await;
    guest.lose_for_now().await;

    guest.flr().await;
    guest.set_up().await;
    assert_eq!(guest.read(STATUS).await, u32::MAX, "it does not answer");
    guest.refuse(None);
    guest.live_again().await;

    assert_eq!(guest.read(COUNTER).await, 0);
    assert_eq!(guest.placed().await, (BASE, 6));
}

#[tokio::test]
async fn a_reset_by_write_before_it_is_attached_again_is_remembered() {
    let guest = Guest::new().await;
    guest.lose_for_now().await;

    guest.write(CONTROL, 0).await;
    assert_eq!(guest.read(STATUS).await, FAILED, "it takes its time");
    guest.refuse(None);
    guest.live_again().await;

    assert_eq!(guest.read(COUNTER).await, 0);
}

#[tokio::test]
async fn a_reset_that_was_under_way_when_the_session_was_lost_need_not_be_said_again() {
    let guest = Guest::with(|options| options.resume_window = Duration::ZERO).await;
    guest.pool.inject(Fault::CutBefore);

    guest.write(CONTROL, 0).await;
    guest
        .until(|guest| guest.device.session().path().epoch.0 == 2)
        .await;
    guest.live_again().await;

    assert_eq!(guest.read(COUNTER).await, 0);
}

#[tokio::test]
async fn a_device_that_has_become_another_stays_lost() {
    let guest = Guest::new().await;
    let other = DescriptorBuilder::new(0x1234, 0x0004).build().unwrap();
    guest.pool.brokers[0].grants.answers().descriptor = Some(other);

    guest.lose(CloseCode::UnknownSession).await;
    guest.driver.await.unwrap();

    assert_eq!(guest.device.session().state(), FrontState::Contained);
    assert!(matches!(guest.device.standing(), Standing::Session));
    assert_eq!(guest.pool.brokers[0].grants.answers().detaches, 2);
    guest.device.reset();
    guest.device.config_write(4, &[6]).await;
    let mut word = [0; 4];
    guest.device.region_read(bar0(), STATUS, &mut word).await;
    assert_eq!(word, [0xff; 4]);
}

#[tokio::test]
async fn a_session_that_is_lost_before_the_guests_reset_is_followed_by_another() {
    let guest = Guest::new().await;
    guest.lose(CloseCode::UnknownSession).await;
    guest.attached_again().await;

    guest.lose(CloseCode::UnknownSession).await;
    guest
        .until(|guest| guest.device.session().path().epoch.0 == 3)
        .await;

    assert_eq!(guest.read(STATUS).await, FAILED);
    guest.write(CONTROL, 0).await;
    assert_eq!(guest.read(COUNTER).await, 0);
}

#[tokio::test]
async fn from_a_newer_process_of_the_same_agent_the_device_is_not_taken_back() {
    let guest = Guest::new().await;

    guest.lose(CloseCode::Superseded).await;
    guest.attached_again().await;

    let answers = guest.pool.brokers[0].grants.answers();
    assert!(answers.attaches[1].agent_incarnation.is_empty());
}

#[tokio::test]
async fn a_function_that_is_closed_is_not_attached_again() {
    let guest = Guest::new().await;
    guest.lose_for_now().await;

    guest.device.close("done");

    guest.driver.await.unwrap();
    assert_eq!(guest.pool.brokers[0].grants.answers().attaches.len(), 1);
}
