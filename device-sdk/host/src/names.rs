//! The rules of the control plane for ids, classes and labels (`DeviceOffer` in the schema).

use std::collections::BTreeMap;

const NAME_BYTES_MAX: usize = 63;
const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is no id or class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?}: use 1 to {NAME_BYTES_MAX} characters of [a-z0-9.-], with a letter or digit at either end"
)]
pub struct BadName {
    text: String,
}

/// Why labels are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLabels {
    /// Too many.
    #[error("{count} labels: at most {LABELS_MAX}")]
    Count {
        /// How many.
        count: usize,
    },
    /// A key is empty or too long, or a value too long.
    #[error(
        "label {key:?}: keys have 1 to {LABEL_BYTES_MAX} bytes, values at most {LABEL_BYTES_MAX}"
    )]
    Length {
        /// Which one.
        key: String,
    },
}

/// Checks an id or a class.
pub(crate) fn check_name(text: &str) -> Result<(), BadName> {
    let outer = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let sound = bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(outer)
        && bytes.last().is_some_and(outer)
        && bytes.iter().all(|c| outer(c) || matches!(c, b'.' | b'-'));
    if sound {
        Ok(())
    } else {
        Err(BadName {
            text: text.to_owned(),
        })
    }
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), BadLabels> {
    if labels.len() > LABELS_MAX {
        return Err(BadLabels::Count {
            count: labels.len(),
        });
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return Err(BadLabels::Length { key: key.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_alphabet_are_taken() {
        for name in ["a", "0", "edu-0", "rack1.edu-0", &"x".repeat(63)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "-",
            "edu-",
            ".edu",
            "Edu",
            "edu_0",
            "é",
            &"x".repeat(64),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let one = |key: String, value: String| BTreeMap::from([(key, value)]);
        assert_eq!(check_labels(&one("zone".into(), String::new())), Ok(()));
        assert!(check_labels(&one(String::new(), "a".into())).is_err());
        assert!(check_labels(&one("x".repeat(64), "a".into())).is_err());
        assert!(check_labels(&one("x".into(), "a".repeat(64))).is_err());
        let many = (0..33).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(check_labels(&many), Err(BadLabels::Count { count: 33 }));
    }
}
