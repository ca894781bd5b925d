//! Deadlines: at most one for each key.

use std::collections::{BTreeMap, BTreeSet};

use super::Time;

/// A set of keys, each with the time at which it is due.
#[derive(Debug)]
pub(super) struct Timers<K> {
    due: BTreeSet<(Time, K)>,
    when: BTreeMap<K, Time>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(super) fn new() -> Self {
        Self {
            due: BTreeSet::new(),
            when: BTreeMap::new(),
        }
    }

    /// Sets the deadline of `key`, in place of an earlier one.
    pub(super) fn arm(&mut self, key: K, at: Time) {
        self.disarm(&key);
        self.when.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    pub(super) fn disarm(&mut self, key: &K) {
        if let Some(at) = self.when.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one key that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.when.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn keys_come_when_due_in_order_of_time() {
        let mut timers = Timers::new();
        timers.arm('b', s(2));
        timers.arm('a', s(3));
        timers.arm('c', s(1));
        assert_eq!(timers.next(), Some(s(1)));
        assert_eq!(timers.pop_due(s(2)), Some('c'));
        assert_eq!(timers.pop_due(s(2)), Some('b'));
        assert_eq!(timers.pop_due(s(2)), None);
    }

    #[test]
    fn arming_again_moves_the_deadline_and_disarming_removes_it() {
        let mut timers = Timers::new();
        timers.arm('a', s(1));
        timers.arm('a', s(5));
        assert_eq!(timers.pop_due(s(4)), None);
        timers.disarm(&'a');
        assert_eq!(timers.next(), None);
    }
}
