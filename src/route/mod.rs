//! How a call reaches a phone.
//!
//! | file | its question |
//! |---|---|
//! | [`redirect`] | a trunk's INVITE: 302 to where the phone is |
//! | [`dialplan`] | what does a dialled number mean |
//! | [`calls`] | which call is this about, and may it begin |
//! | [`call`] | one call between two legs, from INVITE to the last BYE |
//! | [`leg`] | one dialog, and the requests in it |
//! | [`kept`] | what of a call survives us |

pub mod call;
pub mod calls;
pub mod dialplan;
pub mod kept;
pub mod leg;
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
    /// The caller is not bound at that base station or at another of its location area.
    NotBoundThere,
    /// The number would be a trunk's, and there is none.
    NoTrunk,
    /// It was in the making when we went down.
    Restarted,
    Extension,
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
            No::NotBoundThere => (403, "Forbidden", Some(21), "the caller is not registered at that base station"),
            No::NoTrunk => (404, "Not Found", Some(3), "there is no trunk for the number"),
            No::Restarted => (503, "Service Unavailable", Some(41), "the box was restarted while the call was set up"),
            No::Extension => (420, "Bad Extension", None, "it requires an extension that is not supported"),
        }
    }
}
