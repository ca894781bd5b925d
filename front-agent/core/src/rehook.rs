//! Keeps what the VMM has hooked for the function in step with what the guest programmed.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use potemkin_pci::{AddressKind, ConfigSpace, Mapping, Space};

use crate::device::FrontDevice;

/// The VMM's side of the function's decode: routes ranges of addresses to it.
///
/// An access to a mapped range goes to [`FrontDevice::region_read`] and its kin, at [`Mapping::offset_of`] its address.
///
/// Called on the thread whose config write (or reset) asks for it, which goes on when the guest's address map is as it says. Calls do not
/// overlap: there is a lock of its own around them, taken before any other of the function's. So a call may look at configuration
/// space and access regions, and wait for other threads that do; it must not write configuration space, reset, hook or unhook the same
/// function, or ask what is hooked, nor wait for a thread that does. So a VMM whose address map has a lock does not hold it while it hands an access to the function.
pub trait Rehook: Send + Sync {
    /// Routes accesses to this range to the function. The range overlaps no other that is mapped for this function.
    ///
    /// # Errors
    /// It cannot be had: something else is there. Then whatever was mapped before for this BAR stays, and nothing is mapped here.
    fn map(&self, mapping: Mapping) -> Result<(), RehookError>;

    /// Ends that. The mapping is one that was mapped and not unmapped since.
    fn unmap(&self, mapping: Mapping);
}

/// A range that cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RehookError {
    reason: String,
}

impl RehookError {
    /// With the reason, for people.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// What was hooked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookCounters {
    /// Ranges that the VMM mapped.
    pub mapped: u64,
    /// Ranges that it refused to map.
    pub failed: u64,
}

impl FrontDevice {
    /// From here on `vmm` is told of each range that the function answers, those of now included, until [`FrontDevice::unhook`].
    ///
    /// Each base takes effect as one: the new range is mapped, then the old one unmapped. If the VMM refuses the new one, the old stays:
    /// the guest reads the base that it wrote and finds the device where it was, also by address ([`FrontDevice::memory_read`] and its kin). The
    /// next change of a base or of decode tries again, and so does [`FrontDevice::retry_hooks`]; what was refused is counted, and the first is logged as a warning. A range that stays so gives way when the guest places
    /// another BAR there. BARs that change places are unmapped first, and mapped back if that fails.
    pub fn hook(&self, vmm: Arc<dyn Rehook>) {
        let mut state = self.hooks.state();
        state.unhook();
        state.vmm = Some(vmm);
        self.hooks.publish(&state, None);
        let wanted = wanted(&self.config());
        self.hooks.settle(&mut state, wanted);
    }

    /// Unmaps everything and forgets the VMM. What holds the VMM's hooks usually holds this function too: without this call, neither ends.
    pub fn unhook(&self) {
        let mut state = self.hooks.state();
        state.unhook();
        self.hooks.publish(&state, None);
    }

    /// What is mapped now.
    pub fn hooked(&self) -> Vec<Mapping> {
        self.hooks.state().live.iter().flatten().copied().collect()
    }

    /// Tries again what the VMM refused to map, for one whose address map has changed since. Says whether all is mapped as the guest
    /// programmed it.
    pub fn retry_hooks(&self) -> bool {
        let mut state = self.hooks.state();
        let wanted = wanted(&self.config());
        // What is mapped was asked for last, as far as anybody knows.
        state.wanted = state.live;
        self.hooks.settle(&mut state, wanted);
        state.live == state.wanted
    }

    /// What was hooked so far.
    pub fn hook_counters(&self) -> HookCounters {
        HookCounters {
            mapped: self.hooks.mapped.load(Ordering::Relaxed),
            failed: self.hooks.failed.load(Ordering::Relaxed),
        }
    }

    /// Configuration space may ask for other ranges than before.
    pub(crate) fn rehook(&self) {
        let mut state = self.hooks.state();
        let wanted = wanted(&self.config());
        self.hooks.settle(&mut state, wanted);
    }
}

/// A mapping a space, by the space's code.
type Slots = [Option<Mapping>; Mapping::MAX];

fn wanted(config: &ConfigSpace) -> Slots {
    let mut slots = Slots::default();
    for mapping in config.mappings() {
        slots[slot(&mapping)] = Some(mapping);
    }
    slots
}

fn slot(mapping: &Mapping) -> usize {
    mapping.space.to_code().into()
}

/// The VMM's hooks. Dropped, it unmaps all.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    /// What addresses lead to, of a function whose VMM maps it; none of one that decodes by its registers. Its lock is held for a look.
    published: RwLock<Option<Vec<Mapping>>>,
    /// Held across the VMM's calls: two vCPUs that write configuration space rehook one after the other, each to what stands there then.
    state: Mutex<State>,
    mapped: AtomicU64,
    failed: AtomicU64,
    /// One refusal was logged for people already.
    logged: AtomicBool,
}

#[derive(Default)]
struct State {
    vmm: Option<Arc<dyn Rehook>>,
    /// What is mapped.
    live: Slots,
    /// What was asked for last. It is `live`, but for what was refused.
    wanted: Slots,
}

impl Hooks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes from what is mapped to what is wanted. Each range is tried once.
    fn settle(&self, state: &mut State, wanted: Slots) {
        if state.vmm.is_none() || state.wanted == wanted {
            return;
        }
        state.wanted = wanted;
        state.unmap_unwanted();
        self.publish(state, None);
        let mut moving = state.moving();
        while let Some(free) = moving.iter().position(|new| !state.is_taken(new)) {
            self.replace(state, moving.remove(free));
        }
        // The rest wants places where others of the function are that have not gone: they change places, or were refused theirs.
        let mut lifted = Vec::new();
        for new in moving {
            lifted.extend(state.lift(&new));
            self.replace(state, new);
        }
        for old in lifted {
            if state.live[slot(&old)].is_none() && !state.is_taken(&old) {
                self.replace(state, old);
            }
        }
    }

    /// Maps `new` instead of what its space has now. If that fails, it keeps that.
    fn replace(&self, state: &mut State, new: Mapping) {
        let Some(vmm) = state.vmm.clone() else { return };
        // Both lead here while the VMM goes from one to the other.
        self.publish(state, Some(new));
        match vmm.map(new) {
            Ok(()) => {
                self.mapped.fetch_add(1, Ordering::Relaxed);
                if let Some(old) = state.live[slot(&new)].replace(new) {
                    vmm.unmap(old);
                }
            }
            Err(error) => self.refused(state, &new, &error),
        }
        self.publish(state, None);
    }

    /// Where an access of `length` bytes at this address goes: by what the VMM has mapped, which may not be what the registers say. None: the
    /// VMM maps nothing, and the registers decide.
    pub(crate) fn find(
        &self,
        kind: AddressKind,
        address: u64,
        length: u64,
    ) -> Option<Option<(Space, u64)>> {
        let published = self.published.read();
        let published = published.unwrap_or_else(PoisonError::into_inner);
        let mut mapped = published.as_ref()?.iter();
        Some(mapped.find_map(|mapping| {
            let offset = mapping
                .offset_of(address)
                .filter(|_| mapping.kind == kind)?;
            (length <= mapping.size - offset).then_some((mapping.space, offset))
        }))
    }

    fn publish(&self, state: &State, coming: Option<Mapping>) {
        let hooked = state.vmm.is_some();
        let mapped = hooked.then(|| {
            coming
                .into_iter()
                .chain(state.live.iter().flatten().copied())
        });
        let mut published = self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *published = mapped.map(Iterator::collect);
    }

    fn refused(&self, state: &State, new: &Mapping, error: &RehookError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let Mapping {
            space,
            kind,
            address,
            ..
        } = *new;
        let address = format_args!("{address:#x}");
        let stays = state.live[slot(new)].map(|old| old.address);
        if self.logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(%space, ?kind, address, ?stays, %error, "the VMM does not map");
        } else {
            tracing::warn!(
                %space, ?kind, address, ?stays, %error,
                "the VMM does not map what the guest placed there: it stays where it was; further ones are counted, and logged at debug"
            );
        }
    }
}

impl State {
    /// What is to be mapped elsewhere than it is, or at all.
    fn moving(&self) -> Vec<Mapping> {
        let pairs = self.wanted.iter().zip(&self.live);
        let moving = pairs.filter(|(wanted, live)| wanted != live);
        moving.filter_map(|(wanted, _)| *wanted).collect()
    }

    fn unmap_unwanted(&mut self) {
        for slot in 0..Mapping::MAX {
            if self.wanted[slot].is_none() {
                self.unmap(slot);
            }
        }
    }

    /// Whether something is mapped where `new` is to be.
    fn is_taken(&self, new: &Mapping) -> bool {
        self.live.iter().flatten().any(|live| live.overlaps(new))
    }

    /// Unmaps what is in the way of `new`. Gives it back.
    fn lift(&mut self, new: &Mapping) -> Vec<Mapping> {
        let in_the_way = |live: &&Mapping| live.overlaps(new);
        let lifted: Vec<_> = self
            .live
            .iter()
            .flatten()
            .filter(in_the_way)
            .copied()
            .collect();
        for old in &lifted {
            self.unmap(slot(old));
        }
        lifted
    }

    fn unmap(&mut self, slot: usize) {
        if let (Some(old), Some(vmm)) = (self.live[slot].take(), &self.vmm) {
            vmm.unmap(old);
        }
    }

    fn unhook(&mut self) {
        // What is replaced is dropped.
        *self = Self::default();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for slot in 0..Mapping::MAX {
            self.unmap(slot);
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("live", &self.live)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
