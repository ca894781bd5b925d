//! The devices that ship with Potemkin, and the catalog by which a configuration names them.

pub mod catalog;
pub mod edu;
pub mod order;
pub mod scratch;
pub mod uart;

pub use catalog::{CatalogError, OptionValue, Options};
pub use edu::Edu;
pub use order::Order;
pub use scratch::Scratch;
pub use uart::Uart;
