//! What a phone wrote: to which addresses, under which subject, in which words. Pure.
//!
//! Knows: how a text says that it is a mail (TS 23.040 §3.8): its first word is an address, or several with commas between; then perhaps the
//! subject in brackets, or between `##` and `#`; then a blank and the words. `*` may stand for `@` and `$` for `_`, because there are phones that
//! have neither. Does not know: what becomes of a text that is no mail, or who may write to whom.
//! More than the section has: `<address>`, `mailto:`, a colon behind the address, `#subject#` with one `#` in front. In the section one `#`
//! begins the name of somebody; a name is read where a subject follows it, and left out, because the mail has that of its sender. Long texts come in
//! parts, so the section's own `+` at the ends of parts is not read.
//! A word is taken for an address only where nothing else is likely: its domain has a dot and does not end in digits, unless the phone
//! marks it (TP-PID, `mailto:`, `<>`).
//! Limits: [`RECIPIENTS_MAX`], [`SUBJECT_CHARS_MAX`].

use std::collections::BTreeSet;

use crate::mail::address::Address;

/// TP-PID of a text that is a mail: Internet electronic mail by telematic interworking (TS 23.040 §9.2.3.9).
pub(in crate::sms) const MAIL_PROTOCOL: u8 = 0x32;
/// A text to more than that is a mistake, or a nuisance.
pub(in crate::sms) const RECIPIENTS_MAX: usize = 10;
/// What is longer is no subject.
const SUBJECT_CHARS_MAX: usize = 200;
/// Of the first words so much is the subject of a mail that has none.
const FIRST_WORDS_CHARS_MAX: usize = 40;

/// What a text is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sms) enum Written {
    Mail(Composed),
    /// It does not begin with an address.
    Words,
    /// It means to be a mail, and is none.
    Wrong {
        what: String,
        why: &'static str,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sms) struct Composed {
    /// Each once; never empty.
    pub(in crate::sms) to: Vec<Address>,
    /// Empty where none was written, as may be the words.
    pub(in crate::sms) subject: String,
    pub(in crate::sms) words: String,
}

/// Reads a text. `marked`: the phone says that it is a mail.
pub(in crate::sms) fn compose(text: &str, marked: bool) -> Written {
    let (mut rest, mut to, mut seen) = (text.trim_start(), Vec::new(), BTreeSet::new());
    loop {
        let word = first_word(rest);
        let is_sure = word.is_marked || (marked && to.is_empty());
        match address_of(word.text, is_sure) {
            Meant::Address(address) => {
                if seen.insert(address.key()) {
                    to.push(address);
                }
                rest = word.behind;
            }
            Meant::Wrong(why) => return Written::Wrong { what: shortened(word.text), why },
            Meant::Nothing if to.is_empty() => return Written::Words,
            // What stands behind the last comma is the first word of the text.
            Meant::Nothing => break,
        }
        if to.len() > RECIPIENTS_MAX {
            return Written::Wrong { what: shortened(word.text), why: "a text goes to ten addresses at most" };
        }
        match rest.trim_start().strip_prefix(',') {
            Some(behind) => rest = behind.trim_start(),
            None => break,
        }
    }
    let (subject, rest) = subject_of(rest);
    let rest = rest.trim_start();
    let words = rest.strip_prefix(':').unwrap_or(rest).trim().to_owned();
    Written::Mail(Composed { to, subject, words })
}

/// The beginning of the words, where nothing else says what they are about.
pub(in crate::sms) fn first_words(words: &str) -> String {
    let line = words.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() <= FIRST_WORDS_CHARS_MAX {
        return line.to_owned();
    }
    let cut: String = line.chars().take(FIRST_WORDS_CHARS_MAX).collect();
    let whole_words = cut.rsplit_once(char::is_whitespace).map_or(cut.as_str(), |(whole, _)| whole);
    format!("{} ...", whole_words.trim_end())
}

struct FirstWord<'a> {
    text: &'a str,
    behind: &'a str,
    /// `<…>` or `mailto:…`: it is an address, or a mistake.
    is_marked: bool,
}

fn first_word(text: &str) -> FirstWord<'_> {
    const MAILTO: &str = "mailto:";
    let has_mailto = text.get(..MAILTO.len()).is_some_and(|head| head.eq_ignore_ascii_case(MAILTO));
    let bare = if has_mailto { &text[MAILTO.len()..] } else { text };
    if let Some((inside, behind)) = bare.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        let has_mailto = inside.get(..MAILTO.len()).is_some_and(|head| head.eq_ignore_ascii_case(MAILTO));
        let inside = if has_mailto { &inside[MAILTO.len()..] } else { inside };
        // An arrow or a heart is none: `<3`, `<- look there ->`.
        if has_mailto || inside.contains('@') || inside.contains('*') {
            return FirstWord { text: inside.trim(), behind, is_marked: true };
        }
    }
    // The address of a host stands in brackets, and may have colons.
    let mut in_brackets = false;
    let end = bare.find(|char: char| {
        match char {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        char.is_whitespace() || (!in_brackets && matches!(char, ',' | ';' | ':' | '(' | '#' | '<' | '>'))
    });
    let (word, behind) = bare.split_at(end.unwrap_or(bare.len()));
    FirstWord { text: word, behind, is_marked: has_mailto }
}

enum Meant {
    Address(Address),
    Nothing,
    Wrong(&'static str),
}

/// What a word means.
fn address_of(word: &str, is_sure: bool) -> Meant {
    // The end of a sentence is none of an address.
    let word = word.strip_suffix('.').unwrap_or(word);
    let is_likely = |address: &Address| is_sure || has_likely_domain(address.domain());
    let as_it_stands = Address::parse(word);
    if let Ok(address) = as_it_stands {
        return if is_likely(&address) { Meant::Address(address) } else { Meant::Nothing };
    }
    let replaced = word.replacen('*', "@", usize::from(!word.contains('@'))).replace('$', "_");
    if replaced != word
        && let Ok(address) = Address::parse(&replaced)
        && is_likely(&address)
    {
        return Meant::Address(address);
    }
    // Nobody writes a name, an @ and a domain by chance.
    let is_meant = is_sure
        || word
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.') && has_likely_domain(domain));
    match as_it_stands {
        Err(why) if is_meant => Meant::Wrong(why),
        _ => Meant::Nothing,
    }
}

/// A dot within, and an end that is no number: `meet@5.30` is a time.
fn has_likely_domain(domain: &str) -> bool {
    let last = domain.rsplit('.').next().unwrap_or_default();
    domain.starts_with('[') || (last.len() < domain.len() && last.chars().any(char::is_alphabetic))
}

/// The subject behind an address, and what comes behind it.
fn subject_of(rest: &str) -> (String, &str) {
    let fits = |subject: &str| !subject.contains('\n') && subject.chars().count() <= SUBJECT_CHARS_MAX;
    let trimmed = rest.trim_start();
    if let Some(inside) = trimmed.strip_prefix('(') {
        let mut depth = 1;
        let close = inside.find(|char| {
            depth += i32::from(char == '(') - i32::from(char == ')');
            depth == 0
        });
        if let Some(close) = close.filter(|close| fits(&inside[..*close])) {
            return (inside[..close].trim().to_owned(), &inside[close + 1..]);
        }
        return (String::new(), rest);
    }
    // Without a blank: `# 1` begins a list.
    let Some(behind) = rest.strip_prefix('#') else { return (String::new(), rest) };
    let (first, behind) = match behind.strip_prefix('#') {
        Some(behind) => ("", behind),
        None => match behind.split_once('#') {
            Some((first, behind)) if fits(first) => match behind.strip_prefix('#') {
                // A name, and then the subject.
                Some(behind) if behind.split_once('#').is_some_and(|(subject, _)| fits(subject)) => ("", behind),
                _ => return (first.trim().to_owned(), behind),
            },
            _ => return (String::new(), rest),
        },
    };
    match behind.split_once('#') {
        Some((subject, behind)) if fits(subject) => (subject.trim().to_owned(), behind),
        _ => (first.to_owned(), rest),
    }
}

/// As much of a word as a phone is to be shown.
fn shortened(word: &str) -> String {
    const SHOWN_MAX: usize = 40;
    if word.chars().count() <= SHOWN_MAX {
        return word.to_owned();
    }
    word.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `to, to|subject|words`, or what is wrong.
    fn said(text: &str, marked: bool) -> String {
        match compose(text, marked) {
            Written::Mail(Composed { to, subject, words }) => {
                let to: Vec<&str> = to.iter().map(Address::as_str).collect();
                format!("{}|{subject}|{words}", to.join(" "))
            }
            Written::Words => "words".into(),
            Written::Wrong { what, why } => format!("{what}: {why}"),
        }
    }

    #[test]
    fn a_text_that_begins_with_an_address_is_a_mail() {
        for (text, meant) in [
            ("carol@example.org Hello", "carol@example.org||Hello"),
            ("  Carol@Example.org\nHello\nyou", "Carol@example.org||Hello\nyou"),
            ("carol*example.org Hello", "carol@example.org||Hello"),
            ("carol$smith*example.org Hello", "carol_smith@example.org||Hello"),
            ("a$b@example.org Hello", "a$b@example.org||Hello"),
            ("carol@example.org(Lunch) At noon?", "carol@example.org|Lunch|At noon?"),
            ("carol@example.org (Lunch (or tea)) At noon?", "carol@example.org|Lunch (or tea)|At noon?"),
            ("carol@example.org##Lunch#At noon?", "carol@example.org|Lunch|At noon?"),
            ("carol@example.org#Lunch#At noon?", "carol@example.org|Lunch|At noon?"),
            ("carol@example.org#Carol Smith##Lunch#At noon?", "carol@example.org|Lunch|At noon?"),
            ("carol@example.org # 1 of us", "carol@example.org||# 1 of us"),
            ("carol@example.org#1 of us", "carol@example.org||#1 of us"),
            ("carol@example.org (no end", "carol@example.org||(no end"),
            ("carol@example.org,dave@example.com;x Hi", "carol@example.org dave@example.com||;x Hi"),
            ("carol@example.org, dave*example.com: Hi", "carol@example.org dave@example.com||Hi"),
            ("carol@example.org, CAROL@example.org Hi", "carol@example.org||Hi"),
            ("carol@example.org, how are you?", "carol@example.org||how are you?"),
            ("carol@example.org: Hello", "carol@example.org||Hello"),
            ("carol@example.org. Hello", "carol@example.org||Hello"),
            ("carol@example.org", "carol@example.org||"),
            ("carol@example.org dave@example.com is his", "carol@example.org||dave@example.com is his"),
            ("mailto:carol@example.org Hello", "carol@example.org||Hello"),
            ("<carol@example.org> Hello", "carol@example.org||Hello"),
            ("<mailto:carol@hill>Hello", "carol@hill||Hello"),
            ("root@[192.0.2.1] Hello", "root@[192.0.2.1]||Hello"),
            ("root@[IPv6:2001:db8::1] Hello", "root@[IPv6:2001:db8::1]||Hello"),
            ("jörg@bücher.example Grüße", "jörg@bücher.example||Grüße"),
        ] {
            assert_eq!(said(text, false), meant, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_makes_none() {
        for text in [
            "",
            " ",
            "Hello carol@example.org",
            "2*3 is 6",
            "2*3.5 is 7",
            "see you@5",
            "meet@5.30 there",
            "@carol hi",
            "carol@ hi",
            "*99# ",
            "5$ each",
            "<3 <3",
            "(carol@example.org) is hers",
            "carol@hill hi",
        ] {
            assert_eq!(said(text, false), "words", "{text}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        for (text, marked, wrong) in [
            ("carol@-x.example.org Hi", false, "carol@-x.example.org: what stands behind the @ is no domain"),
            (
                "carol@example.org,da..ve@example.org Hi",
                false,
                "da..ve@example.org: what stands before the @ is no name",
            ),
            ("mailto:carol Hi", false, "carol: there is no @ in it"),
            ("Hello", true, "Hello: there is no @ in it"),
            ("", true, ": there is no @ in it"),
        ] {
            assert_eq!(said(text, marked), wrong, "{text}");
        }
        assert_eq!(said("carol@hill Hi", true), "carol@hill||Hi");
        let many: Vec<String> = (0..11).map(|n| format!("c{n}@example.org")).collect();
        assert_eq!(said(&many.join(","), false), "c10@example.org: a text goes to ten addresses at most");
        let Written::Mail(ten) = compose(&many[..10].join(","), false) else { panic!() };
        assert_eq!(ten.to.len(), 10);
    }

    #[test]
    fn the_first_words_are_cut_between_words() {
        assert_eq!(first_words("\n Hello \nyou"), "Hello");
        assert_eq!(first_words(&"word ".repeat(20)), "word word word word word word word word ...");
        assert_eq!(first_words(&"x".repeat(50)), format!("{} ...", "x".repeat(40)));
    }

    proptest! {
        /// Each address was written, but for the signs that stand for others; and nothing that was written panics.
        #[test]
        fn no_address_comes_of_nothing(text in "[a-c@*$_.,:;()#<>\\[\\] 0-9é\\n-]{0,60}", marked: bool) {
            if let Written::Mail(Composed { to, .. }) = compose(&text, marked) {
                prop_assert!(!to.is_empty() && to.len() <= RECIPIENTS_MAX);
                let plain = |text: &str| text.replace('*', "@").replace('$', "_").to_lowercase();
                for address in to {
                    prop_assert!(plain(&text).contains(&plain(address.as_str())), "{address} of {text:?}");
                }
            }
        }

        #[test]
        fn anything_may_be_written(text: String, marked: bool) {
            let _ = compose(&text, marked);
            prop_assert!(first_words(&text).chars().count() <= FIRST_WORDS_CHARS_MAX + 4);
        }
    }
}
