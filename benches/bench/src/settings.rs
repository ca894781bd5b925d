//! The configuration file: defaults for what the command line leaves out.

use potemkin_service::config::{BadValue, LogSection};
use serde::{Deserialize, Serialize};

use crate::args::{READS_MAX, ROUNDS_MAX};

/// `potemkin-bench`'s configuration. Every key can be set by the environment too, as `POTEMKIN_BENCH__LOOPBACK__ROUNDS`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BenchSettings {
    /// `potemkin-bench loopback`.
    pub(crate) loopback: RunSection,
    /// `potemkin-bench peers`.
    pub(crate) peers: RunSection,
    /// What the measuring process logs; the processes that it starts have logs of their own.
    pub(crate) log: BenchLog,
}

/// `[loopback]` and `[peers]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunSection {
    pub(crate) one_cpu: bool,
    pub(crate) rounds: u32,
    pub(crate) warm_up: u32,
    pub(crate) reads: u32,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            one_cpu: false,
            rounds: 20,
            warm_up: 2,
            reads: 1_000,
        }
    }
}

/// `[log]`, quiet by default: standard error shows what is worth a look.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct BenchLog(pub(crate) LogSection);

impl Default for BenchLog {
    fn default() -> Self {
        Self(LogSection {
            filter: "warn".to_owned(),
            ..LogSection::default()
        })
    }
}

impl BenchSettings {
    /// Refuses what the command line would refuse; named by its key.
    pub(crate) fn check(&self) -> Result<(), BadValue> {
        self.loopback.check("loopback")?;
        self.peers.check("peers")
    }
}

impl RunSection {
    fn check(&self, section: &str) -> Result<(), BadValue> {
        for (key, value, min, max) in [
            ("rounds", self.rounds, 1, ROUNDS_MAX),
            ("warm_up", self.warm_up, 0, ROUNDS_MAX),
            ("reads", self.reads, 1, READS_MAX),
        ] {
            if !(min..=max).contains(&i64::from(value)) {
                return Err(BadValue::new(
                    format!("{section}.{key}"),
                    format!("{value} is not within {min} to {max}"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let section = RunSection::default();
        assert_eq!(
            (section.rounds, section.warm_up, section.reads),
            (20, 2, 1_000)
        );
        assert!(BenchSettings::default().check().is_ok());
    }

    #[test]
    fn a_count_out_of_range_is_named() {
        let mut settings = BenchSettings::default();
        settings.loopback.rounds = 0;
        let error = settings.check().unwrap_err().to_string();
        assert!(error.starts_with("loopback.rounds: 0"), "{error}");
    }

    #[test]
    fn each_measurement_has_a_section_of_its_own() {
        let mut settings = BenchSettings::default();
        settings.peers.reads = 0;
        let error = settings.check().unwrap_err().to_string();
        assert!(error.starts_with("peers.reads: 0"), "{error}");
    }
}
