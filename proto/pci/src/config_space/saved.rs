//! Configuration space as a value, for a process that hands its function over to another.

use serde::{Deserialize, Serialize};

use super::ConfigSpace;
use crate::Descriptor;

/// What a guest has made of a function's configuration space.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedConfig {
    /// What it reads.
    #[serde(with = "crate::hex")]
    pub image: Vec<u8>,
    /// The BARs' registers, and the ROM's.
    pub registers: Vec<SavedRegister>,
    /// What 64-bit BARs have beyond them, by the index of the lower half.
    pub wide: Vec<SavedWide>,
}

/// A BAR's register, or the ROM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedRegister {
    /// Last written.
    pub written: u32,
    /// The last value that was an address.
    pub address: u32,
}

/// The base of a 64-bit BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedWide {
    /// Where it answers.
    pub base: u64,
    /// Which of the 8 bytes were written since that counted.
    pub written: u8,
}

/// What was saved is not of the function with this descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved configuration space is not of this function")]
pub struct SavedConfigError;

impl ConfigSpace {
    /// As it is now.
    #[must_use]
    pub fn save(&self) -> SavedConfig {
        let (registers, wide) = self.registers.saved();
        SavedConfig {
            image: self.image.to_vec(),
            registers,
            wide,
        }
    }

    /// As it was saved.
    ///
    /// # Errors
    /// When it was another function's.
    pub fn restore(descriptor: &Descriptor, saved: &SavedConfig) -> Result<Self, SavedConfigError> {
        let mut config = Self::new(descriptor);
        if saved.image.len() != config.image.len()
            || !config.registers.restore(&saved.registers, &saved.wide)
        {
            return Err(SavedConfigError);
        }
        config.image.copy_from_slice(&saved.image);
        Ok(config)
    }
}
