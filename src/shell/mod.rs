//! The only door to the world: files, sockets, threads, clocks, the command line.
//!
//! Knows: how to open things and when to close them. Does not know: what a phone is allowed to. One dedicated thread owns the node,
//! its stores and its UDP sockets ([`node`]); tokio runs beside it for DNS, TCP and the control socket, and speaks to it
//! through one bounded queue; it also runs the node's [`errands`]. Two small threads write the records ([`records`]).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the room that may touch the world")]

pub mod commands;
pub mod control;
pub mod dns;
pub mod dress;
pub mod errands;
pub mod files;
pub mod hooks;
pub mod init;
pub mod log;
pub mod mail_test;
pub mod node;
pub mod numbers;
pub mod pictures;
pub mod print;
pub mod records;
pub mod relay;
pub mod run;
pub mod smtp;
pub mod sockets;
pub mod streams;
pub mod trial;
