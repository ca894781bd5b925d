//! The front device: the half of a remote PCI function that lives with the guest.
//!
//! - [`FrontDevice`] is what the guest's accesses meet: a local configuration image, decode, the policy of each register, and the
//!   session to the device host. It is `Send + Sync`: a vCPU thread may use its blocking calls, a task the async ones.
//! - [`Session`] and [`drive`] join a [`FrontDevice`] to a transport's stream.
//! - [`Broker`] is the control plane's client: attach and detach.
//! - [`BackgroundFunction`] puts the three together on a thread of its own, for a VMM that has no async runtime.
//!
//! Config reads are answered from the local image, volatile bits apart; a BAR access travels as (BAR, offset), never as a guest address.

mod attach;
mod background;
mod block_on;
mod device;
mod driver;
mod incarnation;
mod lanes;
mod remote;
mod session;

pub use attach::{AttachError, Attachment, Broker, BrokerAddress, Target};
pub use background::{BackgroundError, BackgroundFunction};
pub use device::{DeviceCounters, FrontDevice};
pub use driver::drive;
pub use remote::{DEFAULT_DEADLINE, Lease, RemoteFunction, RemoteOptions};
pub use session::{Lost, Session};
