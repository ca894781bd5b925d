//! Device selectors as text: `class=edu,zone=a`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Any device that has all of this. Written `class=<class>,<label>=<value>,...`: `class` is the device's class, every other
/// key a label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Empty: any.
    pub class: String,
    /// Labels, each with the value that it must have.
    pub labels: BTreeMap<String, String>,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// A part is not of the form `key=value`.
    #[error("selector: `{part}` is not of the form key=value, as in class=edu,zone=a")]
    Part {
        /// The part.
        part: String,
    },
    /// A key is given twice.
    #[error("selector: `{key}` is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A key or value is too long.
    #[error("selector: `{part}`: keys and values have at most {LABEL_BYTES_MAX} bytes")]
    Long {
        /// The part.
        part: String,
    },
    /// More labels than a device can have.
    #[error("selector: more than {LABELS_MAX} labels")]
    Many,
}

/// The most labels of a device, and so of a selector.
pub const LABELS_MAX: usize = 32;
/// The longest key or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;

/// The longest device id or class, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Why a text is no device id and no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}`: use 1 to {NAME_BYTES_MAX} characters of [a-z0-9.-], with a letter or digit at either end",
    text.escape_default()
)]
pub struct BadName {
    text: String,
}

/// Checks what may be a device's id or class by the rules of the control plane (`DeviceOffer` in the schema): no broker has
/// a device of another.
pub fn check_name(text: &str) -> Result<(), BadName> {
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

/// The key that is the class and no label.
const CLASS: &str = "class";

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut selector = Self::default();
        for part in text.split(',').map(str::trim) {
            let (key, value) = split(part)?;
            let twice = if key == CLASS {
                !std::mem::replace(&mut selector.class, value.to_owned()).is_empty()
            } else {
                let old = selector.labels.insert(key.to_owned(), value.to_owned());
                old.is_some()
            };
            if twice {
                let key = key.to_owned();
                return Err(SelectorError::Twice { key });
            }
            if selector.labels.len() > LABELS_MAX {
                return Err(SelectorError::Many);
            }
        }
        Ok(selector)
    }
}

fn split(part: &str) -> Result<(&str, &str), SelectorError> {
    match part.split_once('=') {
        Some((key, value)) if key.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX => {
            Err(SelectorError::Long {
                part: part.to_owned(),
            })
        }
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key, value)),
        _ => Err(SelectorError::Part {
            part: part.to_owned(),
        }),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = (!self.class.is_empty()).then_some((CLASS, self.class.as_str()));
        let labels = self.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        for (index, (key, value)) in class.into_iter().chain(labels).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_of_the_alphabet_are_taken_and_others_refused() {
        for name in ["a", "0", "edu-0", "rack1.edu-0", &"x".repeat(63)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
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
    fn class_and_labels_are_told_apart() {
        let selector: Selector = "zone=a, class=edu,rack=7".parse().unwrap();

        assert_eq!(selector.class, "edu");
        assert_eq!(selector.labels["zone"], "a");
        assert_eq!(selector.to_string(), "class=edu,rack=7,zone=a");
    }

    #[test]
    fn labels_alone_select_any_class() {
        let selector: Selector = "zone=a".parse().unwrap();

        assert_eq!(selector.class, "");
        assert_eq!(selector.to_string(), "zone=a");
    }

    #[test]
    fn malformed_selectors_are_refused_with_the_part() {
        for (text, part) in [
            ("", "``"),
            ("edu", "`edu`"),
            ("class=", "`class=`"),
            ("a=b,,", "``"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn key_given_twice_is_refused() {
        for text in ["class=a,class=b", "zone=a,zone=b"] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(matches!(error, SelectorError::Twice { .. }), "{text}");
        }
    }

    #[test]
    fn more_or_longer_labels_than_a_device_can_have_are_refused() {
        let labels: Vec<_> = (0..=LABELS_MAX).map(|n| format!("k{n}=v")).collect();
        let long = format!("zone={}", "a".repeat(LABEL_BYTES_MAX + 1));

        assert_eq!(
            labels.join(",").parse::<Selector>(),
            Err(SelectorError::Many)
        );
        assert!(long.parse::<Selector>().is_err());
    }
}
