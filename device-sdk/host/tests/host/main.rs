//! A host with its real transports on loopback, against a broker that does what a test tells it.

#![allow(clippy::unwrap_used)]

mod agent;
mod bed;
mod broker;
mod bus;
mod cli;
mod data;
mod failing;
mod fencing;
mod hostile;
mod registration;
mod resuming;
