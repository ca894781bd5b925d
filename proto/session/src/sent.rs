//! Batches that were sent and are not acknowledged: kept as they were, to be sent again on another path.

use bytes::Bytes;
use potemkin_proto::v1::FrameHeader;

use crate::{
    batch::BatchWriter,
    frame::{encode_again, encode_batch, with_counts},
    planted::{self, Bug},
};

/// A batch as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct SentBatch {
    /// As it was sent: of the first path, and of that time.
    header: FrameHeader,
    items: u64,
    /// Part of the frame that was sent: no copy.
    body: Bytes,
}

impl SentBatch {
    /// Encodes a batch, which is empty afterwards. `header` needs no counts: they come from the batch. Gives the frame too.
    pub(crate) fn seal(
        header: FrameHeader,
        batch: &mut BatchWriter,
        version: u32,
    ) -> (Self, Bytes) {
        let items = batch.len() as u64;
        let header = with_counts(header, batch.counts());
        let (frame, body) = encode_batch(&header, batch, version);
        let sent = Self {
            header,
            items,
            body,
        };
        (sent, frame)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.body.len()) as u64
    }

    /// Number of its last item.
    pub(crate) fn last(&self) -> u64 {
        self.header.first_sequence + self.items - 1
    }

    /// Number of its first item.
    pub(crate) fn first(&self) -> u64 {
        self.header.first_sequence
    }

    /// What its header acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.header.acknowledged
    }

    /// Its header and its body, for [`Self::from_parts`].
    pub(crate) fn parts(&self) -> (&FrameHeader, &Bytes) {
        (&self.header, &self.body)
    }

    /// A batch of which these were the parts; `items` of them.
    pub(crate) fn from_parts(header: FrameHeader, items: u64, body: Bytes) -> Self {
        Self {
            header,
            items,
            body,
        }
    }

    /// The frame that carries it again. Of `header` all but its counts and its sequence number are used.
    pub(crate) fn again(&self, header: FrameHeader) -> Bytes {
        let old_beat = planted::is(Bug::ResendOldBeat);
        let header = FrameHeader {
            first_sequence: self.header.first_sequence,
            beat: if old_beat {
                self.header.beat
            } else {
                header.beat
            },
            ..with_counts(header, &self.header)
        };
        encode_again(&header, &self.body)
    }
}
