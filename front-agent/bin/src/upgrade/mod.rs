//! An agent that gives its place to another program, in the same process: a VMM does not connect again, so its socket must stay open.
//!
//! What may fail comes first: the program is asked whether it can take over, every device's thread comes to a stand between two messages of
//! its VMM's, and what it has is saved, descriptors and all. Then the process executes the program. Whatever fails until then, devices go
//! on as if nothing had been. The other program restores the devices, dials their sessions anew, and goes on.

mod agent;
mod document;
mod freeze;
mod guest;
mod program;
mod signal;
mod take_over;

pub(crate) use agent::Activity;
pub(crate) use freeze::Freeze;
pub(crate) use guest::{Guest, HandedOver, Remains, TakeOverError};
pub(crate) use program::print_check;
pub(crate) use signal::upgrade_on_signal;
pub(crate) use take_over::{Legacy, TakenOver};
