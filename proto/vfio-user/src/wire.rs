//! Fixed-width fields in the byte order of the machine.

use crate::error::{DecodeError, Reason};

/// Takes fields off the front of a payload; each failure names the message and the field.
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
    /// Bytes taken so far, for the error text.
    taken: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'static str, payload: &'a [u8]) -> Self {
        Self {
            message,
            rest: payload,
            taken: 0,
        }
    }

    /// An error about `field` of this message.
    pub(crate) fn fail(&self, field: &'static str, reason: Reason) -> DecodeError {
        DecodeError::new(self.message, field, reason)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_ne_bytes)
    }

    /// Exactly `len` bytes.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.fail(
                field,
                Reason::Truncated {
                    needed: len,
                    found: self.rest.len(),
                },
            ));
        };
        self.rest = rest;
        self.taken += len;
        Ok(bytes)
    }

    /// All that is left.
    pub(crate) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The payload has nothing after its last field.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.fail(
                "size",
                Reason::Mismatch {
                    found: (self.taken + extra) as u64,
                    expected: self.taken as u64,
                },
            )),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.fail(
                field,
                Reason::Truncated {
                    needed: N,
                    found: self.rest.len(),
                },
            ));
        };
        self.rest = rest;
        self.taken += N;
        Ok(*bytes)
    }
}

/// Appends fields to a message.
pub(crate) trait PutFields {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
}

impl PutFields for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_ne_bytes());
    }
}

/// The bit, if it is set.
pub(crate) const fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}
