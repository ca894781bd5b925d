//! Network namespaces joined by veth pairs: several hosts on one machine. Needs root, `ip`, `nft` and, for rates, `tc`.
//!
//! Names hold the process id and its start time: they are unique, and what a killed process left behind is
//! told from what is in use and removed by the next process that makes a namespace.

mod counter;
mod faults;
mod leftovers;

use std::ffi::OsStr;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use counter::{Count, PacketCounter, Traffic};
pub use leftovers::remove_leftovers;

use crate::{Error, Output, Result, Spawn};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// How long one call of `ip` or `nft` may take.
const TOOL_LIMIT: Duration = Duration::from_secs(30);

/// A named network namespace with its loopback up; removed on drop, with all its links.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace. `label` tells what it stands for (`agent`, `host`); it need not be unique.
    ///
    /// # Errors
    /// Without root or `ip`, with what `ip` said.
    pub fn new(label: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        leftovers::remove_once();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = leftovers::own_name(number, label)?;
        ip(["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins this namespace and another by a veth pair, both ends up and addressed. An address is in CIDR
    /// form (`10.1.0.1/24`); an interface name has at most 15 bytes and is local to its namespace.
    pub fn join(
        &self,
        interface: &str,
        cidr: &str,
        peer: &Self,
        peer_interface: &str,
        peer_cidr: &str,
    ) -> Result<()> {
        ip([
            "link",
            "add",
            interface,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            peer_interface,
            "netns",
            &peer.name,
        ])?;
        for (netns, interface, cidr) in [(self, interface, cidr), (peer, peer_interface, peer_cidr)]
        {
            // An IPv6 address is usable only after duplicate address detection otherwise.
            let dad: &[&str] = if cidr.contains(':') { &["nodad"] } else { &[] };
            netns.ip([&["addr", "add", cidr, "dev", interface], dad].concat())?;
            netns.link_up(interface)?;
        }
        Ok(())
    }

    /// Adds a default route, for what is not on a link of this namespace.
    pub fn default_route(&self, via: IpAddr) -> Result<()> {
        self.ip(["route", "add", "default", "via", &via.to_string()])
            .map(drop)
    }

    /// Lets this namespace forward between its links (IPv4 and IPv6).
    pub fn forward(&self) -> Result<()> {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            self.enter(|| std::fs::write(format!("/proc/sys/net/{file}"), "1"))?
                .map_err(Error::io(format!("cannot set {file}")))?;
        }
        Ok(())
    }

    /// Takes a link up.
    pub fn link_up(&self, interface: &str) -> Result<()> {
        self.ip(["link", "set", interface, "up"]).map(drop)
    }

    /// Takes a link down: what is sent is lost, and no one is told. An IPv6 address is lost with it.
    pub fn link_down(&self, interface: &str) -> Result<()> {
        self.ip(["link", "set", interface, "down"]).map(drop)
    }

    /// Counts from now on the packets of `traffic` that pass `interface`, in either direction.
    pub fn count(&self, interface: &str, traffic: Traffic) -> Result<PacketCounter<'_>> {
        PacketCounter::install(self, interface, traffic)
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// When it fails, or does not end in 30 s.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        Spawn::new(program)
            .args(args)
            .in_netns(self)
            .run(TOOL_LIMIT)?
            .success()
    }

    /// Calls `f` on a thread of its own inside the namespace: sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `f` goes on in the caller.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let netns = self.open()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(Error::sys("cannot enter a network namespace (root?)"))?;
                Ok(f())
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let path = PathBuf::from(NAMES).join(&self.name);
        let file =
            File::open(&path).map_err(Error::io(format!("cannot open {}", path.display())))?;
        Ok(file.into())
    }

    fn ip<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        Spawn::new("ip")
            .args(["-n", &self.name])
            .args(args)
            .run(TOOL_LIMIT)?
            .success()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A failure leaves a name behind that the next process removes.
        let _ = ip(["netns", "del", &self.name]);
    }
}

fn ip<const N: usize>(args: [&str; N]) -> Result<Output> {
    Spawn::new("ip").args(args).run(TOOL_LIMIT)?.success()
}
