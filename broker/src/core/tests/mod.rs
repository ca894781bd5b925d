//! The core, driven by hand: the test is the clock, the store, the hosts and the agents.

#![allow(clippy::unwrap_used)]

mod adopting;
mod attaching;
mod claiming;
mod dialling;
mod registering;
mod restarting;
mod simulated;
mod superseding;
mod viewing;
mod world;
