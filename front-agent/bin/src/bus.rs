//! What the VMM behind a vfio-user socket does for the device.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use potemkin_front_core::{Bus, FrontDevice, MessageDma, SavedTransfer, Session};
use potemkin_vfio_server::ClientControl;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::spawn_local};

/// The client, as the device's session sees it. Stays on the device's thread.
///
/// DMA to windows without a descriptor goes by messages, which wait until no request of the client's is being handled; until they are
/// answered all that follows waits behind them. Completions of the guest's accesses do not: the client answers no message while it
/// waits for one. So a guest whose memory is not shared must rely on interrupts, not on polling, to know that data is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct VfioBus {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    client: RefCell<Option<ClientControl>>,
    /// Of INTx, for a client that comes later.
    level: Cell<bool>,
    deferred: RefCell<VecDeque<Deferred>>,
    /// Something that was deferred is being carried out.
    busy: Cell<bool>,
    /// The end of an INTx interrupt is being looked into: by one task, however often a client says so.
    ending: Cell<bool>,
    /// And it was ended again since.
    ended_again: Cell<bool>,
    bell: Notify,
    /// The device is gone for good.
    lost: Cell<bool>,
    /// Nothing that is deferred is begun.
    held: Cell<bool>,
    /// Rings when nothing is being carried out while that is so.
    quiet: Notify,
}

/// What the device has done and the client has not got, for another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct SavedBus {
    level: bool,
    lost: bool,
    /// The end of an INTx interrupt is being looked into.
    ending: bool,
    deferred: Vec<SavedDeferred>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum SavedDeferred {
    Dma(SavedTransfer),
    Interrupt(Interrupt),
}

/// What waits for DMA by message. DMA is bounded by the session's credits; an interrupt is here once at most.
#[derive(Debug)]
enum Deferred {
    Dma(MessageDma),
    Interrupt(Interrupt),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Interrupt {
    Msi(u16),
    Msix(u16),
    Intx,
}

impl VfioBus {
    /// A client has come: it is told what the level of INTx is.
    pub(crate) fn connect(&self, client: ClientControl) {
        client.set_intx(self.inner.level.get());
        self.inner.client.replace(Some(client));
        self.ask_for_removal();
    }

    /// The device is gone for good: whatever VMM is there, or comes, is asked to unplug the function.
    pub(crate) fn lose(&self) {
        self.inner.lost.set(true);
        self.ask_for_removal();
    }

    fn ask_for_removal(&self) {
        let client = self.inner.client.borrow();
        if let Some(client) = client.as_ref().filter(|_| self.inner.lost.get()) {
            let asked = client.request_unplug();
            tracing::info!(?asked, "the VMM is asked to unplug the function");
        }
    }

    /// The client has gone, and with it what it was to be told.
    pub(crate) fn disconnect(&self) {
        self.inner.client.replace(None);
        self.forget_interrupts();
    }

    /// The function was reset: interrupts of before do not come any more. (DMA of before is refused when its turn comes.)
    pub(crate) fn forget_interrupts(&self) {
        if let Some(client) = &*self.inner.client.borrow() {
            client.forget_interrupts();
        }
        self.inner
            .deferred
            .borrow_mut()
            .retain(|deferred| matches!(deferred, Deferred::Dma(_)));
    }

    /// Bus mastering was turned off: messages that wait behind DMA do not come any more.
    pub(crate) fn forget_messages(&self) {
        let stays = |deferred: &Deferred| {
            matches!(
                deferred,
                Deferred::Dma(_) | Deferred::Interrupt(Interrupt::Intx)
            )
        };
        self.inner.deferred.borrow_mut().retain(stays);
    }

    /// Bytes of the MSI-X pending bit array, from byte `first` on.
    pub(crate) fn pending_bits(&self, first: usize, out: &mut [u8]) {
        out.fill(0);
        let client = self.inner.client.borrow();
        let Some(client) = &*client else { return };
        for (byte, at) in out.iter_mut().zip(first..) {
            for bit in 0..8 {
                let vector = u16::try_from(at * 8 + bit);
                if vector.is_ok_and(|vector| client.msix_pending(vector)) {
                    *byte |= 1 << bit;
                }
            }
        }
    }

    /// The guest has ended an INTx interrupt. Whether the level is still up is known when the device has done what the guest
    /// wrote before.
    pub(crate) fn end_of_intx(&self, session: &Session) {
        if self.inner.ending.replace(true) {
            return self.inner.ended_again.set(true);
        }
        let (bus, session) = (self.clone(), session.clone());
        spawn_local(async move {
            loop {
                session.settled().await;
                if let Some(client) = &*bus.inner.client.borrow() {
                    client.resample_intx();
                }
                if !bus.inner.ended_again.take() {
                    break;
                }
            }
            bus.inner.ending.set(false);
        });
    }

    /// Waits until nothing that is deferred is being carried out, and begins nothing more until [`Self::release`].
    pub(crate) async fn hold(&self) {
        self.inner.held.set(true);
        while self.inner.busy.get() {
            self.inner.quiet.notified().await;
        }
    }

    pub(crate) fn release(&self) {
        self.inner.held.set(false);
        self.inner.bell.notify_one();
    }

    /// While it is held.
    pub(crate) fn save(&self) -> SavedBus {
        let deferred = self.inner.deferred.borrow();
        let save = |deferred: &Deferred| match deferred {
            Deferred::Dma(dma) => dma.save().map(SavedDeferred::Dma),
            Deferred::Interrupt(interrupt) => Some(SavedDeferred::Interrupt(*interrupt)),
        };
        SavedBus {
            level: self.inner.level.get(),
            lost: self.inner.lost.get(),
            ending: self.inner.ending.get(),
            deferred: deferred.iter().filter_map(save).collect(),
        }
    }

    /// As it was saved, before a client is here. Something must run [`Self::run`] for it.
    pub(crate) fn restore(&self, saved: SavedBus, device: &Arc<FrontDevice>) {
        self.inner.level.set(saved.level);
        self.inner.lost.set(saved.lost);
        let restore = |saved| match saved {
            SavedDeferred::Dma(transfer) => device.restore_transfer(transfer).map(Deferred::Dma),
            SavedDeferred::Interrupt(interrupt) => Some(Deferred::Interrupt(interrupt)),
        };
        let deferred = saved.deferred.into_iter().filter_map(restore);
        self.inner.deferred.borrow_mut().extend(deferred);
        if saved.ending {
            self.end_of_intx(&device.session());
        }
    }

    /// Carries out what is deferred, for ever.
    pub(crate) async fn run(self) {
        loop {
            if self.inner.held.get() {
                self.inner.busy.set(false);
                self.inner.quiet.notify_waiters();
                self.inner.bell.notified().await;
                continue;
            }
            let next = self.inner.deferred.borrow_mut().pop_front();
            self.inner.busy.set(next.is_some());
            match next {
                None => self.inner.bell.notified().await,
                Some(Deferred::Interrupt(interrupt)) => self.signal(interrupt),
                Some(Deferred::Dma(dma)) => {
                    // What may be done is looked at now, not when it was asked for.
                    if let Some(dma) = dma.attempt() {
                        self.ask(dma).await;
                    }
                }
            }
        }
    }

    async fn ask(&self, dma: MessageDma) {
        let client = self.inner.client.borrow().clone();
        let Some(client) = client else {
            return dma.fail();
        };
        let outcome = match dma.data() {
            Some(data) => {
                let written = client.dma_write(dma.address(), &data, || dma.is_allowed());
                written.await.map(|()| None)
            }
            None => {
                let mut data = vec![0; dma.length()];
                let read = client.dma_read(dma.address(), &mut data, || dma.is_allowed());
                let read = read.await;
                read.map(|()| Some(Bytes::from(data)))
            }
        };
        match outcome {
            Ok(data) => dma.done(data),
            Err(error) => {
                tracing::debug!(%error, "DMA by message");
                dma.fail();
            }
        }
    }

    fn interrupt(&self, interrupt: Interrupt) {
        let mut deferred = self.inner.deferred.borrow_mut();
        if deferred.is_empty() && !self.inner.busy.get() {
            drop(deferred);
            return self.signal(interrupt);
        }
        deferred.retain(
            |waiting| !matches!(waiting, Deferred::Interrupt(other) if *other == interrupt),
        );
        deferred.push_back(Deferred::Interrupt(interrupt));
    }

    fn signal(&self, interrupt: Interrupt) {
        let client = self.inner.client.borrow();
        let Some(client) = &*client else { return };
        match interrupt {
            Interrupt::Msi(vector) => {
                client.trigger_msi(vector);
            }
            Interrupt::Msix(vector) => {
                client.trigger_msix(vector);
            }
            Interrupt::Intx => client.set_intx(self.inner.level.get()),
        }
    }
}

impl Bus for VfioBus {
    fn set_intx(&self, level: bool) {
        self.inner.level.set(level);
        self.interrupt(Interrupt::Intx);
    }

    fn msi(&self, vector: u16) {
        self.interrupt(Interrupt::Msi(vector));
    }

    fn msix(&self, vector: u16) {
        self.interrupt(Interrupt::Msix(vector));
    }

    fn forget_interrupts(&self) {
        Self::forget_interrupts(self);
    }

    fn dma_by_message(&self, dma: MessageDma) {
        self.inner
            .deferred
            .borrow_mut()
            .push_back(Deferred::Dma(dma));
        self.inner.bell.notify_one();
    }
}
