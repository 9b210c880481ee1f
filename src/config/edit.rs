//! `subscriber add` and `remove`: changes to the text of `90-local.toml` that leave everything else in it as it was.
//!
//! Knows: one text. Does not know: the other files; who calls reads the whole configuration with the new text before it is
//! written, and so hears of a number that is taken elsewhere or a Ki that is none.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

use super::keys;
use super::read::{Problem, Source};
use super::text::{Place, Report};
use super::typed::{self, View};
use crate::ident::Imsi;

/// How problems name the text; the operator knows where `<data_dir>/subscribers.d` is.
const NAME: &str = "90-local.toml";

/// What a new file begins with.
const HEADER: &str = "# Written by `encamp subscriber add` and `remove`, and read last, after subscribers.d beside encamp.toml.\n\
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
    // Put behind the text rather than into a parsed one: a comment at the end of the file stays above what is new.
    let mut new = if text.trim().is_empty() { HEADER.to_owned() } else { text.to_owned() };
    if !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str("\n[[subscriber]]\n");
    new.push_str(&table.to_string());
    Ok(new)
}

/// The text without this IMSI's `[[subscriber]]` and the comment right above it; `None` if it does not stand there.
///
/// Errors: the text is no TOML, or the IMSI is none.
pub fn remove_subscriber(text: &str, imsi: &str) -> Result<Option<String>, Problem> {
    let imsi = parse_imsi(imsi)?;
    let (place, is_list) = find(text, &imsi)?;
    if place.is_none() {
        return Ok(None);
    }
    if is_list {
        return Err(no_tables());
    }
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| Problem {
        place: format!("{NAME}:1:1"),
        what: error.message().to_owned(),
        hint: None,
    })?;
    let Some(tables) = document.get_mut("subscriber").and_then(Item::as_array_of_tables_mut) else {
        return Err(no_tables());
    };
    let is_wanted = |table: &Table| {
        let found = table.get("imsi").and_then(Item::as_str).and_then(|text| Imsi::parse(text).ok());
        found == Some(imsi)
    };
    let Some(index) = tables.iter().position(is_wanted) else { return Ok(None) };
    let prefix = tables.get(index).and_then(|table| table.decor().prefix()).and_then(|prefix| prefix.as_str());
    let kept = kept_of(prefix.unwrap_or_default()).to_owned();
    tables.remove(index);
    match tables.get_mut(index) {
        Some(next) => {
            let own = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
            let glued = glued(&kept, &own);
            next.decor_mut().set_prefix(if index > 0 && glued.is_empty() { "\n".into() } else { glued });
        }
        None => {
            let after = document.trailing().as_str().unwrap_or_default().to_owned();
            let glued = glued(&kept, &after);
            let glued = glued.trim_end_matches('\n');
            let glued = if index == 0 { glued.trim_start_matches('\n') } else { glued };
            document.set_trailing(if glued.is_empty() { String::new() } else { format!("{glued}\n") });
        }
    }
    if document.get("subscriber").and_then(Item::as_array_of_tables).is_some_and(|tables| tables.is_empty()) {
        document.remove("subscriber");
    }
    Ok(Some(document.to_string()))
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
    Problem {
        place: format!("{NAME}:1:1"),
        what: "the subscribers of this file stand in one list".into(),
        hint: Some("write each as a [[subscriber]] of its own".into()),
    }
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
