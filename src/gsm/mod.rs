//! The formulas of 3GPP: what a SIM answers to a challenge.

pub mod aka;
pub mod auc;
pub mod comp128;
