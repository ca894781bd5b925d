//! The wire format as it was frozen, in `golden/`: what was once sent must be understood, and sent alike, for ever.
//!
//! A change of the format on purpose is blessed: `POTEMKIN_BLESS=1 cargo test -p potemkin-proto --test golden` writes the files anew.
//! Additions to the schema need no blessing, but should get it, so that they are frozen too. Anything else is a new protocol
//! version.

#![allow(clippy::unwrap_used)]

#[path = "golden/frames.rs"]
mod frames;
#[path = "golden/schema.rs"]
mod schema;

use std::{env, fs, path::PathBuf};

/// The frozen bytes of this name, which are `current` from now on if the user says so.
fn frozen(name: &str, current: &[u8]) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "golden", name]
        .iter()
        .collect();
    if env::var_os("POTEMKIN_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, current).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
