//! `subscriber add` and `remove`, and a number that a subscriber chose: changes to the text of `90-local.toml` that leave everything
//! else in it as it was.
//!
//! Knows: one text. Does not know: the other files; who calls reads the whole configuration with the new text before it is
//! written, and so hears of a number that is taken elsewhere or a Ki that is none.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

use super::keys;
use super::read::{Problem, Source};
use super::text::{Place, Report};
use super::typed::{self, View};
use crate::ident::{Imsi, Msisdn};

/// How problems name the text; the operator knows where `<data_dir>/subscribers.d` is.
const NAME: &str = "90-local.toml";

/// What a new file begins with.
const HEADER: &str = "# Written by `encamp subscriber add` and `remove`, and read last, after subscribers.d beside encamp.toml.\n\
                      # Numbers that subscribers chose stand here as well.\n\
                      # It may be edited by hand as well: comments are kept.\n";

/// One SIM, as the operator gave it on the command line.
#[derive(Clone, Default)]
pub struct SubscriberFields {
    pub imsi: String,
    pub msisdn: Vec<String>,
    pub algorithm: String,
    pub ki: Option<String>,
    pub op: Option<String>,
    pub opc: Option<String>,
    pub name: Option<String>,
}

/// The keys are not shown.
impl std::fmt::Debug for SubscriberFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubscriberFields({}, …)", self.algorithm)
    }
}

/// The text with one more `[[subscriber]]` at its end.
///
/// Errors: the text is no file of subscribers, or the IMSI is none or stands in it already.
pub fn add_subscriber(text: &str, fields: &SubscriberFields) -> Result<String, Problem> {
    let imsi = parse_imsi(&fields.imsi)?;
    let (place, is_list) = find(text, &imsi)?;
    if let Some(place) = place {
        let hint = format!("it stands at {place}; `encamp subscriber remove` takes it away");
        return Err(Problem { place, what: "this IMSI is provisioned already".into(), hint: Some(hint) });
    }
    if is_list {
        return Err(no_tables());
    }
    let mut table = Table::new();
    table["imsi"] = value(imsi.as_str());
    if !fields.msisdn.is_empty() {
        table["msisdn"] = value(fields.msisdn.iter().map(String::as_str).collect::<Array>());
    }
    let mut auth = InlineTable::new();
    auth.insert("algorithm", fields.algorithm.as_str().into());
    for (key, given) in [("ki", &fields.ki), ("op", &fields.op), ("opc", &fields.opc)] {
        if let Some(given) = given {
            auth.insert(key, given.as_str().into());
        }
    }
    table["auth"] = value(auth);
    if let Some(name) = &fields.name {
        table["name"] = value(name.as_str());
    }
    Ok(with_table(text, "[[subscriber]]", &table))
}

/// The text with one more table at its end: put behind it rather than into a parsed one, so that a comment at the end of the file
/// stays above what is new.
fn with_table(text: &str, title: &str, table: &Table) -> String {
    let mut new = if text.trim().is_empty() { HEADER.to_owned() } else { text.to_owned() };
    if !new.ends_with('\n') {
        new.push('\n');
    }
    new + &format!("\n{title}\n{table}")
}

/// The text with one more number for this IMSI: at the end of the `msisdn` of its own table, or of its `[[number]]`, else in a new
/// `[[number]]`. One that stands there already is not written twice.
///
/// Errors: the text is no file of subscribers.
pub fn add_number(text: &str, imsi: Imsi, number: Msisdn) -> Result<String, Problem> {
    find(text, &imsi)?;
    let mut document = parsed(text)?;
    let tables = tables_of(&document, Some(imsi));
    let own = tables.iter().find(|(key, ..)| *key == "subscriber").or(tables.first());
    if let Some(table) = own.and_then(|(key, index, _)| table_at(&mut document, key, *index)) {
        let list = table.entry("msisdn").or_insert_with(|| value(Array::new()));
        let Some(list) = list.as_array_mut() else {
            return Err(of_the_file("the `msisdn` of this IMSI is no list", "write msisdn = [\"..\"]"));
        };
        if list.iter().any(|one| one.as_str() == Some(&number.to_string())) {
            return Ok(text.to_owned());
        }
        list.push(number.to_string());
        return Ok(document.to_string());
    }
    if document.get("number").is_some_and(|item| !item.is_array_of_tables()) {
        return Err(of_the_file("the numbers of this file stand in one list", "write each as a [[number]] of its own"));
    }
    let mut table = Table::new();
    table["imsi"] = value(imsi.as_str());
    table["msisdn"] = value([number.to_string()].into_iter().collect::<Array>());
    Ok(with_table(text, "[[number]]", &table))
}

/// The text without this IMSI's `[[subscriber]]` and `[[number]]`, and the comment right above each; `None` if neither stands there.
///
/// Errors: the text is no TOML, or the IMSI is none.
pub fn remove_subscriber(text: &str, imsi: &str) -> Result<Option<String>, Problem> {
    let imsi = parse_imsi(imsi)?;
    let (place, is_list) = find(text, &imsi)?;
    if place.is_some() && is_list {
        return Err(no_tables());
    }
    let mut document = parsed(text)?;
    let mut is_changed = false;
    while let Some((key, index, position)) = tables_of(&document, Some(imsi)).first().copied() {
        take_out(&mut document, key, index, position);
        is_changed = true;
    }
    Ok(is_changed.then(|| document.to_string()))
}

fn parsed(text: &str) -> Result<DocumentMut, Problem> {
    text.parse().map_err(|error: toml_edit::TomlError| of_the_file(error.message(), ""))
}

/// Each `[[subscriber]]` and `[[number]]`, of this IMSI where one is given, in the order of the file: its key, its place among those of the
/// key, its place in the file.
fn tables_of(document: &DocumentMut, imsi: Option<Imsi>) -> Vec<(&'static str, usize, isize)> {
    let is_wanted = |table: &Table| {
        let found = table.get("imsi").and_then(Item::as_str).and_then(|text| Imsi::parse(text).ok());
        imsi.is_none() || found == imsi
    };
    let of = |key: &'static str| {
        let tables = document.get(key).and_then(Item::as_array_of_tables).into_iter().flat_map(|tables| tables.iter());
        let tables = tables.enumerate().filter(|(_, table)| is_wanted(table));
        tables.map(move |(index, table)| (key, index, table.position().unwrap_or(isize::MAX))).collect::<Vec<_>>()
    };
    let mut all = [of("subscriber"), of("number")].concat();
    all.sort_by_key(|(_, _, position)| *position);
    all
}

fn table_at<'d>(document: &'d mut DocumentMut, key: &str, index: usize) -> Option<&'d mut Table> {
    document.get_mut(key)?.as_array_of_tables_mut()?.get_mut(index)
}

/// Takes one table out, with the comment right above it. What else stands above it goes to the next one, or to the end of the file.
fn take_out(document: &mut DocumentMut, key: &str, index: usize, position: isize) {
    let others = tables_of(document, None);
    let is_first = others.iter().all(|(_, _, other)| *other >= position);
    let prefix = table_at(document, key, index).and_then(|table| table.decor().prefix()?.as_str().map(str::to_owned));
    let kept = kept_of(&prefix.unwrap_or_default()).to_owned();
    let next = others.into_iter().find(|(_, _, other)| *other > position);
    match next.and_then(|(key, index, _)| table_at(document, key, index)) {
        Some(next) => {
            let own = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
            let glued = glued(&kept, &own);
            next.decor_mut().set_prefix(if !is_first && glued.is_empty() { "\n".into() } else { glued });
        }
        None => {
            let after = document.trailing().as_str().unwrap_or_default().to_owned();
            let glued = glued(&kept, &after);
            let glued = glued.trim_end_matches('\n');
            let glued = if is_first { glued.trim_start_matches('\n') } else { glued };
            document.set_trailing(if glued.is_empty() { String::new() } else { format!("{glued}\n") });
        }
    }
    let Some(tables) = document.get_mut(key).and_then(Item::as_array_of_tables_mut) else { return };
    tables.remove(index);
    if tables.is_empty() {
        document.remove(key);
    }
}

/// What stands above a table and is not its own: everything before the last blank line.
fn kept_of(prefix: &str) -> &str {
    prefix.rfind("\n\n").map_or("", |end| &prefix[..end + 2])
}

/// Two stretches of comments, with one blank line between them and not two.
fn glued(upper: &str, lower: &str) -> String {
    match (upper.trim_end_matches('\n'), lower.trim_start_matches('\n')) {
        ("", _) => lower.to_owned(),
        (upper, "") => format!("{upper}\n\n"),
        (upper, lower) => format!("{upper}\n\n{lower}"),
    }
}

fn parse_imsi(text: &str) -> Result<Imsi, Problem> {
    Imsi::parse(text).map_err(|error| Problem {
        place: "imsi".into(),
        what: format!("{text:?} is no IMSI: {error}"),
        hint: Some("write it as the SIM's papers do: 001010000000001".into()),
    })
}

fn no_tables() -> Problem {
    of_the_file("the subscribers of this file stand in one list", "write each as a [[subscriber]] of its own")
}

fn of_the_file(what: &str, hint: &str) -> Problem {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Problem { place: format!("{NAME}:1:1"), what: what.to_owned(), hint }
}

/// Where the IMSI stands, and whether the subscribers are one inline list.
fn find(text: &str, imsi: &Imsi) -> Result<(Option<String>, bool), Problem> {
    let source = Source { name: NAME.into(), text: text.into() };
    let mut report = Report::new([&source]);
    let (table, is_toml) = typed::parse(&mut report, 0);
    if !is_toml {
        let first = report.into_problems().into_iter().next();
        return Err(first.unwrap_or_else(no_tables));
    }
    let place = View::new(&table, &keys::SUBSCRIBER_FILE, 0).tables("subscriber").into_iter().find_map(|view| {
        let spot = view.text("imsi")?;
        (Imsi::parse(spot.value).as_ref() == Ok(imsi)).then_some(spot.at)
    });
    let is_list = table.get("subscriber").is_some_and(|value| {
        text.strip_prefix('\u{feff}').unwrap_or(text).get(value.span().start..).is_some_and(|at| !at.starts_with("[["))
    });
    Ok((place.map(|at: Place| report.name_of(at)), is_list))
}

#[cfg(test)]
mod tests {
    use super::super::read::{Sources, read};
    use super::*;

    const TWO: &str = "# Our site.\n\n# the mayor\n[[subscriber]]\nimsi = \"001010000000001\"   # old SIM\n\
                       auth = { algorithm = \"none\" }\n\n# his wife\n[[subscriber]]\nimsi = \"IMSI001010000000002\"\n\
                       auth = { algorithm = \"none\" }\n\n# the end\n";

    fn fields(imsi: &str) -> SubscriberFields {
        SubscriberFields {
            imsi: imsi.into(),
            msisdn: vec!["+15550001".into(), "2001".into()],
            algorithm: "comp128v3".into(),
            ki: Some("00112233445566778899aabbccddeeff".into()),
            name: Some("Ana \"A\"".into()),
            ..SubscriberFields::default()
        }
    }

    #[test]
    fn what_is_added_stands_at_the_end_and_all_else_stays() {
        let added = add_subscriber(TWO, &fields("IMSI001010000000003")).unwrap();
        assert_eq!(
            added.strip_prefix(TWO).unwrap(),
            "\n[[subscriber]]\nimsi = \"001010000000003\"\nmsisdn = [\"+15550001\", \"2001\"]\n\
             auth = { algorithm = \"comp128v3\", ki = \"00112233445566778899aabbccddeeff\" }\nname = 'Ana \"A\"'\n"
        );
        assert_eq!(remove_subscriber(&added, "001010000000003").unwrap().unwrap(), TWO);
    }

    #[test]
    fn a_new_file_says_what_it_is() {
        let added = add_subscriber("", &fields("001010000000003")).unwrap();
        assert!(added.starts_with(HEADER), "{added}");
        let removed = remove_subscriber(&added, "001010000000003").unwrap().unwrap();
        assert_eq!(removed.trim_end(), HEADER.trim_end());
        let again = add_subscriber(&removed, &fields("001010000000003")).unwrap();
        assert_eq!(again.matches("[[subscriber]]").count(), 1);
    }

    #[test]
    fn an_imsi_stands_once_with_and_without_its_prefix() {
        let problem = add_subscriber(TWO, &fields("001010000000002")).unwrap_err();
        assert!(problem.hint.unwrap().contains("90-local.toml:10:8"));
        assert!(add_subscriber(TWO, &fields("17")).is_err());
    }

    #[test]
    fn removing_takes_the_comment_right_above_and_no_other() {
        let first = remove_subscriber(TWO, "001010000000001").unwrap().unwrap();
        assert_eq!(
            first,
            "# Our site.\n\n# his wife\n[[subscriber]]\nimsi = \"IMSI001010000000002\"\n\
             auth = { algorithm = \"none\" }\n\n# the end\n"
        );
        let second = remove_subscriber(TWO, "IMSI001010000000002").unwrap().unwrap();
        assert_eq!(
            second,
            "# Our site.\n\n# the mayor\n[[subscriber]]\nimsi = \"001010000000001\"   # old SIM\n\
             auth = { algorithm = \"none\" }\n\n# the end\n"
        );
        let none = remove_subscriber(&second, "001010000000001").unwrap().unwrap();
        assert_eq!(none, "# Our site.\n\n# the end\n");
        assert_eq!(remove_subscriber(TWO, "001010000000009").unwrap(), None);
    }

    fn numbered(text: &str, imsi: &str, number: &str) -> String {
        add_number(text, Imsi::parse(imsi).unwrap(), Msisdn::parse(number).unwrap()).unwrap()
    }

    #[test]
    fn a_number_goes_where_its_subscriber_stands() {
        let first = numbered(TWO, "001010000000002", "2002");
        let own = "auth = { algorithm = \"none\" }\nmsisdn = [\"2002\"]\n\n# the end\n";
        assert_eq!(first, TWO.replace("auth = { algorithm = \"none\" }\n\n# the end\n", own));
        assert_eq!(numbered(&first, "001010000000002", "2003"), first.replace("[\"2002\"]", "[\"2002\", \"2003\"]"));
        assert_eq!(numbered(&first, "001010000000002", "2002"), first, "once is enough");
        let lines = "[[subscriber]]\nimsi = \"001010000000001\"\nmsisdn = [\n  \"2001\", # his\n  # hers\n]\n\
                     [subscriber.auth]\nalgorithm = \"none\"\n";
        let more = numbered(lines, "001010000000001", "2002");
        assert!(
            more.contains("# his") && more.contains("# hers") && more.ends_with("algorithm = \"none\"\n"),
            "{more}"
        );
        let document: DocumentMut = more.parse().unwrap();
        assert_eq!(document["subscriber"][0]["msisdn"].as_array().unwrap().len(), 2, "{more}");
    }

    #[test]
    fn a_number_of_one_who_stands_elsewhere_has_a_table_of_its_own() {
        let added = numbered(TWO, "001010000000009", "2009");
        assert_eq!(added.strip_prefix(TWO).unwrap(), "\n[[number]]\nimsi = \"001010000000009\"\nmsisdn = [\"2009\"]\n");
        let twice = numbered(&added, "001010000000009", "2010");
        assert_eq!(twice, added.replace("[\"2009\"]", "[\"2009\", \"2010\"]"));
        assert_eq!(remove_subscriber(&twice, "001010000000009").unwrap().unwrap(), TWO);
        let new = numbered("", "001010000000009", "2009");
        assert!(new.starts_with(HEADER), "{new}");
        assert_eq!(remove_subscriber(&new, "001010000000009").unwrap().unwrap().trim_end(), HEADER.trim_end());
        // A list of subscribers is not touched.
        let list = "subscriber = [{ imsi = \"001010000000001\" }]\n";
        assert!(numbered(list, "001010000000001", "2001").starts_with(list));
        for wrong in ["number = []\n", "[[subscriber]\n", "[[number]]\nimsi = \"001010000000009\"\nmsisdn = \"1\"\n"] {
            let (imsi, number) = (Imsi::parse("001010000000009").unwrap(), Msisdn::parse("2009").unwrap());
            assert!(add_number(wrong, imsi, number).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let local = numbered(&numbered(TWO, "001010000000002", "2002"), "001010000000009", "2009");
        let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
        let sources = Sources {
            main: source("encamp.toml", "domain = \"gsm.example\"\ndata_dir = \"/d\"\n"),
            subscribers: vec![
                source("s.csv", "imsi,msisdn,algorithm\n001010000000009,2001,none\n"),
                source(NAME, &local),
            ],
            cluster_key_file: None,
        };
        let (settings, _) = read(&sources).unwrap();
        let numbers = |imsi: &str| {
            let subscriber = settings.subscribers.get(&Imsi::parse(imsi).unwrap()).unwrap();
            subscriber.msisdn.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(numbers("001010000000002"), ["2002"]);
        assert_eq!(numbers("001010000000009"), ["2001", "2009"]);
    }

    #[test]
    fn who_is_removed_loses_his_numbers_and_no_other_comment_moves() {
        let number = |imsi: &str, comment: &str| format!("{comment}[[number]]\nimsi = \"{imsi}\"\nmsisdn = [\"2\"]\n");
        let his = number("IMSI001010000000001", "\n# Chosen.\n\n# on Monday\n");
        let hers = number("001010000000002", "\n# on Tuesday\n");
        let (first, second) = TWO.split_once("# his wife").unwrap();
        let text = format!("{first}{}{hers}\n# his wife{second}", his.trim_start());
        let removed = remove_subscriber(&text, "001010000000001").unwrap().unwrap();
        assert_eq!(removed, format!("# Our site.\n\n# Chosen.\n{hers}\n# his wife{second}"));
        let none = remove_subscriber(&removed, "001010000000002").unwrap().unwrap();
        assert_eq!(none, "# Our site.\n\n# Chosen.\n\n# the end\n");
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let problem = add_subscriber("[[subscriber]\n", &fields("001010000000003")).unwrap_err();
        assert_eq!(problem.place, "90-local.toml:1:14");
        assert!(remove_subscriber("imsi = \n", "001010000000003").is_err());
        let list = "subscriber = [{ imsi = \"001010000000001\" }]\n";
        assert!(add_subscriber(list, &fields("001010000000003")).is_err());
        assert!(remove_subscriber(list, "001010000000001").is_err());
    }
}
