//! The processes of a measurement: this program, started again.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use potemkin_service::BoxError;
use potemkin_service::runtime::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, fail};

use crate::args::{Role, RoleName};
use crate::{peers, yardstick};

/// Becomes the process that was asked for.
pub(crate) fn run(role: Role) -> ExitCode {
    match role.name {
        RoleName::Broker => potemkin_broker::cli_main(with_name("potemkin-broker", role.args)),
        RoleName::Host => potemkin_host::cli_main(with_name("potemkin-host", role.args)),
        RoleName::Front => potemkin_front_agent::cli_main(with_name("potemkin-front", role.args)),
        name => match plain_args(&role.args) {
            Ok((ready_file, arg)) => exit(run_plain(name, Path::new(ready_file), arg)),
            Err(error) => fail(&*error, EXIT_USAGE),
        },
    }
}

/// The command line that the role's own binary would get.
fn with_name(binary: &str, args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(binary.into()).chain(args)
}

/// Becomes a process without a configuration.
fn run_plain(name: RoleName, ready_file: &Path, arg: &OsString) -> Result<(), BoxError> {
    match name {
        RoleName::Relay => {
            let upstream = arg.to_string_lossy().parse()?;
            yardstick::serve_relay(ready_file, upstream)
        }
        RoleName::Vfio => peers::serve_potemkin(ready_file, Path::new(arg)),
        RoleName::VfioCrate => peers::serve_crate(ready_file, Path::new(arg)),
        _ => yardstick::serve_echo(ready_file, Path::new(arg)),
    }
}

fn plain_args(args: &[OsString]) -> Result<(&OsString, &OsString), BoxError> {
    match args {
        [ready_file, arg] => Ok((ready_file, arg)),
        _ => Err("this role takes its ready-file and one address".into()),
    }
}

fn exit(result: Result<(), BoxError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => fail(&*error, EXIT_FAILURE),
    }
}
