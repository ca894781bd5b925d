//! A whole Potemkin as real processes: broker, device host, front agent, each as in production, on loopback or in network
//! namespaces of their own.

mod stack;

pub use stack::{Places, Stack, StackOptions};
