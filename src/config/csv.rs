//! Subscribers from a spreadsheet: `imsi,msisdn,algorithm,ki,op,opc,name,barred,language,mail_alias,mail_copy`, in any
//! order.
//!
//! Knows: columns and where a field stands. What the fields mean is [`super::sims`]'s.
//! A line that begins with `#` is a comment. Source of the format: RFC 4180.

use ::csv::{ReaderBuilder, StringRecord};

use super::keys;
use super::sims::{Roll, Typed, TypedAuth, TypedMail, shown};
use super::text::{Place, Report, Spot};

const COLUMNS: [&str; 11] =
    ["imsi", "msisdn", "algorithm", "ki", "op", "opc", "name", "barred", "language", "mail_alias", "mail_copy"];

/// Reads one file; its first line that is no comment names the columns.
pub(super) fn read(file: usize, roll: &mut Roll, report: &mut Report<'_>) {
    let text = report.files[file].text;
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).comment(Some(b'#')).from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    let mut columns: Option<Columns> = None;
    loop {
        // The text is UTF-8 already and lines may differ in length, so the reader has nothing to refuse.
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                report
                    .problem(Place { file, offset: 0 }, format!("this is no CSV: {error}"))
                    .hint("save it again as CSV");
                return;
            }
        }
        let line = Line::new(text, file, &record);
        match &columns {
            None => match Columns::read(&line, report) {
                Some(found) => columns = Some(found),
                None => return,
            },
            Some(columns) => columns.take(&line, roll, report),
        }
    }
}

/// One record and where its fields begin.
struct Line<'r> {
    file: usize,
    record: &'r StringRecord,
    starts: Vec<usize>,
}

impl<'r> Line<'r> {
    fn new(text: &str, file: usize, record: &'r StringRecord) -> Line<'r> {
        let offset = record.position().map_or(0, |position| position.byte() as usize);
        Line { file, record, starts: field_starts(text, offset, record.len()) }
    }

    fn at(&self, column: usize) -> Place {
        Place { file: self.file, offset: self.starts.get(column).copied().unwrap_or(0) }
    }

    /// A field without the blanks around it; an empty one is none.
    fn field(&self, column: Option<usize>) -> Option<Spot<&'r str>> {
        let text = self.record.get(column?)?.trim();
        (!text.is_empty()).then(|| Spot::new(text, self.at(column.unwrap_or(0))))
    }
}

/// Where the fields of a record begin. The reader tells where it began to look: blank lines and comments come first.
fn field_starts(text: &str, offset: usize, count: usize) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut at = offset.min(bytes.len());
    loop {
        match bytes.get(at) {
            Some(b'\r' | b'\n') => at += 1,
            Some(b'#') => at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at),
            _ => break,
        }
    }
    let mut starts = vec![at];
    let mut quoted = false;
    while starts.len() < count && at < bytes.len() {
        match bytes[at] {
            b'"' => quoted = !quoted,
            b',' if !quoted => starts.push(at + 1),
            _ => {}
        }
        at += 1;
    }
    starts
}

/// Which column is which.
struct Columns {
    /// By place in [`COLUMNS`].
    of: [Option<usize>; COLUMNS.len()],
    count: usize,
}

impl Columns {
    /// `None` where a line below cannot be understood, so that one mistake is not told a thousand times.
    fn read(line: &Line<'_>, report: &mut Report<'_>) -> Option<Columns> {
        let mut columns = Columns { of: [None; COLUMNS.len()], count: line.record.len() };
        let mut is_clear = true;
        for (index, name) in line.record.iter().enumerate() {
            let name = name.trim();
            let at = line.at(index);
            let Some(known) = COLUMNS.iter().position(|column| column.eq_ignore_ascii_case(name)) else {
                is_clear = false;
                let hint = if name.contains(';') || name.contains('\t') {
                    "columns are separated by commas".to_owned()
                } else if let Some(near) = keys::nearest(name, COLUMNS) {
                    format!("did you mean `{near}`?")
                } else {
                    format!("the first line names the columns: {}", COLUMNS.join(","))
                };
                report.problem(at, format!("unknown column {}", shown(name))).hint(hint);
                continue;
            };
            if let Some(first) = columns.of[known] {
                is_clear = false;
                let first = report.name_of(line.at(first));
                report
                    .problem(at, format!("the column `{}` stands twice", COLUMNS[known]))
                    .hint(format!("the first is at {first}"));
            } else {
                columns.of[known] = Some(index);
            }
        }
        for required in ["imsi", "algorithm"] {
            if is_clear && columns.column(required).is_none() {
                report
                    .problem(line.at(0), format!("there is no column `{required}`"))
                    .hint(format!("the first line names the columns: {}", COLUMNS.join(",")));
                return None;
            }
        }
        is_clear.then_some(columns)
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.of[COLUMNS.iter().position(|column| *column == name)?]
    }

    fn take(&self, line: &Line<'_>, roll: &mut Roll, report: &mut Report<'_>) {
        let field = |name: &str| line.field(self.column(name));
        if line.record.iter().all(|field| field.trim().is_empty()) {
            return;
        }
        if line.record.len() > self.count {
            report
                .problem(line.at(self.count), format!("{} fields, but {} columns", line.record.len(), self.count))
                .hint("a text with a comma in it stands in quotes; numbers are separated by blanks");
            return;
        }
        let Some(imsi) = field("imsi") else {
            report.problem(line.at(0), "this line has no IMSI").hint("remove the line, or fill in its `imsi`");
            return;
        };
        let algorithm = field("algorithm");
        if algorithm.is_none() {
            report
                .problem(line.at(0), "this line has no algorithm")
                .hint("write the SIM's algorithm; \"none\" believes the SIM unasked");
        }
        let barred = match field("barred") {
            None => false,
            Some(spot) => match spot.value.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => true,
                "false" | "no" | "0" => false,
                _ => {
                    report
                        .problem(spot.at, format!("`barred` cannot be {}", shown(spot.value)))
                        .hint("write true or false");
                    false
                }
            },
        };
        let several = |name: &str| {
            let spot = field(name);
            // A blank separates; its column is near enough.
            let each =
                spot.into_iter().flat_map(|spot| spot.value.split_whitespace().map(move |one| Spot::new(one, spot.at)));
            each.collect::<Vec<_>>()
        };
        roll.take(
            Typed {
                at: line.at(0),
                imsi,
                msisdn: several("msisdn"),
                name: field("name"),
                barred,
                language: field("language"),
                mail: TypedMail { aliases: several("mail_alias"), copy: field("mail_copy"), ..TypedMail::default() },
                auth: algorithm.map(|algorithm| TypedAuth {
                    algorithm,
                    ki: field("ki"),
                    op: field("op"),
                    opc: field("opc"),
                }),
            },
            report,
        );
    }
}
