//! HTML as plain text: words, paragraphs, lists, and where links go.
//!
//! Knows: what a mail program writes. Does not know: styles, but for what is not shown at all. One pass, and no tag is looked at twice.

use std::borrow::Cow;

use mail_parser::decoders::html::add_html_token;

use super::words::TEXT_BYTES_MAX;

const QUOTE_DEPTH_MAX: usize = 9;
/// More text than this is not made; what is quoted of it goes yet.
const RENDERED_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;
const LINK_BYTES_MAX: usize = 2000;

/// What a reader would see, quotations with `> ` before each line.
pub fn text(html: &str) -> String {
    match render(html, true) {
        Some(said) if !said.trim().is_empty() => said,
        // Something that is not shown was never ended: it was not meant so.
        _ => render(html, false).unwrap_or_default(),
    }
}

#[derive(Default)]
struct Page {
    said: String,
    /// Line ends that are due before the next word, and whether a blank is.
    breaks: usize,
    is_blank: bool,
    quote_depth: usize,
    /// For each open list the number of its next item; `None`: it has none.
    lists: Vec<Option<u32>>,
    is_preformatted: bool,
    /// Where the words of a link begin, and where it goes.
    link: Option<(usize, String)>,
}

impl Page {
    fn line_break(&mut self, count: usize) {
        self.breaks = self.breaks.max(count);
        self.is_blank = false;
    }

    /// All that is due before something is seen.
    fn begin(&mut self) {
        if self.breaks > 0 && !self.said.is_empty() {
            for _ in 0..self.breaks {
                self.said.push('\n');
            }
        }
        if (self.breaks > 0 || self.said.is_empty()) && self.quote_depth > 0 {
            self.said.extend(std::iter::repeat_n('>', self.quote_depth));
            self.said.push(' ');
        } else if self.breaks == 0 && self.is_blank && !self.said.is_empty() {
            self.said.push(' ');
        }
        self.breaks = 0;
        self.is_blank = false;
    }

    fn words(&mut self, text: &str) {
        if self.said.len() > RENDERED_BYTES_MAX {
            return;
        }
        if self.is_preformatted {
            for (place, line) in text.split('\n').enumerate() {
                if place > 0 {
                    self.breaks = (self.breaks + 1).min(3);
                }
                let line = line.trim_end_matches('\r');
                if !line.is_empty() {
                    self.begin();
                    entities(line, &mut self.said);
                }
            }
            return;
        }
        let is_white = |char: char| matches!(char, ' ' | '\t' | '\n' | '\r' | '\u{0C}');
        for word in text.split_inclusive(is_white) {
            let bare = word.trim_end_matches(is_white);
            if !bare.is_empty() {
                self.begin();
                entities(bare, &mut self.said);
            }
            if bare.len() < word.len() {
                self.is_blank = true;
            }
        }
    }

    fn end_link(&mut self) {
        let Some((from, goes_to)) = self.link.take() else { return };
        let shown = self.said.get(from..).unwrap_or_default().trim();
        let bare = |url: &str| {
            let url = url.trim_start_matches("https://").trim_start_matches("http://").trim_start_matches("mailto:");
            url.trim_start_matches("www.").trim_end_matches('/').to_ascii_lowercase()
        };
        if !shown.is_empty() && bare(shown) != bare(&goes_to) && self.said.len() + goes_to.len() < RENDERED_BYTES_MAX {
            self.said.push_str(" <");
            self.said.push_str(&goes_to);
            self.said.push('>');
        }
    }
}

/// `&eacute;` and `&#233;`; a `&` that begins nothing is one.
fn entities(text: &str, said: &mut String) {
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        said.push_str(&rest[..start]);
        rest = &rest[start..];
        let is_of_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'#';
        let length = rest.bytes().skip(1).take(32).take_while(is_of_name).count() + 1;
        if length > 1 && rest.as_bytes().get(length) == Some(&b';') {
            add_html_token(said, &rest.as_bytes()[..=length], false);
            rest = &rest[length + 1..];
        } else {
            said.push('&');
            rest = &rest[1..];
        }
    }
    said.push_str(rest);
}

struct Tag<'a> {
    name: String,
    is_end: bool,
    inside: &'a str,
}

impl Tag<'_> {
    /// The value of one of its attributes. An attribute without a value is empty.
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut rest = self.inside;
        loop {
            rest = rest.trim_start_matches(|char: char| char.is_ascii_whitespace() || char == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(|char: char| char == '=' || char.is_ascii_whitespace()).unwrap_or(rest.len());
            let (has, behind) = rest.split_at(end);
            let behind = behind.trim_start();
            let value;
            if let Some(assigned) = behind.strip_prefix('=') {
                let assigned = assigned.trim_start();
                let quote = assigned.chars().next().filter(|char| matches!(char, '"' | '\''));
                (value, rest) = match quote {
                    Some(quote) => {
                        let inside = &assigned[1..];
                        inside.split_once(quote).unwrap_or((inside, ""))
                    }
                    None => assigned
                        .split_at(assigned.find(|char: char| char.is_ascii_whitespace()).unwrap_or(assigned.len())),
                };
            } else {
                (value, rest) = ("", behind);
            }
            if has.eq_ignore_ascii_case(name) {
                let mut said = String::with_capacity(value.len());
                entities(value, &mut said);
                return Some(Cow::Owned(said));
            }
        }
    }

    fn is_hidden(&self) -> bool {
        // Cheap first: most tags have no style.
        let Some(style) = self.inside.contains("tyle").then(|| self.attribute("style")).flatten() else { return false };
        let style: String = style.chars().filter(|char| !char.is_whitespace()).collect::<String>().to_ascii_lowercase();
        style.contains("display:none") || style.contains("mso-hide:all")
    }
}

/// The tag at the beginning, and what is behind it. `None`: a `<` that is one.
fn tag(html: &str) -> Option<(Tag<'_>, &str)> {
    let inside = html.strip_prefix('<')?;
    let (is_end, inside) = inside.strip_prefix('/').map_or((false, inside), |inside| (true, inside));
    if !inside.starts_with(|char: char| char.is_ascii_alphabetic() || matches!(char, '!' | '?')) {
        return None;
    }
    let name_end = inside.find(|char: char| !char.is_ascii_alphanumeric() && char != ':').unwrap_or(inside.len());
    let name = inside[..name_end].to_ascii_lowercase();
    let mut quote = None;
    let mut is_value = false;
    let end = inside.bytes().position(|octet| {
        match (quote, octet) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != octet),
            // A quote opens a value only: `it's` within a tag is nobody's.
            (None, b'"' | b'\'') if is_value => quote = Some(octet),
            (None, b'>') => return true,
            _ => (),
        }
        if !octet.is_ascii_whitespace() {
            is_value = octet == b'=';
        }
        false
    });
    let end = end.unwrap_or(inside.len());
    let tag = Tag { name, is_end, inside: &inside[name_end.min(end)..end] };
    Some((tag, inside.get(end + 1..).unwrap_or_default()))
}

/// Behind the next end tag of that name.
fn behind_end<'a>(html: &'a str, name: &str) -> &'a str {
    let octets = html.as_bytes();
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&octets[from..], b"</") {
        from += at + 2;
        if octets[from..].get(..name.len()).is_some_and(|has| has.eq_ignore_ascii_case(name.as_bytes())) {
            return html[from..].split_once('>').map_or("", |(_, behind)| behind);
        }
    }
    ""
}

/// What is not shown, and where it ends.
struct Hidden {
    name: String,
    /// How many of that name are open.
    depth: usize,
    /// How many tables or lists have begun within it: what is in them ends nothing outside.
    inner: usize,
}

impl Hidden {
    fn of(name: String) -> Hidden {
        Hidden { name, depth: 1, inner: 0 }
    }

    /// Those whose end tag may be left out, which then end where one of `next` begins, or their parent ends.
    fn open_ended(&self) -> Option<(&'static [&'static str], &'static [&'static str])> {
        Some(match self.name.as_str() {
            "p" => (&["p"], &["div", "td", "body", "html"]),
            "li" => (&["li"], &["ul", "ol"]),
            "td" | "th" => (&["td", "th", "tr"], &["table", "tr"]),
            "tr" => (&["tr"], &["table"]),
            "dt" | "dd" => (&["dt", "dd"], &["dl"]),
            "option" => (&["option"], &["select"]),
            _ => return None,
        })
    }

    /// Whether it ends with this tag (then `true`), or before it, which is seen then.
    fn ends(&mut self, tag: &Tag<'_>) -> Option<bool> {
        let name = tag.name.as_str();
        if let Some((next, parents)) = self.open_ended() {
            if name == self.name && tag.is_end && self.inner == 0 {
                return Some(true);
            }
            if self.inner == 0 && ((!tag.is_end && next.contains(&name)) || (tag.is_end && parents.contains(&name))) {
                return Some(false);
            }
            // A row is no parent that begins within a cell, and ends it.
            if parents.contains(&name) && name != "tr" {
                self.inner = if tag.is_end { self.inner - 1 } else { self.inner + 1 };
            }
            return None;
        }
        if name == self.name {
            self.depth = if tag.is_end { self.depth - 1 } else { self.depth + 1 };
        }
        (self.depth == 0).then_some(true)
    }
}

/// `None`: something that is not shown has no end.
fn render(html: &str, hides: bool) -> Option<String> {
    let mut page = Page::default();
    let mut hidden: Option<Hidden> = None;
    let mut rest = html;
    while !rest.is_empty() && page.said.len() <= RENDERED_BYTES_MAX {
        let Some(start) = memchr::memchr(b'<', rest.as_bytes()) else {
            if hidden.is_none() {
                page.words(rest);
            }
            break;
        };
        if start > 0 && hidden.is_none() {
            page.words(&rest[..start]);
        }
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, behind)| behind);
            continue;
        }
        let Some((tag, behind)) = tag(rest) else {
            if hidden.is_none() {
                page.words("<");
            }
            rest = &rest[1..];
            continue;
        };
        rest = behind;
        if let Some(not_shown) = &mut hidden {
            let ends = not_shown.ends(&tag);
            if ends.is_some() {
                hidden = None;
            }
            if ends != Some(false) {
                continue;
            }
        }
        let name = tag.name.as_str();
        if !tag.is_end
            && matches!(name, "script" | "style" | "title" | "template" | "noscript" | "object" | "svg" | "xml")
        {
            if !tag.inside.ends_with('/') {
                rest = behind_end(rest, name);
            }
            continue;
        }
        let is_void = matches!(name, "br" | "img" | "hr" | "input" | "meta" | "link" | "wbr" | "col");
        if hides && !tag.is_end && tag.is_hidden() {
            if !is_void {
                hidden = Some(Hidden::of(tag.name));
            }
            continue;
        }
        page.tag(&tag);
    }
    page.end_link();
    hidden.is_none().then_some(page.said)
}

impl Page {
    fn tag(&mut self, tag: &Tag<'_>) {
        match (tag.name.as_str(), tag.is_end) {
            ("br", _) => {
                // Each of them is a line, but the first one behind words only ends theirs.
                self.breaks = (self.breaks + 1).min(3);
                self.is_blank = false;
            }
            ("p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "table" | "hr" | "dl" | "figure", _) => self.line_break(2),
            ("ul" | "ol", false) => {
                self.line_break(if self.lists.is_empty() { 2 } else { 1 });
                if self.lists.len() < 100 {
                    let first = tag.attribute("start").and_then(|start| start.trim().parse().ok()).unwrap_or(1);
                    self.lists.push((tag.name == "ol").then_some(first));
                }
            }
            ("ul" | "ol", true) => {
                self.lists.pop();
                self.line_break(if self.lists.is_empty() { 2 } else { 1 });
            }
            ("li", false) => {
                self.line_break(1);
                let depth = self.lists.len().clamp(1, 5) - 1;
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let mark = format!("{number}. ");
                        *number = number.saturating_add(1);
                        mark
                    }
                    _ => "- ".to_owned(),
                };
                self.begin();
                self.said.extend(std::iter::repeat_n("  ", depth));
                self.said.push_str(&mark);
            }
            ("blockquote", is_end) => {
                self.line_break(if is_end { 2 } else { 1 });
                self.quote_depth = if is_end {
                    self.quote_depth.saturating_sub(1)
                } else {
                    (self.quote_depth + 1).min(QUOTE_DEPTH_MAX)
                };
            }
            ("pre", is_end) => {
                self.line_break(2);
                self.is_preformatted = !is_end;
            }
            ("td" | "th", _) => self.is_blank = true,
            (
                "div" | "tr" | "li" | "section" | "article" | "header" | "footer" | "center" | "address" | "dt" | "dd"
                | "form" | "body" | "main" | "figcaption",
                _,
            ) => self.line_break(1),
            ("a", false) => {
                self.end_link();
                let goes_to = tag.attribute("href").map(|url| url.trim().to_owned()).filter(|url| {
                    let is_web = ["http://", "https://", "mailto:", "tel:"].iter().any(|scheme| {
                        url.get(..scheme.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(scheme))
                    });
                    is_web && url.len() <= LINK_BYTES_MAX && !url.contains(char::is_whitespace)
                });
                self.link = goes_to.map(|url| (self.said.len(), url));
            }
            ("a", true) => self.end_link(),
            ("img", _) => {
                // An emoji or a word as a picture; what is longer describes one.
                if let Some(alt) = tag.attribute("alt").filter(|alt| alt.chars().count() <= 20) {
                    let alt = alt.trim();
                    if !alt.is_empty() {
                        self.begin();
                        self.said.push_str(alt);
                    }
                }
            }
            _ => (),
        }
    }
}
