//! What somebody wrote in a mail: its plain text without what programs put around it.
//!
//! Knows: format=flowed (RFC 3676), how mail programs quote and sign in many languages. Does not know: MIME.
//! What is quoted goes, what stands between stays. A mail of nothing but a quotation keeps the quotation: better than nothing.

use super::header::one_line;

/// Of what somebody wrote so much is kept.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// So many lines an attribution may have, and so many octets.
const ATTRIBUTION_LINES_MAX: usize = 4;
const ATTRIBUTION_BYTES_MAX: usize = 400;
const ESCAPED_FROM: &str = ">From ";
const ATTRIBUTIONS_MAX: usize = 1000;
/// A line at the end that a phone puts there is not longer.
const MOBILE_BYTES_MAX: usize = 160;

/// RFC 3676 §4: lines that end with a blank go on in the next; `delete_blank` (DelSp) says that this blank is none of the text.
pub fn unflowed(text: &str, delete_blank: bool) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut open_depth: Option<usize> = None;
    for line in text.lines() {
        let depth = line.bytes().take_while(|octet| *octet == b'>').count();
        let said = &line[depth..];
        let said = said.strip_prefix(' ').unwrap_or(said);
        let is_signature = said == "-- ";
        // A paragraph whose quotation changes ends there, whatever its last line says (§4.5).
        let goes_on = open_depth == Some(depth) && !is_signature;
        if !goes_on {
            if open_depth.is_some() {
                whole.push('\n');
            }
            whole.extend(std::iter::repeat_n('>', depth));
            if depth > 0 {
                whole.push(' ');
            }
        }
        let is_flowed = said.ends_with(' ') && !is_signature;
        whole.push_str(if is_flowed && delete_blank { &said[..said.len() - 1] } else { said });
        if is_flowed {
            open_depth = Some(depth);
        } else {
            open_depth = None;
            whole.push('\n');
        }
    }
    whole
}

/// What its author wrote: no quotation, no signature, no blanks that nobody sees.
///
/// `is_forward`: what others wrote is what the mail is about.
pub fn written(text: &str, is_forward: bool) -> String {
    let text = clean(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = without_quotation(&lines, is_forward);
    let is_empty = |lines: &[&str]| lines.iter().all(|line| line.trim().is_empty());
    if is_empty(&kept) && !is_empty(&lines) {
        kept = lines.iter().map(|line| unquoted(line)).collect();
        // Who quotes and writes nothing has a signature all the same, and an attribution.
        let first = kept.iter().position(|line| !line.trim().is_empty()).unwrap_or_default();
        if let Some(behind) = attribution(&kept, first).filter(|behind| !is_empty(&kept[*behind..])) {
            kept.drain(..behind);
        }
    }
    without_signature(&mut kept);
    let mut said = String::with_capacity(text.len());
    let mut is_gap = false;
    for line in kept {
        let line = line.trim_end();
        if line.is_empty() {
            is_gap = !said.is_empty();
            continue;
        }
        if !said.is_empty() {
            said.push_str(if is_gap { "\n\n" } else { "\n" });
        }
        is_gap = false;
        said.push_str(if line.starts_with(ESCAPED_FROM) { &line[1..] } else { line });
    }
    cut(&mut said, TEXT_BYTES_MAX);
    said
}

/// At the end of a character.
pub fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
}

/// `\n` between lines, a blank for every white space; what is not seen is not there. The blank of the signature's line stays.
fn clean(text: &str) -> String {
    let mut said = String::with_capacity(text.len().min(4 * TEXT_BYTES_MAX));
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        // What is left of it has to be enough for the text that is kept, with the quotations that are not.
        if said.len() > 4 * TEXT_BYTES_MAX {
            break;
        }
        match char {
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    said.push('\n');
                }
            }
            '\n' | '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{0C}' | '\u{0B}' => said.push('\n'),
            '\u{200B}' | '\u{FEFF}' | '\u{2060}' | '\u{AD}' | '\u{34F}' | '\u{200E}' | '\u{200F}' => (),
            _ if char.is_whitespace() => said.push(' '),
            _ if char.is_control() => (),
            _ => said.push(char),
        }
    }
    // A joiner that joins nothing: filling of newsletters.
    if said.contains('\u{200C}') {
        let is_joiner = |char: char| char == '\u{200C}';
        let lines: Vec<&str> = said
            .split('\n')
            .map(|line| if line.chars().all(|char| is_joiner(char) || char == ' ') { "" } else { line })
            .collect();
        said = lines.join("\n");
    }
    said
}

/// `>From ` is none: mailboxes and RFC 3676 §4.4 have it for a line that begins with `From `.
fn is_quoted(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('>') && !line.starts_with(ESCAPED_FROM)
}

fn unquoted(line: &str) -> &str {
    line.trim_start_matches(['>', ' '])
}

fn without_quotation<'a>(lines: &[&'a str], is_forward: bool) -> Vec<&'a str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut at = 0;
    let mut attempts = 0;
    while at < lines.len() {
        let line = lines[at];
        let behind_is_quoted = |from: usize| {
            let mut behind = lines[from..].iter().skip_while(|line| line.trim().is_empty());
            behind.next().is_some_and(|line| is_quoted(line))
        };
        if line.trim().is_empty() {
            kept.push("");
            at += 1;
        } else if is_quoted(line) {
            at += 1;
        } else if let Some(behind) = next_attribution(lines, at, &mut attempts) {
            // Quoted without marks, all that follows is quoted: but not where there would be nothing else.
            let is_before_the_rest = kept.iter().any(|line| !line.trim().is_empty());
            if behind_is_quoted(behind) {
                at = behind;
            } else if is_before_the_rest && is_dated(&lines[at..behind]) {
                break;
            } else if !is_dated(&lines[at..behind]) {
                kept.push(line);
                at += 1;
            } else {
                at = behind;
            }
        } else if !is_forward && is_original_message(line) {
            break;
        } else if !is_forward && is_header_block(&lines[at..]) && !is_behind_mark(&kept) {
            // The ruler above it is part of it.
            while kept.last().is_some_and(|line| is_ruler(line)) {
                kept.pop();
            }
            break;
        } else {
            kept.push(line);
            at += 1;
        }
    }
    kept
}

/// `---------- Forwarded message ---------`: what follows is what the mail is about.
fn is_behind_mark(kept: &[&str]) -> bool {
    let last = kept.iter().rfind(|line| !line.trim().is_empty()).map(|line| line.trim());
    last.is_some_and(|last| {
        (last.starts_with("---") && last.ends_with("---") && !is_ruler(last)) || last == "Begin forwarded message:"
    })
}

fn is_ruler(line: &str) -> bool {
    line.trim().chars().all(|char| matches!(char, '_' | '-' | '=' | '*'))
}

/// `wrote` in the languages of mail programs, as the line ends or as it stands in it.
const WROTE: &[&str] = &[
    "wrote",
    "writes",
    "schrieb",
    "geschrieben",
    "a écrit",
    "écrit",
    "escribió",
    "escribio",
    "escribe",
    "escreveu",
    "schreef",
    "ha scritto",
    "scrisse",
    "aliandika",
    "ameandika",
    "anaandika",
    "imeandikwa",
    "skrev",
    "napisał",
    "napisał(a)",
    "napsal",
    "napsal(a)",
    "napísal",
    "kirjoitti",
    "írta",
    "a scris",
    "menulis",
    "yazdı",
    "viết",
    "va escriure",
    "skribis",
    "geskryf",
    "написал",
    "написал(а)",
    "пишет",
    "написав",
    "писал",
    "έγραψε",
    "כתב",
    "كتب",
    "نوشت",
    "写道",
    "寫道",
    "のメッセージ",
    "書きました",
    "작성",
    "เขียน",
];

/// Of so many lines at most it is asked: a mail of colons is no work.
fn next_attribution(lines: &[&str], at: usize, attempts: &mut usize) -> Option<usize> {
    let has_end = lines[at..].iter().take(ATTRIBUTION_LINES_MAX).any(|line| line.trim_end().ends_with([':', '：']));
    if !has_end || *attempts >= ATTRIBUTIONS_MAX {
        return None;
    }
    *attempts += 1;
    attribution(lines, at)
}

/// The lines from `at` that say who wrote what follows; the line behind them.
fn attribution(lines: &[&str], at: usize) -> Option<usize> {
    let mut whole = String::new();
    for (count, line) in lines[at..].iter().take(ATTRIBUTION_LINES_MAX).enumerate() {
        let line = line.trim();
        if line.is_empty() || is_quoted(line) || whole.len() + line.len() > ATTRIBUTION_BYTES_MAX {
            return None;
        }
        // It begins in the last line that looks like it: what somebody wrote right above it is his.
        if count > 0 && (!begins_attribution(&whole) || (begins_attribution(line) && has_number(line))) {
            return None;
        }
        if count > 0 {
            whole.push(' ');
        }
        whole.push_str(line);
        if line.ends_with([':', '：']) {
            // `2026-11-22 10:00 GMT+03:00 Carol <carol@example.org>:` says it without a word.
            return (says_wrote(&whole) || (line.ends_with(">:") && has_number(&whole))).then_some(at + count + 1);
        }
    }
    None
}

fn says_wrote(text: &str) -> bool {
    let text = text.to_lowercase();
    WROTE.iter().any(|word| {
        // Words of scripts without blanks between them stand in others.
        let is_letter = |char: Option<char>| word.is_ascii() && char.is_some_and(char::is_alphabetic);
        text.match_indices(word).any(|(from, _)| {
            !is_letter(text[..from].chars().next_back()) && !is_letter(text[from + word.len()..].chars().next())
        })
    })
}

fn begins_attribution(text: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "On", "Am", "Le", "El", "Em", "A", "Às", "Op", "Il", "Mnamo", "Tarehe", "Den", "Dnia", "W", "No", "Na", "În",
        "Pada", "Dne", "ke", "ti", "ma", "to", "pe", "Вт,", "On:",
    ];
    let first = text.split_whitespace().next().unwrap_or_default();
    BEGINNINGS.contains(&first) || first.starts_with(|char: char| char.is_ascii_digit())
}

/// A day and an hour, or a year.
fn has_number(text: &str) -> bool {
    text.chars().filter(char::is_ascii_digit).count() >= 3
}

/// It begins as programs begin it, and names the minute: a sentence of a human ends with a colon, too, and names days and addresses.
fn is_dated(lines: &[&str]) -> bool {
    lines.first().is_some_and(|line| begins_attribution(line)) && lines.iter().any(|line| has_time(line))
}

/// `9:58`, `09h58`.
fn has_time(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    (1..chars.len())
        .any(|at| matches!(chars[at], ':' | '：' | 'h') && is_digit(at - 1) && is_digit(at + 1) && is_digit(at + 2))
}

/// `-----Original Message-----`
fn is_original_message(line: &str) -> bool {
    const NAMES: &[&str] = &[
        "original message",
        "original appointment",
        "ursprüngliche nachricht",
        "originalnachricht",
        "message d'origine",
        "message d’origine",
        "message original",
        "mensaje original",
        "mensagem original",
        "oorspronkelijk bericht",
        "messaggio originale",
        "ujumbe asili",
        "ujumbe wa awali",
        "ujumbe halisi",
        "ursprungligt meddelande",
        "originalmeddelande",
        "oprindelig meddelelse",
        "opprinnelig melding",
        "alkuperäinen viesti",
        "wiadomość oryginalna",
        "oryginalna wiadomość",
        "původní zpráva",
        "исходное сообщение",
        "пересылаемое сообщение",
        "eredeti üzenet",
        "orijinal ileti",
        "mesaj original",
        "reply message",
        "原始邮件",
        "邮件原件",
        "元のメッセージ",
        "원본 메시지",
    ];
    let line = line.trim();
    let inside = line.trim_matches(['-', ' ', '_', '*']);
    line.starts_with("--") && line.ends_with("--") && NAMES.contains(&inside.to_lowercase().as_str())
}

/// `From: … Sent: … To: … Subject: …` as Outlook puts above what it quotes, in some languages. A human writes `From: Mwanza`, `To: Dar` and
/// `Date: Friday`: it takes three of the others, or two and an address.
fn is_header_block(lines: &[&str]) -> bool {
    const FROM: &[&str] = &[
        "from",
        "von",
        "de",
        "van",
        "da",
        "kutoka",
        "mtumaji",
        "från",
        "fra",
        "od",
        "lähettäjä",
        "от",
        "发件人",
        "差出人",
        "보낸 사람",
        "من",
    ];
    const OTHERS: &[&str] = &[
        "sent",
        "date",
        "to",
        "cc",
        "subject",
        "gesendet",
        "datum",
        "an",
        "betreff",
        "envoyé",
        "objet",
        "à",
        "enviado",
        "enviado el",
        "enviada em",
        "enviado em",
        "fecha",
        "data",
        "para",
        "asunto",
        "assunto",
        "verzonden",
        "aan",
        "onderwerp",
        "inviato",
        "a",
        "oggetto",
        "imetumwa",
        "tarehe",
        "kwa",
        "mada",
        "skickat",
        "till",
        "ämne",
        "sendt",
        "dato",
        "til",
        "emne",
        "wysłano",
        "do",
        "temat",
        "odesláno",
        "komu",
        "předmět",
        "lähetetty",
        "vastaanottaja",
        "aihe",
        "отправлено",
        "дата",
        "кому",
        "тема",
        "发送时间",
        "收件人",
        "主题",
        "送信日時",
        "宛先",
        "件名",
        "importance",
        "reply-to",
    ];
    let name_of = |line: &str| -> Option<(String, bool)> {
        let (name, value) = line.trim().trim_start_matches('*').split_once([':', '：'])?;
        let name = name.trim_matches(['*', ' ', '\u{A0}']);
        (name.len() <= 40 && !value.trim().is_empty()).then(|| (name.to_lowercase(), value.contains('@')))
    };
    let first = lines.first().and_then(|line| name_of(line)).filter(|(name, _)| FROM.contains(&name.as_str()));
    let Some((_, mut has_address)) = first else { return false };
    let block = lines[1..].iter().take(8).filter(|line| !line.trim().is_empty());
    let mut others: Vec<String> = Vec::new();
    for (name, is_address) in block.filter_map(|line| name_of(line)) {
        if OTHERS.contains(&name.as_str()) && !others.contains(&name) {
            has_address |= is_address;
            others.push(name);
        }
    }
    others.len() >= if has_address { 2 } else { 3 }
}

/// The line `-- ` and all behind it (RFC 3676 §4.3); and what phones put at the end.
fn without_signature(lines: &mut Vec<&str>) {
    if let Some(at) = lines.iter().position(|line| *line == "-- ") {
        lines.truncate(at);
    }
    // Without its blank it was lost on the way, where little follows.
    if let Some(at) = lines.iter().rposition(|line| line.trim_end() == "--") {
        let behind = lines[at + 1..].iter().filter(|line| !line.trim().is_empty()).count();
        if (1..=8).contains(&behind) {
            lines.truncate(at);
        }
    }
    let is_nothing =
        |line: &str| line.is_empty() || is_mobile_signature(line) || (line.starts_with("___") && is_ruler(line));
    while lines.last().is_some_and(|last| is_nothing(last.trim())) {
        lines.pop();
    }
}

fn is_mobile_signature(line: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "sent from my ",
        "sent from iphone",
        "sent from outlook",
        "sent from mail for ",
        "sent from yahoo",
        "sent from proton",
        "sent from samsung",
        "sent from windows mail",
        "sent from gmail",
        "sent from a mobile",
        "sent via ",
        "sent with proton",
        "sent with the ",
        "get outlook for ",
        "von meinem ",
        "gesendet von ",
        "gesendet mit der ",
        "diese nachricht wurde von meinem ",
        "envoyé de mon ",
        "envoyé depuis ",
        "envoyé à partir ",
        "télécharger outlook pour ",
        "obtenez outlook pour ",
        "enviado desde ",
        "enviado do meu ",
        "enviado a partir ",
        "enviado de mi ",
        "enviado del ",
        "obtener outlook para ",
        "obter o outlook para ",
        "verzonden vanaf ",
        "verstuurd vanaf ",
        "verzonden met ",
        "outlook voor ",
        "inviato da ",
        "inviato dal ",
        "ottieni outlook per ",
        "imetumwa kutoka ",
        "imetumwa toka ",
        "skickat från ",
        "sendt fra ",
        "sendt från ",
        "wysłane z ",
        "wysłano z ",
        "odesláno z ",
        "lähetetty ",
        "отправлено с ",
        "отправлено из ",
        "надіслано з ",
        "trimis de pe ",
        "iphone'umdan",
        "发自我的",
        "從我的",
        "来自我的",
        "iphoneから送信",
        "나의 ",
        "أُرسلت من ",
        "تم الإرسال من ",
        "נשלח מ",
    ];
    // What a human writes begins like this, too: `Sent via the other box, thanks.` ends as sentences do.
    let is_sentence = line.ends_with(['!', '?']) || line.trim_end_matches('.').contains(". ");
    if line.len() > MOBILE_BYTES_MAX || is_sentence {
        return false;
    }
    let lower = line.trim_matches(['*', '_', '-', ' ']).to_lowercase();
    let has_ending = |beginning: &str| match beginning {
        // Two that begin sentences: they have to end as these signatures do.
        "von meinem " => lower.trim_end_matches('.').ends_with("gesendet"),
        "나의 " => lower.ends_with("보냄"),
        "lähetetty " => lower.contains("phone") || lower.contains("ista") || lower.contains("ltä"),
        "sent via " | "sent with the " => {
            ["phone", "ipad", "android", "mobile", "app", "samsung", "blackberry", "mail"]
                .iter()
                .any(|thing| lower.contains(thing))
        }
        _ => true,
    };
    BEGINNINGS.iter().any(|beginning| lower.starts_with(beginning) && has_ending(beginning))
}

/// What words of a mail say that nobody but its recipient can read.
pub const ENCRYPTED: &str = "[encrypted]";

/// OpenPGP in the text itself (RFC 9580 §6.2 and §7): what is signed without its armour, and that something is encrypted.
pub fn without_armour(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut lines = text.lines();
    let mut is_signed = false;
    while let Some(line) = lines.next() {
        match line.trim_end() {
            "-----BEGIN PGP SIGNED MESSAGE-----" => {
                is_signed = true;
                // `Hash: SHA256` and its empty line.
                lines.by_ref().take(10).any(|line| line.trim().is_empty());
            }
            "-----BEGIN PGP SIGNATURE-----" => {
                lines.by_ref().any(|line| line.trim_end() == "-----END PGP SIGNATURE-----");
                is_signed = false;
            }
            "-----BEGIN PGP MESSAGE-----" => {
                lines.by_ref().any(|line| line.trim_end() == "-----END PGP MESSAGE-----");
                said.push_str(ENCRYPTED);
                said.push('\n');
            }
            _ => {
                said.push_str(if is_signed { line.strip_prefix("- ").unwrap_or(line) } else { line });
                said.push('\n');
            }
        }
    }
    said
}

/// Subjects of mails that hand on what others wrote.
pub fn is_forward(subject: &str) -> bool {
    let subject = one_line(subject, 20).to_lowercase();
    ["fw:", "fwd:", "wg:", "tr:", "rv:", "enc:", "i:", "vs:", "doorst:", "pd:", "vb:", "[fwd:"]
        .iter()
        .any(|mark| subject.starts_with(mark))
}
