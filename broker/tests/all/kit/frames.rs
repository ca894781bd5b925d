//! Frames as the ends make them.

use bytes::Bytes;
use potemkin_proto::v1;
use prost::Message;

/// What every header of a path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub session: u128,
    pub epoch: u64,
    pub attach_number: u32,
}

impl Path {
    pub fn header(self) -> v1::FrameHeader {
        v1::FrameHeader {
            session_hi: u64::try_from(self.session >> 64).unwrap(),
            session_lo: u64::try_from(self.session & u128::from(u64::MAX)).unwrap(),
            epoch: self.epoch,
            attach_number: self.attach_number,
            first_sequence: 1,
            ..v1::FrameHeader::default()
        }
    }

    pub fn frame(self) -> v1::Frame {
        v1::Frame {
            header: Some(self.header()),
            ..v1::Frame::default()
        }
    }

    pub fn open(self) -> v1::Frame {
        v1::Frame {
            open: Some(v1::SessionOpen {
                version_min: 1,
                version_max: 1,
                next_reverse: 1,
                oldest_unacknowledged: 1,
                // A grant of the agent's own means nothing.
                grant: Some(v1::Grant {
                    device_id: "forged".into(),
                    agent: "forged".into(),
                }),
                ..v1::SessionOpen::default()
            }),
            ..self.frame()
        }
    }

    /// ... by an agent that speaks this version, too.
    pub fn open_up_to(self, version: u32) -> v1::Frame {
        let mut frame = self.open();
        if let Some(open) = &mut frame.open {
            open.version_max = version;
        }
        frame
    }

    pub fn accept(self) -> v1::Frame {
        v1::Frame {
            accept: Some(v1::SessionAccept {
                version: 2,
                next_forward: 1,
                ..v1::SessionAccept::default()
            }),
            ..self.frame()
        }
    }

    /// A batch with so many bytes of data.
    pub fn batch(self, data_bytes: usize) -> v1::Frame {
        v1::Frame {
            batch: Some(v1::Batch {
                ops: vec![1].into(),
                args: vec![2],
                data: vec![0x5a; data_bytes].into(),
            }),
            ..self.frame()
        }
    }

    pub fn close(self) -> v1::Frame {
        v1::Frame {
            close: Some(v1::SessionClose {
                code: v1::CloseCode::Normal.into(),
                message: "done".into(),
            }),
            ..self.frame()
        }
    }
}

pub fn encode(frame: &v1::Frame) -> Bytes {
    frame.encode_to_vec().into()
}

pub fn decode(bytes: Bytes) -> v1::Frame {
    v1::Frame::decode(bytes).unwrap()
}
