//! Who is where, and do we believe it.
//!
//! [`front`] carries a REGISTER from the base station to every replica and back; [`access`] challenges and verifies;
//! [`decide`] is the pure decision; [`replica`] applies an outcome to one store by [`merge`], the one rule of convergence;
//! [`replicas`] knows all of them, near and far, [`asking`] speaks to those on other boxes, [`serve`] answers for ours, [`hints`] keeps what
//! one has missed, [`marks`] tells them who waits for a phone; [`locate`] asks them where one is; [`cluster`] is how nodes sign what they tell
//! each other.

pub mod access;
pub mod asking;
pub mod cluster;
pub mod decide;
pub mod front;
pub mod hints;
pub mod locate;
pub mod marks;
pub mod merge;
pub mod replica;
pub mod replicas;
pub mod serve;
