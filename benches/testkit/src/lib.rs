//! One kit for all tests: processes, network namespaces, QEMU (qtest, QMP, PCI), initramfs, Linux guests.
//!
//! Everything here cleans up after itself when it is dropped, and nothing waits without a bound: a wait that
//! fails says what it waited for and shows the end of the log of whom it waited for. Waits are for events
//! (an exit, a file, a line), never for a time to pass.
//!
//! | module | what |
//! | --- | --- |
//! | [`process`] | children that cannot outlive the test, their logs, signals, descriptors and memory |
//! | [`netns`] | named network namespaces, veth pairs, nftables counters (root) |
//! | [`qemu`] | a QEMU command line, its QMP and qtest sockets, PCI on top of qtest |
//! | [`initramfs`] | a root file system for a Linux guest |
//! | [`guest`] | a Linux guest that runs a script and powers off |
//! | [`certs`] | development certificates for a test's parties |

pub mod certs;
mod error;
pub mod guest;
pub mod initramfs;
pub mod netns;
pub mod process;
pub mod qemu;

pub use error::{Error, Result};
pub use process::{Output, Process, Spawn};
pub use qemu::Vmm;
