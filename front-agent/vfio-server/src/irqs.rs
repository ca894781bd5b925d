//! The interrupts of one client: eventfds, masks, what is pending (VFIO's `VFIO_DEVICE_SET_IRQS`).

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use potemkin_vfio_user::Errno;
use potemkin_vfio_user::message::{IrqAction, IrqData, IrqIndex, IrqInfo, IrqInfoFlags, SetIrqs};
use tokio::io::Interest;

use crate::descriptors::{Bundle, Inherited};
use crate::error::Refusal;
use crate::eventfd::Eventfd;
use crate::function::FunctionInfo;
use crate::saved::{RestoreError, SavedIrqs, SavedVector};
use crate::watch::{Watched, watch};

/// The interrupts, by type.
#[derive(Debug)]
pub(crate) struct Irqs {
    /// By [`IrqIndex`].
    vectors: [Vec<Vector>; IrqIndex::ALL.len()],
    /// Level of INTx as the function has set it.
    level: bool,
    /// The client's eventfds that mask and unmask INTx.
    intx_mask: Option<WatchedEventfd>,
    intx_unmask: Option<WatchedEventfd>,
}

#[derive(Debug, Default)]
struct Vector {
    /// Where it is delivered.
    trigger: Option<Eventfd>,
    masked: bool,
    /// It fired and could not be delivered; never for INTx, which has a level.
    pending: bool,
}

/// What became of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The client was signalled.
    Signalled,
    /// It is masked or not connected: pending until that changes or the function is reset.
    Pending,
    /// There is no such vector, or no client.
    Nowhere,
}

/// What the caller has to do after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// INTx was unmasked: the function is to be told.
    TellIntxUnmasked,
}

impl Irqs {
    pub(crate) fn new(info: &FunctionInfo) -> Self {
        let vectors = IrqIndex::ALL.map(|index| {
            let count = match index {
                IrqIndex::Intx => u16::from(info.intx),
                IrqIndex::Msi => info.msi_vectors,
                IrqIndex::Msix => info.msix_vectors,
                IrqIndex::Err | IrqIndex::Req => 1,
            };
            (0..count).map(|_| Vector::default()).collect()
        });
        Self {
            vectors,
            level: false,
            intx_mask: None,
            intx_unmask: None,
        }
    }

    pub(crate) fn save(&self, bundle: &mut Bundle) -> io::Result<SavedIrqs> {
        let mut vectors = Vec::new();
        for of_type in &self.vectors {
            let saved = of_type.iter().map(|vector| vector.save(bundle));
            vectors.push(saved.collect::<io::Result<_>>()?);
        }
        let mut watched = |eventfd: &Option<WatchedEventfd>| {
            let descriptor = eventfd.as_ref().map(|watched| watched.eventfd.descriptor());
            descriptor.map(|fd| bundle.add(&*fd)).transpose()
        };
        Ok(SavedIrqs {
            vectors,
            level: self.level,
            intx_mask: watched(&self.intx_mask)?,
            intx_unmask: watched(&self.intx_unmask)?,
        })
    }

    /// As they were saved; nothing is delivered by that.
    pub(crate) fn restore(
        &mut self,
        saved: &SavedIrqs,
        inherited: &mut Inherited,
    ) -> Result<(), RestoreError> {
        let counts = self.vectors.iter().map(Vec::len);
        if !counts.eq(saved.vectors.iter().map(Vec::len)) {
            return Err(RestoreError::Invalid("irqs"));
        }
        let mut take = |fd: Option<i32>| {
            let eventfd = fd.map(|fd| {
                let fd = inherited.take(fd)?;
                Eventfd::from_client(fd).map_err(|_| RestoreError::Invalid("irqs"))
            });
            eventfd.transpose()
        };
        for (of_type, saved) in self.vectors.iter_mut().zip(&saved.vectors) {
            for (vector, saved) in of_type.iter_mut().zip(saved) {
                *vector = Vector {
                    trigger: take(saved.trigger)?,
                    masked: saved.masked,
                    pending: saved.pending,
                };
            }
        }
        self.level = saved.level;
        let mut watched =
            |fd| -> Result<_, RestoreError> { Ok(take(fd)?.map(WatchedEventfd::new).transpose()?) };
        self.intx_mask = watched(saved.intx_mask)?;
        self.intx_unmask = watched(saved.intx_unmask)?;
        Ok(())
    }

    /// The answer to `DEVICE_GET_IRQ_INFO`.
    pub(crate) fn info(&self, index: IrqIndex) -> IrqInfo {
        let count = u32::try_from(self.of(index).len()).unwrap_or(u32::MAX);
        let intx = index == IrqIndex::Intx;
        let message = matches!(index, IrqIndex::Msi | IrqIndex::Msix);
        let flags = IrqInfoFlags {
            eventfd: true,
            maskable: intx || message,
            automasked: intx,
            noresize: false,
        };
        IrqInfo {
            index,
            flags: if count == 0 {
                IrqInfoFlags::default()
            } else {
                flags
            },
            count,
        }
    }

    /// Carries out `DEVICE_SET_IRQS`: all of it, or with an error nothing.
    pub(crate) fn set(&mut self, set: &SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<Then, Refusal> {
        let refuse = |what| Err(Refusal::because(Errno::INVAL, what));
        // Neither overflows: the decoder has seen to that.
        let range = set.start as usize..(set.start + set.count) as usize;
        if range.end > self.of(set.index).len() {
            return refuse("there are not so many interrupts");
        }
        if set.action != IrqAction::Trigger && matches!(set.index, IrqIndex::Err | IrqIndex::Req) {
            return refuse("this type cannot be masked");
        }
        if set.data == IrqData::Eventfd {
            if !fds.is_empty() && fds.len() != range.len() {
                return refuse("not one descriptor for each interrupt");
            }
            let eventfds = eventfds(fds)?;
            return self.connect(set.index, set.action, range.start, range.len(), eventfds);
        }
        if !fds.is_empty() {
            return refuse("descriptors without a use");
        }
        if range.is_empty() {
            self.disable(set.index);
            return Ok(Then::Nothing);
        }
        let mut then = Then::Nothing;
        for (at, vector) in range.enumerate() {
            let chosen = match set.data {
                IrqData::Bool(bytes) => bytes.get(at).is_some_and(|&byte| byte != 0),
                IrqData::None | IrqData::Eventfd => true,
            };
            if chosen && self.act(set.index, vector, set.action) == Then::TellIntxUnmasked {
                then = Then::TellIntxUnmasked;
            }
        }
        Ok(then)
    }

    /// Delivers a message interrupt, an error or a request.
    pub(crate) fn fire(&mut self, index: IrqIndex, vector: usize) -> Delivery {
        // An error is for who listens when it happens; the wish to be unplugged stays.
        let latches = index != IrqIndex::Err;
        let Some(vector) = self.of_mut(index).get_mut(vector) else {
            return Delivery::Nowhere;
        };
        match &vector.trigger {
            Some(eventfd) if !vector.masked => {
                eventfd.signal();
                Delivery::Signalled
            }
            None if !latches => Delivery::Nowhere,
            _ => {
                vector.pending = true;
                Delivery::Pending
            }
        }
    }

    /// Sets the level of INTx, and delivers it if that is new and it is not masked.
    pub(crate) fn set_level(&mut self, level: bool) {
        let rises = level && !self.level;
        self.level = level;
        if rises {
            self.resample();
        }
    }

    /// Delivers INTx if its level is up and it is not masked. A delivery masks it, until the client unmasks it.
    pub(crate) fn resample(&mut self) {
        let level = self.level;
        let Some(vector) = self.of_mut(IrqIndex::Intx).first_mut() else {
            return;
        };
        if let (true, false, Some(eventfd)) = (level, vector.masked, &vector.trigger) {
            vector.masked = true;
            eventfd.signal();
        }
    }

    pub(crate) fn is_pending(&self, index: IrqIndex, vector: usize) -> bool {
        self.of(index)
            .get(vector)
            .is_some_and(|vector| vector.pending)
    }

    /// Forgets which of the function's interrupts are pending; what the client has connected and masked stays.
    pub(crate) fn reset(&mut self) {
        self.level = false;
        for index in [IrqIndex::Msi, IrqIndex::Msix] {
            for vector in self.of_mut(index) {
                vector.pending = false;
            }
        }
    }

    /// Whether the client has masked or unmasked INTx by eventfd; [`Then::TellIntxUnmasked`] for the latter.
    pub(crate) fn poll_intx(&mut self, cx: &mut Context<'_>) -> Poll<Then> {
        if poll_signal(self.intx_mask.as_ref(), cx).is_ready() {
            self.act(IrqIndex::Intx, 0, IrqAction::Mask);
        }
        poll_signal(self.intx_unmask.as_ref(), cx)
            .map(|()| self.act(IrqIndex::Intx, 0, IrqAction::Unmask))
    }

    fn act(&mut self, index: IrqIndex, at: usize, action: IrqAction) -> Then {
        let Some(vector) = self.of_mut(index).get_mut(at) else {
            return Then::Nothing;
        };
        match action {
            IrqAction::Mask => vector.masked = true,
            IrqAction::Unmask => {
                vector.masked = false;
                if index == IrqIndex::Intx {
                    return Then::TellIntxUnmasked;
                }
                vector.flush();
            }
            // The client tries its own eventfd: no level, no mask.
            IrqAction::Trigger => {
                if let Some(eventfd) = &vector.trigger {
                    eventfd.signal();
                }
            }
        }
        Then::Nothing
    }

    /// Connects `eventfds` to a range, or if there are none disconnects it.
    fn connect(
        &mut self,
        index: IrqIndex,
        action: IrqAction,
        start: usize,
        count: usize,
        eventfds: Vec<Eventfd>,
    ) -> Result<Then, Refusal> {
        if action != IrqAction::Trigger {
            return self.connect_masking(index, action, eventfds);
        }
        let mut eventfds = eventfds.into_iter();
        for vector in self.of_mut(index).iter_mut().skip(start).take(count) {
            vector.trigger = eventfds.next();
            vector.flush();
        }
        if index == IrqIndex::Intx {
            self.resample();
        }
        Ok(Then::Nothing)
    }

    /// Connects the eventfd that masks or unmasks INTx.
    fn connect_masking(
        &mut self,
        index: IrqIndex,
        action: IrqAction,
        eventfds: Vec<Eventfd>,
    ) -> Result<Then, Refusal> {
        if index != IrqIndex::Intx {
            return Err(Refusal::because(
                Errno::INVAL,
                "only INTx is masked by eventfd",
            ));
        }
        let eventfd =
            match eventfds.into_iter().next() {
                Some(eventfd) => {
                    let watched = WatchedEventfd::new(eventfd);
                    Some(watched.map_err(|_| {
                        Refusal::because(Errno::NOMEM, "the eventfd cannot be watched")
                    })?)
                }
                None => None,
            };
        match action {
            IrqAction::Mask => self.intx_mask = eventfd,
            _ => self.intx_unmask = eventfd,
        }
        Ok(Then::Nothing)
    }

    /// Disconnects a whole type. What is pending stays so: QEMU disables and enables all vectors when it adds one, and
    /// nothing may be lost in between.
    fn disable(&mut self, index: IrqIndex) {
        for vector in self.of_mut(index) {
            vector.trigger = None;
            vector.masked = false;
        }
        if index == IrqIndex::Intx {
            self.intx_mask = None;
            self.intx_unmask = None;
        }
    }

    fn of(&self, index: IrqIndex) -> &[Vector] {
        &self.vectors[index.code() as usize]
    }

    fn of_mut(&mut self, index: IrqIndex) -> &mut [Vector] {
        &mut self.vectors[index.code() as usize]
    }
}

impl Vector {
    fn save(&self, bundle: &mut Bundle) -> io::Result<SavedVector> {
        let trigger = self.trigger.as_ref();
        Ok(SavedVector {
            trigger: trigger
                .map(|eventfd| bundle.add(&*eventfd.descriptor()))
                .transpose()?,
            masked: self.masked,
            pending: self.pending,
        })
    }

    /// Delivers what is pending, if it can be now.
    fn flush(&mut self) {
        if let (true, false, Some(eventfd)) = (self.pending, self.masked, &self.trigger) {
            self.pending = false;
            eventfd.signal();
        }
    }
}

fn eventfds(fds: Vec<OwnedFd>) -> Result<Vec<Eventfd>, Refusal> {
    let eventfds: Result<Vec<_>, _> = fds.into_iter().map(Eventfd::from_client).collect();
    eventfds.map_err(|errno| Refusal::because(errno, "a descriptor is not an eventfd"))
}

/// An eventfd that the client signals.
#[derive(Debug)]
struct WatchedEventfd {
    eventfd: Eventfd,
    watched: Watched,
}

impl WatchedEventfd {
    fn new(eventfd: Eventfd) -> std::io::Result<Self> {
        let watched = watch(eventfd.descriptor(), Interest::READABLE)?;
        Ok(Self { eventfd, watched })
    }

    /// Ready when it was signalled.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Ok(mut ready)) = self.watched.poll_read_ready(cx) {
            ready.clear_ready();
            if self.eventfd.take() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

fn poll_signal(eventfd: Option<&WatchedEventfd>, cx: &mut Context<'_>) -> Poll<()> {
    eventfd.map_or(Poll::Pending, |eventfd| eventfd.poll(cx))
}
