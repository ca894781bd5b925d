//! The broker's command line.

use std::ffi::OsString;
use std::process::ExitCode;

use potemkin_service::{About, Startup};

use crate::config::Config;
use crate::server::{RunError, run};

const ABOUT: About = About {
    binary: "potemkin-broker",
    summary: "Accepts device hosts and front agents, decides who may have which device, and forwards their sessions",
    examples: "  potemkin-broker --config broker.toml
  potemkin-broker --config broker.toml --check-config
  POTEMKIN_BROKER__LISTEN=127.0.0.1:0 potemkin-broker --config broker.toml --ready-file ready.json

A broker.toml that lets every host of the trust domain offer, and every agent claim, any device:
  listen = \"0.0.0.0:7640\"
  state_dir = \"/var/lib/potemkin\"
  [tls]
  ca = \"ca.pem\"
  cert = \"broker.pem\"
  key = \"broker.key\"
  [[policy.offer]]
  host = \"spiffe://potemkin.dev/host/*\"
  devices = [\"*\"]
  [[policy.claim]]
  agent = \"spiffe://potemkin.dev/agent/*\"
  devices = [\"*\"]",
};

/// Runs the broker's process: `args` begin with the program's name.
pub fn cli_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    potemkin_service::run(&ABOUT, args, serve)
}

async fn serve(startup: Startup<Config>) -> Result<(), RunError> {
    let config = startup.settings.clone();
    let shutdown = startup.shutdown.clone();
    run(config, &startup.base, shutdown.cancelled(), |addresses| {
        Ok(startup.announce(&addresses)?)
    })
    .await
}
