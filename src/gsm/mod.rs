//! The formulas of 3GPP: what a SIM answers to a challenge, and the octets of a short message.

/// `Display` and `Error` of an error that has its words for the operator.
macro_rules! told_by_words {
    ($($error:ident),*) => {$(
        impl std::fmt::Display for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.words())
            }
        }

        impl std::error::Error for $error {}
    )*};
}

pub mod aka;
pub mod auc;
pub mod comp128;
pub mod form;
pub mod header;
pub mod national;
pub mod report;
pub mod rpdu;
pub mod segment;
pub mod text;
pub mod tpdu;
