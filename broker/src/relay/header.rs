//! Reads a frame's header without touching its body, and without allocating.
//!
//! A frame is a protobuf message whose first field is the header (data.proto), so it begins with the tag of field 1,
//! length-delimited, and the header's length. Of the header only who the frame belongs to is taken; the other fields are
//! stepped over, with their lengths checked.

/// The longest header, in bytes encoded (data.proto, `FrameHeader`).
pub const HEADER_BYTES_MAX: usize = 256;
/// The longest varint, in bytes (a 64-bit number in groups of seven bits).
const VARINT_BYTES_MAX: usize = 10;

/// Tag of field 1 of `Frame`, length-delimited.
const HEADER_TAG: u8 = 0x0a;

/// Who a frame belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// `session_hi` and `session_lo`.
    pub session: u128,
    /// `epoch`.
    pub epoch: u64,
    /// `attach_number`.
    pub attach_number: u32,
}

/// What is wrong with a header. Each names its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The frame has no bytes.
    #[error("frame: it is empty")]
    Empty,
    /// The frame begins with something else.
    #[error("header: it is not the frame's first field")]
    NotFirst,
    /// The header is longer than allowed.
    #[error("header: it is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// The header, or a field in it, ends beyond the frame or the header.
    #[error("header: it is cut off")]
    Truncated,
    /// A number has too many bytes or bits.
    #[error("header: a number is longer than 64 bits")]
    Varint,
    /// A field has a wire type that protobuf does not have, or a number that it does not allow.
    #[error("header: it has a malformed field")]
    BadField,
    /// A known field has a wire type that is not its own.
    #[error("header.{0}: wrong wire type")]
    WireType(&'static str),
    /// The attach number does not fit its type.
    #[error("header.attach_number: it is longer than 32 bits")]
    AttachNumber,
}

/// Reads the header of an encoded frame.
pub fn read_header(frame: &[u8]) -> Result<Header, HeaderError> {
    split_header(frame).map(|(header, _)| header)
}

/// As [`read_header`], and gives the encoded fields that follow it.
pub fn split_header(frame: &[u8]) -> Result<(Header, &[u8]), HeaderError> {
    let mut outer = Reader(frame);
    match frame.first() {
        None => return Err(HeaderError::Empty),
        Some(&HEADER_TAG) => outer.skip(1)?,
        Some(_) => return Err(HeaderError::NotFirst),
    }
    let length = outer.varint()?;
    let length = usize::try_from(length).map_err(|_| HeaderError::TooLong)?;
    if length > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    let header = Reader(outer.take(length)?).header()?;
    Ok((header, outer.0))
}

struct Reader<'a>(&'a [u8]);

/// Protobuf's wire types (the encoding's specification, "message structure"); groups are not used by proto3.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
    Fixed32,
}

impl<'a> Reader<'a> {
    fn header(mut self) -> Result<Header, HeaderError> {
        let (mut high, mut low) = (0, 0);
        let mut header = Header::default();
        while !self.0.is_empty() {
            let (field, wire) = self.tag()?;
            // A field that comes twice counts as it comes last, as protobuf has it.
            match field {
                1 => high = self.fixed64(wire, "session_hi")?,
                2 => low = self.fixed64(wire, "session_lo")?,
                3 => header.epoch = self.number(wire, "epoch")?,
                4 => header.attach_number = self.attach_number(wire)?,
                _ => self.step_over(wire)?,
            }
        }
        header.session = (u128::from(high) << 64) | u128::from(low);
        Ok(header)
    }

    fn tag(&mut self) -> Result<(u64, Wire), HeaderError> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Length,
            5 => Wire::Fixed32,
            _ => return Err(HeaderError::BadField),
        };
        match tag >> 3 {
            0 => Err(HeaderError::BadField),
            field => Ok((field, wire)),
        }
    }

    fn fixed64(&mut self, wire: Wire, name: &'static str) -> Result<u64, HeaderError> {
        if wire != Wire::Fixed64 {
            return Err(HeaderError::WireType(name));
        }
        let bytes = self.take(8)?;
        let bytes = bytes.try_into().map_err(|_| HeaderError::Truncated)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn number(&mut self, wire: Wire, name: &'static str) -> Result<u64, HeaderError> {
        if wire != Wire::Varint {
            return Err(HeaderError::WireType(name));
        }
        self.varint()
    }

    fn attach_number(&mut self, wire: Wire) -> Result<u32, HeaderError> {
        let number = self.number(wire, "attach_number")?;
        u32::try_from(number).map_err(|_| HeaderError::AttachNumber)
    }

    fn step_over(&mut self, wire: Wire) -> Result<(), HeaderError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.skip(8),
            Wire::Fixed32 => self.skip(4),
            Wire::Length => {
                let length = self.varint()?;
                self.skip(usize::try_from(length).map_err(|_| HeaderError::Truncated)?)
            }
        }
    }

    fn varint(&mut self) -> Result<u64, HeaderError> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = *self.0.get(index).ok_or(HeaderError::Truncated)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(HeaderError::Varint);
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                self.skip(index + 1)?;
                return Ok(value);
            }
        }
        Err(HeaderError::Varint)
    }

    fn skip(&mut self, count: usize) -> Result<(), HeaderError> {
        self.take(count).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], HeaderError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(HeaderError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use potemkin_proto::v1;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn frame_with(header: v1::FrameHeader) -> Vec<u8> {
        v1::Frame {
            header: Some(header),
            batch: Some(v1::Batch {
                ops: vec![1, 2, 3].into(),
                ..v1::Batch::default()
            }),
            ..v1::Frame::default()
        }
        .encode_to_vec()
    }

    prop_compose! {
        fn any_header()(
            ids in any::<(u64, u64, u64, u32)>(),
            sequences in any::<(u64, u64)>(),
            counts in any::<[u32; 8]>(),
            limits in any::<[u64; 4]>(),
            trace in any::<(u64, u64)>(),
        ) -> v1::FrameHeader {
            v1::FrameHeader {
                session_hi: ids.0,
                session_lo: ids.1,
                epoch: ids.2,
                attach_number: ids.3,
                first_sequence: sequences.0,
                acknowledged: sequences.1,
                posted: counts[0],
                non_posted: counts[1],
                events: counts[2],
                completions: counts[3],
                dma_writes: counts[4],
                dma_reads: counts[5],
                interrupts: counts[6],
                pushes: counts[7],
                posted_limit: limits[0],
                non_posted_limit: limits[1],
                dma_write_limit: limits[2],
                beat: limits[3],
                trace_hi: trace.0,
                trace_lo: trace.1,
            }
        }
    }

    proptest! {
        #[test]
        fn reads_what_prost_writes(header in any_header()) {
            let read = read_header(&frame_with(header)).unwrap();
            prop_assert_eq!(read.session >> 64, u128::from(header.session_hi));
            prop_assert_eq!(read.session & u128::from(u64::MAX), u128::from(header.session_lo));
            prop_assert_eq!(read.epoch, header.epoch);
            prop_assert_eq!(read.attach_number, header.attach_number);
        }

        #[test]
        fn a_cut_frame_is_an_error(header in any_header(), cut in any::<prop::sample::Index>()) {
            let header_only = v1::Frame { header: Some(header), ..v1::Frame::default() }.encode_to_vec();
            let cut = cut.index(header_only.len());
            prop_assert!(read_header(&header_only[..cut]).is_err());
        }

        /// Where both understand the bytes they agree; where prost does not, neither do we.
        #[test]
        fn agrees_with_prost_on_any_bytes(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut frame = vec![HEADER_TAG, u8::try_from(body.len()).unwrap()];
            frame.extend_from_slice(&body);
            if let (Ok(ours), Ok(theirs)) = (read_header(&frame), v1::FrameHeader::decode(body.as_slice())) {
                prop_assert_eq!(ours.epoch, theirs.epoch);
                prop_assert_eq!(ours.attach_number, theirs.attach_number);
                prop_assert_eq!(ours.session, (u128::from(theirs.session_hi) << 64) | u128::from(theirs.session_lo));
            }
        }

        #[test]
        fn never_panics(frame in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = read_header(&frame);
        }
    }

    #[test]
    fn a_frame_without_header_first_is_refused() {
        assert_eq!(read_header(&[]), Err(HeaderError::Empty));
        let only_batch = v1::Frame {
            batch: Some(v1::Batch::default()),
            ..v1::Frame::default()
        };
        assert_eq!(
            read_header(&only_batch.encode_to_vec()),
            Err(HeaderError::NotFirst)
        );
    }

    #[test]
    fn a_header_over_the_limit_is_refused_before_it_is_read() {
        // 257, and a length that no machine has.
        assert_eq!(
            read_header(&[HEADER_TAG, 0x81, 0x02]),
            Err(HeaderError::TooLong)
        );
        let huge = [&[HEADER_TAG][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(read_header(&huge), Err(HeaderError::TooLong));
    }

    #[test]
    fn malformed_fields_are_named() {
        // Field 3 (epoch) as fixed64; field 0; wire type 3; field 4 with 2^32.
        let cases: [(&[u8], HeaderError); 5] = [
            (
                &[0x19, 0, 0, 0, 0, 0, 0, 0, 0],
                HeaderError::WireType("epoch"),
            ),
            (&[0x00], HeaderError::BadField),
            (&[0x2b], HeaderError::BadField),
            (
                &[0x20, 0x80, 0x80, 0x80, 0x80, 0x10],
                HeaderError::AttachNumber,
            ),
            (
                &[
                    0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
                ],
                HeaderError::Varint,
            ),
        ];
        for (body, error) in cases {
            let mut frame = vec![HEADER_TAG, u8::try_from(body.len()).unwrap()];
            frame.extend_from_slice(body);
            assert_eq!(read_header(&frame), Err(error), "{body:x?}");
        }
    }

    #[test]
    fn unknown_fields_are_stepped_over() {
        // Field 100 length-delimited, field 101 as fixed32, then the epoch.
        let body = [0xa2, 0x06, 2, 9, 9, 0xad, 0x06, 1, 2, 3, 4, 0x18, 7];
        let mut frame = vec![HEADER_TAG, u8::try_from(body.len()).unwrap()];
        frame.extend_from_slice(&body);
        assert_eq!(read_header(&frame).unwrap().epoch, 7);
    }
}
