//! `potemkin-bench peers`.

use std::path::PathBuf;

use clap::Args;

use super::Run;

/// Compares vfio-user servers of several implementations: each is a process of its own with the same registers and one client
/// on a UNIX socket with one access outstanding. No network, no broker. Each round runs every path once; `ratio` is a path's figure
/// divided by that of our server with our client in the same round.
///
/// Measured: a read of 1 byte of a BAR, a write of 1 byte with its reply, a config read of 4 bytes, and writes without a reply (each in a send of its
/// own, and one read behind all). The client of the crate `vfio_user` has no writes without a reply.
///
/// The yardstick is a blocking UNIX socket: 32 bytes there, 32 back. A peer that does not answer in time ends the run with an error.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        potemkin-bench peers --one-cpu\n  \
        potemkin-bench peers --one-cpu --libvfio-user libvfio-user/build/samples/gpio-pci-idio-16\n  \
        potemkin-bench peers --one-cpu --output json\n\n\
        libvfio-user's server is its sample `gpio-pci-idio-16`, whose registers the other servers have, too. To build it, with meson, ninja, \
        json-c and cmocka:\n  \
        git clone https://github.com/nutanix/libvfio-user && cd libvfio-user\n  \
        meson setup --buildtype=release build && ninja -C build")]
pub(crate) struct Peers {
    #[command(flatten)]
    pub(crate) run: Run,
    /// libvfio-user's sample `gpio-pci-idio-16`, an executable that takes a socket's path; without, libvfio-user is not measured
    #[arg(long, value_name = "PATH")]
    pub(crate) libvfio_user: Option<PathBuf>,
}
