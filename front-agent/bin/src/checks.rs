//! What a device of the agent may be called and may be. Both `[[devices]]` and the admin socket's requests go through here; a
//! problem is told without the field's name.

use potemkin_front_core::Target;
use potemkin_service::selector::{self, Selector};

/// Most devices of one agent; each has a thread.
pub(crate) const MAX_DEVICES: usize = 256;
/// Longest name of a device at the agent, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// Refuses names that would be hard to type or to log.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !plain {
        return Err(format!(
            "`{}` is not 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` or `-`",
            name.escape_default()
        ));
    }
    Ok(())
}

/// Exactly one of the two says which device, and the broker can have one of that id or class.
pub(crate) fn target(device: Option<&str>, selector: Option<&str>) -> Result<Target, String> {
    match (device, selector) {
        (Some(device), None) => {
            selector::check_name(device).map_err(|e| e.to_string())?;
            Ok(Target::Device(device.to_owned()))
        }
        (None, Some(text)) => {
            let selector: Selector = text.parse().map_err(|e| format!("{e}"))?;
            // Without a class any is meant.
            if !selector.class.is_empty() {
                selector::check_name(&selector.class).map_err(|e| format!("class: {e}"))?;
            }
            Ok(Target::Selector {
                class: selector.class,
                labels: selector.labels.into_iter().collect(),
            })
        }
        _ => Err("give one of `device` and `selector`".to_owned()),
    }
}
