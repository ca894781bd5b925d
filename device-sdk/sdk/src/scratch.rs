//! A device for this crate's own tests: 4 KiB of memory behind BAR 0, and a FIFO at its last 8 bytes.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use potemkin_pci::{Bar, BarIndex, Descriptor, DescriptorBuilder};

use crate::device::little_endian;
use crate::{AccessError, Device, DeviceHandle, DmaError, Register, ResetKind};

const RAM_BYTES: usize = 0xff8;

#[derive(Debug)]
pub(crate) struct Scratch {
    descriptor: Descriptor,
    ram: Vec<u8>,
    fifo: VecDeque<u64>,
    pub(crate) handle: Option<DeviceHandle>,
    pub(crate) notified: usize,
    /// What it was told of DMA.
    pub(crate) dma: Vec<String>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let descriptor = DescriptorBuilder::new(0x1234, 0x0001)
            .bar(BarIndex::B0, Bar::memory32(8192))
            .build()
            .unwrap();
        Self {
            descriptor,
            ram: vec![0; RAM_BYTES],
            fifo: VecDeque::new(),
            handle: None,
            notified: 0,
            dma: Vec::new(),
        }
    }

    fn cell(&mut self, at: Register) -> Option<&mut [u8]> {
        let start = usize::try_from(at.offset).unwrap();
        self.ram.get_mut(start..start + at.bytes())
    }
}

impl Device for Scratch {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        if at.offset == RAM_BYTES as u64 {
            return self.fifo.pop_front().ok_or(AccessError::Failed("empty"));
        }
        let cell = self.cell(at).ok_or(AccessError::NoRegister(at))?;
        Ok(little_endian(cell))
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        if at.offset == RAM_BYTES as u64 {
            self.fifo.push_back(value);
            return Ok(());
        }
        let cell = self.cell(at).ok_or(AccessError::NoRegister(at))?;
        let bytes = value.to_le_bytes();
        cell.copy_from_slice(&bytes[..cell.len()]);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.ram.fill(0);
        self.fifo.clear();
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn notified(&mut self) {
        self.notified += 1;
    }

    fn dma_read_done(&mut self, tag: u64, _: Result<&[u8], DmaError>) {
        self.dma.push(format!("read {tag}"));
    }

    fn dma_write_failed(&mut self, _: DmaError) {
        self.dma.push("write failed".into());
    }

    fn bus_master_off(&mut self) {
        self.dma.push("off".into());
    }

    fn dma_ready(&mut self) {
        self.dma.push("ready".into());
    }
}
