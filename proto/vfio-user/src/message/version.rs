//! `VFIO_USER_VERSION`: the version and the limits of both sides.

use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, Reason};
use crate::wire::{Fields, PutFields};
use crate::{MAX_DATA_XFER, fdpass};

const NAME: &str = "VERSION";

/// The protocol's major version that this crate speaks.
pub const MAJOR: u16 = 0;

/// The newest minor version that this crate speaks.
pub const MINOR: u16 = 2;

/// Longest capability text that is read, in bytes with its NUL. Real ones have about 300.
const MAX_TEXT: usize = 4096;

/// A version proposal, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Has to be [`MAJOR`].
    pub major: u16,
    /// The answer's is the smaller of both sides'.
    pub minor: u16,
    /// The limits of who sends it.
    pub capabilities: Capabilities,
}

/// What one side can take. `None`: not said, which means the default named at the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Most descriptors that the sender takes with one message; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msg_fds: Option<u32>,
    /// Most bytes that one region or DMA access moves; default 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_data_xfer_size: Option<u32>,
    /// Most DMA windows at a time; default 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dma_maps: Option<u32>,
    /// Page sizes of DMA windows, or'ed; default 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsizes: Option<u64>,
    /// Whether `REGION_WRITE_MULTI` may be sent; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_multiple: Option<bool>,
}

impl Capabilities {
    /// What this crate's client and server offer: `max_dma_maps` is the server's, and a client leaves it as it is.
    #[must_use]
    pub fn ours(max_dma_maps: u32) -> Self {
        Self {
            max_msg_fds: u32::try_from(fdpass::MAX_FDS).ok(),
            max_data_xfer_size: Some(MAX_DATA_XFER),
            max_dma_maps: Some(max_dma_maps),
            pgsizes: Some(4096),
            write_multiple: Some(true),
        }
    }

    /// The answer to `theirs`: only what they offered, and no limit above theirs. How much an access may move is said in any case: it is not the
    /// default.
    #[must_use]
    pub fn answer(&self, theirs: &Self) -> Self {
        let least = |ours: Option<u32>, theirs: Option<u32>| {
            theirs
                .and(ours)
                .map(|ours| ours.min(theirs.unwrap_or(ours)))
        };
        Self {
            // How many descriptors we take does not depend on how many they take.
            max_msg_fds: theirs.max_msg_fds.and(self.max_msg_fds),
            max_data_xfer_size: least(
                self.max_data_xfer_size,
                theirs.max_data_xfer_size.or(self.max_data_xfer_size),
            ),
            max_dma_maps: least(self.max_dma_maps, theirs.max_dma_maps),
            pgsizes: theirs.pgsizes.and(self.pgsizes),
            write_multiple: theirs
                .write_multiple
                .map(|theirs| theirs && self.write_multiple == Some(true)),
        }
    }

    /// The bound on one access's bytes after both sides have spoken.
    #[must_use]
    pub fn data_xfer_limit(&self) -> u32 {
        self.max_data_xfer_size
            .unwrap_or(MAX_DATA_XFER)
            .min(MAX_DATA_XFER)
    }

    /// Most descriptors that may go to the sender with one message.
    #[must_use]
    pub fn msg_fds_limit(&self) -> usize {
        self.max_msg_fds
            .map_or(1, |fds| usize::try_from(fds).unwrap_or(usize::MAX))
            .min(fdpass::MAX_FDS)
    }
}

/// The JSON object around the capabilities.
#[derive(Serialize)]
struct Text<'a> {
    capabilities: &'a Capabilities,
}

type Object = serde_json::Map<String, serde_json::Value>;

impl Version {
    /// Reads the payload, of a command or of a reply.
    ///
    /// # Errors
    ///
    /// When it is short, its text is not NUL-terminated JSON of the right shape, or a limit is 0.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(NAME, payload);
        let major = fields.u16("major")?;
        let minor = fields.u16("minor")?;
        let text = fields.remainder();
        let capabilities = if text.is_empty() {
            Capabilities::default()
        } else {
            Self::parse(text)?
        };
        if capabilities.max_data_xfer_size == Some(0) {
            return Err(fields.fail(
                "max_data_xfer_size",
                Reason::TooSmall { found: 0, least: 1 },
            ));
        }
        Ok(Self {
            major,
            minor,
            capabilities,
        })
    }

    fn parse(text: &[u8]) -> Result<Capabilities, DecodeError> {
        let fail = |reason| DecodeError::new(NAME, "version data", reason);
        if text.len() > MAX_TEXT {
            return Err(fail(Reason::TooLarge {
                found: text.len() as u64,
                most: MAX_TEXT as u64,
            }));
        }
        let Some((0, json)) = text.split_last() else {
            return Err(fail(Reason::Text("is not terminated by a NUL".into())));
        };
        let shape = |error: serde_json::Error| fail(Reason::Text(error.to_string()));
        // Into objects first: serde alone takes an array for a structure as well.
        let mut text: Object = serde_json::from_slice(json).map_err(shape)?;
        let Some(capabilities) = text.remove("capabilities") else {
            return Ok(Capabilities::default());
        };
        let capabilities: Object = serde_json::from_value(capabilities).map_err(shape)?;
        serde_json::from_value(capabilities.into()).map_err(shape)
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.major);
        out.put_u16(self.minor);
        let text = Text {
            capabilities: &self.capabilities,
        };
        // Numbers and booleans under fixed names: there is nothing in it that JSON cannot say.
        serde_json::to_writer(&mut *out, &text).expect("capabilities are always valid JSON");
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn payload(json: &str) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0];
        bytes.extend_from_slice(json.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let version = Version {
            major: 0,
            minor: 2,
            capabilities: Capabilities::ours(4096),
        };
        let mut bytes = Vec::new();

        version.encode(&mut bytes);

        assert_eq!(Version::decode(&bytes), Ok(version));
    }

    #[test]
    fn qemus_text_is_understood() {
        let bytes = payload(
            r#"{"capabilities": {"migration": {"pgsize": 4096, "max_bitmap_size": 268435456}, "max_msg_fds": 16,
                "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#,
        );

        let version = Version::decode(&bytes).unwrap();

        let expected = Capabilities {
            max_dma_maps: Some(65535),
            max_data_xfer_size: Some(1 << 20),
            ..Capabilities::ours(1)
        };
        assert_eq!(version.capabilities, expected);
    }

    #[test]
    fn no_text_means_defaults() {
        let version = Version::decode(&[0, 0, 0, 0]).unwrap();

        assert_eq!(version.capabilities, Capabilities::default());
        assert_eq!(version.capabilities.msg_fds_limit(), 1);
        assert_eq!(version.capabilities.data_xfer_limit(), MAX_DATA_XFER);
    }

    #[test]
    fn text_without_nul_is_refused() {
        let mut bytes = payload("{}");
        bytes.pop();

        let error = Version::decode(&bytes).unwrap_err();

        assert_eq!((error.message, error.field), ("VERSION", "version data"));
    }

    #[test]
    fn wrong_types_and_shapes_are_refused() {
        for json in [
            "[]",
            "nonsense",
            r#"{"capabilities": 1}"#,
            r#"{"capabilities": []}"#,
            r#"{"capabilities": {"max_msg_fds": -1}}"#,
            r#"{"capabilities": {"max_data_xfer_size": "1"}}"#,
            r#"{"capabilities": {"max_data_xfer_size": 4294967296}}"#,
            r#"{"capabilities": {"max_data_xfer_size": 0}}"#,
        ] {
            assert!(Version::decode(&payload(json)).is_err(), "{json}");
        }
    }

    #[test]
    fn text_above_the_bound_is_refused() {
        let json = format!("{{{}}}", " ".repeat(MAX_TEXT));

        let error = Version::decode(&payload(&json)).unwrap_err();

        assert!(
            matches!(error.reason, Reason::TooLarge { most: 4096, .. }),
            "{error}"
        );
    }

    #[test]
    fn deeply_nested_text_is_refused_and_not_recursed_into() {
        let json = "[".repeat(MAX_TEXT - 5);

        assert!(Version::decode(&payload(&json)).is_err());
    }

    #[test]
    fn answer_is_a_subset_and_never_above_theirs() {
        let theirs = Capabilities {
            max_data_xfer_size: Some(512),
            max_dma_maps: Some(1 << 30),
            ..Default::default()
        };

        let answer = Capabilities::ours(4096).answer(&theirs);

        let expected = Capabilities {
            max_data_xfer_size: Some(512),
            max_dma_maps: Some(4096),
            ..Default::default()
        };
        assert_eq!(answer, expected);
        // Nothing said means 1 MiB, which is not ours.
        let answer = Capabilities::ours(4096).answer(&Capabilities::default());
        let expected = Capabilities {
            max_data_xfer_size: Some(MAX_DATA_XFER),
            ..Default::default()
        };
        assert_eq!(answer, expected);
    }
}
