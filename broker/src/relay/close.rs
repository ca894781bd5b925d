//! Close frames that the broker itself sends.

use std::time::Duration;

use bytes::Bytes;
use potemkin_proto::check;
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::{FrameReceiver, FrameSender, FrameStream};
use prost::Message;

use crate::RESUMABLE;
use crate::core::{Dial, DialRefusal};

/// The longest message in a close frame, in bytes (data.proto, `SessionClose.message`).
const MESSAGE_BYTES_MAX: usize = 512;

/// How long a peer may take to end its direction of a stream, once it has a close frame.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Sends a close frame as the last one of a stream, and ends the stream.
pub(super) async fn close(stream: &mut FrameStream, dial: Option<Dial>, reason: &DialRefusal) {
    // The peer may be gone already: then there is nobody to tell.
    let _ = stream.sender.send(close_frame(dial, reason));
    end_stream(&mut stream.sender, &mut stream.receiver).await;
}

/// What an agent of this version is told: version 1 does not know that a broker goes away, to it the path is lost.
pub(super) fn spoken_in(version: u32, reason: DialRefusal) -> DialRefusal {
    if version < RESUMABLE && reason.code == CloseCode::GoingAway {
        lost_path(reason)
    } else {
        reason
    }
}

/// What a host is told, and who knows no other word for it: whatever ends its session comes as a fence; a relay speaks of the path alone.
pub(super) fn lost_path(reason: DialRefusal) -> DialRefusal {
    DialRefusal {
        code: CloseCode::Unreachable,
        ..reason
    }
}

/// Ends our direction of a stream, and gives the peer a moment to end its own: a stream that is dropped before may lose what
/// is still on its way. Who does not end by then is cut off.
pub(super) async fn end_stream(sender: &mut FrameSender, receiver: &mut FrameReceiver) {
    sender.finish().await;
    let drained = async { while let Ok(Some(_)) = receiver.recv().await {} };
    let _ = tokio::time::timeout(LINGER_MAX, drained).await;
}

/// A close frame for a dial; without one its header is empty. The broker counts no items: the sequence numbers are 0. It has a
/// check, which sessions of version 2 want; to others it is a field that they do not know.
pub(super) fn close_frame(dial: Option<Dial>, reason: &DialRefusal) -> Bytes {
    let header = dial.map_or_else(v1::FrameHeader::default, header_of);
    let close = v1::SessionClose {
        code: reason.code.into(),
        message: shortened(&reason.message).to_owned(),
    };
    let frame = v1::Frame {
        header: Some(header),
        close: Some(close),
        ..v1::Frame::default()
    };
    let mut bytes = frame.encode_to_vec();
    check::append(&mut bytes);
    bytes.into()
}

#[allow(clippy::cast_possible_truncation)] // Taking the halves is the point.
fn header_of(dial: Dial) -> v1::FrameHeader {
    v1::FrameHeader {
        session_hi: (dial.session.0 >> 64) as u64,
        session_lo: dial.session.0 as u64,
        epoch: dial.epoch,
        attach_number: dial.attach_number,
        ..v1::FrameHeader::default()
    }
}

fn shortened(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::SessionId;
    use crate::relay::header::read_header;

    #[test]
    fn a_close_frame_says_whose_it_is_and_why() {
        let dial = Dial {
            session: SessionId(7 << 64 | 9),
            epoch: 3,
            attach_number: 2,
        };
        let reason = DialRefusal {
            code: v1::CloseCode::Unreachable,
            message: "ä".repeat(400),
        };

        let bytes = close_frame(Some(dial), &reason);

        let header = read_header(&bytes).unwrap();
        assert_eq!(header.session, dial.session.0);
        assert_eq!((header.epoch, header.attach_number), (3, 2));
        assert_eq!(check::verify(&bytes), check::Check::Good);
        let frame = v1::Frame::decode(bytes).unwrap();
        let close = frame.close.unwrap();
        assert_eq!(close.code(), v1::CloseCode::Unreachable);
        assert_eq!(close.message, "ä".repeat(256));
    }
}
