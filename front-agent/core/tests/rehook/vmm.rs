//! A VMM's address map, which checks what it is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use potemkin_front_core::{Rehook, RehookError};
use potemkin_pci::{AddressKind, Mapping};

/// A range of the VMM's own.
pub(crate) type Range = (AddressKind, u64, u64);

/// Counts as broken what no VMM could carry out: a range mapped over another, one unmapped that is not mapped.
#[derive(Debug, Default)]
pub(crate) struct Vmm {
    /// What else is there: nothing can be mapped over it.
    pub(crate) taken: Mutex<Vec<Range>>,
    /// Spaces, by their codes, that cannot be mapped at an address.
    refused: Mutex<Vec<(u8, u64)>>,
    live: Mutex<BTreeSet<Mapping>>,
    calls: Mutex<Vec<Call>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Map(u64),
    Refuse(u64),
    Unmap(u64),
}

impl Vmm {
    pub(crate) fn with_taken(taken: &[Range]) -> Arc<Self> {
        let taken = Mutex::new(taken.to_vec());
        Arc::new(Self {
            taken,
            ..Self::default()
        })
    }

    pub(crate) fn refuse(&self, space: u8, address: u64) {
        self.refused.lock().unwrap().push((space, address));
    }

    pub(crate) fn live(&self) -> BTreeSet<Mapping> {
        self.live.lock().unwrap().clone()
    }

    /// Calls since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

pub(crate) fn overlap((kind, start, size): Range, other: Range) -> bool {
    kind == other.0 && start < other.1 + other.2 && other.1 < start + size
}

impl Rehook for Vmm {
    fn map(&self, mapping: Mapping) -> Result<(), RehookError> {
        let range = (mapping.kind, mapping.address, mapping.size);
        let mut live = self.live.lock().unwrap();
        for other in live.iter() {
            let other_range = (other.kind, other.address, other.size);
            assert!(!overlap(range, other_range), "{mapping:?} over {other:?}");
        }
        let taken = self.taken.lock().unwrap();
        let place = (mapping.space.to_code(), mapping.address);
        let refused = self.refused.lock().unwrap().contains(&place);
        if refused || taken.iter().any(|&taken| overlap(range, taken)) {
            self.note(Call::Refuse(mapping.address));
            return Err(RehookError::new("taken"));
        }
        live.insert(mapping);
        self.note(Call::Map(mapping.address));
        Ok(())
    }

    fn unmap(&self, mapping: Mapping) {
        assert!(self.live.lock().unwrap().remove(&mapping), "{mapping:?}");
        self.note(Call::Unmap(mapping.address));
    }
}
