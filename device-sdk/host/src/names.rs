//! The rules of the control plane for ids, classes and labels (`DeviceOffer` in the schema).

use std::collections::BTreeMap;

pub use potemkin_service::selector::BadName;
pub(crate) use potemkin_service::selector::check_name;

const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 63;

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
