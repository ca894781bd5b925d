#![allow(clippy::unwrap_used)]

use serde::Deserialize;

use super::*;
use crate::NoArgs;

const ABOUT: About = About {
    binary: "potemkin-example",
    summary: "An example",
    examples: "  potemkin-example --config example.toml",
};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    limit: u32,
    log: LogSection,
}

impl Settings for Example {
    const ROLE: &'static str = "SERVICE_TEST";
    type Args = NoArgs;

    fn log_mut(&mut self) -> &mut LogSection {
        &mut self.log
    }

    fn validate(&self, _base: &Path) -> Result<(), BadValue> {
        if self.limit > 9 {
            return Err(BadValue::new("limit", "must be at most 9"));
        }
        Ok(())
    }
}

/// Runs the role on a file with this text; the flag tells whether it came to serve.
fn run_on(text: &str, arguments: &[&str], outcome: Result<(), BoxError>) -> (ExitCode, bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.toml");
    std::fs::write(&file, text).unwrap();
    let mut args: Vec<OsString> = vec!["potemkin-example".into(), "--config".into(), file.into()];
    args.extend(arguments.iter().map(OsString::from));
    let mut served = false;
    let code = run(&ABOUT, args, async |_: Startup<Example>| {
        served = true;
        outcome
    });
    (code, served)
}

fn is(code: ExitCode, expected: u8) -> bool {
    format!("{code:?}") == format!("{:?}", ExitCode::from(expected))
}

#[test]
fn serving_well_is_exit_code_0() {
    let (code, served) = run_on("limit = 3", &[], Ok(()));

    assert!(served && is(code, 0));
}

#[test]
fn failing_is_exit_code_1() {
    let (code, served) = run_on("", &[], Err("no disk".into()));

    assert!(served && is(code, 1));
}

#[test]
fn check_config_does_not_serve() {
    let (code, served) = run_on("limit = 3", &["--check-config"], Ok(()));

    assert!(!served && is(code, 0));
}

#[test]
fn bad_configuration_is_exit_code_2() {
    for text in ["limit = 10", "limits = 1", "[log]\nfilter = \"a=b=c\""] {
        let (code, served) = run_on(text, &["--check-config"], Ok(()));

        assert!(!served && is(code, 2), "{text}");
    }
}

#[test]
fn bad_arguments_are_exit_code_2() {
    let (code, served) = run_on("", &["--no-such-option"], Ok(()));

    assert!(!served && is(code, 2));
}

#[test]
fn help_shows_examples_and_common_options() {
    let error = parse::<NoArgs>(&ABOUT, ["potemkin-example".into(), "--help".into()]).unwrap_err();

    let help = error.to_string();
    assert!(help.contains("Examples:\n  potemkin-example --config example.toml"));
    assert!(help.contains("--check-config") && help.contains("--ready-file"));
}

#[test]
fn logging_arguments_override_the_file() {
    let args = ["x", "--log-format", "json", "--log-filter", "debug"].map(OsString::from);
    let line = parse::<NoArgs>(&ABOUT, args).unwrap();
    let mut log = LogSection::default();

    line.common.apply_to(&mut log);

    assert_eq!(log.format, crate::config::LogFormat::Json);
    assert_eq!(log.filter, "debug");
}
