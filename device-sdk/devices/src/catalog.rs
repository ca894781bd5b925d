//! Devices by the name of their kind, with options, as a host's configuration asks for them.

use std::collections::BTreeMap;
use std::error::Error;

use potemkin_sdk::Device;

use crate::{Edu, Order, Scratch, Uart};

/// A kind of device.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As in the configuration, and the class under which the pool knows it.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// The options that it takes.
    pub options: &'static [&'static str],
    build: fn(&mut Options) -> Result<Box<dyn Device>, Problem>,
}

/// Every kind, in order of name.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "edu",
        summary: "the educational device of QEMU's specification, 1234:11e8",
        options: &["dma_mask", "maskable_msi"],
        build: |options| {
            let mut edu = Edu::new().map_err(Problem::broken)?;
            if let Some(mask) = options.integer("dma_mask")? {
                edu = edu.dma_mask(mask);
            }
            if options.boolean("maskable_msi")? == Some(true) {
                edu = edu.maskable_msi().map_err(Problem::broken)?;
            }
            Ok(Box::new(edu))
        },
    },
    Kind {
        name: "order",
        summary: "every kind of BAR, MSI-X, and checks of order in both directions, 1234:0d3e",
        options: &["memory", "vectors"],
        build: |options| {
            let memory = options.integer("memory")?.unwrap_or(Order::DEFAULT_MEMORY);
            let vectors = options.integer("vectors")?;
            let vectors = vectors.unwrap_or(Order::DEFAULT_VECTORS);
            Ok(Box::new(
                Order::new(vectors, memory).map_err(Problem::broken)?,
            ))
        },
    },
    Kind {
        name: "scratch",
        summary: "memory and counters, for measurements and trials",
        options: &["size"],
        build: |options| {
            let size = options.integer("size")?.unwrap_or(Scratch::DEFAULT_SIZE);
            Ok(Box::new(Scratch::new(size).map_err(Problem::broken)?))
        },
    },
    Kind {
        name: "uart",
        summary: "a 16550A serial port at fixed ports or in memory, a platform function (for embedded agents)",
        options: &["port", "address", "line", "output"],
        build: |options| {
            let port = options.integer("port")?.unwrap_or(Uart::DEFAULT_PORT);
            let line = options.small("line")?.unwrap_or(Uart::DEFAULT_LINE);
            let uart = match options.integer("address")? {
                Some(address) => Uart::memory_mapped(address, line),
                None => Uart::new(port, line),
            };
            let uart = uart.map_err(Problem::broken)?;
            Ok(Box::new(match options.text("output")? {
                Some(path) => uart.output(path.as_ref()).map_err(Problem::broken)?,
                None => uart,
            }))
        },
    },
];

/// Makes a device of the kind with this name.
///
/// # Errors
///
/// An unknown kind or option, an option of the wrong type, or a value that makes no device.
pub fn build(kind: &str, mut options: Options) -> Result<Box<dyn Device>, CatalogError> {
    let Some(found) = KINDS.iter().find(|known| known.name == kind) else {
        return Err(CatalogError::UnknownKind {
            kind: kind.to_owned(),
        });
    };
    if let Some(option) = options.first_unknown(found.options) {
        return Err(CatalogError::UnknownOption {
            kind: found.name,
            option: option.to_owned(),
            known: found.options,
        });
    }
    (found.build)(&mut options).map_err(|problem| match problem {
        Problem::Type { option, expected } => CatalogError::OptionType {
            kind: found.name,
            option,
            expected,
        },
        Problem::Broken(source) => CatalogError::Broken {
            kind: found.name,
            source,
        },
    })
}

/// What a device is built with: values by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(BTreeMap<String, OptionValue>);

impl Options {
    fn first_unknown(&self, known: &[&str]) -> Option<&str> {
        self.0
            .keys()
            .map(String::as_str)
            .find(|key| !known.contains(key))
    }

    fn boolean(&mut self, option: &'static str) -> Result<Option<bool>, Problem> {
        let expected = "true or false";
        match self.0.remove(option) {
            None => Ok(None),
            Some(OptionValue::Boolean(value)) => Ok(Some(value)),
            Some(_) => Err(Problem::Type { option, expected }),
        }
    }

    fn integer(&mut self, option: &'static str) -> Result<Option<u64>, Problem> {
        let expected = "a number, 0 or more";
        match self.0.remove(option) {
            None => Ok(None),
            Some(OptionValue::Integer(value)) => u64::try_from(value)
                .map(Some)
                .map_err(|_| Problem::Type { option, expected }),
            Some(_) => Err(Problem::Type { option, expected }),
        }
    }

    fn small(&mut self, option: &'static str) -> Result<Option<u32>, Problem> {
        let expected = "a number, 0 to 4294967295";
        let value = self.integer(option)?.map(u32::try_from).transpose();
        value.map_err(|_| Problem::Type { option, expected })
    }

    fn text(&mut self, option: &'static str) -> Result<Option<String>, Problem> {
        let expected = "a text";
        match self.0.remove(option) {
            None => Ok(None),
            Some(OptionValue::Text(value)) => Ok(Some(value)),
            Some(_) => Err(Problem::Type { option, expected }),
        }
    }
}

impl<K: Into<String>> FromIterator<(K, OptionValue)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, OptionValue)>>(values: I) -> Self {
        Self(values.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptionValue {
    /// True or false.
    Boolean(bool),
    /// A number.
    Integer(i64),
    /// Anything else.
    Text(String),
}

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The catalog has no such kind.
    #[error("there is no kind of device named {kind:?}; known: {}", names())]
    UnknownKind {
        /// What was asked for.
        kind: String,
    },
    /// The kind does not take that option.
    #[error("a device of kind {kind} has no option {option:?}; known: {known:?}")]
    UnknownOption {
        /// The kind.
        kind: &'static str,
        /// What was given.
        option: String,
        /// What the kind takes.
        known: &'static [&'static str],
    },
    /// An option has a value of the wrong type.
    #[error("option {option:?} of kind {kind} wants {expected}")]
    OptionType {
        /// The kind.
        kind: &'static str,
        /// The option.
        option: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The options do not make a valid device.
    #[error("no device of kind {kind} can be made of these options")]
    Broken {
        /// The kind.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl CatalogError {
    /// What is at fault, as a key below the device's in a host's configuration: `kind`, `options` or `options.size`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::UnknownKind { .. } => "kind".to_owned(),
            Self::UnknownOption { option, .. } => format!("options.{option}"),
            Self::OptionType { option, .. } => format!("options.{option}"),
            Self::Broken { .. } => "options".to_owned(),
        }
    }
}

fn names() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    names.join(", ")
}

/// As a [`CatalogError`], before the kind is known.
enum Problem {
    Type {
        option: &'static str,
        expected: &'static str,
    },
    Broken(Box<dyn Error + Send + Sync>),
}

impl Problem {
    fn broken(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Broken(source.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_sdk::BarIndex;

    use super::*;

    fn error(kind: &str, options: Options) -> String {
        build(kind, options).err().unwrap().to_string()
    }

    #[test]
    fn every_kind_is_built_without_options() {
        for kind in KINDS {
            assert!(
                build(kind.name, Options::default()).is_ok(),
                "{}",
                kind.name
            );
        }
    }

    #[test]
    fn unknown_kind_is_refused_with_the_known_ones() {
        let error = error("nvme9", Options::default());

        assert!(error.contains("\"nvme9\""), "{error}");
        assert!(error.contains("edu, order, scratch"), "{error}");
    }

    #[test]
    fn unknown_option_is_refused_by_name() {
        let options = Options::from_iter([("colour", OptionValue::Text("red".into()))]);

        let error = error("edu", options);

        assert!(error.contains("no option \"colour\""), "{error}");
    }

    #[test]
    fn option_of_the_wrong_type_is_refused_by_name() {
        for value in [OptionValue::Boolean(true), OptionValue::Integer(-1)] {
            let error = error("scratch", Options::from_iter([("size", value)]));
            assert!(error.starts_with("option \"size\""), "{error}");
        }
    }

    #[test]
    fn boolean_option_takes_true_and_false_only() {
        let option = |value| Options::from_iter([("maskable_msi", value)]);
        for value in [true, false] {
            assert!(build("edu", option(OptionValue::Boolean(value))).is_ok());
        }

        let error = error("edu", option(OptionValue::Integer(1)));

        assert!(error.ends_with("wants true or false"), "{error}");
    }

    #[test]
    fn option_reaches_the_device() {
        let options = Options::from_iter([("size", OptionValue::Integer(4096))]);

        let device = build("scratch", options).unwrap();

        assert_eq!(device.descriptor().bar(BarIndex::B0).unwrap().size, 4096);
    }

    #[test]
    fn errors_name_the_key_that_is_at_fault() {
        let size = |value| Options::from_iter([("size", value)]);
        let cases = [
            ("nvme9", Options::default(), "kind"),
            ("edu", size(OptionValue::Integer(16)), "options.size"),
            ("scratch", size(OptionValue::Boolean(true)), "options.size"),
            ("scratch", size(OptionValue::Integer(17)), "options"),
        ];
        for (kind, options, key) in cases {
            assert_eq!(build(kind, options).err().unwrap().key(), key);
        }
    }

    #[test]
    fn value_that_makes_no_device_is_refused() {
        let options = Options::from_iter([("size", OptionValue::Integer(4095))]);

        let error = build("scratch", options).err().unwrap();

        assert!(matches!(
            error,
            CatalogError::Broken {
                kind: "scratch",
                ..
            }
        ));
    }
}
