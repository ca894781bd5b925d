//! What goes into a front half and comes out of it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[allow(unused_imports)] // For the documentation.
use super::Front;
use crate::{
    access::Vector,
    ids::{Incarnation, Path},
};

/// What a front half is made of.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// Session, epoch and attach number.
    pub path: Path,
    /// The host process that the attach named.
    pub host_incarnation: Incarnation,
    /// How long any access may stay unanswered.
    pub deadline: Duration,
}

/// Where the session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontState {
    /// `open` is on its way; accesses wait for credit.
    Opening,
    /// The host has accepted.
    Live,
    /// Without a path: accesses are taken and wait, each for its deadline.
    Interrupted,
    /// `open` is on its way on another path; accesses wait likewise.
    Resuming,
    /// The outcome of something was unknown for too long, or the path is lost: reads give all-ones, writes are dropped.
    Contained,
    /// Ended on purpose.
    Closed,
}

/// What happened to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontEvent {
    /// The host accepted; accesses flow.
    Opened,
    /// The path is lost, and why. Another one is wanted.
    Interrupted(String),
    /// The host accepted another path: accesses flow again, and nothing was lost.
    Resumed,
    /// The answer to a non-posted access.
    Completed {
        /// Its sequence number, as [`Front::read`] or [`Front::write`] gave it.
        sequence: u64,
        /// `Ok` with a read's bytes, or why there are none: the guest gets all-ones.
        outcome: Result<Bytes, Failure>,
    },
    /// The device writes guest memory. To be answered by [`Front::dma_written`], in order.
    DmaWrite(DmaWrite),
    /// The device reads guest memory. To be answered by [`Front::answer_dma_read`], in order.
    DmaRead(DmaRead),
    /// An MSI or MSI-X vector fired.
    Interrupt {
        /// DMA generation in which it was raised.
        generation: u64,
        /// Which.
        vector: Vector,
    },
    /// The level of INTx.
    Intx(bool),
    /// More credit: a refused access may be tried again.
    Unblocked,
    /// The session is contained, and why. Comes once, after the failures of what was outstanding.
    Contained(String),
}

/// A DMA write, as the host sent it: nothing in it has been checked against the guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct DmaWrite {
    /// Its sequence number in reverse.
    pub sequence: u64,
    /// DMA generation in which the transfer began.
    pub generation: u64,
    /// Where in the guest's memory, in bytes.
    pub address: u64,
    /// What.
    #[serde(with = "potemkin_pci::hex")]
    pub data: Bytes,
}

/// A DMA read, as the host sent it: nothing in it has been checked against the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct DmaRead {
    /// Names the answer.
    pub id: u64,
    /// DMA generation in which the transfer began.
    pub generation: u64,
    /// Where in the guest's memory, in bytes.
    pub address: u64,
    /// How many bytes.
    pub length: usize,
}

/// Why the DMA generation rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// Bus mastering was turned off: the device is told at once.
    BusMasterOff,
    /// A window was unmapped: the device is told before the next access, for it learns of other memory by an access only.
    Unmapped,
}

/// Why an access has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The device refused it.
    #[error("the device refused the access")]
    Device,
    /// The function was reset, and the host has not confirmed it.
    #[error("the function resets")]
    Resetting,
    /// The session is contained.
    #[error("the session is contained")]
    Contained,
}

/// Why an access was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No credit now: wait for [`FrontEvent::Unblocked`], at most for the deadline.
    #[error("no credit")]
    NoCredit,
    /// A read, and the function was reset without the host's confirmation so far.
    #[error("the function resets")]
    Resetting,
    /// The session is contained or closed.
    #[error("the session is not live")]
    NotLive,
    /// More than 4,096 bytes, or none.
    #[error("an access has 1 to 4,096 bytes")]
    Size,
}

/// Counters of a session, for operators and tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct FrontCounters {
    /// Frames sent, with or without a batch.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Times that something waited for an answer: non-posted accesses sent while none was outstanding.
    pub round_trips: u64,
    /// Encoded bytes sent.
    pub bytes_sent: u64,
    /// Encoded bytes received.
    pub bytes_received: u64,
}
