//! The protobuf schema of Potemkin's control and data planes, and its typed values.
//!
//! The schema itself is documented field by field in `potemkin/v1/*.proto`; everything needed to write an agent or a host
//! in another language stands there.

pub mod check;
pub mod descriptor;

/// The package `potemkin.v1`, as generated from the schema.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/potemkin.v1.rs"));
}

/// The schema as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));
