//! String instructions: one register, several elements, one access.

use potemkin_pci::{MsixPlace, Space, Width};
use potemkin_session::access::{Extent, Location, MAX_ACCESS_BYTES};

use crate::{
    device::{FrontDevice, count},
    outcome::Outcome,
};

impl FrontDevice {
    /// Writes one port or FIFO register several times, as one access: what `REP OUTS` does. `data` holds the elements.
    ///
    /// Dropped where there is nothing, and when it is no whole number of elements.
    pub async fn string_write(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        data: &[u8],
    ) -> Outcome {
        count(&self.counters.bar_writes);
        let outcome = if self.reachable(space, offset, width.bytes()) {
            let done = self.write_string(space, offset, width, data).await;
            for element in data.chunks(width.bytes()) {
                self.after_write(space, offset, element, done);
            }
            Outcome::sent(done)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        outcome
    }

    /// Reads one port or FIFO register as often as `out` has elements, as one access: what `REP INS` does.
    ///
    /// All-ones where there is nothing, and when it is no whole number of elements.
    pub async fn string_read(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        out: &mut [u8],
    ) -> Outcome {
        count(&self.counters.bar_reads);
        let outcome = if self.reachable(space, offset, width.bytes()) {
            Outcome::sent(self.read_string(space, offset, width, out).await)
        } else {
            out.fill(0xff);
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        outcome
    }

    async fn write_string(&self, space: Space, offset: u64, width: Width, data: &[u8]) -> bool {
        if !is_whole(width, data.len()) {
            return false;
        }
        if let Some(place) = self.string_place(space, offset, width) {
            let elements = data.chunks(width.bytes());
            elements.for_each(|element| self.write_local(place, element));
            return true;
        }
        let Some(session) = self.serving() else {
            return false;
        };
        let at = location(space, offset, width);
        let posting = self.posting(space, offset, width.bytes());
        let mut told = Vec::new();
        for chunk in data.chunks(MAX_ACCESS_BYTES) {
            let sent = session.tell(at, extent(width, chunk), posting, chunk);
            match sent.await {
                Ok(ticket) => told.extend(ticket),
                Err(_) => return false,
            }
        }
        if self.is_doorbell(space, offset, width.bytes()) {
            session.push();
        }
        let mut complete = true;
        for ticket in told {
            complete &= ticket.answer().await.is_ok();
        }
        complete
    }

    async fn read_string(&self, space: Space, offset: u64, width: Width, out: &mut [u8]) -> bool {
        if let (true, Some(place)) = (
            is_whole(width, out.len()),
            self.string_place(space, offset, width),
        ) {
            let elements = out.chunks_mut(width.bytes());
            elements.for_each(|element| self.read_local(place, element));
            return true;
        }
        self.ask_string(space, offset, width, out).await
    }

    /// Reads from the host. The parts of a long string are under way together; from one on that has no result all is all-ones.
    async fn ask_string(&self, space: Space, offset: u64, width: Width, out: &mut [u8]) -> bool {
        let at = location(space, offset, width);
        let session = self.serving();
        let mut asked = Vec::with_capacity(1);
        if let Some(session) = session.as_ref().filter(|_| is_whole(width, out.len())) {
            for chunk in out.chunks(MAX_ACCESS_BYTES) {
                let Ok(ticket) = session.ask(at, extent(width, chunk)).await else {
                    break;
                };
                asked.push(ticket);
            }
        }
        let mut asked = asked.into_iter();
        let mut complete = true;
        for chunk in out.chunks_mut(MAX_ACCESS_BYTES) {
            let ticket = asked.next().filter(|_| complete);
            let answer = match ticket {
                Some(ticket) => ticket.answer().await.ok(),
                None => None,
            };
            match answer {
                Some(bytes) => chunk.copy_from_slice(&bytes),
                None => {
                    complete = false;
                    for element in chunk.chunks_mut(width.bytes()) {
                        self.read_lost(space, offset, element);
                    }
                }
            }
        }
        complete
    }

    /// Where in the tables that are here, if it is all there.
    fn string_place(&self, space: Space, offset: u64, width: Width) -> Option<MsixPlace> {
        let (place, length) = self.place(space, offset, width.bytes());
        let local = place != MsixPlace::Elsewhere && length == width.bytes();
        local.then_some(place)
    }
}

fn location(space: Space, offset: u64, width: Width) -> Location {
    Location {
        space,
        offset,
        width,
    }
}

/// Some elements, and no part of one.
fn is_whole(width: Width, bytes: usize) -> bool {
    bytes > 0 && bytes.is_multiple_of(width.bytes())
}

/// The elements of a part of a string, which are whole and at most [`MAX_ACCESS_BYTES`].
fn extent(width: Width, chunk: &[u8]) -> Extent {
    let count = chunk.len() / width.bytes();
    Extent::Fixed(u16::try_from(count).unwrap_or(u16::MAX))
}
