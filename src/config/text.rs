//! Texts, places in them, and what is found there.
//!
//! Knows: how a byte offset becomes `file:line:column`, and in which order problems are told. Does not know: what the
//! texts mean.
//! Limits: [`PROBLEM_COUNT_MAX`] problems are kept; the rest is counted in one last line.

use super::read::{Problem, Source};

/// A wrong separator makes every line of a large spreadsheet wrong; nobody reads more of them than this.
pub const PROBLEM_COUNT_MAX: usize = 1_000;

/// A spot in one of the texts. Places order as the operator reads: by file, then from the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub file: usize,
    pub offset: usize,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<T> {
    pub value: T,
    pub at: Place,
}

impl<T> Spot<T> {
    pub fn new(value: T, at: Place) -> Spot<T> {
        Spot { value, at }
    }
}

/// One text, with its lines found.
pub(super) struct File<'a> {
    pub name: &'a str,
    pub text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> File<'a> {
    /// A byte order mark is dropped here, so that the first column stays 1.
    pub fn new(source: &'a Source) -> File<'a> {
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        File { name: &source.name, text, line_starts: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column, both counted from 1; the column in characters, as an editor shows it.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        (line, column + 1)
    }
}

struct Found {
    at: Place,
    /// The text is no TOML here.
    is_broken: bool,
    what: String,
    hint: Option<String>,
}

/// All files, and everything found in them so far.
pub(super) struct Report<'a> {
    pub files: Vec<File<'a>>,
    problems: Vec<Found>,
    notes: Vec<Found>,
}

/// Takes the hint to what was just reported.
pub(super) struct Hinted<'r>(&'r mut Found);

impl Hinted<'_> {
    pub fn hint(self, hint: impl Into<String>) {
        self.0.hint = Some(hint.into());
    }
}

impl<'a> Report<'a> {
    pub fn new(sources: impl IntoIterator<Item = &'a Source>) -> Report<'a> {
        Report { files: sources.into_iter().map(File::new).collect(), problems: Vec::new(), notes: Vec::new() }
    }

    /// Something that must be mended before anything is started.
    pub fn problem(&mut self, at: Place, what: impl Into<String>) -> Hinted<'_> {
        push(&mut self.problems, at, what.into())
    }

    /// Something that the operator should know.
    pub fn note(&mut self, at: Place, what: impl Into<String>) -> Hinted<'_> {
        push(&mut self.notes, at, what.into())
    }

    /// A spot at which the text is no TOML. It hides whatever else is found in its line: that is mostly its echo.
    pub fn broken(&mut self, at: Place, what: impl Into<String>) -> Hinted<'_> {
        let hinted = push(&mut self.problems, at, what.into());
        hinted.0.is_broken = true;
        hinted
    }

    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// `file:line:column`
    pub fn name_of(&self, at: Place) -> String {
        let file = &self.files[at.file];
        let (line, column) = file.line_column(at.offset);
        format!("{}:{line}:{column}", file.name)
    }

    pub fn line_of(&self, at: Place) -> usize {
        self.files[at.file].line_column(at.offset).0
    }

    pub fn into_problems(mut self) -> Vec<Problem> {
        let found = std::mem::take(&mut self.problems);
        self.told(found)
    }

    pub fn into_notes(mut self) -> Vec<Problem> {
        let found = std::mem::take(&mut self.notes);
        self.told(found)
    }

    fn told(&self, mut found: Vec<Found>) -> Vec<Problem> {
        // Stable, and the broken spots come first in their line.
        found.sort_by_key(|found| (found.at.file, self.line_of(found.at), !found.is_broken, found.at.offset));
        let mut broken_line = None;
        found.retain(|found| {
            let line = Some((found.at.file, self.line_of(found.at)));
            let is_echo = broken_line == line;
            if found.is_broken {
                broken_line = line;
            }
            !is_echo
        });
        let rest = found.len().saturating_sub(PROBLEM_COUNT_MAX);
        let next = found.get(PROBLEM_COUNT_MAX).map(|found| self.name_of(found.at));
        found.truncate(PROBLEM_COUNT_MAX);
        let mut told: Vec<Problem> = found
            .into_iter()
            .map(|found| Problem { place: self.name_of(found.at), what: found.what, hint: found.hint })
            .collect();
        if let Some(place) = next {
            let what = format!("and {rest} more from here on");
            told.push(Problem { place, what, hint: Some("mend the first ones: the rest is often the same".into()) });
        }
        told
    }
}

fn push(list: &mut Vec<Found>, at: Place, what: String) -> Hinted<'_> {
    list.push(Found { at, is_broken: false, what, hint: None });
    let last = list.len() - 1;
    Hinted(&mut list[last])
}
