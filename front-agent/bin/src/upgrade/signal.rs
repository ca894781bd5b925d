//! SIGUSR2 asks for an upgrade, as `potemkin upgrade` does.

use std::{io, mem::MaybeUninit, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::Agent;

/// Signals that end a process which does not handle them yet, and that are sent to agents at any time: upgrade, and reload.
const AT_ANY_TIME: [libc::c_int; 2] = [libc::SIGUSR2, libc::SIGHUP];

/// Handles SIGUSR2 from now on.
///
/// # Errors
/// The operating system's.
pub(crate) fn upgrade_on_signal(agent: Arc<Agent>) -> io::Result<impl Future<Output = ()>> {
    let signal = signal(SignalKind::user_defined2())?;
    Ok(upgrade(signal, agent))
}

async fn upgrade(mut signal: Signal, agent: Arc<Agent>) {
    while signal.recv().await.is_some() {
        tracing::info!("SIGUSR2: upgrading");
        let Err(reason) = agent.upgrade(None).await;
        tracing::error!(reason, "not upgraded; all devices go on");
    }
}

/// While the process executes another program these signals are ignored, and in that too until it handles them. Dropped, they are handled
/// as before.
pub(super) struct Ignored([Option<libc::sigaction>; 2]);

#[allow(unsafe_code)]
impl Ignored {
    pub(super) fn new() -> Self {
        Self(AT_ANY_TIME.map(|signal| {
            let mut before = MaybeUninit::uninit();
            // SAFETY: All zeros is a valid `sigaction`: no flags, an empty mask.
            let mut ignore: libc::sigaction = unsafe { std::mem::zeroed() };
            ignore.sa_sigaction = libc::SIG_IGN;
            // SAFETY: Both are valid for the call, which fills `before` if it succeeds. Ignoring a signal runs no code.
            let set = unsafe { libc::sigaction(signal, &raw const ignore, before.as_mut_ptr()) };
            // SAFETY: It was filled.
            (set == 0).then(|| unsafe { before.assume_init() })
        }))
    }
}

#[allow(unsafe_code)]
impl Drop for Ignored {
    fn drop(&mut self) {
        for (signal, before) in AT_ANY_TIME.into_iter().zip(&self.0) {
            if let Some(before) = before {
                // SAFETY: What was in force before is sound to be in force again.
                unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) };
            }
        }
    }
}
