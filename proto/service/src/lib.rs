//! What every Potemkin binary shares: configuration, command line, telemetry, metrics, signals, ready-files, the front
//! agent's admin protocol and development certificates.
//!
//! A role's binary implements [`Settings`] for its configuration and hands [`run`] an async function:
//!
//! ```no_run
//! use potemkin_service::{About, NoArgs, Settings, Startup, config::LogSection};
//!
//! #[derive(Default, serde::Deserialize, serde::Serialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct ExampleSettings {
//!     log: LogSection,
//! }
//!
//! impl Settings for ExampleSettings {
//!     const ROLE: &'static str = "EXAMPLE";
//!     type Args = NoArgs;
//!     fn log_mut(&mut self) -> &mut LogSection {
//!         &mut self.log
//!     }
//! }
//!
//! async fn serve(startup: Startup<ExampleSettings>) -> Result<(), std::io::Error> {
//!     startup.shutdown.cancelled().await;
//!     Ok(())
//! }
//!
//! const ABOUT: About = About {
//!     binary: "potemkin-example",
//!     summary: "An example role",
//!     examples: "  potemkin-example --config example.toml",
//! };
//! std::process::exit(match potemkin_service::run(&ABOUT, std::env::args_os(), serve) {
//!     code => i32::from(code != std::process::ExitCode::SUCCESS),
//! });
//! ```

pub mod admin;
pub mod certs;
pub mod cli;
pub mod config;
mod memory;
pub mod metrics;
pub mod ready;
pub mod reload;
pub mod runtime;
pub mod selector;
pub mod service;
pub mod signals;
pub mod telemetry;

pub use cli::{CommonArgs, NoArgs};
pub use runtime::{BoxError, EXIT_FAILURE, EXIT_OK, EXIT_USAGE};
pub use service::{About, Settings, Startup, run};

/// The shutdown signal that [`Startup`] carries and tasks wait on.
pub use tokio_util::sync::CancellationToken as Shutdown;
