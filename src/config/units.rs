//! Single values: times, sizes, listeners, addresses, names. Each refusal says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Listener, Transport};

/// What is wrong with a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub what: String,
    pub hint: String,
}

fn flaw<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw { what: what.into(), hint: hint.into() })
}

/// `30 days`, `36 h`, `2.5 s`, `400 ms`.
pub(super) fn duration(text: &str) -> Result<Duration, Flaw> {
    const HINT: &str = "write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\"";
    let (number, unit) = split_unit(text);
    let unit_us: u64 = match unit {
        "ms" | "millisecond" | "milliseconds" => 1_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000,
        "min" | "minute" | "minutes" => 60_000_000,
        "h" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        "week" | "weeks" => 604_800_000_000,
        "" => return flaw(format!("{text:?} has no unit"), HINT),
        _ => return flaw(format!("{text:?} is no time"), HINT),
    };
    match scaled(number, unit_us) {
        Some(us) => Ok(Duration::from_micros(us)),
        None => flaw(format!("{text:?} is no time"), HINT),
    }
}

/// `64 MB`, `1 GiB`; kB, MB and GB count by thousands, as disks are sold.
pub(super) fn size(text: &str) -> Result<u64, Flaw> {
    const HINT: &str = "write a number and kB, MB, GB, KiB, MiB or GiB: \"64 MB\"";
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return flaw(format!("{text:?} is no size"), HINT),
    };
    scaled(number, factor).map_or_else(|| flaw(format!("{text:?} is no size"), HINT), Ok)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `number` with at most six decimals, times `factor`; `None` where it is no number or far too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 15 || part.len() > 6 || (part.is_empty() && number.contains('.')) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !part.is_empty() {
        let part_scaled = u128::from(part.parse::<u64>().ok()?) * u128::from(factor) / 10u128.pow(part.len() as u32);
        total = total.checked_add(u64::try_from(part_scaled).ok()?)?;
    }
    Some(total)
}

/// `udp:0.0.0.0:5060`, `tcp:[::1]:5060`.
pub(super) fn listener(text: &str) -> Result<Listener, Flaw> {
    let hint = |address: &str| format!("write \"udp:{address}\" or \"tcp:{address}\"");
    const EXAMPLE: &str = "0.0.0.0:5060";
    if text.parse::<SocketAddr>().is_ok() {
        return flaw(format!("{text:?} does not say udp or tcp"), hint(text));
    }
    let Some((transport, address)) = text.split_once(':') else {
        return flaw(format!("{text:?} is no address to listen on"), hint(EXAMPLE));
    };
    let transport = match transport {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" | "ws" | "wss" | "sctp" => {
            return flaw(format!("{transport} is not spoken yet"), "listen on udp or tcp");
        }
        other if other.eq_ignore_ascii_case("udp") || other.eq_ignore_ascii_case("tcp") => {
            return flaw("the transport is written in small letters", hint(address));
        }
        _ => return flaw(format!("{text:?} does not say udp or tcp"), hint(EXAMPLE)),
    };
    let name = if transport == Transport::Udp { "udp" } else { "tcp" };
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            flaw("port 0 would be another port at each start", format!("write \"{name}:{}:5060\"", host(address.ip())))
        }
        Ok(address) => Ok(Listener { transport, address, advertise: None }),
        Err(_) if address.parse::<IpAddr>().is_ok() => {
            flaw(format!("{text:?} has no port"), format!("write \"{name}:{}:5060\"", address))
        }
        Err(_) => {
            let hint = format!("write \"{name}:{EXAMPLE}\": an address in digits and a port");
            flaw(format!("{text:?} is no address to listen on"), hint)
        }
    }
}

/// An address in digits and its port, behind `before`: `0.0.0.0:25`.
pub(super) fn address_to_listen_on(text: &str, before: &str, port: u16) -> Result<SocketAddr, Flaw> {
    let written = || format!("{:?}", format!("{before}{text}"));
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => flaw(
            "port 0 would be another port at each start",
            format!("write \"{before}{}:{port}\"", host(address.ip())),
        ),
        Ok(address) => Ok(address),
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => {
                flaw(format!("{} has no port", written()), format!("write \"{before}{}:{port}\"", host(address)))
            }
            Err(_) => flaw(
                format!("{} is no address to listen on", written()),
                format!("write \"{before}0.0.0.0:{port}\": an address in digits and a port"),
            ),
        },
    }
}

/// The address of a peer, in digits and with its port.
pub(super) fn peer(text: &str, port: u16) -> Result<SocketAddr, Flaw> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return flaw(format!("{text:?} has no port"), format!("write \"{}:{port}\"", host(address)));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            flaw("nobody has port 0", format!("write \"{}:{port}\"", host(address.ip())))
        }
        Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
            flaw(format!("nobody has the address {}", address.ip()), format!("write \"192.0.2.11:{port}\""))
        }
        Ok(address) => Ok(address),
        Err(_) => {
            let hint = format!("write \"192.0.2.11:{port}\": trust is by address, so it stands here in digits");
            flaw(format!("{text:?} is no address in digits"), hint)
        }
    }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// A DNS name, in small letters and without the dot at its end.
///
/// Limits: 180 characters, so that the longest name below it, an IMSI in single digits, stays under DNS's 253.
/// Source: RFC 1123 §2.1 (letters, digits, hyphen), RFC 1035 §2.3.4 (63 a label).
pub(super) fn host_name(text: &str) -> Result<String, Flaw> {
    const HINT: &str = "write a name like gsm.example: letters, digits, hyphens and dots";
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return flaw(format!("{text:?} is an address, not a name"), HINT);
    }
    if name.len() > 180 {
        return flaw("this name is longer than 180 characters", HINT);
    }
    match name.split('.').find(|label| !is_label(label)) {
        Some("") => flaw(format!("{text:?} is no host name: a part of it is empty"), HINT),
        Some(_) => flaw(format!("{text:?} is no host name"), HINT),
        None => Ok(name),
    }
}

/// The name of a shard or replica: a label of the zone and a directory.
pub(super) fn label(text: &str) -> Result<String, Flaw> {
    const HINT: &str = "it is a label of the zone: 1 to 63 small letters, digits and hyphens, as in \"low\"";
    match is_label(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => flaw(format!("{text:?} is no name for this"), HINT),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A name for people: of a base station, a trunk, a subscriber.
pub(super) fn title(text: &str) -> Result<String, Flaw> {
    const HINT: &str = "write at most 80 characters, none of them a control character";
    match text.chars().count() <= 80 && !text.chars().any(char::is_control) {
        true => Ok(text.trim().to_owned()),
        false => flaw("this is no name to show", HINT),
    }
}

/// A time as an operator would write it.
pub(super) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{} days", seconds / 86_400),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{} s", duration.as_secs_f64()),
    }
}
