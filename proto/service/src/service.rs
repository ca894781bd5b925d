//! A role's process from command line to exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::CommonArgs;
use crate::config::{self, BadValue, ConfigError, Loaded, LogSection};
use crate::ready::{ReadyError, ReadyFile};
use crate::runtime::{self, BoxError, EXIT_OK, EXIT_USAGE};
use crate::{Shutdown, memory, signals, telemetry};

/// The configuration of a role.
pub trait Settings: DeserializeOwned + Serialize {
    /// The role's name in environment variables, as `BROKER` in `POTEMKIN_BROKER__LISTEN`.
    const ROLE: &'static str;

    /// Arguments of the role beside the common ones; [`crate::NoArgs`] if none.
    type Args: Args;

    /// The `[log]` section, for the common logging arguments to change.
    fn log_mut(&mut self) -> &mut LogSection;

    /// Lays the role's own arguments over the configuration.
    fn apply(&mut self, _args: Self::Args) {}

    /// Checks what the types do not: files that must exist, values that exclude each other. `base` is where relative
    /// paths start.
    ///
    /// # Errors
    /// The key, as `hosts.lease`, and what is wrong with it; the caller adds where it stands.
    fn validate(&self, _base: &Path) -> Result<(), BadValue> {
        Ok(())
    }
}

/// What `--help` says of a role.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The binary's name.
    pub binary: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Command lines, two spaces before each; shown last. Lines above 98 characters are wrapped.
    pub examples: &'static str,
}

/// What a role is started with.
#[derive(Debug)]
pub struct Startup<S> {
    /// The configuration, checked.
    pub settings: S,
    /// Where relative paths of the configuration start.
    pub base: PathBuf,
    /// Where to write the ready-file.
    pub ready_file: Option<PathBuf>,
    /// Cancelled by the first SIGTERM or SIGINT. The second one ends the process at once.
    pub shutdown: Shutdown,
}

impl<S> Startup<S> {
    /// Tells that everything listens: writes the ready-file, if one was asked for. It is removed when the value returned
    /// is dropped: keep that until the end.
    pub fn announce(&self, addresses: &impl Serialize) -> Result<Option<ReadyFile>, ReadyError> {
        self.ready_file
            .as_deref()
            .map(|path| ReadyFile::write(path, addresses))
            .transpose()
    }
}

#[derive(Debug, Parser)]
struct CommandLine<A: Args> {
    #[command(flatten)]
    role: A,
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs a role: reads arguments (the program's name first) and configuration, starts logging and signal handling, and
/// drives `serve` on a `current_thread` runtime. Exit codes: 0 as it should be, 1 failed, 2 arguments or configuration.
pub fn run<S, F, E>(about: &About, args: impl IntoIterator<Item = OsString>, serve: F) -> ExitCode
where
    S: Settings,
    F: AsyncFnOnce(Startup<S>) -> Result<(), E>,
    E: Into<BoxError>,
{
    let line = match parse::<S::Args>(about, args) {
        Ok(line) => line,
        Err(error) => return runtime::exit_of_clap(&error),
    };
    let (loaded, common) = match load::<S>(line) {
        Ok(loaded) => loaded,
        Err(error) => return runtime::fail(&error, EXIT_USAGE),
    };
    if common.check_config {
        return print_summary(&loaded.settings);
    }
    memory::look_after();
    runtime::block_on(async move || {
        let startup = Startup {
            shutdown: signals::install()?,
            settings: loaded.settings,
            base: loaded.base,
            ready_file: common.ready_file,
        };
        serve(startup).await.map_err(Into::into)
    })
}

fn parse<A: Args>(
    about: &About,
    args: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine<A>, clap::Error> {
    let command = CommandLine::<A>::command()
        .name(about.binary)
        .bin_name(about.binary)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about.summary)
        .after_help(format!("Examples:\n{}", about.examples));
    CommandLine::from_arg_matches(&command.try_get_matches_from(args)?)
}

/// Configuration and arguments, checked, with logging on.
fn load<S: Settings>(line: CommandLine<S::Args>) -> Result<(Loaded<S>, CommonArgs), ConfigError> {
    let mut loaded: Loaded<S> = config::load(S::ROLE, line.common.config.as_deref())?;
    line.common.apply_to(loaded.settings.log_mut());
    loaded.settings.apply(line.role);
    telemetry::init(loaded.settings.log_mut()).map_err(|bad| match line.common.log_filter {
        Some(_) => ConfigError::in_argument("--log-filter", bad),
        None => loaded.places.blame(bad),
    })?;
    loaded.check(S::validate)?;
    Ok((loaded, line.common))
}

fn print_summary(settings: &impl Serialize) -> ExitCode {
    let summary = match toml::to_string_pretty(settings) {
        Ok(summary) => summary,
        Err(error) => return runtime::fail(&error, EXIT_USAGE),
    };
    // Nothing can be done about a closed standard output.
    let _ = writeln!(
        std::io::stdout(),
        "configuration OK\n\n{}",
        summary.trim_end()
    );
    ExitCode::from(EXIT_OK)
}

#[cfg(test)]
mod tests;
