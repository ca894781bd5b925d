//! A real, unmodified QEMU: its command line, its monitor (QMP), its qtest socket, its serial console.

mod console;
mod listen;
mod machine;
pub mod pci;
mod qmp;
mod qtest;
mod vm;
mod vmm;

pub use console::Console;
pub use machine::{Machine, vfio_user_device};
pub use qmp::Qmp;
pub use qtest::Qtest;
pub use vm::Vm;
pub use vmm::Vmm;
