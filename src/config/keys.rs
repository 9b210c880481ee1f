//! Every key that may be written, its shape, and whether it has an effect yet.
//!
//! The manual, `config/encamp.toml`, names exactly these: a test compares the two. A key of a later issue is accepted
//! from the first version on, so that a file written for tomorrow's release already loads today; it gets a note.

use super::words::Word;

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A text, with an example of it.
    Text(&'static str),
    /// A list of texts, with an example.
    Texts(&'static str),
    /// A whole number within these bounds.
    Count(u64, u64),
    Flag,
    /// A text with a unit, with an example: `"30 days"`.
    Duration(&'static str),
    /// Bytes, or a text with a unit, with an example: `"64 MB"`.
    Size(&'static str),
    /// A list of `"udp:0.0.0.0:5060"`, or of tables of this section.
    Listeners(&'static Section),
    /// `[name]`, or `name = { .. }`.
    Table(&'static Section),
    /// `[[name]]`.
    Tables(&'static Section),
    /// PLMN = cause; the keys are the operator's.
    Causes(&'static Section),
    /// Language = text, with an example of the text; the keys are the operator's.
    ByLanguage(&'static str),
}

/// One set of keys that belong together.
#[derive(Debug)]
pub struct Section {
    /// As it is written: `[front]`, `[[shard]]`.
    pub title: &'static str,
    pub keys: &'static [Key],
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    /// `false`: accepted, with a note that it has no effect yet.
    pub has_effect: bool,
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn now(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, has_effect: true }
}

const fn later(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, has_effect: false }
}

use Shape::{ByLanguage, Causes, Count, Duration, Flag, Listeners, Size, Table, Tables, Text, Texts};

const NETWORKS: Shape = Texts("192.0.2.0/28");

/// The top of encamp.toml.
pub static ROOT: Section = Section {
    title: "the top of the file",
    keys: &[
        now("domain", Text("gsm.example")),
        now("data_dir", Text("/var/lib/encamp")),
        now("control", Text("/run/encamp/control.sock")),
        now("cluster_key", Text("file:/etc/encamp/cluster.key")),
        now("disk_reserve", Size("64 MB")),
        now("front", Table(&FRONT)),
        now("base_station", Tables(&BASE_STATION)),
        now("trunk", Tables(&TRUNK)),
        now("zone", Table(&ZONE)),
        now("shard", Tables(&SHARD)),
        now("replica", Tables(&REPLICA)),
        now("registrar", Table(&REGISTRAR)),
        now("dialplan", Table(&DIALPLAN)),
        now("calls", Table(&CALLS)),
        now("messages", Table(&MESSAGES)),
        now("short_code", Tables(&SHORT_CODE)),
        now("texts", Tables(&TEXTS)),
        now("mail", Table(&MAIL)),
        now("mail_user", Tables(&MAIL_USER)),
        now("mail_route", Tables(&MAIL_ROUTE)),
        now("pictures", Table(&PICTURES)),
        now("emergency", Table(&EMERGENCY)),
        now("rehearsal", Table(&REHEARSAL)),
        now("subscriber", Tables(&SUBSCRIBER)),
        now("number", Tables(&NUMBER)),
        later("admin", Table(&ADMIN)),
    ],
};

/// A file of subscribers.d holds nothing else.
pub static SUBSCRIBER_FILE: Section = Section {
    title: "the top of the file",
    keys: &[now("subscriber", Tables(&SUBSCRIBER)), now("number", Tables(&NUMBER))],
};

static FRONT: Section = Section {
    title: "[front]",
    keys: &[
        now("listen", Listeners(&LISTENER)),
        now("base_stations", NETWORKS),
        now("peers", NETWORKS),
        now("unlisted", Text("silence")),
    ],
};

static LISTENER: Section = Section {
    title: "listen = [{ .. }]",
    keys: &[now("listen", Text("udp:0.0.0.0:5060")), now("advertise", Text("192.0.2.1"))],
};

static BASE_STATION: Section = Section {
    title: "[[base_station]]",
    keys: &[
        now("name", Text("hill")),
        now("address", Text("192.0.2.11:5062")),
        now("location_area", Text("valley")),
        now("texts", Text("openbts")),
    ],
};

static TRUNK: Section = Section {
    title: "[[trunk]]",
    keys: &[
        now("name", Text("pbx")),
        now("address", Text("192.0.2.20:5060")),
        now("mode", Text("redirect")),
        now("texts", Flag),
        now("prefixes", Texts("+44")),
        now("username", Text("encamp")),
        now("password", Text("secret")),
    ],
};

static ZONE: Section = Section {
    title: "[zone]",
    keys: &[
        now("apex", Text("gsm.example")),
        now("listen", Listeners(&LISTENER)),
        now("allow", NETWORKS),
        now("ttl_s", Count(1, 86_400)),
    ],
};

static SHARD: Section = Section {
    title: "[[shard]]",
    keys: &[
        now("name", Text("low")),
        now("suffixes", Texts("00-49")),
        now("replicas", Texts("a")),
        now("write_quorum", Count(1, 65_535)),
    ],
};

static REPLICA: Section = Section {
    title: "[[replica]]",
    keys: &[
        now("name", Text("a")),
        now("path", Text("/srv/disk1/a")),
        now("listen", Listeners(&LISTENER)),
        now("address", Text("198.51.100.7:5070")),
    ],
};

static REGISTRAR: Section = Section {
    title: "[registrar]",
    keys: &[
        now("expires_s_min", Count(1, 86_400)),
        now("expires_s_max", Count(1, 31_536_000)),
        now("expires_s_default", Count(1, 31_536_000)),
        now("stale_life", Duration("30 days")),
        now("replica_absence_max", Duration("7 days")),
        now("write_deadline", Duration("2.5 s")),
        now("read_deadline", Duration("0.4 s")),
        now("challenge_count_max", Count(1, 10_000_000)),
        now("hint_count_max", Count(1, 10_000_000)),
        now("contacts_per_aor_max", Count(1, 100)),
        now("transaction_count_max", Count(1, 10_000_000)),
        now("unknown_cause", Causes(&CAUSE)),
        now("clock_trusted", Flag),
    ],
};

static CAUSE: Section = Section { title: "unknown_cause", keys: &[now("cause", Count(1, 127)), now("lock_sim", Flag)] };

static DIALPLAN: Section = Section { title: "[dialplan]", keys: &[now("local_prefixes", Texts("20"))] };

static REHEARSAL: Section =
    Section { title: "[rehearsal]", keys: &[now("imsi_prefix", Text("00101999")), now("count", Count(1, 1_000_000))] };

static SUBSCRIBER: Section = Section {
    title: "[[subscriber]]",
    keys: &[
        now("imsi", Text("001010000000001")),
        now("msisdn", Texts("+15550001")),
        now("auth", Table(&AUTH)),
        now("name", Text("Ana")),
        now("barred", Flag),
        now("language", Text("sw")),
        now("mail_alias", Texts("ana")),
        now("mail_copy", Text("ana@example.org")),
        now("mail_allow", Texts("carol@example.org")),
        now("mail_deny", Texts("@example.org")),
    ],
};

static NUMBER: Section =
    Section { title: "[[number]]", keys: &[now("imsi", Text("001010000000001")), now("msisdn", Texts("2001"))] };

static AUTH: Section = Section {
    title: "auth = { .. }",
    keys: &[
        now("algorithm", Text("comp128v3")),
        now("ki", Text("<32 hex digits>")),
        now("op", Text("<32 hex digits>")),
        now("opc", Text("<32 hex digits>")),
    ],
};

static CALLS: Section = Section {
    title: "[calls]",
    keys: &[
        now("ring_group", Duration("15 s")),
        now("setup_max", Duration("60 s")),
        now("duration_max", Duration("4 h")),
        now("probe_interval", Duration("10 min")),
        now("count_max", Count(1, 1_000_000)),
        now("record_file", Text("/var/lib/encamp/calls.csv")),
        now("record_file_max", Size("16 MB")),
        now("record_file_count", Count(1, 999)),
    ],
};

static MESSAGES: Section = Section {
    title: "[messages]",
    keys: &[
        now("service_centre", Text("1000")),
        now("life_max", Duration("7 days")),
        now("count_max", Count(1, 10_000_000)),
        now("count_per_phone_max", Count(1, 1_000_000)),
        now("attempts_per_base_station_max", Count(1, 1_000)),
        now("language", Text("en")),
        now("time_zone", Text("+03:00")),
        now("night", Text("22:00-06:00")),
        now("welcome", Text("first")),
        now("explain", Flag),
        now("history_life", Duration("7 days")),
        now("archive_life", Duration("30 days")),
        now("number_code", Text("101")),
        now("status_code", Text("411")),
        now("number_digits_min", Count(2, 15)),
        now("number_digits_max", Count(2, 15)),
        now("record_file", Text("/var/lib/encamp/texts.csv")),
        now("record_file_max", Size("16 MB")),
        now("record_file_count", Count(1, 999)),
    ],
};

static SHORT_CODE: Section = Section {
    title: "[[short_code]]",
    keys: &[
        now("number", Text("300")),
        now("does", Text("answer")),
        now("text", Text("The clinic is open from 8 to 12.")),
        now("texts", ByLanguage("The clinic is open from 8 to 12.")),
        now("url", Text("http://127.0.0.1:8000/sms")),
        now("timeout", Duration("5 s")),
        now("members", Texts("2001")),
        now("senders", Texts("2001")),
    ],
};

static TEXTS: Section = Section { title: "[[texts]]", keys: &TEXTS_KEYS };

/// `language`, and one for each occasion.
const TEXTS_KEYS: [Key; 1 + Word::COUNT] = {
    const LANGUAGE: Key = now("language", Text("sw"));
    let mut keys = [LANGUAGE; 1 + Word::COUNT];
    let mut index = 0;
    while index < Word::COUNT {
        let word = Word::nth(index);
        keys[1 + index] = now(word.key(), Text(word.english()));
        index += 1;
    }
    keys
};

static MAIL: Section = Section {
    title: "[mail]",
    keys: &[
        now("domain", Text("sms.gsm.example")),
        now("listen", Texts("tcp:0.0.0.0:25")),
        now("certificate", Text("/etc/encamp/mail.pem")),
        now("certificate_key", Text("/etc/encamp/mail.key")),
        now("relay", Text("smtp://mail.example:587")),
        now("relay_tls", Text("required")),
        now("relay_username", Text("encamp")),
        now("relay_password", Text("secret")),
        now("relay_authority", Text("/etc/encamp/authority.pem")),
        now("short_code", Text("1001")),
        now("reply_pool", Texts("+15559000-+15559099")),
        now("fronts", NETWORKS),
        now("trusted", NETWORKS),
        now("boxes", NETWORKS),
        now("senders", Text("everyone")),
        now("allow", Texts("@example.org")),
        now("deny", Texts("@example.org")),
        now("results_from", Texts("mx.example.org")),
        now("unproven", Text("refuse_failed")),
        now("first_contact", Text("accept")),
        now("per_sender_day_max", Count(0, 1_000_000)),
        now("per_phone_day_max", Count(0, 1_000_000)),
        now("subject", Text("new")),
        now("segments_max", Count(1, 20)),
        now("size_max", Size("1 MB")),
        now("recipients_max", Count(1, 10_000)),
        now("received_max", Count(1, 1_000)),
        now("sessions_max", Count(1, 100_000)),
        now("sessions_per_address_max", Count(1, 100_000)),
        now("command_timeout", Duration("5 min")),
        now("session_max", Duration("30 min")),
        now("life_max", Duration("5 days")),
        now("count_max", Count(1, 1_000_000)),
        now("thread_life", Duration("30 days")),
    ],
};

static PICTURES: Section = Section {
    title: "[pictures]",
    keys: &[
        now("listen", Text("0.0.0.0:8090")),
        now("url", Text("http://192.0.2.1:8090")),
        now("size_max", Size("5 MB")),
        now("bytes_max", Size("256 MB")),
        now("life", Duration("7 days")),
        now("open_life", Duration("15 min")),
    ],
};

static MAIL_USER: Section =
    Section { title: "[[mail_user]]", keys: &[now("name", Text("clinic")), now("password", Text("secret"))] };

static MAIL_ROUTE: Section = Section {
    title: "[[mail_route]]",
    keys: &[now("prefixes", Texts("+1556")), now("to", Text("{number}@sms.hill.example")), now("box", Flag)],
};

static ADMIN: Section = Section { title: "[admin]", keys: &[later("listen", Text("127.0.0.1:8080"))] };

static EMERGENCY: Section =
    Section { title: "[emergency]", keys: &[now("numbers", Texts("112")), now("trunk", Text("pbx"))] };

/// The nearest of some words, if one is near enough to be meant.
pub(super) fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word))
        .filter(|(distance, word)| *distance <= (word.len().max(typed.len()) / 3).max(1) && *distance < word.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The sections that know a key of this name, for a key that stands in the wrong one.
pub(super) fn homes_of(name: &str) -> Vec<&'static str> {
    let mut homes = Vec::new();
    for (section, key) in everything() {
        if key.name == name && !homes.contains(&section.title) {
            homes.push(section.title);
        }
    }
    homes
}

/// The nearest key of all sections, and its section.
pub(super) fn nearest_anywhere(typed: &str) -> Option<(&'static str, &'static str)> {
    let near = nearest(typed, everything().iter().map(|(_, key)| key.name))?;
    Some((near, homes_of(near).first()?))
}

/// Every key with its section.
fn everything() -> Vec<(&'static Section, &'static Key)> {
    fn walk(section: &'static Section, all: &mut Vec<(&'static Section, &'static Key)>) {
        for key in section.keys {
            all.push((section, key));
            if let Table(inner) | Tables(inner) = key.shape {
                walk(inner, all);
            }
        }
    }
    let mut all = Vec::new();
    walk(&ROOT, &mut all);
    all
}
