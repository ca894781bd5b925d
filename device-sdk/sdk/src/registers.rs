//! A map from offsets to named registers, built once and refused if it contradicts itself.
//!
//! ```
//! use potemkin_sdk::BarIndex;
//! use potemkin_sdk::registers::{Entry, RegisterMap, Widths};
//!
//! #[derive(Clone, Copy, Debug, PartialEq)]
//! enum Reg { Id, Control, Fifo }
//!
//! let map = RegisterMap::bar(BarIndex::B0, 0x100)
//!     .add(Reg::Id, Entry::register("id", 0x00, Widths::FOUR).read_only())
//!     .add(Reg::Control, Entry::register("control", 0x08, Widths::FOUR | Widths::EIGHT))
//!     .add(Reg::Fifo, Entry::window("fifo", 0x40, 0x40, Widths::ALL))
//!     .build()?;
//! # Ok::<(), potemkin_sdk::registers::RegisterMapError>(())
//! ```

use std::ops::BitOr;

use crate::{AccessError, BarIndex, Register, Space, Width};

/// The registers of one space. `K` is how the author calls them, usually an enum.
#[derive(Clone, Debug)]
pub struct RegisterMap<K> {
    space: Space,
    /// In order of offset, without overlap.
    entries: Vec<(Entry, K)>,
}

/// What an access hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<K> {
    /// The register's key.
    pub key: K,
    /// Bytes from the start of the entry; 0 unless it is a window.
    pub within: u64,
}

impl<K: Copy> RegisterMap<K> {
    /// Starts a map of a BAR of `bar_bytes` bytes.
    #[must_use]
    pub fn bar(bar: BarIndex, bar_bytes: u64) -> RegisterMapBuilder<K> {
        Self::builder(Space::Bar(bar), bar_bytes)
    }

    /// Starts a map of a space of `space_bytes` bytes.
    #[must_use]
    pub fn builder(space: Space, space_bytes: u64) -> RegisterMapBuilder<K> {
        RegisterMapBuilder {
            space,
            space_bytes,
            entries: Vec::new(),
        }
    }

    /// What a read of `at` reads.
    ///
    /// # Errors
    ///
    /// [`AccessError::NoRegister`], [`AccessError::Width`], or [`AccessError::Direction`] for a write-only register.
    pub fn readable(&self, at: Register) -> Result<Hit<K>, AccessError> {
        self.find(at, |entry| entry.readable)
    }

    /// What a write of `at` writes.
    ///
    /// # Errors
    ///
    /// [`AccessError::NoRegister`], [`AccessError::Width`], or [`AccessError::Direction`] for a read-only register.
    pub fn writable(&self, at: Register) -> Result<Hit<K>, AccessError> {
        self.find(at, |entry| entry.writable)
    }

    fn find(&self, at: Register, allowed: impl Fn(&Entry) -> bool) -> Result<Hit<K>, AccessError> {
        if at.space != self.space {
            return Err(AccessError::NoRegister(at));
        }
        let behind = self
            .entries
            .partition_point(|(entry, _)| entry.offset <= at.offset);
        let (entry, key) = behind
            .checked_sub(1)
            .and_then(|n| self.entries.get(n))
            .ok_or(AccessError::NoRegister(at))?;
        let within = at.offset - entry.offset;
        if within >= entry.length || (within > 0 && !entry.window) {
            return Err(AccessError::NoRegister(at));
        }
        let bytes = at.bytes() as u64;
        if !entry.widths.contains(at.width)
            || bytes > entry.length - within
            || !within.is_multiple_of(bytes)
        {
            return Err(AccessError::Width(at));
        }
        if !allowed(entry) {
            return Err(AccessError::Direction(at));
        }
        Ok(Hit { key: *key, within })
    }
}

/// One register, or a window of them.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    name: &'static str,
    offset: u64,
    /// In bytes.
    length: u64,
    widths: Widths,
    window: bool,
    readable: bool,
    writable: bool,
}

impl Entry {
    /// A register at `offset`, as long as the widest of `widths`. It is accessed at its first byte only.
    #[must_use]
    pub const fn register(name: &'static str, offset: u64, widths: Widths) -> Self {
        Self {
            name,
            offset,
            length: widths.widest(),
            widths,
            window: false,
            readable: true,
            writable: true,
        }
    }

    /// `length` bytes from `offset` (a buffer, a table), accessed at any multiple of an access's width from there.
    #[must_use]
    pub const fn window(name: &'static str, offset: u64, length: u64, widths: Widths) -> Self {
        Self {
            name,
            offset,
            length,
            widths,
            window: true,
            readable: true,
            writable: true,
        }
    }

    /// Writes are refused.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Reads are refused.
    #[must_use]
    pub const fn write_only(mut self) -> Self {
        self.readable = false;
        self
    }

    /// The first byte behind it; `None` when there is no such number.
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// A set of access widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths(u8);

impl Widths {
    /// 1 byte.
    pub const ONE: Self = Self(1);
    /// 2 bytes.
    pub const TWO: Self = Self(2);
    /// 4 bytes.
    pub const FOUR: Self = Self(4);
    /// 8 bytes.
    pub const EIGHT: Self = Self(8);
    /// 1, 2, 4 and 8 bytes.
    pub const ALL: Self = Self(15);

    /// Whether accesses of this width are in the set.
    #[must_use]
    pub fn contains(self, width: Width) -> bool {
        usize::from(self.0) & width.bytes() != 0
    }

    /// In bytes.
    const fn widest(self) -> u64 {
        1 << self.0.ilog2()
    }
}

impl BitOr for Widths {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Collects the registers of a [`RegisterMap`].
#[derive(Clone, Debug)]
pub struct RegisterMapBuilder<K> {
    space: Space,
    space_bytes: u64,
    entries: Vec<(Entry, K)>,
}

impl<K> RegisterMapBuilder<K> {
    /// One more register, in any order.
    #[must_use]
    pub fn add(mut self, key: K, entry: Entry) -> Self {
        self.entries.push((entry, key));
        self
    }

    /// The map.
    ///
    /// # Errors
    ///
    /// A register that is empty, reaches beyond the space, or overlaps another.
    pub fn build(self) -> Result<RegisterMap<K>, RegisterMapError> {
        let Self {
            space,
            space_bytes,
            mut entries,
        } = self;
        entries.sort_by_key(|(entry, _)| entry.offset);
        for (entry, _) in &entries {
            if entry.length == 0 {
                return Err(RegisterMapError::Empty { name: entry.name });
            }
            if entry.end().is_none_or(|end| end > space_bytes) {
                return Err(RegisterMapError::BeyondSpace {
                    name: entry.name,
                    offset: entry.offset,
                    length: entry.length,
                    space_bytes,
                });
            }
        }
        for pair in entries.windows(2) {
            let (first, second) = (&pair[0].0, &pair[1].0);
            if first.end().is_none_or(|end| end > second.offset) {
                return Err(RegisterMapError::Overlap {
                    first: first.name,
                    second: second.name,
                    offset: second.offset,
                });
            }
        }
        Ok(RegisterMap { space, entries })
    }
}

/// Why a register map was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterMapError {
    /// A window of no bytes.
    #[error("register {name} is empty")]
    Empty {
        /// Of the register.
        name: &'static str,
    },
    /// A register ends behind the space it is in.
    #[error(
        "register {name} at {offset:#x}, {length} bytes long, reaches beyond the {space_bytes} bytes of its space"
    )]
    BeyondSpace {
        /// Of the register.
        name: &'static str,
        /// In bytes from the start of the space.
        offset: u64,
        /// In bytes.
        length: u64,
        /// The size of the space.
        space_bytes: u64,
    },
    /// Two registers share bytes.
    #[error("registers {first} and {second} overlap at {offset:#x}")]
    Overlap {
        /// The register that begins earlier.
        first: &'static str,
        /// The other one.
        second: &'static str,
        /// The first byte that both claim.
        offset: u64,
    },
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
