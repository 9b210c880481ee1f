//! The authentication centre: a subscriber's key and algorithm, and the vector they make of a RAND.
/// Stub until the branch `gsm` is merged.
#[derive(Clone, Debug)]
pub enum Auth {
    None,
}
