//! The authentication centre: a subscriber's key and algorithm, and the vector they make of a RAND.
