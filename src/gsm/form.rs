//! How a base station, or a phone, speaks of short messages.

/// The form in which short messages go to it, and in which its answers tell what the phone said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum TextForm {
    /// RP-DATA as hex digits; 200 once the phone has it, 400 for whatever the phone refused (wire.md 4.2).
    #[default]
    OpenBts,
    /// Binary RP-DATA to the number of the phone; the phone's own RPDU may ride in the 200 (wire.md 11).
    Yate,
    /// Binary RP-DATA; the 200 says that the phone read it, and what became of it comes as a MESSAGE with `In-Reply-To`
    /// (TS 24.341 §5.3.2.4).
    Ims,
    /// `text/plain`, for SIP phones.
    Plain,
}

impl TextForm {
    pub const ALL: [TextForm; 4] = [TextForm::OpenBts, TextForm::Yate, TextForm::Ims, TextForm::Plain];

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            TextForm::OpenBts => "openbts",
            TextForm::Yate => "yatebts",
            TextForm::Ims => "ims",
            TextForm::Plain => "plain",
        }
    }
}
