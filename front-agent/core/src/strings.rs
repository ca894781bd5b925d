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
    /// Dropped where there is nothing, and from an element on that is not whole.
    pub async fn string_write(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        data: &[u8],
    ) -> Outcome {
        count(&self.counters.bar_writes);
        let outcome = if self.reachable(space, offset, width.bytes()) {
            Outcome::sent(self.write_string(space, offset, width, data).await)
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
    /// All-ones where there is nothing, and from an element on that is not whole.
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
        let place = self.string_place(space, offset, width);
        let at = location(space, offset, width);
        let posting = self.posting(space, offset, width.bytes());
        for chunk in data.chunks(MAX_ACCESS_BYTES) {
            let Some(extent) = extent(width, chunk.len()) else {
                return false;
            };
            if let Some(place) = place {
                let elements = chunk.chunks(width.bytes());
                elements.for_each(|element| self.write_local(place, element));
            } else if self
                .session()
                .write(at, extent, posting, chunk)
                .await
                .is_err()
            {
                return false;
            }
        }
        if self.is_doorbell(space, offset, width.bytes()) {
            self.session().push();
        }
        true
    }

    async fn read_string(&self, space: Space, offset: u64, width: Width, out: &mut [u8]) -> bool {
        let place = self.string_place(space, offset, width);
        let at = location(space, offset, width);
        let mut complete = true;
        for chunk in out.chunks_mut(MAX_ACCESS_BYTES) {
            let extent = extent(width, chunk.len()).filter(|_| complete);
            complete = match (extent, place) {
                (None, _) => false,
                (Some(_), Some(place)) => {
                    let elements = chunk.chunks_mut(width.bytes());
                    elements.for_each(|element| self.read_local(place, element));
                    true
                }
                (Some(extent), None) => match self.session().read(at, extent).await {
                    Ok(bytes) => {
                        chunk.copy_from_slice(&bytes);
                        true
                    }
                    Err(_) => false,
                },
            };
            if !complete {
                chunk.fill(0xff);
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

/// So many elements at one offset; `None` when the bytes are no whole elements.
fn extent(width: Width, bytes: usize) -> Option<Extent> {
    if bytes == 0 || !bytes.is_multiple_of(width.bytes()) {
        return None;
    }
    u16::try_from(bytes / width.bytes()).ok().map(Extent::Fixed)
}
