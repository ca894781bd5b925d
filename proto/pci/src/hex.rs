//! Bytes as hexadecimal text, for documents of serde's: `#[serde(with = "potemkin_pci::hex")]`.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes the bytes.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    let bytes = bytes.as_ref();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    to.serialize_str(&text)
}

/// Reads bytes.
///
/// # Errors
/// When it is no text of that kind.
pub fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<Vec<u8>>,
{
    let text = String::deserialize(from)?;
    let bytes = decode(text.as_bytes());
    let bytes = bytes.ok_or_else(|| D::Error::custom("not bytes in hexadecimal digits"))?;
    T::try_from(bytes).map_err(|_| D::Error::custom("not as many bytes as there must be"))
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct Text(#[serde(with = "super")] Vec<u8>);

    #[test]
    fn bytes_come_back_and_other_text_is_refused() {
        let all = Text((0..=u8::MAX).collect());

        let text = serde_json::to_string(&all).unwrap();

        assert_eq!(serde_json::from_str::<Text>(&text).unwrap(), all);
        for bad in ["\"0\"", "\"0G\"", "\"é\"", "\"+1\"", "7"] {
            assert!(serde_json::from_str::<Text>(bad).is_err(), "{bad}");
        }
    }
}
