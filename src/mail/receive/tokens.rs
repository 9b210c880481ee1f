//! The words and marks of a structured field: quoted strings are words, comments are nothing.
//!
//! Knows: RFC 5322 §3.2, the marks of RFC 2045 §5.1 and RFC 8601 §2.2. Does not know: what they mean.

use std::borrow::Cow;

/// Comments in comments, deeper than anybody writes: what is deeper ends with the first bracket.
const COMMENT_DEPTH_MAX: usize = 20;

/// A word or quoted string, or one of the marks `; = /`; comments are no tokens (RFC 5322 §3.2.2).
pub enum Token<'a> {
    Word(Cow<'a, str>),
    Mark(char),
}

pub struct Tokens<'a> {
    rest: &'a str,
    /// A comment or quoted string had no end.
    pub is_broken: bool,
}

impl<'a> Tokens<'a> {
    pub fn of(line: &'a str) -> Tokens<'a> {
        Tokens { rest: line, is_broken: false }
    }

    /// White space and comments, which may stand in one another.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('(') {
                return;
            }
            let (mut depth, mut is_escaped) = (0, false);
            let end = self.rest.bytes().position(|octet| {
                match octet {
                    _ if is_escaped => is_escaped = false,
                    b'\\' => is_escaped = true,
                    b'(' if depth < COMMENT_DEPTH_MAX => depth += 1,
                    b')' => depth -= 1,
                    _ => (),
                }
                depth == 0
            });
            self.is_broken |= end.is_none();
            self.rest = end.map_or("", |end| &self.rest[end + 1..]);
        }
    }

    fn quoted(&mut self) -> Cow<'a, str> {
        let mut said = String::new();
        let mut is_escaped = false;
        for (at, char) in self.rest.char_indices().skip(1) {
            match char {
                _ if is_escaped => {
                    said.push(char);
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Cow::Owned(said);
                }
                _ => said.push(char),
            }
        }
        self.is_broken = true;
        self.rest = "";
        Cow::Owned(said)
    }

    /// The value of a parameter: a quoted string, or everything up to the semicolon, for names with blanks and slashes that nobody has put
    /// into quotes; a comment behind it is none of it.
    pub fn parameter(&mut self) -> String {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            let said = self.quoted().into_owned();
            // What stands behind the quoted string is nothing that anybody means.
            let end = self.rest.find(';').unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
            return said;
        }
        let end = self.rest.find(';').unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        let value = value.split(" (").next().unwrap_or_default();
        value.trim().to_owned()
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let first = self.rest.chars().next()?;
        match first {
            '"' => Some(Token::Word(self.quoted())),
            ';' | '=' | '/' | ')' => {
                self.rest = &self.rest[1..];
                Some(Token::Mark(first))
            }
            _ => {
                let is_end = |char: char| char.is_whitespace() || matches!(char, ';' | '=' | '/' | '(' | ')' | '"');
                let end = self.rest.find(is_end).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                Some(Token::Word(Cow::Borrowed(word)))
            }
        }
    }
}
