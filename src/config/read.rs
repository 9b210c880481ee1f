//! From the operator's text to [`super::Settings`], or to a list of what is wrong and where.

use super::Settings;

/// The texts of a configuration, as the shell found them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `encamp.toml`: its name as the operator knows it, and its text.
    pub main: Source,
    /// `subscribers.d/*.toml` and `*.csv` beside it in name order, then `<data_dir>/subscribers.d/90-local.toml`.
    pub subscribers: Vec<Source>,
}

#[derive(Clone, Debug, Default)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Something that the operator should know about his files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column` (1 = first).
    pub place: String,
    pub what: String,
    /// What to write instead, or where the first of two stands.
    pub hint: Option<String>,
}

/// Reads everything; every mistake is told at once, not only the first.
///
/// Errors: each one a [`Problem`]; on any, nothing is to be started. The second part of a success are notes: keys that have
/// no effect yet.
pub fn read(_sources: &Sources) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    Err(Vec::new())
}
