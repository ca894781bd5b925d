#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    listen: String,
    limit: u32,
    tags: Vec<String>,
    deadline: HumanDuration,
    tls: Option<TlsSection>,
    log: LogSection,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            listen: "[::1]:7640".to_owned(),
            limit: 8,
            tags: Vec::new(),
            deadline: HumanDuration(Duration::from_secs(1)),
            tls: None,
            log: LogSection::default(),
        }
    }
}

/// Loads `text` from a file `broker.toml` in a folder of its own.
fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Example, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, text).unwrap();
    load_with("BROKER", Some(&file), variables(environment)).map(|loaded| loaded.settings)
}

fn variables(environment: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect()
}

fn load_env(environment: &[(&str, &str)]) -> Result<Example, ConfigError> {
    load_with("BROKER", None, variables(environment)).map(|loaded| loaded.settings)
}

/// The part of the message behind the file's folder.
fn message(error: &ConfigError) -> String {
    let text = error.to_string();
    text.rsplit_once("/broker.toml")
        .map_or(text.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn no_file_and_no_variables_give_the_defaults() {
    let example = load_env(&[]).unwrap();

    assert_eq!(example.limit, 8);
    assert_eq!(example.deadline.0, Duration::from_secs(1));
}

#[test]
fn file_overrides_defaults() {
    let example = load_text("limit = 9\ndeadline = \"50ms\"", &[]).unwrap();

    assert_eq!(example.limit, 9);
    assert_eq!(example.deadline.0, Duration::from_millis(50));
}

#[test]
fn unknown_key_names_line_column_and_the_likely_key() {
    let error = load_text("limit = 9\n\n  lisen = \"x\"", &[]).unwrap_err();

    assert_eq!(
        message(&error),
        ":3:3: unknown key `lisen`, expected one of `listen`, `limit`, `tags`, `deadline`, `tls`, `log`; \
         did you mean `listen`?"
    );
}

#[test]
fn unknown_key_in_a_section_names_its_line() {
    let error = load_text("[log]\nformat = \"json\"\ncolour = true", &[]).unwrap_err();

    assert_eq!(
        message(&error),
        ":3:1: unknown key `colour`, expected `format` or `filter` in [log]"
    );
}

#[test]
fn wrong_type_names_line_column_and_key() {
    let error = load_text("[log]\nfilter = 3", &[]).unwrap_err();

    assert_eq!(
        message(&error),
        ":2:10: `log.filter`: invalid type: integer `3`, expected a string"
    );
}

#[test]
fn wrong_duration_says_how_to_write_one() {
    let error = load_text("deadline = \"1 fortnight\"", &[]).unwrap_err();

    assert!(message(&error).starts_with(":1:12: `deadline`: `1 fortnight` is not a duration"));
}

#[test]
fn missing_key_names_the_section_and_its_line() {
    let error = load_text("limit = 1\n[tls]\nca = \"a\"\ncert = \"b\"", &[]).unwrap_err();

    assert_eq!(message(&error), ":2:1: missing key `key` in [tls]");
}

#[test]
fn text_that_is_no_toml_names_line_and_column() {
    let error = load_text("limit = 1\nlisten 5", &[]).unwrap_err();

    assert!(message(&error).starts_with(":2:8: "), "{error}");
}

#[test]
fn columns_count_characters() {
    let error = load_text("tags = [\"äöü\", 1]", &[]).unwrap_err();

    assert!(message(&error).starts_with(":1:16: "), "{error}");
}

#[test]
fn file_that_does_not_exist_is_named() {
    let error =
        load_with::<Example>("BROKER", Some(Path::new("/absent/broker.toml")), []).unwrap_err();

    assert!(error.to_string().contains("/absent/broker.toml"));
}

#[test]
fn file_that_is_too_large_is_refused() {
    let text = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);

    let error = load_text(&text, &[]).unwrap_err();

    assert!(matches!(error, ConfigError::TooLarge { .. }));
}

#[test]
fn variable_overrides_the_file() {
    let example = load_text("limit = 9", &[("POTEMKIN_BROKER__LIMIT", "10")]).unwrap();

    assert_eq!(example.limit, 10);
}

#[test]
fn variables_set_keys_of_sections_that_the_file_lacks() {
    let example = load_env(&[
        ("POTEMKIN_BROKER__TLS__CA", "ca.pem"),
        ("POTEMKIN_BROKER__TLS__CERT", "broker.pem"),
        ("POTEMKIN_BROKER__TLS__KEY", "broker.key"),
    ])
    .unwrap();

    assert_eq!(example.tls.unwrap().cert, ConfigPath::from("broker.pem"));
}

#[test]
fn variable_adds_a_key_to_a_section_of_the_file() {
    let example = load_text(
        "[log]\nformat = \"json\"",
        &[("POTEMKIN_BROKER__LOG__FILTER", "debug")],
    )
    .unwrap();

    assert_eq!(example.log.format, LogFormat::Json);
    assert_eq!(example.log.filter, "debug");
}

#[test]
fn variable_takes_arrays_in_toml() {
    let example = load_env(&[("POTEMKIN_BROKER__TAGS", "[\"a\", \"b\"]")]).unwrap();

    assert_eq!(example.tags, ["a", "b"]);
}

#[test]
fn variable_that_looks_like_a_number_can_be_text() {
    let example = load_env(&[("POTEMKIN_BROKER__LISTEN", "7640")]).unwrap();

    assert_eq!(example.listen, "7640");
}

#[test]
fn variable_of_no_key_is_named_with_the_likely_key() {
    let error = load_text("limit = 1", &[("POTEMKIN_BROKER__LOG__FLITER", "debug")]).unwrap_err();

    assert_eq!(
        error.to_string(),
        "environment variable POTEMKIN_BROKER__LOG__FLITER: unknown key `fliter`, expected `format` or `filter`; \
         did you mean `filter`?"
    );
}

#[test]
fn variable_of_the_wrong_type_is_named() {
    let error = load_env(&[("POTEMKIN_BROKER__LIMIT", "many")]).unwrap_err();

    assert_eq!(
        error.to_string(),
        "environment variable POTEMKIN_BROKER__LIMIT: `limit`: invalid type: string \"many\", expected u32"
    );
}

#[test]
fn variable_that_fits_neither_as_toml_nor_as_text_tells_the_first_reason() {
    let error = load_env(&[("POTEMKIN_BROKER__LIMIT", "-1")]).unwrap_err();

    assert_eq!(
        error.to_string(),
        "environment variable POTEMKIN_BROKER__LIMIT: `limit`: invalid value: integer `-1`, expected u32"
    );
}

#[test]
fn wrong_value_in_the_file_is_not_blamed_on_a_variable() {
    let error = load_text("limit = \"x\"", &[("POTEMKIN_BROKER__LISTEN", "a:1")]).unwrap_err();

    assert!(message(&error).starts_with(":1:9: `limit`"), "{error}");
}

#[test]
fn variable_below_a_value_is_an_error() {
    let error = load_text("limit = 1", &[("POTEMKIN_BROKER__LIMIT__MAX", "2")]).unwrap_err();

    assert_eq!(
        error.to_string(),
        "environment variable POTEMKIN_BROKER__LIMIT__MAX: `limit` is set to a value elsewhere: it has no keys"
    );
}

#[test]
fn variable_without_a_key_is_an_error() {
    let error = load_env(&[("POTEMKIN_BROKER__", "2")]).unwrap_err();

    assert!(
        error
            .to_string()
            .contains("POTEMKIN_BROKER__: names no key")
    );
}

#[test]
fn variable_cannot_smuggle_a_second_key() {
    let example = load_env(&[("POTEMKIN_BROKER__LISTEN", "\"a\"\nlimit = 3")]).unwrap();

    assert_eq!(example.limit, 8);
}

#[test]
fn variables_of_other_roles_and_of_kubernetes_are_left_alone() {
    let example = load_env(&[
        ("POTEMKIN_HOST__LIMIT", "1"),
        ("POTEMKIN_BROKER", "broker:7640"),
        ("POTEMKIN_BROKER_PORT", "tcp://10.0.0.1:7640"),
    ])
    .unwrap();

    assert_eq!(example.limit, 8);
}

/// What is said when `key` is refused.
fn blamed(text: &str, environment: &[(&str, &str)], key: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, text).unwrap();
    let loaded: Loaded<toml::Table> =
        load_with("BROKER", Some(&file), variables(environment)).unwrap();

    let refused = loaded.check(|_, _| Err::<(), _>(BadValue::new(key, "is bad")));

    message(&refused.unwrap_err())
}

#[test]
fn refused_value_is_told_with_line_column_and_key() {
    let text = "a = 1\n[hosts]\nlease = \"0s\"\n[[policy.offer]]\nhost = \"a\"\n[[policy.offer]]\nhost = \"b\"\n";
    let cases = [
        ("a", ":1:5: `a`: is bad"),
        ("hosts.lease", ":3:9: `hosts.lease`: is bad"),
        (
            "policy.offer[1].host",
            ":7:8: `policy.offer[1].host`: is bad",
        ),
    ];
    for (key, expected) in cases {
        assert_eq!(blamed(text, &[], key), expected);
    }
}

#[test]
fn refused_value_of_an_inline_list_or_dotted_key_is_found() {
    let text = "hosts.lease = 0\ndevices = [\n  { id = \"a\" },\n  { id = \"b\" },\n]";

    assert_eq!(
        blamed(text, &[], "hosts.lease"),
        ":1:15: `hosts.lease`: is bad"
    );
    assert_eq!(
        blamed(text, &[], "devices[1].id"),
        ":4:10: `devices[1].id`: is bad"
    );
}

#[test]
fn refused_value_of_a_variable_is_told_with_its_name() {
    let text = "[hosts]\nlease = \"1s\"";
    let cases = [
        ("POTEMKIN_BROKER__HOSTS__LEASE", "0s", "hosts.lease"),
        (
            "POTEMKIN_BROKER__DEVICES",
            "[{ id = \"a\" }]",
            "devices[0].id",
        ),
    ];
    for (name, value, key) in cases {
        let said = blamed(text, &[(name, value)], key);
        assert_eq!(
            said,
            format!("environment variable {name}: `{key}`: is bad")
        );
    }
}

#[test]
fn refused_value_that_is_not_set_is_told_with_its_section_or_file() {
    let text = "\n[hosts]\nforget = \"1s\"\n\n[[devices]]\nid = \"a\"";

    let in_section = blamed(text, &[], "hosts.lease");
    assert!(in_section.starts_with(":2:"), "{in_section}");
    let in_device = blamed(text, &[], "devices[0].socket");
    assert!(in_device.starts_with(":5:"), "{in_device}");
    assert_eq!(blamed(text, &[], "tls"), ": `tls`: is bad");
}

#[test]
fn refused_value_without_a_file_is_told_by_its_key() {
    let loaded: Loaded<Example> = load_with("BROKER", None, []).unwrap();

    let error = loaded.places.blame(BadValue::new("limit", "is bad"));

    assert_eq!(
        error.to_string(),
        "configuration (no file given, see --config): `limit`: is bad"
    );
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, "").unwrap();

    let loaded: Loaded<Example> = load_with("BROKER", Some(&file), []).unwrap();

    assert_eq!(
        ConfigPath::from("tls/ca.pem").resolve(&loaded.base),
        folder.path().join("tls/ca.pem")
    );
    assert_eq!(
        ConfigPath::from("/etc/ca.pem").resolve(&loaded.base),
        Path::new("/etc/ca.pem")
    );
}

#[test]
fn durations_are_read_and_written_alike() {
    for text in ["0s", "1us", "50ms", "1s", "90s", "2m", "1h"] {
        let duration: HumanDuration = text.parse().unwrap();

        assert_eq!(duration.to_string(), text);
    }
}

#[test]
fn durations_without_unit_or_beyond_range_are_refused() {
    for text in [
        "",
        "5",
        "s",
        "-1s",
        "1.5s",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}
