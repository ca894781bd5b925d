//! Interrupts for which there is no room: each vector fires once, at the last place in the order where it was raised, and INTx gets its last
//! level, at the last place where it was set.

use std::collections::BTreeMap;

use crate::{
    access::Vector,
    planted::{self, Bug},
};

/// A place in the order at which vectors wait together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

#[derive(Debug, Default)]
pub(super) struct Crowds {
    next: u64,
    /// The newest generation in which each vector was raised.
    waiting: BTreeMap<(Place, Vector), u64>,
    /// Where each vector is.
    places: BTreeMap<Vector, Place>,
    /// The level of INTx, and where.
    intx: Option<(Place, bool)>,
}

/// What waits in a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Vector { vector: Vector, generation: u64 },
    Intx(bool),
}

impl Crowds {
    /// A place behind all others.
    pub(super) fn place(&mut self) -> Place {
        self.next += 1;
        Place(self.next)
    }

    /// The vector fires here, and nowhere before.
    pub(super) fn raise(&mut self, place: Place, vector: Vector, generation: u64) {
        if planted::is(Bug::CrowdedInterruptEarly) && self.places.contains_key(&vector) {
            return;
        }
        let before = self.places.insert(vector, place);
        let older = before.and_then(|before| self.waiting.remove(&(before, vector)));
        let newest = older.map_or(generation, |older| older.max(generation));
        self.waiting.insert((place, vector), newest);
    }

    /// INTx gets this level here, and none before.
    pub(super) fn set_intx(&mut self, place: Place, level: bool) {
        self.intx = Some((place, level));
    }

    /// One of those that wait here.
    pub(super) fn take(&mut self, place: Place) -> Option<Signal> {
        if let Some(key) = self.first(place) {
            let (_, vector) = key;
            self.places.remove(&vector);
            let generation = self.waiting.remove(&key)?;
            return Some(Signal::Vector { vector, generation });
        }
        let (_, level) = self.intx.take_if(|(at, _)| *at == place)?;
        Some(Signal::Intx(level))
    }

    pub(super) fn is_empty(&self, place: Place) -> bool {
        self.first(place).is_none() && self.intx.is_none_or(|(at, _)| at != place)
    }

    fn first(&self, place: Place) -> Option<(Place, Vector)> {
        let (&key, _) = self.waiting.range((place, Vector::Msi(0))..).next()?;
        (key.0 == place).then_some(key)
    }

    /// Forgets what is older.
    pub(super) fn raise_floor(&mut self, floor: u64) {
        let places = &mut self.places;
        self.waiting.retain(|(_, vector), generation| {
            let stays = *generation >= floor;
            if !stays {
                places.remove(vector);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msi(vector: u16, generation: u64) -> Option<Signal> {
        let vector = Vector::Msi(vector);
        Some(Signal::Vector { vector, generation })
    }

    #[test]
    fn a_vector_raised_again_moves_behind() {
        let mut crowds = Crowds::default();
        let (first, second) = (crowds.place(), crowds.place());
        crowds.raise(first, Vector::Msi(1), 3);
        crowds.raise(first, Vector::Msi(2), 3);
        crowds.raise(second, Vector::Msi(1), 4);

        assert_eq!(crowds.take(first), msi(2, 3));
        assert_eq!(crowds.take(first), None);
        assert!(crowds.is_empty(first) && !crowds.is_empty(second));
        assert_eq!(crowds.take(second), msi(1, 4));
    }

    #[test]
    fn a_level_set_again_moves_behind() {
        let mut crowds = Crowds::default();
        let (first, second) = (crowds.place(), crowds.place());
        crowds.set_intx(first, true);
        crowds.set_intx(second, false);

        assert!(crowds.is_empty(first) && !crowds.is_empty(second));
        assert_eq!(crowds.take(first), None);
        assert_eq!(crowds.take(second), Some(Signal::Intx(false)));
        assert!(crowds.is_empty(second));
    }

    #[test]
    fn what_is_older_than_the_floor_is_forgotten() {
        let mut crowds = Crowds::default();
        let place = crowds.place();
        crowds.raise(place, Vector::Msi(1), 3);
        crowds.raise(place, Vector::Msi(2), 4);

        crowds.raise_floor(4);

        assert_eq!(crowds.take(place), msi(2, 4));
        assert!(crowds.is_empty(place));
    }
}
