//! MSI, whose registers all stand in configuration space (PCI 3.0 section 6.8.1), and what gates MSI-X.

use super::ConfigSpace;
use crate::{
    Message,
    bytes::{le16, le32},
};

impl ConfigSpace {
    /// The function signals an MSI vector: the message to send now. `None` when it is pending instead, because it is masked; when the
    /// function may not master the bus and the capability has pending bits; or when MSI is off, and then it is lost.
    ///
    /// Of a vector beyond those that the guest allocated the low bits count, as the message's data has them (section 6.8.1.6).
    #[must_use = "a message that is not sent is lost"]
    pub fn signal_msi(&mut self, vector: u16) -> Option<Message> {
        let vector = vector.checked_rem(self.msi_vectors())?;
        let masks = self.msi_masks();
        let masked = masks.is_some_and(|(mask, _)| mask >> vector & 1 == 1);
        if !masked && self.bus_master_enabled() {
            return self.msi_message(vector);
        }
        if let Some((_, pending)) = masks {
            self.set_msi_pending(pending | 1 << vector);
        }
        None
    }

    /// The next of the MSI messages that were pending and can be sent now. It is not pending any more.
    #[must_use = "a message that is not sent is lost"]
    pub fn next_due_msi(&mut self) -> Option<Message> {
        let vector = self.next_due_msi_vector()?;
        self.msi_message(vector)
    }

    /// The same, as the number of the vector.
    #[must_use = "a vector that is not sent is lost"]
    pub fn next_due_msi_vector(&mut self) -> Option<u16> {
        let allocated = self.msi_vectors();
        let (mask, pending) = self.msi_masks()?;
        let due = pending & !mask;
        if due == 0 || allocated == 0 || !self.bus_master_enabled() {
            return None;
        }
        self.set_msi_pending(pending & !(due & due.wrapping_neg()));
        let vector = u16::try_from(due.trailing_zeros()).unwrap_or_default();
        Some(vector % allocated)
    }

    /// Whether MSI-X vectors that are not masked one by one are sent: MSI-X is on, the function is not masked and may master the bus.
    #[must_use]
    pub fn msix_open(&self) -> bool {
        self.msix_enabled()
            && !self.special.msix_function_masked(&self.image)
            && self.bus_master_enabled()
    }

    /// No MSI vector is pending any more.
    pub fn forget_msi(&mut self) {
        self.set_msi_pending(0);
    }

    /// Mask and pending bits, if it has them.
    fn msi_masks(&self) -> Option<(u32, u32)> {
        let mask = self.special.msi_registers?.mask?;
        Some((le32(&self.image, mask), le32(&self.image, mask + 4)))
    }

    fn set_msi_pending(&mut self, pending: u32) {
        let registers = self.special.msi_registers;
        if let Some(mask) = registers.and_then(|registers| registers.mask) {
            self.image[mask + 4..mask + 8].copy_from_slice(&pending.to_le_bytes());
        }
    }

    fn msi_message(&self, vector: u16) -> Option<Message> {
        let registers = self.special.msi_registers?;
        let low = le32(&self.image, registers.address) & !0b11;
        let high = registers.upper.map_or(0, |at| le32(&self.image, at));
        let own = self.msi_vectors().saturating_sub(1);
        let data = le16(&self.image, registers.data) & !own | vector;
        Some(Message {
            address: u64::from(low) | u64::from(high) << 32,
            data: data.into(),
        })
    }
}
