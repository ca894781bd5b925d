//! The header is what the sources say, in C that compiles.

#![allow(clippy::unwrap_used)]

mod support;

use std::{env, fs};

use support::{header, package};

fn generate() -> String {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_src(package().join("src/lib.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let generated = generate();
    if env::var_os("POTEMKIN_WRITE_HEADER").is_some() {
        fs::write(header(), &generated).unwrap();
    }
    let written = fs::read_to_string(header()).unwrap_or_default();
    assert!(
        written == generated,
        "{} is stale; make it anew: POTEMKIN_WRITE_HEADER=1 cargo test -p potemkin-capi --test header",
        header().display()
    );
}

#[test]
fn it_compiles_as_c11_c17_and_c23() {
    for standard in ["c11", "c17", "c2x"] {
        support::compile("cc", "c", standard);
    }
}
