//! The names of things, as typed values: a malformed one cannot exist behind the door.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A peer's certified identity, `spiffe://<trust domain>/<role>/<name>`.
pub type PeerName = Arc<str>;

/// The longest device id or class, in characters.
const NAME_LENGTH_MAX: usize = 63;

/// Why a text is not a device id or a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {NAME_LENGTH_MAX} characters of [a-z0-9.-], starting and ending with a letter or digit"
)]
pub struct BadName;

/// A device's id: unique in the pool, 1 to 63 characters of `[a-z0-9.-]`, starting and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        check_name(text)?;
        Ok(Self(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Checks the alphabet that device ids and classes share.
pub fn check_name(text: &str) -> Result<(), BadName> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
    let outer = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_are_good = bytes.first().is_some_and(outer) && bytes.last().is_some_and(outer);
    if bytes.len() <= NAME_LENGTH_MAX && ends_are_good && bytes.iter().all(|c| inner(*c)) {
        Ok(())
    } else {
        Err(BadName)
    }
}

/// Makes a 128-bit id: 16 bytes in messages, big-endian.
macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// Reads the 16 bytes of a message's field; `None` when there are not 16.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
            }

            /// The 16 bytes of a message's field.
            #[must_use]
            pub fn to_bytes(self) -> Bytes {
                Bytes::copy_from_slice(&self.0.to_be_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

wide_id! {
    /// A session, named by the broker at attach.
    SessionId
}
wide_id! {
    /// A claim.
    ClaimId
}
wide_id! {
    /// One run of a host's or an agent's process.
    Incarnation
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn device_ids_of_the_alphabet_are_read() {
        for good in ["a", "0", "edu-0", "a.b-c.9", &"x".repeat(63)] {
            assert_eq!(DeviceId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn device_ids_outside_the_alphabet_are_refused() {
        let too_long = "x".repeat(64);
        for bad in [
            "", "-a", "a-", ".a", "a.", "A", "a_b", "a b", "ä", &too_long,
        ] {
            assert_eq!(DeviceId::parse(bad), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn a_wide_id_keeps_its_bytes() {
        let bytes: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let id = SessionId::from_slice(&bytes).unwrap();
        assert_eq!(id.to_bytes(), bytes.as_slice());
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert!(SessionId::from_slice(&bytes[1..]).is_none());
    }
}
