//! Interrupts for which there is no room: each vector fires once, at the last place in the order where it was raised.

use std::collections::BTreeMap;

use crate::access::Vector;

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
}

impl Crowds {
    /// A place behind all others.
    pub(super) fn place(&mut self) -> Place {
        self.next += 1;
        Place(self.next)
    }

    /// The vector fires here, and nowhere before.
    pub(super) fn raise(&mut self, place: Place, vector: Vector, generation: u64) {
        let before = self.places.insert(vector, place);
        let older = before.and_then(|before| self.waiting.remove(&(before, vector)));
        let newest = older.map_or(generation, |older| older.max(generation));
        self.waiting.insert((place, vector), newest);
    }

    /// One of those that wait here, with its generation.
    pub(super) fn take(&mut self, place: Place) -> Option<(Vector, u64)> {
        let first = (place, Vector::Msi(0));
        let (&key, _) = self.waiting.range(first..).next()?;
        if key.0 != place {
            return None;
        }
        self.places.remove(&key.1);
        Some((key.1, self.waiting.remove(&key)?))
    }

    pub(super) fn is_empty(&self, place: Place) -> bool {
        let first = (place, Vector::Msi(0));
        let next = self.waiting.range(first..).next();
        next.is_none_or(|(key, _)| key.0 != place)
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

    #[test]
    fn a_vector_raised_again_moves_behind() {
        let mut crowds = Crowds::default();
        let (first, second) = (crowds.place(), crowds.place());
        crowds.raise(first, Vector::Msix(1), 3);
        crowds.raise(first, Vector::Msix(2), 3);
        crowds.raise(second, Vector::Msix(1), 4);

        assert_eq!(crowds.take(first), Some((Vector::Msix(2), 3)));
        assert_eq!(crowds.take(first), None);
        assert!(crowds.is_empty(first) && !crowds.is_empty(second));
        assert_eq!(crowds.take(second), Some((Vector::Msix(1), 4)));
    }

    #[test]
    fn what_is_older_than_the_floor_is_forgotten() {
        let mut crowds = Crowds::default();
        let place = crowds.place();
        crowds.raise(place, Vector::Msi(1), 3);
        crowds.raise(place, Vector::Msi(2), 4);

        crowds.raise_floor(4);

        assert_eq!(crowds.take(place), Some((Vector::Msi(2), 4)));
        assert!(crowds.is_empty(place));
    }
}
