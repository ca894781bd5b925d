//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Shutdown;
use crate::runtime::EXIT_FAILURE;

/// Why signals could not be handled.
#[derive(Debug, thiserror::Error)]
#[error("cannot handle SIGTERM and SIGINT")]
pub struct SignalError(#[from] io::Error);

/// Handles SIGTERM and SIGINT from now on. The first of either cancels the token that this gives; the second ends the process
/// with exit code 1, without clean-up. A thread of its own waits for them, so that a runtime that is stuck can still be ended.
pub fn install() -> Result<Shutdown, SignalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (terminate, interrupt) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let shutdown = Shutdown::new();
    let token = shutdown.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(watch(terminate, interrupt, token)))?;
    Ok(shutdown)
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, shutdown: Shutdown) {
    let first = either(&mut terminate, &mut interrupt).await;
    // First of all: nothing that a log line could do may come before it.
    shutdown.cancel();
    tracing::info!(signal = first, "stopping");
    let second = either(&mut terminate, &mut interrupt).await;
    tracing::warn!(signal = second, "ended by a second signal");
    std::process::exit(i32::from(EXIT_FAILURE));
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn first_sigterm_cancels_the_token() {
        let shutdown = install().unwrap();

        kill_process(getpid(), Signal::TERM).unwrap();

        shutdown.cancelled().await;
    }
}
