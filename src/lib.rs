//! Encamp: the registrar box beside GSM base stations.
//!
//! A node is told things and asks for things; only the shell touches the world; nothing is promised before it is on the
//! disk. ARCHITECTURE.md walks one REGISTER through these rooms.
//!
//! | room | its question |
//! |---|---|
//! | [`ident`], [`time`] | what is an IMSI, a number, a suffix, a cell; what time is it, and which write is newer |
//! | [`config`] | what was typed, what does it mean, and what is wrong with it |
//! | [`event`] | what is worth telling |
//! | [`node`] | the heart: inputs in, outputs out |
//! | [`sip`] | the wire, OpenBTS's oddities included |
//! | [`gsm`] | the formulas of 3GPP |
//! | [`register`] | who is where, and do we believe it |
//! | [`route`] | how a call reaches a phone |
//! | [`sms`] | what waits for whom |
//! | [`mail`] | what is an address, a session, a mail |
//! | [`zone`] | who owns which suffix, told in DNS |
//! | [`store`] | what is on the disk |
//! | `shell` (feature `box`) | the only door to the world |
//! | `rehearse` (feature `box`) | a simulated base station and its phones |

pub mod config;
pub mod event;
pub mod gsm;
pub mod ident;
pub mod mail;
pub mod node;
pub mod register;
#[cfg(feature = "box")]
pub mod rehearse;
pub mod route;
pub mod seam;
#[cfg(feature = "box")]
pub mod shell;
pub mod sip;
pub mod site;
pub mod sms;
pub mod store;
pub mod time;
pub mod zone;
