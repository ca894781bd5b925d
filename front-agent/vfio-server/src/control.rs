//! What a function may do to the client: interrupts, unplug, DMA by message.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use potemkin_vfio_user::message::{DmaAccess, IrqIndex};
use potemkin_vfio_user::{Command, Errno, Header, MAX_DATA_XFER};
use thiserror::Error;
use tokio::sync::Notify;

use crate::descriptors::{Bundle, Inherited};
use crate::dma_requests::DmaRequests;
use crate::function::FunctionInfo;
use crate::irqs::Irqs;
use crate::link::Link;
use crate::saved::{RestoreError, SavedClient};

pub use crate::irqs::Delivery;

/// How long DMA by message may take, the wait for the client to be free included. QEMU gives up on an access after 5 s.
const DMA_TIMEOUT: Duration = Duration::from_secs(4);

/// The client, as its function sees it.
///
/// Cheap to clone; stays on its thread. After the client has gone every call does nothing.
#[derive(Clone, Debug)]
pub struct ClientControl {
    client: Rc<Client>,
}

/// What the serving task and the handles share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) link: Link,
    irqs: RefCell<Irqs>,
    pub(crate) dma: DmaRequests,
    /// Most bytes of one DMA message.
    limit: Cell<u32>,
    next_id: Cell<u16>,
    /// A request of the client's is being handled.
    busy: Cell<bool>,
    /// Who wants to send DMA messages waits here until it is not.
    idle: Notify,
}

/// Why DMA by message failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DmaError {
    /// There is no client.
    #[error("the client has gone")]
    Gone,
    /// The client refuses: not its memory, or not so.
    #[error("the client refuses: {0}")]
    Refused(Errno),
    /// No answer in 4 seconds.
    #[error("the client does not answer")]
    Timeout,
    /// Too many requests are unanswered.
    #[error("too many requests are unanswered")]
    Busy,
    /// The client has forbidden it before its turn came.
    #[error("it is not allowed any more")]
    Forbidden,
    /// The range passes the end of 64 bits.
    #[error("the range passes the end of the address space")]
    Range,
}

impl ClientControl {
    pub(crate) fn new(client: Rc<Client>) -> Self {
        Self { client }
    }

    /// Whether the client is still there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.link.is_open()
    }

    /// Fires an MSI vector.
    pub fn trigger_msi(&self, vector: u16) -> Delivery {
        self.client.irqs().fire(IrqIndex::Msi, vector.into())
    }

    /// Fires an MSI-X vector.
    pub fn trigger_msix(&self, vector: u16) -> Delivery {
        self.client.irqs().fire(IrqIndex::Msix, vector.into())
    }

    /// Whether an MSI-X vector has fired and could not be delivered: its bit in the pending bit array.
    #[must_use]
    pub fn msix_pending(&self, vector: u16) -> bool {
        self.client.irqs().is_pending(IrqIndex::Msix, vector.into())
    }

    /// Whether an MSI vector has fired and could not be delivered.
    #[must_use]
    pub fn msi_pending(&self, vector: u16) -> bool {
        self.client.irqs().is_pending(IrqIndex::Msi, vector.into())
    }

    /// Forgets what is pending and lowers INTx, as after a function-level reset; what the client has connected and masked stays.
    /// [`Function::reset`](crate::Function::reset) comes after just that.
    pub fn forget_interrupts(&self) {
        self.client.irqs().reset();
    }

    /// Sets the level of INTx. A rise is delivered, now or when the client unmasks it.
    pub fn set_intx(&self, level: bool) {
        self.client.irqs().set_level(level);
    }

    /// Delivers INTx again if its level is up and it is not masked.
    pub fn resample_intx(&self) {
        self.client.irqs().resample();
    }

    /// Asks the client to unplug the function (`VFIO_PCI_REQ_IRQ_INDEX`): surprise removal. [`Delivery::Pending`] if
    /// it does not listen for that: it is asked when it does.
    pub fn request_unplug(&self) -> Delivery {
        self.client.irqs().fire(IrqIndex::Req, 0)
    }

    /// Reports an unrecoverable error (`VFIO_PCI_ERR_IRQ_INDEX`). QEMU stops the whole VM for it.
    pub fn report_fatal_error(&self) -> Delivery {
        self.client.irqs().fire(IrqIndex::Err, 0)
    }

    /// Reads guest memory by message, for windows without a descriptor.
    ///
    /// Waits until no access of the client's is being handled: QEMU answers nothing while it waits for an answer itself.
    /// So an access must not wait for this. What the client did meanwhile may forbid it: `allowed` is asked right before each message.
    ///
    /// # Errors
    ///
    /// [`DmaError`]; `out` may be filled in part.
    pub async fn dma_read(
        &self,
        address: u64,
        out: &mut [u8],
        allowed: impl Fn() -> bool,
    ) -> Result<(), DmaError> {
        let limit = self.client.limit.get() as usize;
        let mut at = address;
        for chunk in out.chunks_mut(limit) {
            let access = access(at, chunk.len())?;
            let request = self
                .client
                .transfer(Command::DmaRead, access, &[], &allowed);
            let data = request.await?;
            chunk.copy_from_slice(&data);
            at += u64::from(access.count);
        }
        Ok(())
    }

    /// Writes guest memory by message, for windows without a descriptor; as [`Self::dma_read`]. An interrupt that
    /// announces the data may be fired once this is done.
    ///
    /// # Errors
    ///
    /// [`DmaError`]; part of `data` may have been written.
    pub async fn dma_write(
        &self,
        address: u64,
        data: &[u8],
        allowed: impl Fn() -> bool,
    ) -> Result<(), DmaError> {
        let limit = self.client.limit.get() as usize;
        let mut at = address;
        for chunk in data.chunks(limit) {
            let access = access(at, chunk.len())?;
            self.client
                .transfer(Command::DmaWrite, access, chunk, &allowed)
                .await?;
            at += u64::from(access.count);
        }
        Ok(())
    }
}

/// An access of a chunk; chunks are not longer than a message.
fn access(address: u64, len: usize) -> Result<DmaAccess, DmaError> {
    let count = u32::try_from(len).map_err(|_| DmaError::Range)?;
    address.checked_add(count.into()).ok_or(DmaError::Range)?;
    Ok(DmaAccess { address, count })
}

impl Client {
    pub(crate) fn new(socket: Arc<OwnedFd>, info: &FunctionInfo, limit: u32) -> Self {
        Self {
            link: Link::new(socket),
            irqs: RefCell::new(Irqs::new(info)),
            dma: DmaRequests::default(),
            limit: Cell::new(limit),
            next_id: Cell::new(0),
            busy: Cell::new(false),
            idle: Notify::new(),
        }
    }

    pub(crate) fn save(&self, saved: &mut SavedClient, bundle: &mut Bundle) -> io::Result<()> {
        saved.limit = self.limit.get();
        saved.next_id = self.next_id.get();
        saved.backlog = self.link.save();
        saved.irqs = self.irqs.borrow().save(bundle)?;
        saved.requests = self.dma.save();
        Ok(())
    }

    pub(crate) fn restore(
        &self,
        saved: &SavedClient,
        inherited: &mut Inherited,
    ) -> Result<(), RestoreError> {
        if !(1..=MAX_DATA_XFER).contains(&saved.limit) {
            return Err(RestoreError::Invalid("limit"));
        }
        self.limit.set(saved.limit);
        self.next_id.set(saved.next_id);
        self.link.restore(saved.backlog.clone());
        self.irqs().restore(&saved.irqs, inherited)?;
        if !self.dma.restore(&saved.requests) {
            return Err(RestoreError::Invalid("requests"));
        }
        Ok(())
    }

    /// The interrupts. The borrow ends before anything of the function's is called.
    pub(crate) fn irqs(&self) -> RefMut<'_, Irqs> {
        self.irqs.borrow_mut()
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.set(limit);
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// Requests of the client's are being handled, or no longer.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
        if !busy {
            self.idle.notify_waiters();
        }
    }

    /// Forgets everything of the client's, and fails what waits for it.
    pub(crate) fn close(&self) {
        self.link.close();
        self.dma.close();
        self.idle.notify_waiters();
    }

    async fn transfer(
        &self,
        command: Command,
        access: DmaAccess,
        data: &[u8],
        allowed: &impl Fn() -> bool,
    ) -> Result<Vec<u8>, DmaError> {
        let transfer = self.transfer_when_idle(command, access, data, allowed);
        tokio::time::timeout(DMA_TIMEOUT, transfer)
            .await
            .map_err(|_| DmaError::Timeout)?
    }

    async fn transfer_when_idle(
        &self,
        command: Command,
        access: DmaAccess,
        data: &[u8],
        allowed: &impl Fn() -> bool,
    ) -> Result<Vec<u8>, DmaError> {
        while self.busy.get() {
            self.idle.notified().await;
        }
        if !self.link.is_open() {
            return Err(DmaError::Gone);
        }
        if !allowed() {
            return Err(DmaError::Forbidden);
        }
        let id = self.next_id.replace(self.next_id.get().wrapping_add(1));
        let outstanding = self.dma.begin(id, command, access).ok_or(DmaError::Busy)?;
        let mut message = Vec::with_capacity(32);
        let data_len = u32::try_from(data.len()).map_err(|_| DmaError::Range)?;
        Header::command(id, command, DmaAccess::LEN + data_len).encode(&mut message);
        access.encode(&mut message);
        self.link.send([&message, data]);
        match outstanding.reply().await {
            Err(Errno::CONNRESET) if !self.link.is_open() => Err(DmaError::Gone),
            Err(errno) => Err(DmaError::Refused(errno)),
            Ok(data) => Ok(data),
        }
    }
}
