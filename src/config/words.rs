//! What the message centre says in its own words: a template for each occasion, in every language that the operator writes.
//!
//! Knows: the occasions, what may stand in braces in each, our English. Does not know: who is told, and when.
//! `[[texts]]` in the configuration adds languages and replaces templates; what a language lacks is said in the default one, and what that
//! lacks in our English.

use std::collections::BTreeMap;

use crate::ident::Language;

/// An occasion to say something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Word(usize);

/// Its key in `[[texts]]`, our English, and what may stand in braces.
struct Entry {
    key: &'static str,
    english: &'static str,
    may_hold: &'static [&'static str],
}

macro_rules! words {
    ($($name:ident $key:literal $english:literal [$($hole:literal),*];)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "only counts")]
        enum Index { $($name),* }
        impl Word {
            $(pub const $name: Word = Word(Index::$name as usize);)*
        }
        const ENTRIES: &[Entry] = &[$(Entry { key: $key, english: $english, may_hold: &[$($hole),*] }),*];
    };
}

words! {
    UNKNOWN_NUMBER "unknown_number" "{number} is nobody's number: your text was not sent." ["number"];
    BARRED "barred" "{number} cannot get texts: yours was not sent." ["number"];
    NOT_A_TEXT "not_a_text" "Your text to {number} was not sent: {why}." ["number", "why"];
    TOO_MANY_FOR_ONE "too_many_for_one" "Too many texts wait for {number} already: yours was not sent. Try again later." ["number"];
    NOT_DELIVERED "not_delivered" "Your text of {time} to {number} could not be delivered: {why}." ["number", "time", "why"];
    WELCOME "welcome" "Welcome. Your number is {number}." ["number", "name", "imsi"];
    WELCOME_WITHOUT_NUMBER "welcome_without_number" "Welcome. Text the number that you would like to have to {code}." ["name", "imsi", "code"];
    WELCOME_NETWORK "welcome_network" "Welcome to {network}. Your number is {number}." ["number", "name", "imsi", "network"];
    OWN_NUMBER "own_number" "Your number is {number}." ["number", "name", "imsi"];
    NO_NUMBER "no_number" "You have no number yet. Text the one that you would like to have to {code}." ["imsi", "code"];
    NUMBER_CHOSEN "number_chosen" "Your number is {number} now. Text to {status} for the state of this network." ["number", "status"];
    NUMBER_TAKEN "number_taken" "{number} is in use already. Text another one to {code}." ["number", "code"];
    NUMBER_HELD "number_held" "Your number is {number} already." ["number"];
    NUMBER_WRONG "number_wrong" "Text a number of {min} to {max} digits to {code}." ["min", "max", "code"];
    NUMBER_FAILED "number_failed" "{number} could not be given to you. Try again later." ["number"];
    STATUS "status" "{queued} texts wait, {yours} of them for you. Number {number}, cell {cell}, {time}." ["queued", "yours", "number", "imsi", "cell", "time"];
    NOT_FOR_YOU "not_for_you" "{code} does not take texts from your number." ["code"];
    HOOK_FAILED "hook_failed" "{code} could not be reached: your text was not sent." ["code"];
    GROUP_SENT "group_sent" "Your text goes to {count} phones." ["count", "code"];
    GROUP_EMPTY "group_empty" "Nobody else is in the group {code}." ["code"];
    BROADCAST_HOW "broadcast_how" "Text an area and the words to {code}: {areas}" ["code", "areas"];
    BROADCAST_ASK "broadcast_ask" "To {count} phones at {area}? Text yes {key} to {code} within {minutes} minutes." ["count", "area", "key", "code", "minutes"];
    BROADCAST_SENT "broadcast_sent" "Your text goes to {count} phones at {area}." ["count", "area"];
    BROADCAST_GONE "broadcast_gone" "There is nothing to confirm. Text an area and the words to {code}." ["code"];
    MAIL_CUT "mail_cut" "... [{count} more parts withheld]" ["count"];
    MAIL_FILES "mail_files" "[with {files}]" ["files"];
    MAIL_LINK "mail_link" "[{files}: {url}]" ["files", "url"];
    MAIL_HOW "mail_how" "Text an address and your words to {code}: carol@example.org Hello" ["code"];
    MAIL_UNKNOWN "mail_unknown" "Nobody has written to you from {code} of late: your text was not sent." ["code"];
    MAIL_ASK "mail_ask" "{from} wants to write to you. Text yes to {code} to get it, or no." ["from", "code"];
    MAIL_WANTED "mail_wanted" "From now on you get what {from} writes." ["from"];
    MAIL_UNWANTED "mail_unwanted" "You get nothing from {from}." ["from"];
    MAIL_BOUNCED "mail_bounced" "Your text of {time} to {to} did not arrive: {why}." ["time", "to", "why"];
    LOST_PART "lost_part" "[part {part} of {parts} is missing]" ["part", "parts"];
}

/// What is said where nothing is known: no number, no cell.
pub const NOTHING: &str = "-";

impl Word {
    pub(super) const COUNT: usize = ENTRIES.len();

    pub fn all() -> impl Iterator<Item = Word> {
        (0..Word::COUNT).map(Word)
    }

    /// The table of keys is made of these while it is compiled, where there are no iterators.
    pub(super) const fn nth(index: usize) -> Word {
        Word(index)
    }

    /// The key in `[[texts]]`.
    pub const fn key(self) -> &'static str {
        ENTRIES[self.0].key
    }

    pub const fn english(self) -> &'static str {
        ENTRIES[self.0].english
    }

    /// What may stand in braces.
    pub fn may_hold(self) -> &'static [&'static str] {
        ENTRIES[self.0].may_hold
    }
}

/// Every template in every language.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Templates {
    /// The language of those who have none of their own (`[messages] language`).
    pub default_language: Language,
    /// By language and occasion, as it was written.
    pub written: BTreeMap<(Language, Word), String>,
}

impl Templates {
    /// The template for this occasion: in this language, else in the default one, else our English.
    pub fn template(&self, language: Option<Language>, word: Word) -> &str {
        // English is there without being written.
        let ours = |language: Language| (language == Language::default()).then(|| word.english());
        let written =
            |language: Language| self.written.get(&(language, word)).map(String::as_str).or_else(|| ours(language));
        language.and_then(written).or_else(|| written(self.default_language)).unwrap_or(word.english())
    }

    /// What is said: each `{name}` of the template replaced by its value; a name without one is left out.
    pub fn say(&self, language: Option<Language>, word: Word, values: &[(&str, &str)]) -> String {
        fill(self.template(language, word), values)
    }
}

/// Replaces each `{name}`; what is replaced is not looked at again, so a value may hold braces.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let Some(close) = rest[open..].find('}') else {
            out.push_str(&rest[open..]);
            return out;
        };
        let name = &rest[open + 1..open + close];
        out.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        rest = &rest[open + close + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_once_and_every_default_is_gsm_and_names_only_its_own() {
        assert_eq!(fill("{a} {b}{c}!", &[("a", "{b}"), ("b", "2")]), "{b} 2!");
        assert_eq!(fill("{a", &[("a", "1")]), "{a");
        for word in Word::all() {
            let english = word.english();
            assert!(crate::gsm::text::septets(english).is_some(), "{english}");
            let names = english.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
            names.for_each(|name| assert!(word.may_hold().contains(&name), "{name} in {english}"));
        }
    }

    #[test]
    fn a_language_falls_back_on_the_default_one_and_then_on_english() {
        let [sw, fr, de] = ["sw", "fr", "de"].map(|name| Language::parse(name).unwrap());
        let mut templates = Templates { default_language: sw, ..Templates::default() };
        templates.written.insert((sw, Word::BARRED), "sw {number}".into());
        templates.written.insert((fr, Word::BARRED), "fr {number}".into());
        let say = |language| templates.say(language, Word::BARRED, &[("number", "7")]);
        assert_eq!((say(Some(fr)), say(Some(de)), say(None)), ("fr 7".into(), "sw 7".into(), "sw 7".into()));
        assert_eq!(say(Some(Language::default())), "7 cannot get texts: yours was not sent.");
        assert_eq!(templates.template(Some(fr), Word::GROUP_EMPTY), Word::GROUP_EMPTY.english());
    }
}
