//! The header as the sources have it, and compilers that read it.

#![allow(dead_code, reason = "not every test needs each part")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn header() -> PathBuf {
    package().join("include/potemkin_front.h")
}

/// Has a compiler check a program that only includes the header, twice.
///
/// # Panics
/// When it is not there, or complains.
pub(crate) fn compile(compiler: &str, language: &str, standard: &str) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = dir.join(format!("{language}-{standard}.source"));
    let program = "#include <potemkin_front.h>\n#include <potemkin_front.h>\n\
                   int main(void) { return potemkin_abi_version() != POTEMKIN_ABI_VERSION; }\n";
    std::fs::write(&source, program).expect("the target folder can be written");
    let output = Command::new(compiler)
        .args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(package().join("include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}: install a C and C++ compiler"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {standard}: {said}");
}
