//! Interrupts of a VMM that embeds the function: MSI and MSI-X are kept here, and what comes out are messages.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use potemkin_pci::{Descriptor, Message, MsixLayout, MsixPlace, MsixTable, Space};
use potemkin_session::access::Vector;

use crate::{bus::Bus, device::FrontDevice};

/// How a VMM interrupts its guest.
///
/// Called by the session's driver, and by a thread of the guest's that unmasks what was pending, one message at a time: once the guest's write of a mask
/// has returned, nothing of it comes any more. Must not block, and must not access the function. The function's locks are held meanwhile,
/// that of its windows too: a VMM that unmaps a window under a lock of its own must not take that lock here.
pub trait Interrupts: Send + Sync {
    /// The level of INTx, as the guest may see it.
    fn set_intx(&self, level: bool);

    /// MSI or MSI-X: the function writes these 4 bytes there. All DMA that it did before is in guest memory.
    fn message(&self, message: Message);
}

/// The [`Bus`] of a function that was made by [`FrontDevice::embedded`]: a vector that fires becomes the message that the guest programmed, or
/// is pending while it is masked. DMA to windows without memory fails.
#[derive(Debug, Clone)]
pub struct MessageInterrupts {
    device: Arc<FrontDevice>,
}

impl MessageInterrupts {
    /// For the driver of `device`. One that was not made by [`FrontDevice::embedded`] interrupts nobody.
    pub fn new(device: Arc<FrontDevice>) -> Self {
        Self { device }
    }
}

impl Bus for MessageInterrupts {
    fn set_intx(&self, level: bool) {
        if let Some(local) = &self.device.local {
            local.vmm.set_intx(level);
        }
    }

    fn msi(&self, vector: u16) {
        self.device.signal(Vector::Msi(vector));
    }

    fn msix(&self, vector: u16) {
        self.device.signal(Vector::Msix(vector));
    }
}

/// The tables of a function whose VMM has none for it.
pub(crate) struct LocalInterrupts {
    vmm: Arc<dyn Interrupts>,
    layout: Option<MsixLayout>,
    /// Held while a message is sent, of MSI too, so that none comes after its mask.
    table: Mutex<Option<MsixTable>>,
}

impl LocalInterrupts {
    pub(crate) fn new(descriptor: &Descriptor, vmm: Arc<dyn Interrupts>) -> Self {
        let table = MsixTable::new(descriptor);
        Self {
            vmm,
            layout: table.as_ref().map(MsixTable::layout),
            table: Mutex::new(table),
        }
    }

    pub(crate) fn reset(&self) {
        if let Some(table) = &mut *self.table() {
            table.reset();
        }
    }

    pub(crate) fn forget_pending(&self) {
        if let Some(table) = &mut *self.table() {
            table.forget_pending();
        }
    }

    fn table(&self) -> MutexGuard<'_, Option<MsixTable>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalInterrupts")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl FrontDevice {
    /// What stands at `offset`, and of how many of the `length` bytes from there this is true; at least 1 if there is one.
    pub(crate) fn place(&self, space: Space, offset: u64, length: usize) -> (MsixPlace, usize) {
        let layout = self.local.as_ref().and_then(|local| local.layout);
        let Some(layout) = layout else {
            return (MsixPlace::Elsewhere, length);
        };
        let (place, run) = layout.place(space, offset);
        (
            place,
            usize::try_from(run).map_or(length, |run| run.min(length)),
        )
    }

    pub(crate) fn read_local(&self, place: MsixPlace, out: &mut [u8]) {
        if let Some(local) = &self.local
            && let Some(table) = &*local.table()
        {
            table.read(place, out);
        }
    }

    pub(crate) fn write_local(&self, place: MsixPlace, data: &[u8]) {
        if let Some(local) = &self.local {
            if let Some(table) = &mut *local.table() {
                table.write(place, data);
            }
            self.send_due();
        }
    }

    /// The guest may have let something through that was pending.
    pub(crate) fn send_due(&self) {
        let Some(local) = &self.local else { return };
        let mut table = local.table();
        if self.is_latched() {
            return;
        }
        let open = self.config().msix_open();
        if let Some(table) = &mut *table {
            while let Some(message) = table.next_due(open) {
                local.vmm.message(message);
            }
        }
        loop {
            let due = self.config().next_due_msi();
            let Some(message) = due else { break };
            local.vmm.message(message);
        }
    }

    /// A vector of the function's fired.
    fn signal(&self, vector: Vector) {
        let Some(local) = &self.local else { return };
        let mut table = local.table();
        let message = match vector {
            Vector::Msi(vector) => self.config().signal_msi(vector),
            Vector::Msix(vector) => {
                let open = self.config().msix_open();
                table.as_mut().and_then(|table| table.signal(vector, open))
            }
        };
        if let Some(message) = message {
            local.vmm.message(message);
        }
    }
}
