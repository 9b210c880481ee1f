//! How a call reaches a phone.
//!
//! | file | its question |
//! |---|---|
//! | [`redirect`] | a trunk's INVITE: 302 to where the phone is |

pub mod redirect;

/// Our *no* to a caller; it knows its answer and the cause of Q.850 that goes with it (DESIGN section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum No {
    UnknownNumber,
    Away,
    Barred,
    /// A *no* from too few, or nobody to ask.
    TooFew,
    Overload,
    TooManyHops,
    Cancelled,
}

impl No {
    /// Code, phrase, cause of Q.850 for a trunk, and why in words.
    pub fn answer(self) -> (u16, &'static str, Option<u8>, &'static str) {
        match self {
            No::UnknownNumber => (404, "Not Found", Some(1), "the number is nobody's"),
            No::Away => (480, "Temporarily Unavailable", Some(20), "the phone is not registered"),
            No::Barred => (403, "Forbidden", Some(21), "the subscriber is barred"),
            No::TooFew => (503, "Service Unavailable", Some(42), "too few replicas could say where the phone is"),
            No::Overload => (503, "Service Unavailable", Some(42), "overload"),
            No::TooManyHops => (483, "Too Many Hops", None, "Max-Forwards is 0"),
            No::Cancelled => (487, "Request Terminated", None, "the caller gave up"),
        }
    }
}
