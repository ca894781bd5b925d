//! What a VMM does for the device: interrupts, and DMA that only the VMM can carry out.

use crate::dma::MessageDma;

/// The VMM's side of a function. Called by the session's driver, in the order in which the device did it; must not block.
///
/// What comes here was checked: the vector is the function's own, bus mastering is on, and the guest has turned that kind of interrupt on.
pub trait Bus {
    /// The level of INTx, as the guest may see it.
    fn set_intx(&self, level: bool);

    /// An MSI vector fired.
    fn msi(&self, vector: u16);

    /// An MSI-X vector fired.
    fn msix(&self, vector: u16);

    /// The function is latched failed: interrupts that wait for something do not come any more. There is nothing to do where none wait.
    fn forget_interrupts(&self) {}

    /// DMA of a window that has no [`crate::GuestMemory`]. It may be carried out later, but in order with the others that
    /// come here and with the interrupts: an interrupt does not overtake it.
    ///
    /// By default it fails.
    fn dma_by_message(&self, dma: MessageDma) {
        dma.fail();
    }
}

/// No interrupts, and no DMA other than to windows with memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBus;

impl Bus for NoBus {
    fn set_intx(&self, _: bool) {}
    fn msi(&self, _: u16) {}
    fn msix(&self, _: u16) {}
}

impl<B: Bus + ?Sized> Bus for std::sync::Arc<B> {
    fn set_intx(&self, level: bool) {
        (**self).set_intx(level);
    }

    fn msi(&self, vector: u16) {
        (**self).msi(vector);
    }

    fn msix(&self, vector: u16) {
        (**self).msix(vector);
    }

    fn forget_interrupts(&self) {
        (**self).forget_interrupts();
    }

    fn dma_by_message(&self, dma: MessageDma) {
        (**self).dma_by_message(dma);
    }
}

impl<B: Bus + ?Sized> Bus for std::rc::Rc<B> {
    fn set_intx(&self, level: bool) {
        (**self).set_intx(level);
    }

    fn msi(&self, vector: u16) {
        (**self).msi(vector);
    }

    fn msix(&self, vector: u16) {
        (**self).msix(vector);
    }

    fn forget_interrupts(&self) {
        (**self).forget_interrupts();
    }

    fn dma_by_message(&self, dma: MessageDma) {
        (**self).dma_by_message(dma);
    }
}
