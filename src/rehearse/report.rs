//! What a rehearsal found: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// One phone, stranger or foreign number.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub imsi: Option<String>,
    pub msisdn: Option<String>,
    /// Where the phone is in the end, or tried to be.
    pub station: String,
    pub expected: String,
    /// What its phone saw, in order.
    pub saw: String,
    /// The first location updating, for the table.
    pub registered: String,
    /// What it did afterwards.
    pub moved: String,
    pub dns: String,
    /// The address that a caller was sent to, or what he was told in its place.
    pub redirect: String,
    /// The base station at that address; empty where there is none.
    pub redirect_name: String,
    /// The first location updating, both legs.
    pub took: Option<Duration>,
    /// What was wrong; empty: as it should be.
    pub faults: Vec<String>,
}

impl Row {
    pub fn ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// What a scene is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Act {
    #[default]
    Call,
    Text,
    Mail,
}

/// One call, text or mail: between two phones, or between a phone and the trunk or somebody who writes mail.
#[derive(Clone, Debug, Default)]
pub struct SceneRow {
    pub act: Act,
    /// Number and cell of each end.
    pub from: String,
    pub from_cell: String,
    pub to: String,
    pub to_cell: String,
    pub scene: String,
    pub expected: String,
    /// What the phones saw, in order.
    pub saw: String,
    /// From dialling to the ringing, or to the refusal; from the 202, or the return of the phone, to the text; from the handing in to the
    /// words of the message centre; from the 202 to the mail, or from the 250 to the text.
    pub took: Option<Duration>,
    /// What was wrong; empty: as it should be.
    pub faults: Vec<String>,
}

impl SceneRow {
    pub fn ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// The whole rehearsal.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    pub scenes: Vec<SceneRow>,
    /// What was not played, and why.
    pub notes: Vec<String>,
    /// All calls, texts and mails together.
    pub talked_in: Duration,
    /// Everything that failed, of rows and of the whole; empty: the box is right.
    pub failures: Vec<String>,
    pub phones: u32,
    pub stations: u32,
    /// Location updatings that ended with 200, and how long each took.
    pub registrations: Vec<Duration>,
    /// While all phones were switched on at once: successful updatings and the time for all.
    pub attached: u32,
    pub attached_in: Duration,
}

impl Report {
    pub fn ok(&self) -> bool {
        self.failures.is_empty()
    }

    /// A rehearsal that could not begin.
    pub fn failed(why: String) -> Report {
        Report { failures: vec![why], ..Report::default() }
    }

    /// As many phones spoke at once as a cell has channels, so this is no limit of the box.
    pub fn registrations_per_s(&self) -> f64 {
        let seconds = self.attached_in.as_secs_f64();
        if seconds > 0.0 { f64::from(self.attached) / seconds } else { 0.0 }
    }

    pub fn median_ms(&self) -> f64 {
        let mut sorted = self.registrations.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).map_or(0.0, |took| ms(*took))
    }

    pub fn slowest_ms(&self) -> f64 {
        self.registrations.iter().max().map_or(0.0, |took| ms(*took))
    }

    /// The table for people; below it the figures, and what failed in words.
    pub fn table(&self) -> String {
        let head = ["phone", "number", "station", "registered", "then", "found by DNS", "302 to", "verdict"];
        let rows: Vec<[String; 8]> = self
            .rows
            .iter()
            .map(|row| {
                let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
                [
                    or_dash(row.imsi.as_deref().unwrap_or_default()),
                    or_dash(row.msisdn.as_deref().unwrap_or_default()),
                    or_dash(&row.station),
                    or_dash(&row.registered),
                    or_dash(&row.moved),
                    or_dash(&row.dns),
                    or_dash(if row.redirect_name.is_empty() { &row.redirect } else { &row.redirect_name }),
                    if row.ok() { "ok" } else { "FAILED" }.to_owned(),
                ]
            })
            .collect();
        let mut text = String::new();
        lay_out(&mut text, &head, &rows);
        let ends = [
            (Act::Call, ["caller", "called"]),
            (Act::Text, ["sender", "recipient"]),
            (Act::Mail, ["sender", "recipient"]),
        ];
        for (act, what) in ends {
            let rows: Vec<[String; 8]> = self.acts(act).map(scene_cells).collect();
            let head = [what[0], "cell", what[1], "cell", "scene", "what was seen", "after", "verdict"];
            lay_out(&mut text, &head, &rows);
        }
        if !self.registrations.is_empty() {
            let _ = writeln!(
                text,
                "{} at {}; {}: {:.0} a second, median {:.1} ms, slowest {:.1} ms.",
                counted(self.phones as usize, "phone"),
                counted(self.stations as usize, "base station"),
                counted(self.registrations.len(), "registration"),
                self.registrations_per_s(),
                self.median_ms(),
                self.slowest_ms(),
            );
        }
        if !self.scenes.is_empty() {
            let _ = writeln!(
                text,
                "{}, {} and {} in {:.0} s.",
                counted(self.acts(Act::Call).count(), "call"),
                counted(self.acts(Act::Text).count(), "text"),
                counted(self.acts(Act::Mail).count(), "mail"),
                self.talked_in.as_secs_f64(),
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        if self.ok() {
            let _ = writeln!(text, "All {} rows are as they should be.", self.rows.len() + self.scenes.len());
        } else {
            let _ = writeln!(text, "FAILED, {} in all:", self.failures.len());
            for failure in &self.failures {
                let _ = writeln!(text, "  {failure}");
            }
        }
        text
    }

    fn acts(&self, act: Act) -> impl Iterator<Item = &SceneRow> {
        self.scenes.iter().filter(move |row| row.act == act)
    }

    /// `{rows: [{imsi, msisdn, station, expected, saw, dns, redirect, ok, ms, faults}], calls: [{from, from_cell, to, to_cell, scene,
    /// expected, saw, ok, ms, faults}], texts: the same, mails: the same, summary: {..}}`.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "imsi": row.imsi, "msisdn": row.msisdn, "station": some(&row.station), "expected": row.expected,
                    "saw": some(&row.saw), "dns": some(&row.dns), "redirect": some(&row.redirect), "ok": row.ok(),
                    "ms": row.took.map(|took| rounded(ms(took))), "faults": row.faults,
                })
            })
            .collect();
        let scenes = |act: Act| -> Vec<Value> {
            let scene = |row: &SceneRow| {
                json!({
                    "from": row.from, "from_cell": some(&row.from_cell), "to": row.to, "to_cell": some(&row.to_cell),
                    "scene": row.scene, "expected": row.expected, "saw": some(&row.saw), "ok": row.ok(),
                    "ms": row.took.map(|took| rounded(ms(took))), "faults": row.faults,
                })
            };
            self.acts(act).map(scene).collect()
        };
        let failed = |act: Act| self.acts(act).filter(|row| !row.ok()).count();
        json!({
            "rows": rows,
            "calls": scenes(Act::Call),
            "texts": scenes(Act::Text),
            "mails": scenes(Act::Mail),
            "summary": {
                "calls": self.acts(Act::Call).count(), "calls_failed": failed(Act::Call),
                "texts": self.acts(Act::Text).count(), "texts_failed": failed(Act::Text),
                "mails": self.acts(Act::Mail).count(), "mails_failed": failed(Act::Mail), "notes": self.notes,
                "ok": self.ok(), "phones": self.phones, "stations": self.stations, "rows": self.rows.len(),
                "rows_failed": self.rows.iter().filter(|row| !row.ok()).count(), "failures": self.failures,
                "registrations": self.registrations.len(),
                "registrations_per_s": rounded(self.registrations_per_s()),
                "median_ms": rounded(self.median_ms()), "slowest_ms": rounded(self.slowest_ms()),
            },
        })
    }
}

/// A table whose columns stand below one another, and an empty line; nothing where there are no rows.
fn lay_out(text: &mut String, head: &[&str; 8], rows: &[[String; 8]]) {
    if rows.is_empty() {
        return;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[&str]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    };
    line(head);
    for row in rows {
        line(&row.each_ref().map(String::as_str));
    }
    text.push('\n');
}

fn scene_cells(row: &SceneRow) -> [String; 8] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    [
        or_dash(&row.from),
        or_dash(&row.from_cell),
        or_dash(&row.to),
        or_dash(&row.to_cell),
        or_dash(&row.scene),
        or_dash(&row.saw),
        row.took.map_or_else(|| "-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64())),
        if row.ok() { "ok" } else { "FAILED" }.to_owned(),
    ]
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_table_stand_below_one_another() {
        let row = |number: &str, faults: &[String]| Row {
            imsi: Some("001019990000000".into()),
            msisdn: Some(number.into()),
            station: "hill".into(),
            redirect: "127.0.0.17:5062".into(),
            redirect_name: "hill".into(),
            faults: faults.to_vec(),
            ..Row::default()
        };
        let report = Report { rows: vec![row("7000", &[]), row("+9997000003", &["cold".into()])], ..Report::default() };
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].find("station"), lines[1].find("hill"));
        assert_eq!(lines[1].find("hill"), lines[2].find("hill"));
        assert!(lines[1].ends_with("  hill    ok") && lines[2].ends_with("  hill    FAILED"), "{table}");
    }

    #[test]
    fn json_has_the_documented_fields() {
        let report = Report { rows: vec![Row::default()], failures: vec!["x".into()], ..Report::default() };
        let json = report.to_json();
        for field in ["imsi", "msisdn", "expected", "saw", "dns", "redirect", "ok", "ms"] {
            assert!(json["rows"][0].get(field).is_some(), "{field}");
        }
        assert_eq!(json["summary"]["ok"], false);
        assert_eq!(json["summary"]["median_ms"], 0.0);
    }
}
