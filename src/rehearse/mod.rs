//! The rehearsal: simulated base stations and their phones, run against a box.

// It is a base station and its phones, not a part of the thinking box: it has sockets, threads and a clock of its own.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod bts;
pub mod phone;

pub use phone::{Sim, sims};
