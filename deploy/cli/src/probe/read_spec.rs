//! Registers named on the command line.

use std::fmt;
use std::str::FromStr;

/// A register to read: `BAR:OFFSET:WIDTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSpec {
    /// 0 to 5.
    pub(crate) bar: u8,
    /// In bytes, a multiple of the width.
    pub(crate) offset: u64,
    /// 1, 2, 4 or 8 bytes.
    pub(crate) width: u8,
}

impl FromStr for ReadSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split(':').collect();
        let [bar, offset, width] = parts[..] else {
            return Err("write BAR:OFFSET:WIDTH, as in 0:0x10:4".to_owned());
        };
        let spec = Self {
            bar: number(bar)
                .and_then(|bar| u8::try_from(bar).ok())
                .filter(|bar| *bar < 6)
                .ok_or("BAR: must be 0 to 5")?,
            offset: number(offset).ok_or("OFFSET: must be a number, decimal or 0x...")?,
            width: number(width)
                .and_then(|width| u8::try_from(width).ok())
                .filter(|width| matches!(width, 1 | 2 | 4 | 8))
                .ok_or("WIDTH: must be 1, 2, 4 or 8")?,
        };
        if !spec.offset.is_multiple_of(spec.width.into()) {
            return Err("OFFSET: must be a multiple of WIDTH".to_owned());
        }
        Ok(spec)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // from_str_radix would take a sign.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

impl fmt::Display for ReadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}:{}", self.bar, self.offset, self.width)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn decimal_and_hexadecimal_offsets_are_read() {
        let expected = ReadSpec {
            bar: 2,
            offset: 16,
            width: 4,
        };

        assert_eq!("2:16:4".parse::<ReadSpec>().unwrap(), expected);
        assert_eq!("2:0x10:4".parse::<ReadSpec>().unwrap(), expected);
        assert_eq!(expected.to_string(), "2:0x10:4");
    }

    #[test]
    fn what_no_guest_could_read_is_refused() {
        for text in [
            "", "0:0", "6:0:4", "0:0:3", "0:2:4", "0:x:1", "0:0x+1:1", "256:0:1", "0:0:4:4",
        ] {
            assert!(text.parse::<ReadSpec>().is_err(), "{text}");
        }
    }
}
