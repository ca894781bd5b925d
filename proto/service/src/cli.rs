//! The command-line arguments that all roles share.

use std::path::PathBuf;

use crate::config::{LogFormat, LogSection};

/// Arguments of every role.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Configuration file (TOML); without one, defaults and environment variables count
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print what it comes to, and exit: 0 if it is good, 2 if not
    #[arg(long)]
    pub check_config: bool,
    /// Write the bound addresses to this file (JSON) once everything listens; removed on a clean exit
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// How log lines look [default: text, or as configured]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or a list like info,potemkin_broker=debug [default: info, or as configured]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

impl CommonArgs {
    /// Lays the logging arguments over the configured section.
    pub(crate) fn apply_to(&self, log: &mut LogSection) {
        if let Some(format) = self.log_format {
            log.format = format;
        }
        if let Some(filter) = &self.log_filter {
            log.filter.clone_from(filter);
        }
    }
}

/// For roles without arguments of their own.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct NoArgs {}
