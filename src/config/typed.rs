//! The typed text: TOML held against the table of keys.
//!
//! serde stops at the first mistake; here every key and every value is looked at, so that the operator hears of all of
//! them in one go. After [`check`] the getters of [`View`] are quiet: what has the wrong shape is simply not there.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{self, Section, Shape};
use super::text::{Place, Report, Spot};

type Value<'t> = Spanned<DeValue<'t>>;

/// Parses one file and reports what is no TOML in it. What could be read comes back all the same.
pub(super) fn parse<'a>(report: &mut Report<'a>, file: usize) -> (DeTable<'a>, bool) {
    let text = report.files[file].text;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let at = Place { file, offset: span.start };
        // Never the text itself: it may be a Ki that lacks its quotes.
        let message = error.message().trim_end_matches(", expected nothing");
        let bare = text.get(span.clone()).is_some_and(str::is_empty);
        if message.starts_with("string values must be quoted") && bare {
            report.broken(at, "a value is missing after `=`");
        } else if message.starts_with("string values must be quoted") {
            report.broken(at, "a text needs quotes").hint("write it as \"..\"");
        } else if message == "duplicate key" {
            let key = text.get(span).unwrap_or_default();
            report.broken(at, format!("`{key}` stands twice in the same section")).hint("keep one of the two");
        } else if message.starts_with("unexpected leading zero") {
            report.broken(at, message).hint("digits that are no quantity stand in quotes: \"001..\"");
        } else {
            report.broken(at, message);
        }
    }
    (table.into_inner(), errors.is_empty())
}

/// Reports every unknown key and every value of the wrong shape, in this table and below it.
pub(super) fn check(report: &mut Report<'_>, file: usize, table: &DeTable<'_>, section: &'static Section) {
    check_table(report, file, table, section, false);
}

/// `noted`: a section above has been called without effect already.
fn check_table(report: &mut Report<'_>, file: usize, table: &DeTable<'_>, section: &'static Section, noted: bool) {
    for (name, value) in table {
        let at = Place { file, offset: name.span().start };
        let Some(key) = section.key(name.get_ref()) else {
            unknown_key(report, at, name.get_ref(), section);
            continue;
        };
        let noted_below = noted || !key.has_effect;
        if !noted && !key.has_effect {
            report.note(at, format!("{} has no effect yet", title(key.name, key.shape)));
        }
        check_value(report, file, key.name, value, key.shape, noted_below);
    }
}

/// How the operator wrote it: a section with its brackets, a key in quotes.
fn title(name: &str, shape: Shape) -> String {
    match shape {
        Shape::Table(section) | Shape::Tables(section) => section.title.to_owned(),
        _ => format!("`{name}`"),
    }
}

fn unknown_key(report: &mut Report<'_>, at: Place, name: &str, section: &'static Section) {
    let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
    let problem = format!("unknown key `{shown}`");
    let homes: Vec<&str> = keys::homes_of(name).into_iter().filter(|home| *home != section.title).collect();
    let near = near_key(name, section);
    let hint = if std::ptr::eq(section, &keys::SUBSCRIBER_FILE) && keys::ROOT.key(name).is_some() {
        Some(format!(
            "`{name}` belongs in encamp.toml; a file of subscribers.d holds [[subscriber]] and [[number]] only"
        ))
    } else if homes.contains(&keys::ROOT.title) {
        // TOML's oldest trap: everything after a header belongs to that header.
        Some(format!("`{name}` belongs at the top of the file, before the first [section]"))
    } else if let [home] = homes[..] {
        Some(format!("`{name}` belongs in {home}"))
    } else if let Some(near) = near {
        Some(format!("did you mean `{near}`?"))
    } else if !homes.is_empty() {
        Some(format!("`{name}` belongs in {}", homes.join(" or ")))
    } else if let Some((near, home)) = keys::nearest_anywhere(name) {
        Some(format!("did you mean `{near}` in {home}?"))
    } else {
        let known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        Some(format!("{} knows {}", section.title, known.join(", ")))
    };
    if let Some(hint) = hint {
        report.problem(at, problem).hint(hint);
    }
}

fn near_key(name: &str, section: &'static Section) -> Option<&'static str> {
    keys::nearest(name, section.keys.iter().map(|key| key.name))
}

fn check_value(report: &mut Report<'_>, file: usize, name: &str, value: &Value<'_>, shape: Shape, noted: bool) {
    let at = Place { file, offset: value.span().start };
    let found = kind(value.get_ref());
    match (shape, value.get_ref()) {
        (Shape::Text(_), DeValue::String(_))
        | (Shape::Duration(_), DeValue::String(_))
        | (Shape::Size(_), DeValue::String(_))
        | (Shape::Flag, DeValue::Boolean(_)) => {}
        (Shape::Size(_), DeValue::Integer(_)) if whole(value.get_ref()).is_some() => {}
        (Shape::Text(example), _) => {
            report
                .problem(at, format!("`{name}` is a text, not {found}"))
                .hint(format!("write {name} = \"{example}\""));
        }
        (Shape::Duration(example), _) => {
            report
                .problem(at, format!("`{name}` is a time with its unit, not {found}"))
                .hint(format!("write {name} = \"{example}\""));
        }
        (Shape::Size(example), _) => {
            report
                .problem(at, format!("`{name}` is a whole number of bytes, or a text with a unit"))
                .hint(format!("write {name} = \"{example}\""));
        }
        (Shape::Flag, _) => {
            report.problem(at, format!("`{name}` is true or false, not {found}")).hint("without quotes");
        }
        (Shape::Count(least, most), value) => match whole(value) {
            Some(count) if (least..=most).contains(&count) => {}
            _ => {
                report.problem(at, format!("`{name}` is a whole number from {least} to {most}"));
            }
        },
        (Shape::Texts(example), DeValue::Array(items)) => {
            for item in items.iter().filter(|item| !item.get_ref().is_str()) {
                let at = Place { file, offset: item.span().start };
                report
                    .problem(at, format!("each of `{name}` is a text, not {}", kind(item.get_ref())))
                    .hint(format!("write {name} = [\"{example}\"]"));
            }
        }
        (Shape::Texts(example), _) => {
            report
                .problem(at, format!("`{name}` is a list, not {found}"))
                .hint(format!("write {name} = [\"{example}\"]"));
        }
        (Shape::Listeners(section), DeValue::Array(items)) => {
            for item in items.iter() {
                let at = Place { file, offset: item.span().start };
                match item.get_ref() {
                    DeValue::String(_) => {}
                    DeValue::Table(table) => check_table(report, file, table, section, noted),
                    other => {
                        report
                            .problem(at, format!("each of `{name}` is a text, not {}", kind(other)))
                            .hint(format!("write {name} = [\"udp:0.0.0.0:5060\"]"));
                    }
                }
            }
        }
        (Shape::Listeners(_), _) => {
            report
                .problem(at, format!("`{name}` is a list, not {found}"))
                .hint(format!("write {name} = [\"udp:0.0.0.0:5060\"]"));
        }
        (Shape::Table(section), DeValue::Table(table)) => check_table(report, file, table, section, noted),
        (Shape::Table(section), DeValue::Array(_)) if section.title.starts_with('[') => {
            report.problem(at, format!("{} stands once", section.title)).hint("write it with single brackets");
        }
        (Shape::Table(section), _) => {
            let hint = match section.title.starts_with('[') {
                true => format!("write {} and its keys below", section.title),
                false => format!("write {name} = {{ {} = .. }}", section.keys[0].name),
            };
            report.problem(at, format!("`{name}` is a set of keys, not {found}")).hint(hint);
        }
        (Shape::Tables(section), DeValue::Array(items)) => {
            for item in items.iter() {
                match item.get_ref() {
                    DeValue::Table(table) => check_table(report, file, table, section, noted),
                    _ => {
                        let at = Place { file, offset: item.span().start };
                        report
                            .problem(at, format!("each `{name}` is a set of keys"))
                            .hint(format!("write {}", section.title));
                    }
                }
            }
        }
        (Shape::Tables(section), _) => {
            report
                .problem(at, format!("there may be several of `{name}`"))
                .hint(format!("write {} with two brackets each side", section.title));
        }
        (Shape::Causes(section), DeValue::Table(causes)) => {
            for (_, cause) in causes {
                let at = Place { file, offset: cause.span().start };
                match cause.get_ref() {
                    DeValue::Integer(_) => check_value(report, file, "cause", cause, Shape::Count(1, 127), noted),
                    DeValue::Table(table) => check_table(report, file, table, section, noted),
                    other => {
                        report
                            .problem(at, format!("a cause is a whole number, not {}", kind(other)))
                            .hint("write unknown_cause = { 26201 = 11 }");
                    }
                }
            }
        }
        (Shape::Causes(_), _) => {
            report
                .problem(at, format!("`{name}` is a set of networks with their causes, not {found}"))
                .hint("write unknown_cause = { 26201 = 11 }");
        }
        (Shape::ByLanguage(example), DeValue::Table(texts)) => {
            for (_, text) in texts.iter().filter(|(_, text)| !text.get_ref().is_str()) {
                let at = Place { file, offset: text.span().start };
                report
                    .problem(at, format!("each of `{name}` is a text, not {}", kind(text.get_ref())))
                    .hint(format!("write {name} = {{ en = \"{example}\" }}"));
            }
        }
        (Shape::ByLanguage(example), _) => {
            report
                .problem(at, format!("`{name}` is a set of languages with their texts, not {found}"))
                .hint(format!("write {name} = {{ en = \"{example}\" }}"));
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a set of keys",
    }
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A checked table, as its reader sees it.
#[derive(Clone, Copy)]
pub(super) struct View<'t> {
    table: &'t DeTable<'t>,
    section: &'static Section,
    /// Where the section begins; what is missing in it is missing here.
    pub at: Place,
}

impl<'t> View<'t> {
    pub fn new(table: &'t DeTable<'t>, section: &'static Section, file: usize) -> View<'t> {
        View { table, section, at: Place { file, offset: 0 } }
    }

    /// Whether the key was written at all, in whatever shape.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Where the key stands, else where its section begins.
    pub fn place_of(&self, name: &str) -> Place {
        self.table.get_key_value(name).map_or(self.at, |(key, _)| self.place(key.span().start))
    }

    /// Whether the key was written as a list with nothing in it.
    pub fn is_empty_list(&self, name: &str) -> bool {
        self.value(name).and_then(|(value, _)| value.as_array()).is_some_and(|items| items.is_empty())
    }

    /// Whether the key was written as a set of keys with nothing in it.
    pub fn is_empty_table(&self, name: &str) -> bool {
        self.value(name).and_then(|(value, _)| value.as_table()).is_some_and(|table| table.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<Spot<&'t str>> {
        let (value, at) = self.value(name)?;
        Some(Spot::new(value.as_str()?, at))
    }

    /// Reports where the key is missing; one of the wrong shape has been reported already.
    pub fn required_text(&self, name: &str, example: &str, report: &mut Report<'_>) -> Option<Spot<&'t str>> {
        self.require(name, &format!("{name} = \"{example}\""), report);
        self.text(name)
    }

    pub fn require(&self, name: &str, example: &str, report: &mut Report<'_>) {
        // A key with a slip in it has been reported as unknown, with this one as what was meant.
        let is_misspelt = || {
            let mut unknown = self.table.keys().filter(|key| self.section.key(key.get_ref()).is_none());
            unknown.any(|key| near_key(key.get_ref(), self.section) == Some(name))
        };
        if !self.has(name) && !is_misspelt() {
            let title = self.section.title;
            let within = if title.starts_with("the ") { "at" } else { "in" };
            report.problem(self.at, format!("`{name}` is missing {within} {title}")).hint(format!("write {example}"));
        }
    }

    /// `None` where the key is not there.
    pub fn texts(&self, name: &str) -> Option<Vec<Spot<&'t str>>> {
        let items = self.value(name)?.0.as_array()?;
        Some(
            items
                .iter()
                .filter_map(|item| Some(Spot::new(item.get_ref().as_str()?, self.place(item.span().start))))
                .collect(),
        )
    }

    pub fn count(&self, name: &str) -> Option<Spot<u64>> {
        let (value, at) = self.value(name)?;
        Some(Spot::new(whole(value)?, at))
    }

    pub fn flag(&self, name: &str) -> Option<Spot<bool>> {
        let (value, at) = self.value(name)?;
        Some(Spot::new(value.as_bool()?, at))
    }

    pub fn table(&self, name: &str) -> Option<View<'t>> {
        let (value, at) = self.value(name)?;
        Some(View { table: value.as_table()?, section: self.inner(name)?, at })
    }

    pub fn tables(&self, name: &str) -> Vec<View<'t>> {
        let (Some((value, _)), Some(section)) = (self.value(name), self.inner(name)) else { return Vec::new() };
        let items = value.as_array().into_iter().flat_map(|items| items.iter());
        items
            .filter_map(|item| {
                Some(View { table: item.get_ref().as_table()?, section, at: self.place(item.span().start) })
            })
            .collect()
    }

    /// The items of a list that may be texts or tables; `None` where the key is not there.
    pub fn items(&self, name: &str) -> Option<Vec<Item<'t>>> {
        let section = self.inner(name)?;
        let items = self.value(name)?.0.as_array()?;
        let item = |item: &'t Value<'t>| {
            let at = self.place(item.span().start);
            match item.get_ref() {
                DeValue::String(text) => Some(Item::Text(Spot::new(text.as_ref(), at))),
                DeValue::Table(table) => Some(Item::Table(View { table, section, at })),
                _ => None,
            }
        };
        Some(items.iter().filter_map(item).collect())
    }

    /// Every key with its place and what it says, for a table whose keys are the operator's.
    pub fn entries(&self, name: &str) -> Vec<(Spot<&'t str>, Entry<'t>)> {
        let (Some((value, _)), Some(section)) = (self.value(name), self.inner(name)) else { return Vec::new() };
        let entry = |(key, value): (&'t Spanned<DeString<'t>>, &'t Value<'t>)| {
            let at = self.place(value.span().start);
            let entry = match value.get_ref() {
                DeValue::Table(table) => Entry::Table(View { table, section, at }),
                other => Entry::Count(Spot::new(whole(other)?, at)),
            };
            Some((Spot::new(key.get_ref().as_ref(), self.place(key.span().start)), entry))
        };
        value.as_table().into_iter().flat_map(|table| table.iter()).filter_map(entry).collect()
    }

    /// Every language with its text, in the order in which they were written.
    pub fn by_language(&self, name: &str) -> Vec<(Spot<&'t str>, Spot<&'t str>)> {
        let table = self.value(name).and_then(|(value, _)| value.as_table());
        let spots = |(key, value): (&'t Spanned<DeString<'t>>, &'t Value<'t>)| {
            let text = Spot::new(value.get_ref().as_str()?, self.place(value.span().start));
            Some((Spot::new(key.get_ref().as_ref(), self.place(key.span().start)), text))
        };
        let mut found: Vec<_> = table.into_iter().flat_map(|table| table.iter()).filter_map(spots).collect();
        found.sort_by_key(|(key, _)| key.at);
        found
    }

    /// The section that the table of keys has below this key.
    fn inner(&self, name: &str) -> Option<&'static Section> {
        match self.section.key(name)?.shape {
            Shape::Table(inner) | Shape::Tables(inner) | Shape::Listeners(inner) | Shape::Causes(inner) => Some(inner),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Option<(&'t DeValue<'t>, Place)> {
        let value = self.table.get(name)?;
        Some((value.get_ref(), self.place(value.span().start)))
    }

    fn place(&self, offset: usize) -> Place {
        Place { file: self.at.file, offset }
    }
}

pub(super) enum Item<'t> {
    Text(Spot<&'t str>),
    Table(View<'t>),
}

pub(super) enum Entry<'t> {
    Count(Spot<u64>),
    Table(View<'t>),
}
