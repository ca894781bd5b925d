//! The `order` device through real agent, broker and host processes, driven by a vfio-user client: accesses whose effects count, MSI-X, and
//! interrupts behind data.

#![allow(clippy::unwrap_used)]

mod function;
mod msix;
mod refused;
mod registers;
mod rounds;
mod upgrades;

use potemkin_e2e::{Stack, StackOptions, guest};
use potemkin_transport::TransportKind;

use guest::Guest;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");

/// A stack on one transport, and a guest with its `order`.
fn start(kind: TransportKind, vectors: u16) -> (Stack, Guest) {
    let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(vectors)).unwrap();
    let guest = Guest::connect(&stack.attach_device("vm", Stack::ORDER).socket);
    (stack, guest)
}
