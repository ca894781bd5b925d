//! A device with the host's guards around it: bounds before each access, and a net under each callback.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use metrics::gauge;
use potemkin_sdk::{
    BlockMode, Descriptor, Device, DeviceHandle, DmaError, Register, ResetKind, Space,
};
use potemkin_session::access::{Access, Extent, MAX_ACCESS_BYTES, Operation, Payload, Status};

/// A device that may have failed.
pub(crate) struct Guarded {
    id: String,
    device: Box<dyn Device>,
    /// Why it is not called any more.
    failed: Option<String>,
    space_bytes: SpaceBytes,
    /// What the last read gave.
    answer: Vec<u8>,
}

/// How an access went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// For a read, the data is in [`Guarded::answer`].
    Done,
    /// The device refused it.
    Refused,
    /// It lies outside of what the descriptor offers, and never reached the device.
    OutOfBounds,
    /// The device has failed, now or earlier.
    Failed,
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Ok,
            _ => Self::DeviceError,
        }
    }
}

impl Guarded {
    /// `descriptor` is the one that the guests are told, whatever the device may say later.
    pub(crate) fn new(id: &str, device: Box<dyn Device>, descriptor: &Descriptor) -> Self {
        Self {
            id: id.to_owned(),
            device,
            failed: None,
            space_bytes: SpaceBytes::of(descriptor),
            answer: Vec::with_capacity(MAX_ACCESS_BYTES),
        }
    }

    /// Why the device failed, if it has.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The data of the last read that was [`Outcome::Done`].
    pub(crate) fn answer(&self) -> &[u8] {
        &self.answer
    }

    pub(crate) fn attached(&mut self, handle: DeviceHandle) {
        self.call(|device, _| device.attached(handle));
    }

    pub(crate) fn reset(&mut self, kind: ResetKind) {
        self.call(|device, _| device.reset(kind));
    }

    pub(crate) fn notified(&mut self) {
        self.call(|device, _| device.notified());
    }

    pub(crate) fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        self.call(|device, _| device.dma_read_done(tag, outcome));
    }

    pub(crate) fn dma_write_failed(&mut self, error: DmaError) {
        self.call(|device, _| device.dma_write_failed(error));
    }

    pub(crate) fn bus_master_off(&mut self) {
        self.call(|device, _| device.bus_master_off());
    }

    pub(crate) fn dma_ready(&mut self) {
        self.call(|device, _| device.dma_ready());
    }

    pub(crate) fn idle(&mut self) {
        self.call(|device, _| device.idle());
    }

    pub(crate) fn execute(&mut self, access: &Access) -> Outcome {
        self.answer.clear();
        if !self.space_bytes.hold(access) {
            return Outcome::OutOfBounds;
        }
        let at = Register::new(access.at.space, access.at.offset, access.at.width);
        let done = self.call(|device, answer| match &access.operation {
            Operation::Read => read(device, at, access.extent, answer),
            Operation::Write(_, payload) => write(device, at, access.extent, payload),
        });
        match done {
            Some(true) => Outcome::Done,
            Some(false) => Outcome::Refused,
            None => Outcome::Failed,
        }
    }

    /// `None`: the device has failed.
    fn call<R>(&mut self, callback: impl FnOnce(&mut dyn Device, &mut Vec<u8>) -> R) -> Option<R> {
        if self.failed.is_some() {
            return None;
        }
        let Self { device, answer, .. } = self;
        // After a panic the device is never called again, so what state it is in does not matter.
        let result = catch_unwind(AssertUnwindSafe(|| callback(&mut **device, answer)));
        result.map_err(|panic| self.fail(message_of(&*panic))).ok()
    }

    fn fail(&mut self, panic: String) {
        gauge!("potemkin_host_failed_devices").increment(1);
        tracing::error!(
            device = self.id,
            panic,
            "device failed: its callback panicked"
        );
        self.failed = Some(panic);
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded")
            .field("id", &self.id)
            .field("failed", &self.failed)
            .field("space_bytes", &self.space_bytes)
            .finish_non_exhaustive()
    }
}

fn read(device: &mut dyn Device, at: Register, extent: Extent, answer: &mut Vec<u8>) -> bool {
    let Some(mode) = mode_of(extent) else {
        let value = device.read(at);
        let done = value.is_ok();
        let bytes = value.unwrap_or_default().to_le_bytes();
        answer.extend_from_slice(&bytes[..at.bytes()]);
        return done;
    };
    answer.resize(at.bytes() * extent.count(), 0);
    device.read_block(at, mode, answer).is_ok()
}

fn write(device: &mut dyn Device, at: Register, extent: Extent, payload: &Payload) -> bool {
    let written = match (payload, mode_of(extent)) {
        (Payload::Value(value), _) => device.write(at, *value),
        (Payload::Block(data), Some(mode)) => device.write_block(at, mode, data),
        (Payload::Block(data), None) => device.write_block(at, BlockMode::Fixed, data),
    };
    written.is_ok()
}

fn mode_of(extent: Extent) -> Option<BlockMode> {
    match extent {
        Extent::Single => None,
        Extent::Consecutive(_) => Some(BlockMode::Consecutive),
        Extent::Fixed(_) => Some(BlockMode::Fixed),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The size of each space, by its code. 0: there is no such space.
#[derive(Debug, Clone, Copy)]
struct SpaceBytes([u64; 8]);

impl SpaceBytes {
    fn of(descriptor: &Descriptor) -> Self {
        let codes = [0, 1, 2, 3, 4, 5, 6, 7].map(Space::from_code);
        Self(codes.map(|space| space.map_or(0, |space| descriptor.space_size(space))))
    }

    fn hold(&self, access: &Access) -> bool {
        let size = self.0[usize::from(access.at.space.to_code())];
        let length = match access.extent {
            Extent::Single | Extent::Fixed(_) => access.at.width.bytes(),
            Extent::Consecutive(_) => access.bytes(),
        };
        let end = access.at.offset.checked_add(length as u64);
        end.is_some_and(|end| end <= size)
    }
}

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
