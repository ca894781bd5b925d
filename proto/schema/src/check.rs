//! `Frame.check`: whether a frame is still what its sender made of it.
//!
//! TLS protects each leg; this protects the whole way, with the relays' memory in it.

/// Protobuf tag of `Frame.check`: field 7, 4 bytes.
const TAG: u8 = 0x3d;
/// Bytes that [`append`] adds.
pub const CHECK_BYTES: usize = 5;

/// What a frame's check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// There is none at the frame's end.
    Missing,
    /// The frame is as it was made.
    Good,
    /// It is not.
    Bad,
}

/// The field for a frame of which these are the other bytes.
#[must_use]
pub fn field(frame: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d] = crc32c::crc32c(frame).to_le_bytes();
    [TAG, a, b, c, d]
}

/// Ends an encoded frame that has no check yet.
pub fn append(frame: &mut Vec<u8>) {
    let field = field(frame);
    frame.extend_from_slice(&field);
}

/// Looks at an encoded frame's last bytes. A frame without a check may by chance look as if it had a bad one: ask only where there is
/// one, or has to be.
#[must_use]
pub fn verify(frame: &[u8]) -> Check {
    let Some((rest, last)) = frame.split_last_chunk::<CHECK_BYTES>() else {
        return Check::Missing;
    };
    if last[0] != TAG {
        return Check::Missing;
    }
    if field(rest) == *last {
        Check::Good
    } else {
        Check::Bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_ended_is_good_and_any_other_is_not() {
        let mut frame = b"a frame".to_vec();
        assert_eq!(verify(&frame), Check::Missing);
        append(&mut frame);
        assert_eq!(verify(&frame), Check::Good);
        for bit in 0..8 * (frame.len() - CHECK_BYTES) {
            let mut other = frame.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&other), Check::Bad, "bit {bit}");
        }
        frame.truncate(3);
        assert_eq!(verify(&frame), Check::Missing);
    }

    #[test]
    fn the_sum_is_that_of_rfc_9260() {
        // The check value that the catalogues of CRCs give for CRC-32C.
        assert_eq!(field(b"123456789"), [0x3d, 0x83, 0x92, 0x06, 0xe3]);
    }
}
