//! The vendor-specific capability (PCI 3.0 section 6.8.4 and appendix H).

use super::{Capability, CapabilityError, id};

/// Id, next pointer, length.
const HEADER: usize = 3;

impl Capability {
    /// A vendor-specific capability with these contents, read-only, after the length byte.
    ///
    /// # Errors
    /// It would not fit between the header and the end of configuration space: more than 189 bytes.
    pub fn vendor_specific(contents: &[u8]) -> Result<Self, CapabilityError> {
        let max = super::walk::AREA - HEADER;
        let too_long = CapabilityError::TooLong {
            length: contents.len(),
            max,
        };
        let length = match u8::try_from(contents.len() + HEADER) {
            Ok(length) if contents.len() <= max => length,
            _ => return Err(too_long),
        };
        let mut body = vec![length];
        body.extend_from_slice(contents);
        Ok(Self::new(id::VENDOR_SPECIFIC, &body))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_third_byte_is_the_whole_length() {
        let vendor = Capability::vendor_specific(&[0xaa, 0xbb]).unwrap();
        assert_eq!(vendor.bytes(), [0x09, 0, 5, 0xaa, 0xbb]);
    }

    #[test]
    fn contents_that_cannot_fit_are_refused() {
        assert!(Capability::vendor_specific(&[0; 189]).is_ok());
        for length in [190, 300] {
            let error = CapabilityError::TooLong { length, max: 189 };
            assert_eq!(Capability::vendor_specific(&vec![0; length]), Err(error));
        }
    }
}
