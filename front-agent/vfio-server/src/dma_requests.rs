//! The server's own requests for guest memory that it has no descriptor for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use potemkin_vfio_user::message::DmaAccess;
use potemkin_vfio_user::{Command, Errno, Header};

use crate::error::Fault;
use crate::saved::SavedRequest;

/// Most of them unanswered at a time.
const MAX_OUTSTANDING: usize = 8;

/// Requests that wait for their reply.
#[derive(Debug, Default)]
pub(crate) struct DmaRequests {
    slots: RefCell<[Option<Slot>; MAX_OUTSTANDING]>,
}

#[derive(Debug)]
struct Slot {
    id: u16,
    command: Command,
    access: DmaAccess,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    /// Nobody waits any more; the reply may still come.
    Abandoned,
    /// The data of a read; empty for a write.
    Answered(Result<Vec<u8>, Errno>),
}

/// A request that was sent. Dropping it abandons the request.
#[derive(Debug)]
pub(crate) struct Outstanding<'a> {
    requests: &'a DmaRequests,
    slot: usize,
}

impl DmaRequests {
    /// Takes a slot for a request; none if all are taken.
    pub(crate) fn begin(
        &self,
        id: u16,
        command: Command,
        access: DmaAccess,
    ) -> Option<Outstanding<'_>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.iter().position(Option::is_none)?;
        slots[slot] = Some(Slot {
            id,
            command,
            access,
            state: State::Waiting(None),
        });
        Some(Outstanding {
            requests: self,
            slot,
        })
    }

    /// Takes a reply of the client's. `limit` bounds its data.
    pub(crate) fn complete(
        &self,
        header: &Header,
        payload: &[u8],
        limit: u32,
    ) -> Result<(), Fault> {
        let mut slots = self.slots.borrow_mut();
        let waits = |slot: &Option<Slot>| {
            slot.as_ref().is_some_and(|slot| {
                slot.id == header.id
                    && slot.command.code() == header.command
                    && !matches!(slot.state, State::Answered(_))
            })
        };
        let Some(place) = slots.iter_mut().find(|slot| waits(slot)) else {
            return Err(Fault::UnexpectedReply(header.id));
        };
        let Some(slot) = place else {
            return Err(Fault::UnexpectedReply(header.id));
        };
        let answer = slot.read_reply(header, payload, limit)?;
        match std::mem::replace(&mut slot.state, State::Answered(answer)) {
            State::Waiting(Some(waker)) => waker.wake(),
            State::Abandoned => *place = None,
            State::Waiting(None) | State::Answered(_) => {}
        }
        Ok(())
    }

    /// What was asked and is not answered. Nobody waits for it in another process.
    pub(crate) fn save(&self) -> Vec<SavedRequest> {
        let slots = self.slots.borrow();
        let waits = slots.iter().flatten();
        let waits = waits.filter(|slot| !matches!(slot.state, State::Answered(_)));
        let save = |slot: &Slot| SavedRequest {
            id: slot.id,
            write: slot.command == Command::DmaWrite,
            address: slot.access.address,
            count: slot.access.count,
        };
        waits.map(save).collect()
    }

    /// Replies that may still come. False when they are too many.
    pub(crate) fn restore(&self, saved: &[SavedRequest]) -> bool {
        let mut slots = self.slots.borrow_mut();
        for (slot, request) in slots.iter_mut().zip(saved) {
            *slot = Some(Slot {
                id: request.id,
                command: if request.write {
                    Command::DmaWrite
                } else {
                    Command::DmaRead
                },
                access: DmaAccess {
                    address: request.address,
                    count: request.count,
                },
                state: State::Abandoned,
            });
        }
        saved.len() <= slots.len()
    }

    /// The client has gone: nothing will be answered.
    pub(crate) fn close(&self) {
        for place in self.slots.borrow_mut().iter_mut() {
            let Some(slot) = place else { continue };
            match std::mem::replace(&mut slot.state, State::Answered(Err(Errno::CONNRESET))) {
                State::Waiting(Some(waker)) => waker.wake(),
                State::Abandoned => *place = None,
                State::Waiting(None) | State::Answered(_) => {}
            }
        }
    }
}

impl Slot {
    /// What the reply says; a reply that contradicts the request ends the connection.
    fn read_reply(
        &self,
        header: &Header,
        payload: &[u8],
        limit: u32,
    ) -> Result<Result<Vec<u8>, Errno>, Fault> {
        if header.failed {
            return Ok(Err(header.errno()));
        }
        let (access, data) = if self.command == Command::DmaRead {
            DmaAccess::decode_with_data(self.command.name(), payload, limit)
                .map_err(Fault::Reply)?
        } else {
            (
                DmaAccess::decode_write_reply(payload, limit).map_err(Fault::Reply)?,
                &[][..],
            )
        };
        if access != self.access {
            return Err(Fault::UnexpectedReply(header.id));
        }
        Ok(Ok(data.to_vec()))
    }
}

impl Outstanding<'_> {
    /// Waits for the reply: the data of a read, nothing for a write.
    pub(crate) async fn reply(&self) -> Result<Vec<u8>, Errno> {
        poll_fn(|cx| {
            let mut slots = self.requests.slots.borrow_mut();
            let Some(slot) = &mut slots[self.slot] else {
                return Poll::Ready(Err(Errno::CONNRESET));
            };
            match std::mem::replace(&mut slot.state, State::Waiting(Some(cx.waker().clone()))) {
                State::Answered(answer) => {
                    slots[self.slot] = None;
                    Poll::Ready(answer)
                }
                State::Waiting(_) | State::Abandoned => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        let place = &mut self.requests.slots.borrow_mut()[self.slot];
        match place {
            Some(slot) if matches!(slot.state, State::Waiting(_)) => slot.state = State::Abandoned,
            _ => *place = None,
        }
    }
}
