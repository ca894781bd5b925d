//! Both halves against each other, in virtual time.

#![allow(clippy::unwrap_used)]

mod pair;
mod resume;

mod bounds;
mod deadlines;
mod dma;
mod flow;
mod hostile;
mod hostile_dma;
mod order;
#[cfg(feature = "planted")]
mod planted;
mod saved;
