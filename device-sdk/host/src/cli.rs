//! The command line of `potemkin-host`, and of hosts with devices of their own.

use std::ffi::OsString;
use std::process::ExitCode;

use potemkin_service::{About, BoxError, Startup};

use crate::{HostBuilder, HostSettings};

const ABOUT: About = About {
    binary: "potemkin-host",
    summary: "Serves devices to the pool: registers them with brokers and executes the accesses of the guests they are attached to",
    examples: "  potemkin-host --config /etc/potemkin/host.toml
  potemkin-host --config host.toml --check-config
  POTEMKIN_HOST__LISTEN=127.0.0.1:0 potemkin-host --config host.toml --ready-file /run/potemkin/host.json

A configuration:
  state_dir = \"/var/lib/potemkin-host\"
  [tls]
  ca = \"ca.pem\"
  cert = \"host.pem\"
  key = \"host.key\"
  [[brokers]]
  addr = \"broker.example:7640\"
  [[devices]]
  id = \"edu-0\"
  kind = \"edu\"

Kinds of devices:
  edu      QEMU's educational device, 1234:11e8; no options
  scratch  memory and counters, for measurements and trials; options = { size = 65536 }: bytes of its memory",
};

/// Runs `potemkin-host`. `args` begins with the program's name.
pub fn cli_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli_main_with(&ABOUT, args, Ok)
}

/// Runs a host that has more devices than the catalog's: `devices` adds them. Everything else (arguments, configuration,
/// signals, ready-file) is that of `potemkin-host`.
pub fn cli_main_with(
    about: &About,
    args: impl IntoIterator<Item = OsString>,
    devices: impl FnOnce(HostBuilder) -> Result<HostBuilder, BoxError>,
) -> ExitCode {
    potemkin_service::run(about, args, async move |startup| {
        serve(startup, devices).await
    })
}

/// The ready-file says that the ports are bound. That a broker has taken the devices is logged, and counted in
/// `potemkin_host_registrations`.
async fn serve(
    startup: Startup<HostSettings>,
    devices: impl FnOnce(HostBuilder) -> Result<HostBuilder, BoxError>,
) -> Result<(), BoxError> {
    let builder = HostBuilder::new(startup.settings.clone(), &startup.base);
    let host = devices(builder)?.bind().await?;
    let addresses = host.addresses();
    let _ready = startup.announce(&addresses)?;
    tracing::info!(listen = %addresses.listen, metrics = %addresses.metrics, "listening");
    host.run(startup.shutdown.clone()).await?;
    tracing::info!("stopped");
    Ok(())
}
