//! The header with a C++ compiler.

mod support;

#[test]
fn it_compiles_as_cxx17_and_cxx20() {
    for standard in ["c++17", "c++20"] {
        support::compile("c++", "c++", standard);
    }
}
