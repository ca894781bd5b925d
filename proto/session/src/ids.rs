//! The identifiers of a session, as typed values.

use std::fmt;

use bytes::Bytes;

/// A 128-bit session id, issued by the broker at attach.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl SessionId {
    /// The id whose big-endian bytes these are.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads the 16 bytes of a message's field; `None` when there are not 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes.try_into().ok()?))
    }

    /// The id of a frame header's two halves.
    pub const fn from_halves(high: u64, low: u64) -> Self {
        Self(((high as u128) << 64) | low as u128)
    }

    /// High and low half, as a frame header carries them.
    #[allow(clippy::cast_possible_truncation)] // Taking the halves is the point.
    pub const fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }

    /// Big-endian bytes, as the control plane's messages carry them.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of a host's or an agent's process: 16 random bytes, new with each start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    /// Wraps the bytes drawn at start.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the 16 bytes of a message's field; `None` when there are not 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The bytes.
    pub const fn as_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The bytes, for a message's field.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Fencing token of a claim: a number per device that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// Issued by the agent, grows with each dial of a session's path: of two live paths the newer wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AttachNumber(pub u32);

/// Who a frame belongs to: what every header of a session's path must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The session.
    pub session: SessionId,
    /// The epoch of its claim.
    pub epoch: Epoch,
    /// The dial.
    pub attach_number: AttachNumber,
}
