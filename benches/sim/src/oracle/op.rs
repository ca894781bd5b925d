//! Accesses as the oracle keeps them: small, and compared as words.

use potemkin_pci::Space;
use potemkin_session::access::{Access, Extent, Location, Operation, Payload, Posting};

use crate::rng::hash;

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Posted,
    NonPosted,
}

/// An access, or what stands for resets between accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    /// Place, width, count and kind; [`Op::MARK`] or [`Op::MARK_RESET`].
    pub(crate) shape: u64,
    /// The data written, or its hash; of a mark the floor of the DMA generations.
    pub(crate) value: u64,
    /// The session's sequence number; of a mark the newest DMA generation.
    pub(crate) sequence: u64,
}

impl Op {
    /// Bus mastering was turned off here.
    pub(crate) const MARK: u64 = 0xf;
    /// The function was reset here.
    pub(crate) const MARK_RESET: u64 = 0xff;

    pub(crate) fn is_mark(&self) -> bool {
        self.shape & 0xf == Self::MARK
    }
}

/// Place, width, count and kind in one word.
pub(crate) fn shape(at: Location, extent: Extent, kind: Kind) -> u64 {
    let kind = match kind {
        Kind::Read => 0,
        Kind::Posted => 1,
        Kind::NonPosted => 2,
    };
    let (tag, count) = match extent {
        Extent::Single => (0, 1),
        Extent::Consecutive(n) => (1, u64::from(n)),
        Extent::Fixed(n) => (2, u64::from(n)),
    };
    let space = match at.space {
        Space::Bar(_) => 0,
        _ => 1,
    };
    kind | (u64::from(at.width.log2()) << 4)
        | (tag << 8)
        | (space << 10)
        | (count << 16)
        | (at.offset << 32)
}

/// What is compared of a write's data.
pub(crate) fn value_of(extent: Extent, data: &[u8]) -> u64 {
    if extent == Extent::Single {
        let mut word = [0; 8];
        word[..data.len()].copy_from_slice(data);
        u64::from_le_bytes(word)
    } else {
        hash(data)
    }
}

/// Shape and value of an access that reached the device.
pub(crate) fn read_back(access: &Access) -> (u64, u64) {
    let (kind, value) = match &access.operation {
        Operation::Read => (Kind::Read, 0),
        Operation::Write(posting, payload) => {
            let value = match payload {
                Payload::Value(value) => *value,
                Payload::Block(bytes) => hash(bytes),
            };
            let kind = match posting {
                Posting::Posted => Kind::Posted,
                Posting::NonPosted => Kind::NonPosted,
            };
            (kind, value)
        }
    };
    (shape(access.at, access.extent, kind), value)
}
