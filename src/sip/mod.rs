//! The wire: RFC 3261 as it is written, and as OpenBTS and YateBTS speak it.

pub mod digest;
pub mod header;
pub mod parse;
pub mod stream;
pub mod transaction;
pub mod write;
