//! The shared library says which version of the interface it has.

fn main() {
    // The number is `POTEMKIN_ABI_VERSION`; the C programs' test compares the two.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpotemkin_front.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
