//! Power management (PCI PM 1.2 section 3.2).

use super::{Capability, id};
use crate::bytes::le16;

const CAPABILITIES: usize = 2;
/// Offset of the control and status register within the capability.
pub(crate) const POWER_CONTROL: usize = 4;

pub(crate) const LENGTH: usize = 8;

const VERSION_1_2: u16 = 3;
const D1_SUPPORT: u16 = 1 << 9;
const D2_SUPPORT: u16 = 1 << 10;

/// Control: the power state, D0 to D3hot.
const CONTROL_STATE: u16 = 0b11;
/// Control: going from D3hot to D0 resets nothing.
const CONTROL_NO_SOFT_RESET: u16 = 1 << 3;

impl Capability {
    /// Power management with the states D0 and D3hot, without power management events and without a reset on the way back to D0.
    #[must_use]
    pub fn power_management() -> Self {
        let mut power = Self::new(id::POWER_MANAGEMENT, &[0; LENGTH - 2]);
        power.block.set16(CAPABILITIES, VERSION_1_2);
        power.block.set16(POWER_CONTROL, CONTROL_NO_SOFT_RESET);
        power.block.writable16(POWER_CONTROL, CONTROL_STATE);
        power
    }
}

/// A power management capability in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerView {
    capabilities: u16,
    control: u16,
}

impl PowerView {
    /// The one whose first byte is at `offset`.
    pub(crate) fn at(image: &[u8], offset: usize) -> Self {
        Self {
            capabilities: le16(image, offset + CAPABILITIES),
            control: le16(image, offset + POWER_CONTROL),
        }
    }

    /// The power state's number, 0 (D0) to 3 (D3hot).
    pub(crate) fn state(self) -> u8 {
        (self.control & CONTROL_STATE).to_le_bytes()[0]
    }

    /// Whether the function has the state that the register now says.
    pub(crate) fn state_is_supported(self) -> bool {
        match self.state() {
            1 => self.capabilities & D1_SUPPORT != 0,
            2 => self.capabilities & D2_SUPPORT != 0,
            _ => true,
        }
    }

    /// Whether leaving D3hot resets the function.
    pub(crate) fn resets_on_power_up(self) -> bool {
        self.control & CONTROL_NO_SOFT_RESET == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_state_is_writable() {
        let power = Capability::power_management();
        assert_eq!(power.bytes(), [0x01, 0, 3, 0, 0x08, 0, 0, 0]);
        assert_eq!(power.writable_mask(), [0, 0, 0, 0, 0b11, 0, 0, 0]);
    }

    #[test]
    fn d1_and_d2_need_support() {
        let view = |capabilities, control| PowerView {
            capabilities,
            control,
        };
        assert!(view(0, 0).state_is_supported());
        assert!(view(0, 3).state_is_supported());
        assert!(!view(0, 1).state_is_supported());
        assert!(!view(D1_SUPPORT, 2).state_is_supported());
        assert!(view(D1_SUPPORT, 1).state_is_supported());
        assert!(view(D2_SUPPORT, 2).state_is_supported());
    }
}
