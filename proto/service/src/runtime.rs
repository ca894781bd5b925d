//! The runtime of a role, errors for people, and exit codes.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Any error, as it ends a process.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// All went as it should.
pub const EXIT_OK: u8 = 0;
/// Something failed while running.
pub const EXIT_FAILURE: u8 = 1;
/// Arguments or configuration were wrong.
pub const EXIT_USAGE: u8 = 2;

/// How long blocking work may keep a process that is done.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Drives `main` on a new `current_thread` runtime, reports its error on standard error and gives the exit code.
pub fn block_on<F>(main: F) -> ExitCode
where
    F: AsyncFnOnce() -> Result<(), BoxError>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EXIT_FAILURE),
    };
    let result = runtime.block_on(main());
    runtime.shutdown_timeout(LINGER_MAX);
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => fail(&*error, EXIT_FAILURE),
    }
}

/// Reports `error` with all its causes on standard error and gives `code` back.
#[must_use]
pub fn fail(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::from(code)
}

/// What clap has to say (help, version, wrong arguments), and the exit code for it.
#[must_use]
pub fn exit_of_clap(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed standard output.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        EXIT_USAGE
    } else {
        EXIT_OK
    })
}

/// The error and its causes, one line each. A cause that is in the text already is left out: some messages contain their cause's,
/// with a hint behind it.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  caused by: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read key.pem")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start: {0}")]
    struct Repeating(#[source] std::io::Error);

    #[test]
    fn chain_lists_each_cause_on_its_line() {
        let error = Outer(std::io::Error::other("no such disk"));

        assert_eq!(
            chain(&error),
            "cannot read key.pem\n  caused by: no such disk"
        );
    }

    #[test]
    fn chain_leaves_out_a_cause_that_the_message_repeats() {
        let error = Repeating(std::io::Error::other("no such disk"));

        assert_eq!(chain(&error), "cannot start: no such disk");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start: {0} (is it mounted?)")]
    struct Hinting(#[source] Repeating);

    #[test]
    fn chain_tells_each_cause_once_whatever_stands_behind_it() {
        let error = Hinting(Repeating(std::io::Error::other("no such disk")));

        assert_eq!(
            chain(&error),
            "cannot start: cannot start: no such disk (is it mounted?)"
        );
    }

    #[test]
    fn chain_goes_on_behind_a_cause_that_is_left_out() {
        let error = Repeating(std::io::Error::other(Outer(std::io::Error::other("gone"))));

        assert_eq!(
            chain(&error),
            "cannot start: cannot read key.pem\n  caused by: gone"
        );
    }
}
