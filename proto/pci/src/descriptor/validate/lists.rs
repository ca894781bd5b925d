//! The capability lists of an image.

use super::super::DescriptorError;
use crate::{
    capability::{
        CapabilityRef, capabilities, capability_length, extended_capabilities,
        id::{ADVANCED_FEATURES, MSI, MSIX, PCI_EXPRESS, POWER_MANAGEMENT},
    },
    registers::CONFIG_SIZE,
};

/// Capabilities that stand for one thing of the function's, so that a second one would contradict the first.
const ONCE: [u8; 5] = [POWER_MANAGEMENT, MSI, MSIX, PCI_EXPRESS, ADVANCED_FEATURES];

/// Where capabilities begin, as (offset, bytes of the header).
pub(super) fn validate(image: &[u8]) -> Result<Vec<(usize, usize)>, DescriptorError> {
    let mut found: Vec<CapabilityRef> = capabilities(image)
        .collect::<Result<_, _>>()
        .map_err(DescriptorError::Capabilities)?;
    validate_once(&found)?;
    found.sort_by_key(|capability| capability.offset);
    validate_lengths(image, &found)?;

    let mut headers: Vec<_> = found.iter().map(|found| (found.offset, 2)).collect();
    for extended in extended_capabilities(image) {
        let extended = extended.map_err(DescriptorError::ExtendedCapabilities)?;
        headers.push((extended.offset, 4));
    }
    Ok(headers)
}

fn validate_once(found: &[CapabilityRef]) -> Result<(), DescriptorError> {
    for id in ONCE {
        let second = found.iter().filter(|capability| capability.id == id).nth(1);
        if let Some(&CapabilityRef { id, offset }) = second {
            return Err(DescriptorError::CapabilityRepeated { id, offset });
        }
    }
    Ok(())
}

/// `found` is sorted by offset.
fn validate_lengths(image: &[u8], found: &[CapabilityRef]) -> Result<(), DescriptorError> {
    let starts = found.iter().map(|capability| capability.offset);
    let ends = starts.skip(1).chain([CONFIG_SIZE]);
    for (&capability, end) in found.iter().zip(ends) {
        let length = capability_length(image, capability);
        let available = end - capability.offset;
        if length > available {
            return Err(DescriptorError::CapabilityTooLong {
                id: capability.id,
                offset: capability.offset,
                length,
                available,
            });
        }
    }
    Ok(())
}
