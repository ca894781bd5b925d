//! In what two descriptors differ, for people.

use std::fmt;

use super::{Descriptor, DescriptorParts};

/// The first field, in the schema's words, in which two descriptors differ, and what both have there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    field: String,
    before: String,
    after: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            before,
            after,
        } = self;
        write!(f, "{field}: was {before}, is {after}")
    }
}

impl Descriptor {
    /// In what `after` differs from this; `None`: in nothing.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Option<Difference> {
        if self == after {
            return None;
        }
        let (before, after) = (self.to_parts(), after.to_parts());
        bytes_of(&before)
            .into_iter()
            .zip(bytes_of(&after))
            .find_map(|((field, before), (_, after))| of_bytes(field, before, after))
            .or_else(|| {
                let lists = others_of(&before).into_iter().zip(others_of(&after));
                lists
                    .filter(|((_, before), (_, after))| before != after)
                    .map(|((field, before), (_, after))| Difference {
                        field: field.to_owned(),
                        before,
                        after,
                    })
                    .next()
            })
    }
}

/// The fields of bytes.
fn bytes_of(parts: &DescriptorParts) -> [(&'static str, &[u8]); 6] {
    [
        ("config_image", &parts.config_image),
        ("config_writable", &parts.config_writable),
        (
            "config_write_one_to_clear",
            &parts.config_write_one_to_clear,
        ),
        ("config_volatile", &parts.config_volatile),
        ("config_forwarded", &parts.config_forwarded),
        ("rom", &parts.rom),
    ]
}

/// All others, as text.
fn others_of(parts: &DescriptorParts) -> [(&'static str, String); 6] {
    [
        ("config_writes", format!("{:?}", parts.config_writes)),
        ("bars", format!("{:?}", parts.bars)),
        ("ranges", format!("{:?}", parts.ranges)),
        ("interrupts", format!("{:?}", parts.interrupts)),
        ("platform", format!("{:?}", parts.platform)),
        ("recovery", format!("{:?}", parts.recovery)),
    ]
}

fn of_bytes(field: &str, before: &[u8], after: &[u8]) -> Option<Difference> {
    if before.len() != after.len() {
        return Some(Difference {
            field: field.to_owned(),
            before: format!("{} bytes", before.len()),
            after: format!("{} bytes", after.len()),
        });
    }
    let at = before.iter().zip(after).position(|(b, a)| b != a)?;
    Some(Difference {
        field: format!("{field} at {at:#x}"),
        before: format!("{:#04x}", before[at]),
        after: format!("{:#04x}", after[at]),
    })
}
