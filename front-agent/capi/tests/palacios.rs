//! The comparison with Palacios names tests that are there.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::package;

/// What stands between backquotes in the page.
fn quoted(page: &str) -> Vec<&str> {
    page.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_test_that_the_comparison_names_exists() {
    let page = fs::read_to_string(package().join("PALACIOS.md")).unwrap();
    let mut found = 0;
    for name in quoted(&page) {
        let (file, wanted) = if let Some((file, test)) = name.split_once("::") {
            (file.to_owned(), format!("fn {test}("))
        } else if let Some((program, function)) = name.split_once(".c:")
            && !function.is_empty()
        {
            let file = format!("benches/e2e/tests/c_abi/{program}.c");
            (file, format!(" {function}("))
        } else {
            continue;
        };
        let path = package().join("../..").join(&file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&wanted), "{name}");
        found += 1;
    }
    assert!(!page.contains("not yet"), "a row without its answer");
    assert!(found > 50, "only {found} names: is the page still one?");
}

#[test]
fn each_function_of_the_comparison_is_in_the_header() {
    let page = fs::read_to_string(package().join("PALACIOS.md")).unwrap();
    let header = fs::read_to_string(support::header()).unwrap();
    let functions = quoted(&page);
    let functions = functions
        .iter()
        .filter_map(|name| name.split('(').next())
        .filter(|name| name.starts_with("potemkin_"));
    for function in functions {
        assert!(header.contains(function), "{function}");
    }
}
