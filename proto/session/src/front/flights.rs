//! What was sent and is not acknowledged: kept for its deadline, and to be sent again on another path.

use std::{collections::VecDeque, time::Instant};

use crate::{
    planted::{self, Bug},
    sent::SentBatch,
};

/// A batch under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) batch: SentBatch,
    pub(super) sent_at: Instant,
    /// When the oldest of its items has to be acknowledged.
    pub(super) deadline: Instant,
}

/// Oldest first. Bounded by the credits.
#[derive(Debug, Default, Clone)]
pub(super) struct Flights {
    flights: VecDeque<Flight>,
}

impl Flights {
    pub(super) fn push(&mut self, batch: SentBatch, sent_at: Instant, deadline: Instant) {
        self.flights.push_back(Flight {
            batch,
            sent_at,
            deadline,
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.flights.clear();
    }

    /// Planted: all deadlines begin anew.
    pub(super) fn renew(&mut self, deadline: Instant) {
        for flight in &mut self.flights {
            flight.deadline = deadline;
        }
    }

    /// One that waited for credit may have an earlier deadline than those before it.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.flights.iter().map(|flight| flight.deadline).min()
    }

    /// First number of the oldest.
    pub(super) fn first(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.batch.first())
    }

    /// When the oldest was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.flights.front().map(|flight| flight.sent_at)
    }

    /// Forgets those that have landed in full. One that has landed in part keeps its deadline: a host that acknowledges one
    /// item at a time must not be able to hold a vCPU for longer.
    pub(super) fn land(&mut self, acknowledged: u64) {
        let counts = |batch: &SentBatch| match planted::is(Bug::LandedInPart) {
            true => batch.first(),
            false => batch.last(),
        };
        while self
            .flights
            .front()
            .is_some_and(|flight| counts(&flight.batch) <= acknowledged)
        {
            self.flights.pop_front();
        }
    }

    /// Those that have items from this one on.
    pub(super) fn from(&self, sequence: u64) -> impl Iterator<Item = &SentBatch> {
        let sequence = sequence + u64::from(planted::is(Bug::ResendOneLate));
        let batches = self.flights.iter().map(|flight| &flight.batch);
        batches.filter(move |batch| batch.last() >= sequence)
    }
}
