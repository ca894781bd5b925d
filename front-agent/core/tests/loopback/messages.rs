//! What a device's interrupts become in a VMM that takes messages.

use std::{
    io,
    sync::{Arc, Mutex},
};

use potemkin_front_core::{FrontDevice, GuestMemory, Window};
use potemkin_pci::{Message, registers::STATUS};
use potemkin_transport::TransportKind;

use crate::{
    embedded::{Log, MSI, MSIX, PBA, TABLE, bar2, embedded},
    rig::{Rig, bar0, reg},
};

const ENABLE: u8 = 0x80;
const FUNCTION_MASK: u8 = 0x40;

/// Has the device do something, and waits until it has.
async fn poke(device: &FrontDevice, register: u64, value: u64) {
    device
        .region_write(bar0(), register, &value.to_le_bytes())
        .await;
    settle(device).await;
}

async fn settle(device: &FrontDevice) {
    let mut byte = [0];
    device.region_read(bar0(), 0, &mut byte).await;
}

/// The message that [`arm`] gives a vector.
fn message(vector: u16) -> Message {
    Message {
        address: 0x12_fee0_0000 + u64::from(vector) * 4,
        data: u32::from(vector) | 0x4_0000,
    }
}

/// Programs and unmasks a vector, as a driver does: by dwords.
async fn arm(device: &FrontDevice, vector: u16) {
    let Message { address, data } = message(vector);
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    for (i, dword) in [[a, b, c, d], [e, f, g, h], data.to_le_bytes(), [0; 4]]
        .iter()
        .enumerate()
    {
        let at = TABLE + 16 * u64::from(vector) + 4 * i as u64;
        device.region_write(bar2(), at, dword).await;
    }
}

async fn set_mask(device: &FrontDevice, vector: u16, masked: bool) {
    let at = TABLE + 16 * u64::from(vector) + 12;
    device
        .region_write(bar2(), at, &u32::from(masked).to_le_bytes())
        .await;
}

async fn set_msix(device: &FrontDevice, control: u8) {
    device.config_write(MSIX + 3, &[control]).await;
}

async fn pending(device: &FrontDevice, vector: u16) -> bool {
    let mut word = [0; 8];
    let at = PBA + u64::from(vector / 64) * 8;
    device.region_read(bar2(), at, &mut word).await;
    u64::from_le_bytes(word) >> (vector % 64) & 1 == 1
}

async fn rig_with_msix() -> (Rig, Arc<Log>) {
    let (rig, log) = embedded(TransportKind::Quic).await;
    for vector in [0, 5, 7, 2047] {
        arm(&rig.device, vector).await;
    }
    set_msix(&rig.device, ENABLE).await;
    (rig, log)
}

#[tokio::test]
async fn a_vector_comes_out_as_the_message_that_the_guest_programmed() {
    let (rig, log) = rig_with_msix().await;

    for vector in [2047, 0, 2047] {
        poke(&rig.device, reg::MSIX, vector).await;
    }

    assert_eq!(log.messages(), [message(2047), message(0), message(2047)]);
    assert_eq!(rig.device.dma_counters().interrupts, 3);
}

/// Guest memory that a test looks into.
#[derive(Debug)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl GuestMemory for Memory {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_message_comes_after_the_dma_before_it() {
    let (rig, log) = rig_with_msix().await;
    let bytes = Arc::new(Mutex::new(vec![0; 4096]));
    let window = Window {
        address: 0x8000,
        size: 4096,
        readable: true,
        writable: true,
        memory: Some(Arc::new(Memory(bytes.clone()))),
    };
    rig.device.map_window(window).unwrap();

    for n in 0..500_u64 {
        let at = 0x8000 + n * 8;
        // What stands there when the message comes.
        let (bytes, start) = (bytes.clone(), usize::try_from(n * 8).unwrap());
        let probe = move || {
            let bytes = bytes.lock().unwrap();
            u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap())
        };
        *log.probe.lock().unwrap() = Some(Box::new(probe));
        poke(&rig.device, reg::DMA, at).await;
        assert_eq!(log.probed(), [(message(7), at)]);
    }
}

#[tokio::test]
async fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let (rig, log) = rig_with_msix().await;
    set_mask(&rig.device, 5, true).await;
    for _ in 0..3 {
        poke(&rig.device, reg::MSIX, 5).await;
    }
    assert!(pending(&rig.device, 5).await);
    assert_eq!(log.messages(), []);

    set_mask(&rig.device, 5, false).await;

    assert_eq!(log.messages(), [message(5)]);
    assert!(!pending(&rig.device, 5).await);
}

#[tokio::test]
async fn the_function_mask_holds_all_back() {
    let (rig, log) = rig_with_msix().await;
    set_msix(&rig.device, ENABLE | FUNCTION_MASK).await;
    for vector in [2047, 0] {
        poke(&rig.device, reg::MSIX, vector).await;
    }
    set_mask(&rig.device, 0, true).await;
    set_mask(&rig.device, 0, false).await;
    assert_eq!(log.messages(), []);

    set_msix(&rig.device, ENABLE).await;

    assert_eq!(log.messages(), [message(0), message(2047)]);
}

#[tokio::test]
async fn what_is_pending_waits_for_msix_and_for_bus_mastering() {
    let (rig, log) = rig_with_msix().await;
    set_msix(&rig.device, ENABLE | FUNCTION_MASK).await;
    poke(&rig.device, reg::MSIX, 5).await;
    set_msix(&rig.device, 0).await;
    assert!(pending(&rig.device, 5).await);
    rig.device.config_write(4, &[2]).await;
    set_msix(&rig.device, ENABLE).await;
    assert_eq!(log.messages(), []);

    rig.device.config_write(4, &[6]).await;

    assert_eq!(log.messages(), [message(5)]);
}

#[tokio::test]
async fn while_msix_is_off_its_vectors_are_dropped_and_counted() {
    let (rig, log) = rig_with_msix().await;
    set_msix(&rig.device, 0).await;
    poke(&rig.device, reg::MSIX, 5).await;
    set_msix(&rig.device, ENABLE).await;
    poke(&rig.device, reg::MSIX, 2048 % 2048).await;

    assert_eq!(log.messages(), [message(0)]);
    assert_eq!(rig.device.dma_counters().interrupts_dropped, 1);
}

#[tokio::test]
async fn a_reset_forgets_what_was_pending_and_programmed() {
    let (rig, log) = rig_with_msix().await;
    set_mask(&rig.device, 5, true).await;
    poke(&rig.device, reg::MSIX, 5).await;

    rig.device.reset();
    rig.device.config_write(4, &[7]).await;
    set_msix(&rig.device, ENABLE).await;
    set_mask(&rig.device, 5, false).await;

    assert!(!pending(&rig.device, 5).await);
    assert_eq!(log.messages(), []);
    let mut entry = [0; 16];
    rig.device.region_read(bar2(), TABLE, &mut entry).await;
    assert_eq!(entry[12..], [1, 0, 0, 0]);
    assert_eq!(entry[..12], [0; 12]);
}

/// MSI with 4 of 32 vectors allocated.
async fn rig_with_msi() -> (Rig, Arc<Log>) {
    let (rig, log) = embedded(TransportKind::Grpc).await;
    let device = &rig.device;
    device
        .config_write(MSI + 4, &0xfee0_1000_u32.to_le_bytes())
        .await;
    device.config_write(MSI + 8, &0x12_u32.to_le_bytes()).await;
    device.config_write(MSI + 12, &[0x40, 0x43]).await;
    device.config_write(MSI + 2, &[0b010_0001]).await;
    (rig, log)
}

fn msi(data: u32) -> Message {
    Message {
        address: 0x12_fee0_1000,
        data,
    }
}

#[tokio::test]
async fn msi_vectors_are_the_low_bits_of_the_data() {
    let (rig, log) = rig_with_msi().await;

    for vector in [0, 3, 30] {
        poke(&rig.device, reg::MSI, vector).await;
    }

    assert_eq!(log.messages(), [msi(0x4340), msi(0x4343), msi(0x4342)]);
}

#[tokio::test]
async fn masked_msi_is_pending_until_it_is_unmasked() {
    let (rig, log) = rig_with_msi().await;
    rig.device.config_write(MSI + 16, &[0b1000]).await;
    poke(&rig.device, reg::MSI, 3).await;
    poke(&rig.device, reg::MSI, 3).await;
    let mut bits = [0; 4];
    rig.device.config_read(MSI + 20, &mut bits).await;
    assert_eq!((bits, log.messages()), ([0b1000, 0, 0, 0], vec![]));

    rig.device.config_write(MSI + 16, &[0]).await;

    assert_eq!(log.messages(), [msi(0x4343)]);
    rig.device.config_read(MSI + 20, &mut bits).await;
    assert_eq!(bits, [0; 4]);
}

async fn interrupt_status(device: &FrontDevice) -> bool {
    let mut status = [0];
    let offset = u16::try_from(STATUS).unwrap();
    device.config_read(offset, &mut status).await;
    status[0] & 1 << 3 != 0
}

#[tokio::test]
async fn intx_is_a_level_that_the_status_register_shows_even_while_it_is_disabled() {
    let (rig, log) = embedded(TransportKind::Quic).await;
    poke(&rig.device, reg::INTX, 1).await;
    assert_eq!(log.levels().await, [true]);
    assert!(interrupt_status(&rig.device).await);

    rig.device.config_write(5, &[0x04]).await;
    assert_eq!(log.levels().await, [false]);
    assert!(interrupt_status(&rig.device).await);
    rig.device.config_write(5, &[0]).await;
    assert_eq!(log.levels().await, [true]);

    poke(&rig.device, reg::INTX, 0).await;
    assert_eq!(log.levels().await, [false]);
    assert!(!interrupt_status(&rig.device).await);
}

#[tokio::test]
async fn an_ended_intx_comes_again_if_the_device_still_raises_it() {
    let (rig, log) = embedded(TransportKind::Quic).await;
    poke(&rig.device, reg::INTX, 1).await;
    assert_eq!(log.levels().await, [true]);

    rig.device.intx_ended();
    assert_eq!(log.levels().await, [true]);

    // The write that lowers it is on its way when the guest ends it.
    let low = 0_u32.to_le_bytes();
    rig.device.region_write(bar0(), reg::INTX, &low).await;
    rig.device.intx_ended();
    settle(&rig.device).await;
    poke(&rig.device, reg::INTX, 1).await;
    assert_eq!(log.levels().await, [true], "nothing came in between");
}

#[tokio::test]
async fn a_device_that_is_gone_has_no_interrupt_pending() {
    let (rig, log) = embedded(TransportKind::Quic).await;
    poke(&rig.device, reg::INTX, 1).await;
    assert_eq!(log.levels().await, [true]);

    rig.device.session().close("test");
    rig.driver.await.unwrap();

    assert_eq!(log.levels().await, [false]);
    assert!(!interrupt_status(&rig.device).await);
}
