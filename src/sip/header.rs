//! What stands in one SIP header: Via, name-addr, URI, parameters, credentials.
//!
//! Knows: the grammar of single values (RFC 3261 §25.1) and where base stations bend it. Does not know: which headers a
//! message has (`parse`), or what to do about them. All types borrow from the datagram and allocate nothing; every
//! function takes linear time in its input, [`uri_equal`] within [`URI_PARAMS_MAX`].
//!
//! A value may still be folded: CR and LF count as blanks everywhere here.
//! Read first: RFC 3261 §19.1 (URI), §20.10 (name-addr against addr-spec), §20.42 (Via).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use memchr::{memchr, memchr3};

/// Parameters of one URI that [`uri_equal`] compares pairwise; with more, only equal bytes are equal.
pub const URI_PARAMS_MAX: usize = 32;

/// Why a header value cannot be read; said in words for the log and for the phrase of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderError(pub &'static str);

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for HeaderError {}

/// The headers we read by name. [`HeaderName::of`] understands the compact forms too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HeaderName {
    Accept,
    Allow,
    AuthenticationInfo,
    Authorization,
    CSeq,
    CallId,
    Contact,
    ContentEncoding,
    ContentLength,
    ContentType,
    Date,
    Event,
    Expires,
    From,
    MaxForwards,
    MinExpires,
    PAccessNetworkInfo,
    PAssertedIdentity,
    PAssociatedUri,
    PCalledPartyId,
    PGsmKc,
    PGsmRejectCause,
    PPhyInfo,
    PPreferredIdentity,
    Path,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    Reason,
    RecordRoute,
    Require,
    RetryAfter,
    Route,
    Server,
    ServiceRoute,
    Subject,
    Supported,
    Timestamp,
    To,
    Unsupported,
    UserAgent,
    Via,
    Warning,
    WwwAuthenticate,
}

impl HeaderName {
    /// The header of that name, in any case, long or compact (RFC 3261 §7.3.3); `None` for an extension header.
    pub fn of(name: &str) -> Option<HeaderName> {
        use HeaderName as H;
        // By length first: a REGISTER has a dozen headers, and a comparison with each known name would show.
        let candidates: &[HeaderName] = match name.len() {
            1 => return HeaderName::of_compact(name.as_bytes()[0]),
            2 => &[H::To],
            3 => &[H::Via],
            4 => &[H::From, H::CSeq, H::Path, H::Date],
            5 => &[H::Route, H::Allow, H::Event],
            6 => &[H::Accept, H::Reason, H::Server],
            7 => &[H::CallId, H::Contact, H::Expires, H::Require, H::Subject, H::Warning],
            8 => &[H::PGsmKc],
            9 => &[H::Supported, H::Timestamp],
            10 => &[H::UserAgent, H::PPhyInfo],
            11 => &[H::MinExpires, H::RetryAfter, H::Unsupported],
            12 => &[H::MaxForwards, H::ContentType, H::RecordRoute],
            13 => &[H::Authorization, H::ProxyRequire, H::ServiceRoute],
            14 => &[H::ContentLength],
            16 => &[H::PAssociatedUri, H::WwwAuthenticate, H::ContentEncoding],
            17 => &[H::PCalledPartyId],
            18 => &[H::PGsmRejectCause, H::ProxyAuthenticate],
            19 => &[H::AuthenticationInfo, H::ProxyAuthorization, H::PAssertedIdentity],
            20 => &[H::PPreferredIdentity],
            21 => &[H::PAccessNetworkInfo],
            _ => &[],
        };
        candidates.iter().copied().find(|known| known.as_str().eq_ignore_ascii_case(name))
    }

    fn of_compact(letter: u8) -> Option<HeaderName> {
        Some(match letter.to_ascii_lowercase() {
            b'c' => HeaderName::ContentType,
            b'e' => HeaderName::ContentEncoding,
            b'f' => HeaderName::From,
            b'i' => HeaderName::CallId,
            b'k' => HeaderName::Supported,
            b'l' => HeaderName::ContentLength,
            b'm' => HeaderName::Contact,
            b'o' => HeaderName::Event, // RFC 6665
            b's' => HeaderName::Subject,
            b't' => HeaderName::To,
            b'v' => HeaderName::Via,
            _ => return None,
        })
    }

    /// The long name; the only form we write, because OpenBTS knows few compact ones.
    pub fn as_str(self) -> &'static str {
        match self {
            HeaderName::Accept => "Accept",
            HeaderName::Allow => "Allow",
            HeaderName::AuthenticationInfo => "Authentication-Info",
            HeaderName::Authorization => "Authorization",
            HeaderName::CSeq => "CSeq",
            HeaderName::CallId => "Call-ID",
            HeaderName::Contact => "Contact",
            HeaderName::ContentEncoding => "Content-Encoding",
            HeaderName::ContentLength => "Content-Length",
            HeaderName::ContentType => "Content-Type",
            HeaderName::Date => "Date",
            HeaderName::Event => "Event",
            HeaderName::Expires => "Expires",
            HeaderName::From => "From",
            HeaderName::MaxForwards => "Max-Forwards",
            HeaderName::MinExpires => "Min-Expires",
            HeaderName::PAccessNetworkInfo => "P-Access-Network-Info",
            HeaderName::PAssertedIdentity => "P-Asserted-Identity",
            HeaderName::PAssociatedUri => "P-Associated-URI",
            HeaderName::PCalledPartyId => "P-Called-Party-ID",
            HeaderName::PGsmKc => "P-GSM-Kc",
            HeaderName::PGsmRejectCause => "P-GSM-Reject-Cause",
            HeaderName::PPhyInfo => "P-PHY-Info",
            HeaderName::PPreferredIdentity => "P-Preferred-Identity",
            HeaderName::Path => "Path",
            HeaderName::ProxyAuthenticate => "Proxy-Authenticate",
            HeaderName::ProxyAuthorization => "Proxy-Authorization",
            HeaderName::ProxyRequire => "Proxy-Require",
            HeaderName::Reason => "Reason",
            HeaderName::RecordRoute => "Record-Route",
            HeaderName::Require => "Require",
            HeaderName::RetryAfter => "Retry-After",
            HeaderName::Route => "Route",
            HeaderName::Server => "Server",
            HeaderName::ServiceRoute => "Service-Route",
            HeaderName::Subject => "Subject",
            HeaderName::Supported => "Supported",
            HeaderName::Timestamp => "Timestamp",
            HeaderName::To => "To",
            HeaderName::Unsupported => "Unsupported",
            HeaderName::UserAgent => "User-Agent",
            HeaderName::Via => "Via",
            HeaderName::Warning => "Warning",
            HeaderName::WwwAuthenticate => "WWW-Authenticate",
        }
    }
}

/// One Via value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// As written: `UDP`, `tcp`, or one that nobody knows.
    pub transport: &'a str,
    /// Host of sent-by; an IPv6 address without its brackets.
    pub host: &'a str,
    pub port: Option<u16>,
    /// `None` too where it identifies nothing: the bare `;branch` of OpenBTS 4.0, an empty one, and a magic cookie with
    /// nothing behind it. Of the last RFC 4475 §3.2.1 says that the element may fall back to RFC 2543's rules.
    pub branch: Option<&'a str>,
    /// `;rport` without a value (RFC 3581).
    pub rport_asked: bool,
    pub params: Params<'a>,
    /// The whole value, trimmed.
    pub text: &'a str,
}

impl<'a> Via<'a> {
    pub fn parse(text: &'a str) -> Result<Via<'a>, HeaderError> {
        let (version, mut via, params) = Via::parse_sent_by(text)?;
        if version != "2.0" {
            return Err(HeaderError("a Via of another SIP version"));
        }
        via.params = Params::parse(params)?;
        via.read_params();
        Ok(via)
    }

    /// What an answer to a faulty request needs: where to send it. Version and parameters may be broken.
    pub(crate) fn parse_for_answer(text: &'a str) -> Result<Via<'a>, HeaderError> {
        let (_, mut via, params) = Via::parse_sent_by(text)?;
        via.params = Params::parse(params).unwrap_or_default();
        via.read_params();
        Ok(via)
    }

    /// `SIP / 2.0 / UDP host : port`, blanks wherever RFC 3261 allows them; the third of the result is the rest.
    fn parse_sent_by(text: &'a str) -> Result<(&'a str, Via<'a>, &'a str), HeaderError> {
        const WRONG: HeaderError = HeaderError("a Via that is not SIP/2.0/transport host");
        let text = trim(text);
        let (protocol, rest) = text.split_once('/').ok_or(WRONG)?;
        let (version, rest) = rest.split_once('/').ok_or(WRONG)?;
        let rest = trim(rest);
        let (transport, rest) = rest.split_once(is_blank).ok_or(WRONG)?;
        if !trim(protocol).eq_ignore_ascii_case("SIP") || !is_token(transport) {
            return Err(WRONG);
        }
        let (sent_by, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let (host, port) = host_and_port(trim(sent_by))?;
        let via = Via { transport, host, port, branch: None, rport_asked: false, params: Params::default(), text };
        Ok((trim(version), via, params))
    }

    fn read_params(&mut self) {
        const COOKIE: &str = "z9hG4bK";
        self.branch = match self.params.get("branch").flatten() {
            Some("" | COOKIE) => None,
            branch => branch,
        };
        self.rport_asked = matches!(self.params.get("rport"), Some(None | Some("")));
    }
}

/// `name-addr` or `addr-spec` with its header parameters: From, To, Contact, Route, P-Associated-URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Without quotes; a backslash before a character is still there.
    pub display: Option<&'a str>,
    /// What stands between `<` and `>`, or the bare addr-spec. It has been read once by [`Uri::parse`] and is one.
    pub uri: &'a str,
    /// The *header's* parameters, never the URI's.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Exactly one value.
    pub fn parse(text: &'a str) -> Result<NameAddr<'a>, HeaderError> {
        let text = trim(text);
        let (display, uri, params) = if let Some(rest) = text.strip_prefix('"') {
            let end = end_of_quoted(rest).ok_or(HeaderError("a quote that is never closed"))?;
            let (uri, params) = in_angles(trim(&rest[end + 1..]))?;
            (Some(&rest[..end]), uri, params)
        } else {
            // A `<` inside a quoted parameter belongs to that parameter: then this is an addr-spec.
            match text.find(['<', '"', ';']) {
                Some(at) if text.as_bytes()[at] == b'<' => {
                    let display = trim(&text[..at]);
                    // RFC 3261 wants tokens here; any text is taken that cannot be mistaken for list or parameter.
                    if display.contains([',', '>']) {
                        return Err(HeaderError("a display name that needs quotes"));
                    }
                    let (uri, params) = in_angles(&text[at..])?;
                    (if display.is_empty() { None } else { Some(display) }, uri, params)
                }
                Some(at) if text.as_bytes()[at] == b'"' => {
                    return Err(HeaderError("a quote in the middle of an address"));
                }
                at => {
                    let (uri, params) = text.split_at(at.unwrap_or(text.len()));
                    // "If the URI contains a comma, question mark or semicolon, the URI MUST be enclosed in angle
                    // brackets" (RFC 3261 §20).
                    if uri.contains([',', '?']) {
                        return Err(HeaderError("a URI with , or ? outside angle brackets"));
                    }
                    (None, trim(uri), params)
                }
            }
        };
        Uri::parse(uri)?;
        Ok(NameAddr { display, uri, params: Params::parse(params)? })
    }

    pub fn uri(&self) -> Result<Uri<'a>, HeaderError> {
        Uri::parse(self.uri)
    }

    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").flatten()
    }

    /// `None`: not there. `Some(None)`: there, without a value.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params.get(name)
    }

    /// The `expires` parameter of a Contact; see [`delta_seconds`].
    pub fn expires(&self) -> Option<Result<u32, HeaderError>> {
        self.params.get("expires").map(|value| delta_seconds(value.unwrap_or_default()))
    }

    /// The `q` parameter in thousandths, 0 to 1000.
    pub fn q(&self) -> Option<Result<u16, HeaderError>> {
        self.params.get("q").map(|value| q_thousandths(value.unwrap_or_default()))
    }
}

/// Splits `<uri> params`; the text begins at `<`.
fn in_angles(text: &str) -> Result<(&str, &str), HeaderError> {
    const WRONG: HeaderError = HeaderError("an address without its angle brackets");
    let (uri, params) = text.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(WRONG)?;
    Ok((uri, params))
}

/// Seconds of an Expires header or parameter.
///
/// "The value of this field is an integral number of seconds (in decimal) between 0 and (2**32)-1" (RFC 3261 §20.19):
/// a larger one is as malformed as a word, and a malformed value counts as 3600 (§20.10);
/// that choice is the caller's, so both are errors here.
pub fn delta_seconds(text: &str) -> Result<u32, HeaderError> {
    decimal(trim(text)).ok_or(HeaderError("seconds that are no number below 2^32"))
}

/// Decimal digits only, leading zeros allowed; `None` for anything else and for an overflow.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    // `str::parse` would take a plus sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )` (RFC 3261 §25.1).
fn q_thousandths(text: &str) -> Result<u16, HeaderError> {
    const WRONG: HeaderError = HeaderError("a q that is not between 0 and 1 with three decimals");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG);
    }
    let thousandths = decimals.bytes().chain(*b"000").take(3).fold(0, |sum, b| sum * 10 + u16::from(b - b'0'));
    match (whole, thousandths) {
        ("0", thousandths) => Ok(thousandths),
        ("1", 0) => Ok(1000),
        _ => Err(WRONG),
    }
}

/// A URI in its parts. Nothing is unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// As written; compare without case.
    pub scheme: &'a str,
    /// `sip`, `sips`: what stands before `@`, without a password. `tel`: the number. Else `None`.
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
    /// An IPv6 address without its brackets; empty for `tel` and for schemes that we do not take apart.
    pub host: &'a str,
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// What stands behind `?`.
    pub headers: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Takes apart `sip`, `sips` and `tel`; of any other scheme only the scheme.
    ///
    /// More liberal than RFC 3261 with the user part, because phones dial `*100#` and OpenBTS writes that as it is.
    pub fn parse(text: &'a str) -> Result<Uri<'a>, HeaderError> {
        if has_any(text, &NOT_IN_URI) {
            return Err(if text.contains(' ') {
                HeaderError("a blank inside a URI")
            } else {
                HeaderError("a character that no URI may have")
            });
        }
        let (scheme, rest) = text.split_once(':').ok_or(HeaderError("a URI without a scheme"))?;
        let first_is_letter = scheme.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if !first_is_letter || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err(HeaderError("a URI without a scheme"));
        }
        let none =
            Uri { scheme, user: None, password: None, host: "", port: None, params: Params::default(), headers: None };
        if scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips") {
            Uri::parse_sip(none, rest)
        } else if scheme.eq_ignore_ascii_case("tel") {
            let (number, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            if number.is_empty() {
                return Err(HeaderError("a tel URI without a number"));
            }
            Ok(Uri { user: Some(number), params: Params::parse(params)?, ..none })
        } else if rest.is_empty() {
            Err(HeaderError("a URI that ends behind its scheme"))
        } else {
            Ok(none)
        }
    }

    fn parse_sip(mut uri: Uri<'a>, rest: &'a str) -> Result<Uri<'a>, HeaderError> {
        // `;` and `?` may stand in the user part, so `@` is looked for first. It may not stand anywhere else
        // unescaped; with two of them it would be anybody's guess which host is meant.
        let mut rest = rest;
        if let Some((userinfo, after)) = rest.split_once('@') {
            if after.contains('@') {
                return Err(HeaderError("a URI with two @"));
            }
            rest = after;
            match userinfo.split_once(':') {
                Some((user, password)) => (uri.user, uri.password) = (Some(user), Some(password)),
                None => uri.user = Some(userinfo),
            }
        }
        if let Some((before, headers)) = rest.split_once('?') {
            uri.headers = Some(headers);
            rest = before;
        }
        let (host_port, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        (uri.host, uri.port) = host_and_port(host_port)?;
        uri.params = Params::parse(params)?;
        Ok(uri)
    }

    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip")
    }

    /// Where it is, if its host is numeric; names are not resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port.unwrap_or(5060)))
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`; blanks around the colon, as in a Via.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>), HeaderError> {
    const WRONG: HeaderError = HeaderError("a host that is neither a name nor an address");
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(WRONG)?;
        host.parse::<Ipv6Addr>().map_err(|_| WRONG)?;
        let port = trim(port);
        match port.strip_prefix(':') {
            Some(port) => (host, Some(trim(port))),
            None if port.is_empty() => (host, None),
            None => return Err(WRONG),
        }
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (trim(host), Some(trim(port))),
            None => (text, None),
        };
        // The underscore is no hostname's, but `SIP.Realm` and container names have it.
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) {
            return Err(WRONG);
        }
        (host, port)
    };
    let port = match port {
        None => None,
        Some(digits) => match decimal(digits).and_then(|port| u16::try_from(port).ok()) {
            // To port 0 nothing can be sent.
            None | Some(0) => return Err(HeaderError("a port that is not between 1 and 65535")),
            port => port,
        },
    };
    Ok((host, port))
}

/// `;name=value;name` of a header or a URI: read once as a whole, looked up as often as needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    /// Empty, or beginning with `;`.
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Accepts nothing at all, or parameters each of which begins with `;` and has a name. A value may be missing, and
    /// may be empty; in quotes it may hold anything.
    pub fn parse(text: &'a str) -> Result<Params<'a>, HeaderError> {
        const WRONG: HeaderError = HeaderError("parameters that cannot be read");
        let text = trim(text);
        if text.is_empty() {
            return Ok(Params::default());
        }
        let mut rest = text.strip_prefix(';').ok_or(WRONG)?;
        loop {
            let end = find_outside(rest, b';', false)?;
            let param = trim(&rest[..end.unwrap_or(rest.len())]);
            let (name, value) = name_and_value(param);
            let value_is_good = match value.and_then(|value| value.strip_prefix('"')) {
                Some(quoted) => end_of_quoted(quoted).is_some_and(|end| end + 1 == quoted.len()),
                None => value.is_none_or(|value| !has_any(value, &NOT_IN_PARAM)),
            };
            if name.is_empty() || has_any(name, &NOT_IN_PARAM) || !value_is_good {
                return Err(WRONG);
            }
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => return Ok(Params { text }),
            }
        }
    }

    /// Name and value in the order written; values without their quotes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        self.iter_raw().map(|(name, value)| (name, value.map(unquote)))
    }

    /// As [`Params::iter`], with the quotes left on: what an echo writes.
    pub fn iter_raw(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let mut rest = self.text.strip_prefix(';');
        std::iter::from_fn(move || {
            let text = rest?;
            let end = find_outside(text, b';', false).ok().flatten();
            rest = end.map(|end| &text[end + 1..]);
            Some(name_and_value(trim(&text[..end.unwrap_or(text.len())])))
        })
    }

    /// The first of that name, in any case. `Some(None)`: there, without a value.
    pub fn get(&self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// As written, from the first `;` on.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// Compares two URIs by RFC 3261 §19.1.4; `tel` by RFC 3966 §4; other schemes, and texts that are no URI, byte by byte.
///
/// The relation is not transitive: a parameter that only one of them has is mostly ignored.
pub fn uri_equal(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (Uri::parse(a), Uri::parse(b)) else { return false };
    if !a.scheme.eq_ignore_ascii_case(b.scheme) {
        return false;
    }
    if a.scheme.eq_ignore_ascii_case("tel") {
        return tel_number_equal(a.user.unwrap_or_default(), b.user.unwrap_or_default())
            && params_equal(&a.params, &b.params, |_| true);
    }
    if a.host.is_empty() {
        return false;
    }
    let same_part = |a: Option<&str>, b: Option<&str>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => escaped_equal(a, b, false),
        _ => false,
    };
    // "A user, ttl, or method uri-parameter appearing in only one URI never matches, even if it contains the default
    // value"; a URI with maddr does not match one without; "all other uri-parameters appearing in only one URI are
    // ignored". The section's own examples call `sip:bob@biloxi.com` and the same with `;transport=udp` different, so
    // transport stands in this list too.
    let never_ignored =
        |name: &str| ["user", "ttl", "method", "maddr", "transport"].iter().any(|n| n.eq_ignore_ascii_case(name));
    same_part(a.user, b.user)
        && same_part(a.password, b.password)
        && host_equal(a.host, b.host)
        && a.port == b.port
        && params_equal(&a.params, &b.params, never_ignored)
        && uri_headers_equal(a.headers, b.headers)
}

fn host_equal(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}

fn params_equal(a: &Params<'_>, b: &Params<'_>, never_ignored: impl Fn(&str) -> bool) -> bool {
    if a.iter().count() > URI_PARAMS_MAX || b.iter().count() > URI_PARAMS_MAX {
        return a == b;
    }
    let covered = |a: &Params<'_>, b: &Params<'_>| {
        a.iter().all(|(name, value)| {
            let other = b.iter().find(|(found, _)| escaped_equal(found, name, true));
            match (other, value) {
                (None, _) => !never_ignored(name),
                (Some((_, None)), None) => true,
                (Some((_, Some(other))), Some(value)) => escaped_equal(other, value, true),
                (Some(_), _) => false,
            }
        })
    };
    covered(a, b) && covered(b, a)
}

/// "URI header components are never ignored. Any present header component MUST be present in both URIs and match."
fn uri_headers_equal(a: Option<&str>, b: Option<&str>) -> bool {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let fields = |text| str::split(text, '&').filter(|field| !field.is_empty()).map(name_and_value);
    if fields(a).count() != fields(b).count() || fields(a).count() > URI_PARAMS_MAX {
        return a == b;
    }
    let covered = |a, b| {
        fields(a).all(|(name, value)| {
            fields(b).any(|(found, other)| {
                escaped_equal(found, name, true)
                    && escaped_equal(other.unwrap_or_default(), value.unwrap_or_default(), false)
            })
        })
    };
    covered(a, b) && covered(b, a)
}

/// Visual separators do not count (RFC 3966 §4).
fn tel_number_equal(a: &str, b: &str) -> bool {
    let digits = |text: &str| -> Vec<u8> {
        text.bytes().filter(|b| !b"-.()".contains(b)).map(|b| b.to_ascii_lowercase()).collect()
    };
    digits(a) == digits(b)
}

/// Equal but for percent-escapes: "characters other than those in the reserved set are equivalent to their %HH
/// encoding" (RFC 3261 §19.1.4), so `%61` is `a`, but `%40` is not `@`.
fn escaped_equal(a: &str, b: &str, ignore_case: bool) -> bool {
    let fold = |(byte, escaped): (u8, bool)| (if ignore_case { byte.to_ascii_lowercase() } else { byte }, escaped);
    unescaped(a).map(fold).eq(unescaped(b).map(fold))
}

/// The bytes meant; true beside a reserved one that was escaped and therefore means something else than itself.
fn unescaped(text: &str) -> impl Iterator<Item = (u8, bool)> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let &byte = bytes.get(at)?;
        at += 1;
        if byte == b'%' {
            let digit = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
            if let (Some(high), Some(low)) = (digit(at), digit(at + 1)) {
                at += 2;
                let meant = (high * 16 + low) as u8; // two hex digits: at most 255
                return Some((meant, b";/?:@&=+$,%".contains(&meant)));
            }
        }
        Some((byte, false))
    })
}

/// Credentials, a challenge, or Authentication-Info: `scheme name=value, name="value"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthParams<'a> {
    /// As written; empty in Authentication-Info, which has none.
    pub scheme: &'a str,
    params: &'a str,
}

impl<'a> AuthParams<'a> {
    /// The first of that name, in any case, without its quotes.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every `name=value`; what is not of that form is passed over.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        values(self.params).filter_map(|item| match name_and_value(item) {
            (name, Some(value)) => Some((name, unquote(value))),
            (_, None) => None,
        })
    }

    pub fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("Digest")
    }
}

/// Reads Authorization, WWW-Authenticate, Authentication-Info and their Proxy kin.
///
/// Takes what base stations write: `Digest nonce="..", uri="..", response=".."` (OpenBTS 5), `Digest, nonce=..` with a
/// comma behind the scheme and no quotes (OpenBTS up to 4 and UMTS), blanks at the end (5.0 with `SIP.Realm`), and the
/// base64 nonces of YateBTS. `None`: no scheme and no parameter, or a quote that is never closed.
pub fn auth_params(value: &str) -> Option<AuthParams<'_>> {
    let text = trim(value);
    let end = text.find(|c: char| is_blank(c) || c == ',' || c == '=').unwrap_or(text.len());
    let rest = trim(&text[end..]);
    let (scheme, params) = if rest.starts_with('=') { ("", text) } else { (&text[..end], rest) };
    find_outside(params, b'"', false).ok()?;
    let params = params.strip_prefix(',').unwrap_or(params);
    if scheme.is_empty() && params.is_empty() || !scheme.is_empty() && !is_token(scheme) {
        return None;
    }
    Some(AuthParams { scheme, params })
}

/// The cell in a P-Access-Network-Info: what stands behind `cgi-3gpp=`, without quotes.
///
/// OpenBTS and YateBTS glue MCC, MNC, LAC and CI together; how they come apart is `ident`'s to know.
pub fn cgi_3gpp(value: &str) -> Option<&str> {
    value.split(';').find_map(|param| match name_and_value(trim(param)) {
        (name, Some(value)) if name.eq_ignore_ascii_case("cgi-3gpp") => {
            let value = value.split(is_blank).next().unwrap_or_default().trim_matches('"');
            if value.is_empty() { None } else { Some(value) }
        }
        _ => None,
    })
}

/// The values of a comma-separated header, trimmed; commas in quotes or angle brackets do not count. Empty ones between
/// two commas are passed over.
pub fn values(text: &str) -> impl Iterator<Item = &str> + Clone {
    Values { rest: Some(text) }.filter(|value| !value.is_empty())
}

/// As [`values`], with the empty ones.
#[derive(Clone, Debug)]
pub(crate) struct Values<'a> {
    pub rest: Option<&'a str>,
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest?;
        // A quote that is never closed makes one last value of all the rest; who reads it will refuse it.
        let end = find_outside(text, b',', true).ok().flatten();
        self.rest = end.map(|end| &text[end + 1..]);
        Some(trim(&text[..end.unwrap_or(text.len())]))
    }
}

/// Where the separator stands for the first time outside quotes and, if asked, outside angle brackets. (A `"` as the
/// separator is never found: that only sees that all quotes are closed.)
fn find_outside(text: &str, separator: u8, angles: bool) -> Result<Option<usize>, HeaderError> {
    let bytes = text.as_bytes();
    let bracket = if angles { b'<' } else { b'"' };
    let mut at = 0;
    while let Some(length) = memchr3(separator, b'"', bracket, &bytes[at..]) {
        at += length;
        match bytes[at] {
            b'"' => {
                let quoted = end_of_quoted(&text[at + 1..]).ok_or(HeaderError("a quote that is never closed"))?;
                at += quoted + 2;
            }
            b'<' if angles => match memchr(b'>', &bytes[at..]) {
                Some(length) => at += length,
                None => return Ok(None),
            },
            _ => return Ok(Some(at)),
        }
    }
    Ok(None)
}

/// Where the closing quote stands; the text begins behind the opening one.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => byte == b'"',
    })
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

fn name_and_value(text: &str) -> (&str, Option<&str>) {
    match memchr(b'=', text.as_bytes()) {
        Some(at) => (trim(&text[..at]), Some(trim(&text[at + 1..]))),
        None => (text, None),
    }
}

/// RFC 3261's LWS, folds included.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// In bytes: `str::trim_matches` would decode characters, and this is called for every piece of every header.
pub(crate) fn trim(text: &str) -> &str {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let bytes = text.as_bytes();
    let start = bytes.iter().position(|b| !is_blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    &text[start..end]
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| TOKEN[usize::from(b)])
}

/// Each byte looked up in a table: these are asked of every byte of a message.
const fn table(bytes: &[u8], and_alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = and_alphanumeric && (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

/// `token` of RFC 3261 §25.1.
static TOKEN: [bool; 256] = table(b"-.!%*_+`'~", true);

/// What ends a name or an unquoted value, and so may not stand in one.
static NOT_IN_PARAM: [bool; 256] = table(b" \t\r\n\",", false);

/// What no URI may have; the rest is taken as it is.
static NOT_IN_URI: [bool; 256] = {
    let mut table = table(b" <>\"\x7f", false);
    let mut control = 0;
    while control < b' ' as usize {
        table[control] = true;
        control += 1;
    }
    table
};

fn has_any(text: &str, table: &[bool; 256]) -> bool {
    text.bytes().any(|b| table[usize::from(b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the order of the enum; the test sees that none is left out at the end.
    const ALL: [HeaderName; 44] = {
        use HeaderName as H;
        [
            H::Accept,
            H::Allow,
            H::AuthenticationInfo,
            H::Authorization,
            H::CSeq,
            H::CallId,
            H::Contact,
            H::ContentEncoding,
            H::ContentLength,
            H::ContentType,
            H::Date,
            H::Event,
            H::Expires,
            H::From,
            H::MaxForwards,
            H::MinExpires,
            H::PAccessNetworkInfo,
            H::PAssertedIdentity,
            H::PAssociatedUri,
            H::PCalledPartyId,
            H::PGsmKc,
            H::PGsmRejectCause,
            H::PPhyInfo,
            H::PPreferredIdentity,
            H::Path,
            H::ProxyAuthenticate,
            H::ProxyAuthorization,
            H::ProxyRequire,
            H::Reason,
            H::RecordRoute,
            H::Require,
            H::RetryAfter,
            H::Route,
            H::Server,
            H::ServiceRoute,
            H::Subject,
            H::Supported,
            H::Timestamp,
            H::To,
            H::Unsupported,
            H::UserAgent,
            H::Via,
            H::Warning,
            H::WwwAuthenticate,
        ]
    };

    #[test]
    fn every_name_is_found_in_any_case() {
        for (at, name) in ALL.into_iter().enumerate() {
            assert_eq!(name as usize, at);
            assert_eq!(HeaderName::of(name.as_str()), Some(name));
            assert_eq!(HeaderName::of(&name.as_str().to_uppercase()), Some(name));
        }
        assert_eq!(ALL.last(), Some(&HeaderName::WwwAuthenticate), "the last of the enum");
        for other in ["", "x", "Encamp", "P-Anything", "C%6Fntact"] {
            assert_eq!(HeaderName::of(other), None);
        }
    }

    #[test]
    fn compact_names() {
        let names = ["c", "E", "f", "i", "K", "l", "m", "o", "S", "t", "v"].map(HeaderName::of);
        let long = names.map(|name| name.map_or("-", HeaderName::as_str));
        assert_eq!(
            long,
            [
                "Content-Type",
                "Content-Encoding",
                "From",
                "Call-ID",
                "Supported",
                "Content-Length",
                "Contact",
                "Event",
                "Subject",
                "To",
                "Via",
            ]
        );
    }

    #[test]
    fn commas_in_quotes_and_angles_separate_nothing() {
        let table: [(&str, &[&str]); 6] = [
            ("a, b", &["a", "b"]),
            (" \"a,\\\"b\" <x,y>,c", &["\"a,\\\"b\" <x,y>", "c"]),
            (",, a,", &["a"]),
            ("\"open, a", &["\"open, a"]),
            ("<open, a", &["<open, a"]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(values(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
