//! `DEVICE_SET_IRQS`: connecting, masking, unmasking and triggering interrupts.

use super::device::{IrqIndex, irq_index};
use crate::error::{DecodeError, Reason};
use crate::wire::{Fields, PutFields};

/// What happens to the interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// They are masked, or an eventfd that masks them is connected.
    Mask,
    /// They are unmasked, or an eventfd that unmasks them is connected.
    Unmask,
    /// They are triggered, or the eventfd that they are delivered by is connected.
    Trigger,
}

/// Whom it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// Every interrupt of the range.
    None,
    /// Those of the range whose byte is not 0; one byte each.
    Bool(&'a [u8]),
    /// Descriptors came with the message, one for each of the range; or none, which disconnects the range.
    Eventfd,
}

/// Payload of `DEVICE_SET_IRQS`. The reply has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// Interrupt type.
    pub index: IrqIndex,
    /// First of the range; start + count fits into 32 bits.
    pub start: u32,
    /// Length of the range. 0 (with start 0, [`IrqData::None`] and [`IrqAction::Trigger`]) disables the whole type.
    pub count: u32,
    /// What happens.
    pub action: IrqAction,
    /// Whom it happens to.
    pub data: IrqData<'a>,
}

impl<'a> SetIrqs<'a> {
    const NAME: &'static str = "DEVICE_SET_IRQS";
    const FIXED: u32 = 20;
    const DATA_NONE: u32 = 1;
    const DATA_BOOL: u32 = 1 << 1;
    const DATA_EVENTFD: u32 = 1 << 2;
    const DATA_MASK: u32 = 7;
    const ACTION_MASK: u32 = 1 << 3;
    const ACTION_UNMASK: u32 = 1 << 4;
    const ACTION_TRIGGER: u32 = 1 << 5;

    /// Length of the payload in bytes.
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        match self.data {
            IrqData::Bool(bytes) => {
                Self::FIXED + u32::try_from(bytes.len()).unwrap_or(u32::MAX - Self::FIXED)
            }
            IrqData::None | IrqData::Eventfd => Self::FIXED,
        }
    }

    /// Appends the payload of the command.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let data = match self.data {
            IrqData::None => Self::DATA_NONE,
            IrqData::Bool(_) => Self::DATA_BOOL,
            IrqData::Eventfd => Self::DATA_EVENTFD,
        };
        let action = match self.action {
            IrqAction::Mask => Self::ACTION_MASK,
            IrqAction::Unmask => Self::ACTION_UNMASK,
            IrqAction::Trigger => Self::ACTION_TRIGGER,
        };
        for field in [
            self.payload_len(),
            data | action,
            self.index.code(),
            self.start,
            self.count,
        ] {
            out.put_u32(field);
        }
        if let IrqData::Bool(bytes) = self.data {
            out.extend_from_slice(bytes);
        }
    }

    /// Reads the payload of the command. How many interrupts the type has is for the server to check.
    ///
    /// # Errors
    ///
    /// When its size is wrong, not exactly one kind of data and one action is named, or the range is empty where it may
    /// not be or overflows.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        super::device::check_argsz(&mut fields, Self::FIXED)?;
        let flags = fields.u32("flags")?;
        let index = irq_index(&mut fields)?;
        let start = fields.u32("start")?;
        let count = fields.u32("count")?;
        let action = match flags & !Self::DATA_MASK {
            Self::ACTION_MASK => IrqAction::Mask,
            Self::ACTION_UNMASK => IrqAction::Unmask,
            Self::ACTION_TRIGGER => IrqAction::Trigger,
            _ => return Err(fields.fail("flags", Reason::Invalid(flags.into()))),
        };
        if start.checked_add(count).is_none() {
            return Err(fields.fail("count", Reason::Overflow));
        }
        let data = match flags & Self::DATA_MASK {
            Self::DATA_NONE => IrqData::None,
            Self::DATA_BOOL => IrqData::Bool(fields.bytes("data", count as usize)?),
            Self::DATA_EVENTFD => IrqData::Eventfd,
            _ => return Err(fields.fail("flags", Reason::Invalid(flags.into()))),
        };
        let disables = start == 0 && data == IrqData::None && action == IrqAction::Trigger;
        if count == 0 && !disables {
            return Err(fields.fail("count", Reason::TooSmall { found: 0, least: 1 }));
        }
        fields.end()?;
        Ok(Self {
            index,
            start,
            count,
            action,
            data,
        })
    }
}
