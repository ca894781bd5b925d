//! A function that keeps its interrupt tables: what stays here, and what reaches the device.

use std::sync::{Arc, Mutex};

use potemkin_front_core::{FrontDevice, Interrupts, MessageInterrupts, NoBus, Outcome, VcpuAccess};
use potemkin_pci::{
    Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, Message, Space, Width,
};
use potemkin_session::access::{Access, Extent, Operation, Payload, Posting};
use potemkin_transport::TransportKind;
use tokio::sync::{Notify, oneshot};

use crate::rig::{Rig, rig_of};

/// Where BAR 2 has the MSI-X table and the pending bits.
pub(crate) const TABLE: u64 = 0x1000;
pub(crate) const PBA: u64 = 0xa000;
pub(crate) const VECTORS: u16 = 2048;
/// Capabilities and a register of the device's own in configuration space.
pub(crate) const MSI: u16 = 0x40;
pub(crate) const MSIX: u16 = 0x60;
const VENDOR: u16 = 0xc0;

pub(crate) fn bar2() -> Space {
    Space::Bar(BarIndex::B2)
}

pub(crate) fn descriptor() -> Descriptor {
    let msix = Capability::msix(VECTORS, (BarIndex::B2, 0x1000), (BarIndex::B2, 0xa000));
    DescriptorBuilder::new(0x1234, 0x0002)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .bar(BarIndex::B1, Bar::io(16))
        .bar(BarIndex::B2, Bar::memory64(1 << 20).prefetchable())
        .capability_at(0x40, Capability::msi(32, true).unwrap())
        .capability_at(0x60, msix.unwrap())
        .writable(VENDOR, &[0xff; 64])
        .forwarded(VENDOR, &[0xff; 64])
        .intx_pin(1)
        .build()
        .unwrap()
}

/// A VMM that writes down its interrupts, and with each message what a probe said at that moment.
#[derive(Default)]
pub(crate) struct Log {
    messages: Mutex<Vec<(Message, u64)>>,
    levels: Mutex<Vec<bool>>,
    pub(crate) probe: Mutex<Option<Box<dyn Fn() -> u64 + Send>>>,
    bell: Notify,
}

impl Interrupts for Log {
    fn set_intx(&self, level: bool) {
        self.levels.lock().unwrap().push(level);
        self.bell.notify_one();
    }

    fn message(&self, message: Message) {
        let probed = self
            .probe
            .lock()
            .unwrap()
            .as_ref()
            .map_or(0, |probe| probe());
        self.messages.lock().unwrap().push((message, probed));
        self.bell.notify_one();
    }
}

impl Log {
    /// Messages since the last time.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.probed()
            .into_iter()
            .map(|(message, _)| message)
            .collect()
    }

    pub(crate) fn probed(&self) -> Vec<(Message, u64)> {
        std::mem::take(&mut *self.messages.lock().unwrap())
    }

    /// Levels since the last time, once there is one.
    pub(crate) async fn levels(&self) -> Vec<bool> {
        loop {
            let levels = std::mem::take(&mut *self.levels.lock().unwrap());
            if !levels.is_empty() {
                return levels;
            }
            self.bell.notified().await;
        }
    }
}

/// Everything enabled but MSI and MSI-X; BAR 0 at 0xe000_0000, BAR 1 at 0xc000, BAR 2 at 0x12_4000_0000.
pub(crate) async fn embedded(kind: TransportKind) -> (Rig, Arc<Log>) {
    let log = Arc::new(Log::default());
    let rig = rig_of(kind, |session| {
        let device = FrontDevice::embedded(descriptor(), session, log.clone());
        let device = Arc::new(device);
        (device.clone(), MessageInterrupts::new(device))
    })
    .await;
    enable(&rig.device).await;
    (rig, log)
}

async fn enable(device: &FrontDevice) {
    for (offset, value) in [
        (0x10, 0xe000_0000_u64),
        (0x14, 0xc000),
        (0x18, 0x12_4000_0000),
    ] {
        let length = if offset == 0x18 { 8 } else { 4 };
        device
            .config_write(offset, &value.to_le_bytes()[..length])
            .await;
    }
    device.config_write(4, &[7]).await;
}

fn accesses(rig: &Rig) -> Vec<Access> {
    std::mem::take(&mut rig.applied.lock().unwrap().accesses)
}

#[tokio::test]
async fn accesses_of_the_table_and_of_the_pending_bits_cause_no_frame() {
    let (rig, _) = embedded(TransportKind::Quic).await;
    let device = &rig.device;
    let before = device.session().counters();

    let last = TABLE + 16 * 2047;
    device
        .region_write(bar2(), last, &0x12_fee0_1000_u64.to_le_bytes())
        .await;
    let written = device
        .memory_write(0x12_4000_0000 + last + 8, &[0x55, 0, 0, 0])
        .await;
    assert_eq!(written, Outcome::Done);
    let mut entry = [0; 16];
    device.region_read(bar2(), last, &mut entry).await;
    let mut all = vec![0; 16 * usize::from(VECTORS)];
    device.region_read(bar2(), TABLE, &mut all).await;
    let mut pending = [0xff; 256];
    device.region_read(bar2(), PBA, &mut pending).await;

    assert_eq!(
        entry,
        [
            0, 0x10, 0xe0, 0xfe, 0x12, 0, 0, 0, 0x55, 0, 0, 0, 1, 0, 0, 0
        ]
    );
    assert_eq!(all[16 * 2047..], entry);
    assert_eq!(pending, [0; 256]);
    assert_eq!(device.session().counters(), before);
}

#[tokio::test]
async fn an_access_across_the_edges_of_the_table_is_split() {
    let (rig, _) = embedded(TransportKind::Grpc).await;
    let device = &rig.device;
    let length = 8 + 16 * usize::from(VECTORS) + 8;
    let block = vec![0x44; length];

    device.region_write(bar2(), TABLE - 8, &block).await;
    let mut back = vec![0; length];
    device.region_read(bar2(), TABLE - 8, &mut back).await;

    assert_eq!(back[..8], [0x44; 8]);
    // Of vector control there is the mask bit only.
    assert_eq!(back[8..24], [[0x44; 12].as_slice(), &[0; 4]].concat());
    assert_eq!(back[length - 8..], [0x44; 8]);
    let seen: Vec<_> = accesses(&rig)
        .iter()
        .map(|access| (access.at.offset, access.bytes()))
        .collect();
    let edges = [(TABLE - 8, 8), (TABLE + 16 * 2048, 8)];
    assert_eq!(seen, [edges, edges].concat());
}

#[tokio::test]
async fn the_table_answers_only_while_memory_decode_is_on() {
    let (rig, _) = embedded(TransportKind::Quic).await;
    rig.device.config_write(4, &[4]).await;
    rig.device.region_write(bar2(), TABLE, &[4; 4]).await;
    let mut entry = [0; 4];
    rig.device.region_read(bar2(), TABLE, &mut entry).await;
    assert_eq!(entry, [0xff; 4]);

    rig.device.config_write(4, &[6]).await;

    rig.device.region_read(bar2(), TABLE, &mut entry).await;
    assert_eq!(entry, [0; 4]);
}

#[tokio::test]
async fn a_vmm_that_keeps_the_table_itself_leaves_its_bytes_to_the_device() {
    let rig = rig_of(TransportKind::Quic, |session| {
        (Arc::new(FrontDevice::new(descriptor(), session)), NoBus)
    })
    .await;
    enable(&rig.device).await;

    rig.device.region_write(bar2(), TABLE, &[1, 2, 3, 4]).await;
    let mut back = [0; 4];
    rig.device.region_read(bar2(), TABLE, &mut back).await;

    assert_eq!(back, [1, 2, 3, 4]);
    assert_eq!(accesses(&rig).len(), 2);
}

#[tokio::test]
async fn a_forwarded_config_write_arrives_as_it_was_made() {
    let (rig, _) = embedded(TransportKind::Grpc).await;
    let posting = Posting::NonPosted;
    for (offset, length, width) in [
        (VENDOR, 1, Width::B1),
        (VENDOR + 1, 1, Width::B1),
        (VENDOR + 3, 1, Width::B1),
        (VENDOR + 2, 2, Width::B2),
        (VENDOR + 4, 4, Width::B4),
    ] {
        let data = [0x81, 0x82, 0x83, 0x84];
        rig.device.config_write(offset, &data[..length]).await;

        let mut value = [0; 8];
        value[..length].copy_from_slice(&data[..length]);
        let value = u64::from_le_bytes(value);
        let seen = accesses(&rig);
        assert_eq!(seen.len(), 1, "{offset:#x}");
        assert_eq!(seen[0].at.space, Space::Config);
        assert_eq!(
            (seen[0].at.offset, seen[0].at.width),
            (offset.into(), width)
        );
        assert_eq!(seen[0].extent, Extent::Single);
        assert_eq!(
            seen[0].operation,
            Operation::Write(posting, Payload::Value(value))
        );
    }
}

#[tokio::test]
async fn of_a_forwarded_write_past_the_end_only_what_is_there_arrives() {
    let (rig, _) = embedded(TransportKind::Quic).await;

    rig.device.config_write(0xfe, &[1, 2, 3, 4]).await;

    let seen = accesses(&rig);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].at.offset, seen[0].bytes()), (0xfe, 2));
}

#[tokio::test]
async fn a_string_instruction_is_one_access_with_a_count() {
    let (rig, _) = embedded(TransportKind::Quic).await;
    let elements: Vec<u8> = (0..=255).collect();

    let written = rig.device.port_string_write(0xc004, Width::B2, &elements);
    assert_eq!(written.await, Outcome::Done);
    let mut back = [0; 12];
    let read = rig.device.port_string_read(0xc004, Width::B4, &mut back);
    assert_eq!(read.await, Outcome::Done);
    let nobody = rig
        .device
        .port_string_read(0xc010, Width::B1, &mut back)
        .await;

    assert_eq!(nobody, Outcome::NotDecoded);
    let seen = accesses(&rig);
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].at.offset, seen[0].at.width), (4, Width::B2));
    assert_eq!(seen[0].extent, Extent::Fixed(128));
    assert_eq!(seen[1].extent, Extent::Fixed(3));
    let Operation::Write(posting, Payload::Block(block)) = &seen[0].operation else {
        panic!("{:?}", seen[0]);
    };
    assert_eq!((*posting, &block[..]), (Posting::NonPosted, &elements[..]));
}

#[tokio::test]
async fn a_string_that_ends_in_part_of_an_element_is_refused() {
    let (rig, _) = embedded(TransportKind::Quic).await;
    let mut out = [0; 5];

    rig.device.string_read(bar2(), 0, Width::B4, &mut out).await;

    assert_eq!(out, [0xff; 5]);
    assert_eq!(rig.device.counters().refused, 1);
    assert_eq!(accesses(&rig).len(), 0);
}

#[test]
fn vcpu_threads_reach_memory_ports_and_strings() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (rig, _) = runtime.block_on(embedded(TransportKind::Quic));
    let (stop, stopped) = oneshot::channel::<()>();
    let network = std::thread::spawn(move || runtime.block_on(stopped));
    let vcpu: Arc<dyn VcpuAccess> = rig.device.clone();

    let threads: Vec<_> = (0..4_u64)
        .map(|n| {
            let vcpu = vcpu.clone();
            std::thread::spawn(move || {
                let address = 0xe000_0000 + n * 16;
                let mut out = [0; 8];
                for round in 0..20 {
                    assert!(vcpu.mmio_write(address, &[round; 8]));
                    assert!(vcpu.mmio_read(address, &mut out));
                    assert_eq!(out, [round; 8]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let block = vec![0x5a; 10_000];
    let mut back = vec![0; 10_000];
    assert!(vcpu.mmio_write(0x12_4001_0003, &block));
    assert!(vcpu.mmio_read(0x12_4001_0003, &mut back));
    assert_eq!(back, block);
    let mut byte = [0];
    assert!(vcpu.pio_write(0xc00f, Width::B1, &[7]));
    assert!(vcpu.pio_read(0xc00f, Width::B1, &mut byte));
    assert_eq!(byte, [7]);
    accesses(&rig);
    assert!(vcpu.pio_write(0xc000, Width::B1, &[1, 2, 3]));
    assert_eq!(accesses(&rig)[0].extent, Extent::Fixed(3));
    assert!(
        !vcpu.pio_write(0xc00f, Width::B2, &[1, 2]),
        "across the end"
    );
    assert!(!vcpu.mmio_read(0xd000_0000, &mut byte));

    drop(stop);
    let _ = network.join().unwrap();
}
