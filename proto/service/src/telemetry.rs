//! Logs: `tracing` events on standard error, as text or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{BadValue, LogFormat, LogSection};

/// Starts logging. Once a process has a subscriber, further calls only check the filter: the first one stays, so that tests
/// may run several roles in one process.
pub fn init(log: &LogSection) -> Result<(), BadValue> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|source| {
        let problem = format!(
            "`{}` is not a filter: write a level (error, warn, info, debug, trace) or a list of module=level",
            log.filter
        );
        BadValue::new("log.filter", problem).because(source)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A standard error that is closed must not end the process: the fallback of this library prints there, and panics.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let _already_set = match log.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn init_twice_is_harmless() {
        let log = LogSection::default();

        init(&log).unwrap();
        init(&log).unwrap();
    }

    #[test]
    fn init_with_a_bad_filter_names_the_key() {
        let log = LogSection {
            filter: "potemkin=loud".to_owned(),
            ..LogSection::default()
        };

        let error = init(&log).unwrap_err();

        assert!(error.to_string().starts_with("log.filter: `potemkin=loud`"));
    }
}
