//! The agent's first frame.

use std::time::Duration;

use bytes::Bytes;
use potemkin_proto::check::{self, Check};
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::FrameStream;
use prost::Message;

use super::Refused;
use crate::core::{Dial, DialRefusal, Route};
use crate::ids::{PeerName, SessionId};
use crate::{VERSION, VERSION_MIN, common_version};

/// A first frame that was found good.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) dial: Dial,
    /// The highest protocol version that agent and broker share.
    pub(super) version: u32,
    frame: v1::Frame,
}

impl Opening {
    /// The frame for the host: what the agent sent, with the broker's grant, and with a check if the agent's had one.
    pub(super) fn granted(self, route: &Route, agent: &PeerName) -> Bytes {
        let mut frame = self.frame;
        let checked = frame.check.take().is_some();
        if let Some(open) = &mut frame.open {
            open.grant = Some(v1::Grant {
                device_id: route.device.as_str().to_owned(),
                agent: agent.as_ref().to_owned(),
            });
        }
        let mut bytes = frame.encode_to_vec();
        if checked {
            check::append(&mut bytes);
        }
        bytes.into()
    }
}

/// Reads the agent's first frame, which must come in time and open a session.
pub(super) async fn first_frame(
    stream: &mut FrameStream,
    limit: Duration,
) -> Result<Opening, Refused> {
    let first = tokio::time::timeout(limit, stream.receiver.recv()).await;
    match first {
        Err(_) => Err(violation(
            None,
            format!("open: it did not come within {} ms", limit.as_millis()),
        )),
        Ok(Err(error)) => Err(violation(None, error.to_string())),
        Ok(Ok(None)) => Err(violation(
            None,
            "open: the stream ended before it".to_owned(),
        )),
        Ok(Ok(Some(frame))) => opening(frame),
    }
}

fn opening(bytes: Bytes) -> Result<Opening, Refused> {
    // Checked as every other frame's, so that the host need not expect less of the first one.
    super::header::read_header(&bytes).map_err(|error| violation(None, error.to_string()))?;
    let frame = v1::Frame::decode(bytes.clone())
        .map_err(|error| violation(None, format!("frame: it is not protobuf: {error}")))?;
    let header = frame.header.unwrap_or_default();
    let dial = Dial {
        session: SessionId(u128::from(header.session_hi) << 64 | u128::from(header.session_lo)),
        epoch: header.epoch,
        attach_number: header.attach_number,
    };
    // What the broker changes it has to vouch for: the host sees its check, and not the agent's.
    if frame.check.is_some() && check::verify(&bytes) != Check::Good {
        let message = "check: it is not that of this frame: dial again".to_owned();
        return Err(refused(CloseCode::PathBroken, Some(dial), message));
    }
    let version = check_bodies(&frame, dial)?;
    Ok(Opening {
        dial,
        version,
        frame,
    })
}

/// Gives the version to speak.
fn check_bodies(frame: &v1::Frame, dial: Dial) -> Result<u32, Refused> {
    let Some(open) = &frame.open else {
        let message = "open: the first frame does not carry it".to_owned();
        return Err(violation(Some(dial), message));
    };
    let others = [
        frame.batch.is_some(),
        frame.accept.is_some(),
        frame.close.is_some(),
        frame.resend.is_some(),
    ];
    if others.contains(&true) {
        let message = "frame: it carries another body beside open".to_owned();
        return Err(violation(Some(dial), message));
    }
    let (min, max) = (open.version_min, open.version_max);
    common_version(min, max).ok_or_else(|| {
        let message = format!(
            "open.version_min: this broker speaks versions {VERSION_MIN} to {VERSION}, you {min} to {max}"
        );
        refused(CloseCode::Version, Some(dial), message)
    })
}

fn violation(dial: Option<Dial>, message: String) -> Refused {
    refused(CloseCode::ProtocolViolation, dial, message)
}

const fn refused(code: CloseCode, dial: Option<Dial>, message: String) -> Refused {
    Refused {
        dial,
        reason: DialRefusal { code, message },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::ids::{DeviceId, Incarnation};

    fn open(version_max: u32) -> v1::Frame {
        v1::Frame {
            header: Some(v1::FrameHeader {
                session_lo: 7,
                epoch: 3,
                attach_number: 1,
                ..v1::FrameHeader::default()
            }),
            open: Some(v1::SessionOpen {
                version_min: 1,
                version_max,
                deadline_ms: 900,
                ..v1::SessionOpen::default()
            }),
            ..v1::Frame::default()
        }
    }

    fn checked(frame: &v1::Frame) -> Bytes {
        let mut bytes = frame.encode_to_vec();
        check::append(&mut bytes);
        bytes.into()
    }

    fn granted(opening: Opening) -> Bytes {
        let route = Route {
            device: DeviceId::parse("edu-0").unwrap(),
            host: "spiffe://potemkin.dev/host/dev".into(),
            incarnation: Incarnation(1),
            address: "127.0.0.1:1".parse().unwrap(),
            traffic: Arc::default(),
        };
        opening.granted(&route, &"spiffe://potemkin.dev/agent/dev".into())
    }

    #[test]
    fn an_open_with_a_check_gets_a_new_one_with_the_grant() {
        let bytes = granted(opening(checked(&open(2))).unwrap());

        assert_eq!(check::verify(&bytes), Check::Good);
        let open = v1::Frame::decode(bytes).unwrap().open.unwrap();
        assert_eq!(open.grant.unwrap().device_id, "edu-0");
        assert_eq!(open.deadline_ms, 900);
    }

    #[test]
    fn an_open_without_a_check_gets_none() {
        let bytes = granted(opening(open(1).encode_to_vec().into()).unwrap());

        assert_eq!(v1::Frame::decode(bytes).unwrap().check, None);
    }

    #[test]
    fn an_open_whose_check_is_wrong_breaks_the_path_and_not_the_session() {
        let mut bytes = checked(&open(2)).to_vec();
        *bytes.last_mut().unwrap() ^= 1;

        let refused = opening(bytes.into()).unwrap_err();

        assert_eq!(refused.reason.code, CloseCode::PathBroken);
        assert_eq!(refused.dial.unwrap().session, SessionId(7));
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(opening(checked(&open(1))).unwrap().version, 1);
        assert_eq!(opening(checked(&open(9))).unwrap().version, 2);
        let mut newer = open(9);
        newer.open.as_mut().unwrap().version_min = 3;
        let refused = opening(checked(&newer)).unwrap_err();
        assert_eq!(refused.reason.code, CloseCode::Version);
    }
}
