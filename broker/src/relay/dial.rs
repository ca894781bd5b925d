//! The agent's first frame.

use std::time::Duration;

use bytes::Bytes;
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::FrameStream;
use prost::Message;

use super::Refused;
use crate::VERSION;
use crate::core::{Dial, DialRefusal, Route};
use crate::ids::{PeerName, SessionId};

/// A first frame that was found good.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) dial: Dial,
    frame: v1::Frame,
}

impl Opening {
    /// The frame for the host: what the agent sent, with the broker's grant.
    pub(super) fn granted(self, route: &Route, agent: &PeerName) -> Bytes {
        let mut frame = self.frame;
        if let Some(open) = &mut frame.open {
            open.grant = Some(v1::Grant {
                device_id: route.device.as_str().to_owned(),
                agent: agent.as_ref().to_owned(),
            });
        }
        frame.encode_to_vec().into()
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
    let frame = v1::Frame::decode(bytes)
        .map_err(|error| violation(None, format!("frame: it is not protobuf: {error}")))?;
    let header = frame.header.unwrap_or_default();
    let dial = Dial {
        session: SessionId(u128::from(header.session_hi) << 64 | u128::from(header.session_lo)),
        epoch: header.epoch,
        attach_number: header.attach_number,
    };
    check_bodies(&frame, dial)?;
    Ok(Opening { dial, frame })
}

fn check_bodies(frame: &v1::Frame, dial: Dial) -> Result<(), Refused> {
    let Some(open) = &frame.open else {
        let message = "open: the first frame does not carry it".to_owned();
        return Err(violation(Some(dial), message));
    };
    if frame.batch.is_some() || frame.accept.is_some() || frame.close.is_some() {
        let message = "frame: it carries another body beside open".to_owned();
        return Err(violation(Some(dial), message));
    }
    if !(open.version_min..=open.version_max).contains(&VERSION) {
        let (min, max) = (open.version_min, open.version_max);
        return Err(refused(
            CloseCode::Version,
            Some(dial),
            format!("open.version_min: this broker speaks version {VERSION}, you {min} to {max}"),
        ));
    }
    Ok(())
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
