//! One module per kind of command.

mod agent;
mod broker;
mod certs;
mod probe;

pub(crate) use broker::BrokerError;
use potemkin_service::config::Loaded;

use crate::args::{Command, SessionsCommand};
use crate::error::CliError;
use crate::output::Output;
use crate::settings::{BrokerAccess, CliSettings, agent_path};

pub(crate) fn run(
    command: Command,
    loaded: &Loaded<CliSettings>,
    output: Output,
) -> Result<(), CliError> {
    let access = |args| BrokerAccess::new(args, loaded);
    match command {
        Command::Certs(command) => certs::run(command, output),
        Command::Devices(args) => broker::devices(access(args)?, output),
        Command::Sessions(args) => match args.command {
            None => broker::sessions(access(args.broker)?, output),
            Some(SessionsCommand::End(args)) => {
                broker::end_session(access(args.broker)?, args.session, output)
            }
        },
        Command::Claim(args) => broker::claim(args, access, output),
        Command::Release(args) => broker::release(access(args.broker)?, args.claim, output),
        Command::Attach(args) => agent::attach(&agent_path(&args.agent, loaded)?, args, output),
        Command::Detach(args) => agent::detach(&agent_path(&args.agent, loaded)?, args, output),
        Command::Status(args) => agent::status(&agent_path(&args, loaded)?, args.timeout, output),
        Command::Upgrade(args) => agent::upgrade(&agent_path(&args, loaded)?, args.timeout, output),
        Command::Probe(args) => probe::run(args, loaded, output),
    }
}
