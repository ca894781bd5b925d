//! Registers in capabilities whose writes mean more than bits in an image.

use std::ops::Range;

use crate::bytes::le16;
use crate::capability::{
    self, EXPRESS_CONTROL, EXPRESS_FLR_BIT, LINK_CONTROL, MsiRegisters, MsiView, POWER_CONTROL,
    PowerView, express_has_flr, id,
};

/// A conventional function's advanced features (PCI Advanced Capabilities for Conventional PCI ECN): offsets in the capability.
const ADVANCED_CAPABILITIES: usize = 3;
const ADVANCED_CONTROL: usize = 4;
const ADVANCED_FLR_CAPABLE: u8 = 1 << 1;
const ADVANCED_INITIATE_FLR: u8 = 1 << 0;

/// Where they are. All `None` in a function without capabilities.
#[derive(Clone, Debug, Default)]
pub(super) struct Special {
    /// Where a write of 1 starts a function-level reset: offset and bit.
    flr: [Option<(usize, u8)>; 2],
    power: Option<usize>,
    pub(super) link_control: Option<usize>,
    pub(super) msi: Option<Range<usize>>,
    /// Of the capability as the descriptor has it: what the guest may write of its control register moves nothing.
    pub(super) msi_registers: Option<MsiRegisters>,
    pub(super) msix_control: Option<Range<usize>>,
}

impl Special {
    /// Looks through a valid image. A platform function's is empty.
    pub(super) fn find(image: &[u8]) -> Self {
        if image.is_empty() {
            return Self::default();
        }
        let find = |id| capability::find(image, id);
        let express = find(id::PCI_EXPRESS)
            .filter(|&at| express_has_flr(image, at))
            .map(|at| (at + EXPRESS_CONTROL + 1, EXPRESS_FLR_BIT));
        let advanced = find(id::ADVANCED_FEATURES)
            .filter(|&at| image[at + ADVANCED_CAPABILITIES] & ADVANCED_FLR_CAPABLE != 0)
            .map(|at| (at + ADVANCED_CONTROL, ADVANCED_INITIATE_FLR));
        Self {
            flr: [express, advanced],
            power: find(id::POWER_MANAGEMENT),
            link_control: find(id::PCI_EXPRESS).map(|at| at + LINK_CONTROL),
            msi: find(id::MSI).map(|at| at..at + MsiView::at(image, at).length()),
            msi_registers: find(id::MSI).map(|at| MsiView::at(image, at).registers(at)),
            msix_control: find(id::MSIX).map(|at| at + 2..at + 4),
        }
    }

    /// How many MSI vectors the guest has allocated (PCI 3.0 section 6.8.1.3: Message Control); 0 while MSI is off.
    pub(super) fn msi_vectors(&self, image: &[u8]) -> u16 {
        let Some(msi) = &self.msi else { return 0 };
        let control = le16(image, msi.start + 2);
        let (enabled, log2) = (control & 1 != 0, (control >> 4) & 0b111);
        // 6 and 7 are reserved.
        if enabled { 1 << log2.min(5) } else { 0 }
    }

    /// Whether MSI-X is on (PCI 3.0 section 6.8.2.3: Message Control).
    pub(super) fn msix_enabled(&self, image: &[u8]) -> bool {
        let control = self.msix_control.as_ref();
        control.is_some_and(|at| le16(image, at.start) & 1 << 15 != 0)
    }

    pub(super) fn msix_function_masked(&self, image: &[u8]) -> bool {
        let control = self.msix_control.as_ref();
        control.is_some_and(|at| le16(image, at.start) & 1 << 14 != 0)
    }

    pub(super) fn power_state(&self, image: &[u8]) -> u8 {
        self.power.map_or(0, |at| PowerView::at(image, at).state())
    }

    /// Whether `data`, written at `offset`, starts a function-level reset.
    pub(super) fn starts_flr(&self, offset: usize, data: &[u8]) -> bool {
        self.flr.iter().flatten().any(|&(at, bit)| {
            let byte = at.checked_sub(offset).and_then(|i| data.get(i));
            byte.is_some_and(|byte| byte & bit != 0)
        })
    }

    /// After a write: puts back the power state `before` if the new one is not supported (PCI PM 1.2 section 3.2.4: the
    /// write is discarded). Says whether the change resets the function.
    pub(super) fn settle_power(&self, image: &mut [u8], before: u8) -> bool {
        let Some(at) = self.power else {
            return false;
        };
        let power = PowerView::at(image, at);
        if !power.state_is_supported() {
            let control = &mut image[at + POWER_CONTROL];
            *control = *control & !0b11 | before;
            return false;
        }
        before == 3 && power.state() == 0 && power.resets_on_power_up()
    }
}
