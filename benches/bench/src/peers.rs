//! `potemkin-bench peers`: vfio-user servers of several implementations, beside each other and a plain UNIX socket.
//!
//! All serve the same few registers, each to one client: what differs is how an implementation receives, decides and answers.

mod bounded;
mod guest;
mod libvfio;
mod parties;
mod path;
mod registers;
mod server_crate;
mod server_potemkin;

use crate::args::Peers;
use crate::error::BenchError;
use crate::measurement;
use crate::report::peers::PeersReport;

pub(crate) use guest::POSTED_WRITES;
#[cfg(test)]
pub(crate) use path::GuestKind;
pub(crate) use path::{PeerPath, PeerWay, ServerKind};
pub(crate) use server_crate::serve as serve_crate;
pub(crate) use server_potemkin::serve as serve_potemkin;

use parties::Parties;

/// Measures. The calling thread must be the process's only one: with it, all that come are pinned.
pub(crate) fn run(args: &Peers) -> Result<PeersReport, BenchError> {
    let (setup, paths) = measurement::run("peers", &args.run, |workspace, shutdown| {
        let mut parties = Parties::start(args, workspace)?;
        measurement::rounds(&args.run, shutdown, parties.paths_mut(), |path, counts| {
            path.run_round(args.run.reads, counts)
        })?;
        Ok(parties.into_paths())
    })?;
    let libvfio_user = args.libvfio_user.as_deref();
    Ok(PeersReport::new(setup, libvfio_user, &paths))
}
