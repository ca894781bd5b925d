//! Little-endian numbers in an image. The callers' offsets are in bounds by validation; an offset that is not reads as 0.

/// Two bytes at `offset`.
pub(crate) fn le16(image: &[u8], offset: usize) -> u16 {
    let bytes = image.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |&bytes| u16::from_le_bytes(bytes))
}

/// Four bytes at `offset`.
pub(crate) fn le32(image: &[u8], offset: usize) -> u32 {
    let bytes = image.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |&bytes| u32::from_le_bytes(bytes))
}
