//! How a command is written: paths, parameters, numbers.
//!
//! Knows: one line. Does not know: whether its time has come. Parameters are [`smtp_proto`]'s, but for what has to go back as it came, and for
//! numbers, of which it takes the last digits where they are too many.
//! Source: RFC 5321 §4.1.2, RFC 3461 §4, RFC 3030 §2.

use std::borrow::Cow;

use smtp_proto::request::parser::Rfc5321Parser;
use smtp_proto::{
    Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_REQUIRETLS, MAIL_RET_FULL, MAIL_RET_HDRS,
    MAIL_SMTPUTF8, MailFrom, RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS,
    RcptTo as TypedRcpt,
};

use crate::mail::Notify;

/// What follows the command, where it is this one.
pub(super) fn argument<'a>(text: &'a str, command: &str) -> Option<&'a str> {
    let head = text.get(..command.len())?;
    head.eq_ignore_ascii_case(command).then(|| &text[command.len()..]).filter(|rest| rest.starts_with(' '))
}

/// The path of `FROM:<…>` or `TO:<…>` without its brackets, and what follows it: nothing, or a space and more.
pub(super) fn path<'a>(text: &'a str, word: &str) -> Result<(&'a str, &'a str), String> {
    let wrong = || format!("write {word}:<local@domain>");
    let text = text.trim_start_matches(' ');
    let head = text.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word)).ok_or_else(wrong)?;
    let text = text[head.len()..].strip_prefix(':').ok_or_else(wrong)?;
    let text = text.trim_start_matches(' ').strip_prefix('<').ok_or_else(wrong)?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let rest = &text[at + 1..];
                return if rest.is_empty() || rest.starts_with(' ') { Ok((&text[..at], rest)) } else { Err(wrong()) };
            }
            _ => (),
        }
    }
    Err(wrong())
}

/// What follows the path of MAIL.
pub(super) fn mail_parameters(text: &str) -> Result<MailFrom<String>, Error> {
    parameters(text, |parser| parser.mail_from_parameters(Cow::Borrowed("")).map(MailFrom::into_owned))
}

/// What follows the path of RCPT.
pub(super) fn rcpt_parameters(text: &str) -> Result<TypedRcpt<String>, Error> {
    parameters(text, |parser| parser.rcpt_to_parameters(Cow::Borrowed("")).map(TypedRcpt::into_owned))
}

fn parameters<T: Default>(
    text: &str,
    read: impl FnOnce(&mut Rfc5321Parser<'_, '_>) -> Result<T, Error>,
) -> Result<T, Error> {
    if text.is_empty() {
        return Ok(T::default());
    }
    let octets = format!("{text}\r\n").into_bytes();
    let mut rest = octets.iter();
    let mut parser = Rfc5321Parser::new(&mut rest);
    parser.stop_char = b' ';
    read(&mut parser)
}

/// An extension that the parser knows and we do not offer.
pub(super) fn foreign_of_mail(asked: &MailFrom<String>) -> Option<&'static str> {
    let ours = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_RET_FULL | MAIL_RET_HDRS | MAIL_SMTPUTF8;
    let foreign = [
        ("BODY=BINARYMIME", asked.flags & MAIL_BODY_BINARYMIME != 0),
        ("REQUIRETLS", asked.flags & MAIL_REQUIRETLS != 0),
        ("HOLDFOR", asked.hold_for != 0),
        ("HOLDUNTIL", asked.hold_until != 0),
        ("MT-PRIORITY", asked.mt_priority != 0),
        ("SOLICIT", asked.solicit.is_some()),
        ("MTRK", asked.mtrk.is_some()),
        ("TRANSID", asked.trans_id.is_some()),
        ("that", asked.flags & !ours != 0),
    ];
    foreign.into_iter().find_map(|(name, is_asked)| is_asked.then_some(name))
}

pub(super) fn notify(asked: &TypedRcpt<String>) -> Result<Option<Notify>, &'static str> {
    if asked.flags & !(RCPT_NOTIFY_NEVER | RCPT_NOTIFY_SUCCESS | RCPT_NOTIFY_FAILURE | RCPT_NOTIFY_DELAY) != 0 {
        return Err("RRVS and CONNEG are not offered here");
    }
    match asked.flags {
        0 => Ok(None),
        RCPT_NOTIFY_NEVER => Ok(Some(Notify::default())),
        flags if flags & RCPT_NOTIFY_NEVER != 0 => Err("NOTIFY=NEVER stands alone"),
        flags => Ok(Some(Notify {
            success: flags & RCPT_NOTIFY_SUCCESS != 0,
            failure: flags & RCPT_NOTIFY_FAILURE != 0,
            delay: flags & RCPT_NOTIFY_DELAY != 0,
        })),
    }
}

/// The value of a parameter as it was written: the parser has decoded it, and it goes back as it came (RFC 3461 §4).
///
/// Errors: it is no xtext, or too long.
pub(super) fn xtext<'a>(parameters: &'a str, name: &str, octets_max: usize) -> Result<Option<&'a str>, ()> {
    let named = |word: &&str| word.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let Some(word) = parameters.split(' ').find(named) else { return Ok(None) };
    let value = &word[name.len()..];
    let octets = value.as_bytes();
    let fits = |(at, octet): (usize, &u8)| match octet {
        b'+' => octets.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        b'=' => false,
        octet => octet.is_ascii_graphic(),
    };
    let fits = !value.is_empty() && value.len() <= octets_max && octets.iter().enumerate().all(fits);
    if fits { Ok(Some(value)) } else { Err(()) }
}

/// ORCPT as it was written (RFC 3461 §4.2), and the other parameters: the parser knows addresses of type `rfc822` alone. One of type `utf-8` may
/// have letters of any script where the mail may (RFC 6533 §3): they are written here as ASCII, which means the same, for it goes back in a
/// report that whoever gets it has to read.
///
/// Errors: as of [`xtext`], or it is of another type, or stands twice.
pub(super) fn orcpt(parameters: &str, is_utf8: bool, octets_max: usize) -> Result<(Option<String>, String), ()> {
    const NAME: &str = "ORCPT=";
    let named = |word: &&str| word.get(..NAME.len()).is_some_and(|head| head.eq_ignore_ascii_case(NAME));
    let (found, others): (Vec<&str>, Vec<&str>) = parameters.split(' ').partition(named);
    let others = others.join(" ");
    let word = match found[..] {
        [] => return Ok((None, others)),
        [word] => word,
        _ => return Err(()),
    };
    let (kind, address) = word[NAME.len()..].split_once(';').ok_or(())?;
    let is_of_utf8 = kind.eq_ignore_ascii_case("utf-8");
    if address.is_empty() || !(is_of_utf8 || kind.eq_ignore_ascii_case("rfc822")) {
        return Err(());
    }
    let mut ascii = String::with_capacity(word.len());
    for char in word.chars() {
        match char {
            char if char.is_ascii() => ascii.push(char),
            char if is_of_utf8 && is_utf8 && !char.is_control() => {
                ascii.push_str(&format!("\\x{{{:X}}}", u32::from(char)));
            }
            _ => return Err(()),
        }
    }
    Ok((xtext(&ascii, NAME, octets_max)?.map(str::to_owned), others))
}

/// SIZE as it was declared; 0: not at all.
pub(super) fn size(parameters: &str) -> u64 {
    let named = |word: &&str| word.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("SIZE="));
    // It has been read once, so it is a number; one that does not fit here is too long anywhere.
    parameters.split(' ').find(named).map_or(0, |word| word[5..].parse().unwrap_or(u64::MAX))
}

/// The octets of a chunk, and whether it is the last one. `None`: nobody can tell what follows.
pub(super) fn chunk(text: &str) -> Option<(u64, bool)> {
    let mut words = text.split(' ').skip(1).filter(|word| !word.is_empty());
    let octets = words.next().filter(|word| word.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()?;
    let is_last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some((octets, is_last))
}
