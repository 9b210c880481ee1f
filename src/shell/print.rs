//! What commands say: tables for people, JSON for programs.

use serde_json::{Value, json};

use crate::config::read::Problem;

/// RFC 3339 in UTC, of milliseconds since 1970.
pub fn rfc3339(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// As [`rfc3339`], always with its milliseconds: a column of times that sorts as text.
pub fn rfc3339_ms(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}

/// `check --json`: a list of `{error, cause, hint}`, `error` beginning `file:line:column:`.
pub fn problems_json(problems: &[Problem]) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "error": format!("{}: {}", problem.place, problem.what),
            "cause": problem.what,
            "hint": problem.hint.as_deref().unwrap_or_default(),
        })
    };
    problems.iter().map(problem).collect()
}

pub fn problems_text(problems: &[Problem]) -> String {
    let mut text = String::new();
    for Problem { place, what, hint } in problems {
        text += &format!("{place}: {what}\n");
        if let Some(hint) = hint {
            text += &format!("    {hint}\n");
        }
    }
    text
}

/// Columns as wide as their widest cell; a line under the head.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    text += &line(&mut rule.iter().map(String::as_str));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// What strangers dialled or wrote, without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// A JSON value as a cell of a table.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => plain(text),
        Value::Array(all) if all.is_empty() => "-".into(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
