//! Every fact worth telling, once: the shell makes of it a log line, a counter, and where a human is needed an alarm.
//!
//! An event shows at most the last four digits of an IMSI or number, and never a key, a RAND or an answer to one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::ident::{Imsi, Msisdn, Plmn};
use crate::seam::TextOutcome;
use crate::sms::record::Recipient;

/// How loudly it is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warn,
    /// A human is needed.
    Alarm,
}

/// Why a datagram was dropped without an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Drop {
    /// Its sender is in no list.
    Unlisted,
    /// It is not SIP, or not enough of it to answer.
    Malformed(&'static str),
    KeepAlive,
    /// A response to nothing that we asked.
    ResponseUnknown,
    /// The answer would not fit into a datagram because of the request's own Vias, tags and Call-ID.
    AnswerTooLong,
    /// An ACK, which is never answered.
    Ack,
    /// A table is full and the request cannot even be refused.
    Overload,
}

#[derive(Clone, Debug)]
pub enum Event {
    DatagramDropped {
        from: SocketAddr,
        why: Drop,
    },
    MalformedAnswered {
        from: SocketAddr,
        code: u16,
        why: &'static str,
    },
    Retransmission {
        from: SocketAddr,
    },
    SentByDiffers {
        from: SocketAddr,
    },
    Challenged {
        imsi: Imsi,
    },
    Registered {
        imsi: Imsi,
        from: SocketAddr,
        moved: bool,
        elapsed_us: u64,
    },
    /// It was never here before, as far as anybody remembers.
    FirstSeen {
        imsi: Imsi,
    },
    NetworkChanged {
        imsi: Imsi,
        network: Plmn,
    },
    Detached {
        imsi: Imsi,
    },
    DetachIgnored {
        imsi: Imsi,
    },
    RegisterRefused {
        imsi: Option<Imsi>,
        from: SocketAddr,
        code: u16,
        why: &'static str,
    },
    RequestRefused {
        from: SocketAddr,
        method: &'static str,
        code: u16,
        why: &'static str,
    },
    Redirected {
        imsi: Imsi,
    },
    RouteRefused {
        code: u16,
        why: &'static str,
    },
    /// Numbers, or `IMSI..`; the last four digits are shown.
    CallAnswered {
        from: String,
        to: String,
    },
    CallRefused {
        code: u16,
        why: String,
    },
    CallEnded {
        from: String,
        to: String,
        why: String,
    },
    CallsResumed {
        count: u64,
        unreadable: u64,
    },
    EmergencyCall {
        from: SocketAddr,
    },
    /// A 200 to an INVITE of a call that is no more.
    StrayAnswer {
        from: SocketAddr,
    },
    TrunkSilent {
        trunk: String,
    },
    /// A base station with an established call does not answer OPTIONS.
    ProbeUnanswered {
        to: SocketAddr,
    },
    WriteRestamped {
        imsi: Imsi,
    },
    ReplicaMissedWrite {
        replica: String,
        imsi: Imsi,
        why: &'static str,
    },
    ReplicaLevel {
        replica: String,
    },
    ReplicaSilent {
        replica: String,
    },
    ReplicaClosed {
        replica: String,
        why: String,
    },
    ReplicaFounded {
        replica: String,
    },
    ReplicaNotFounded {
        replica: String,
    },
    ReplicaRefilled {
        replica: String,
        records: u64,
    },
    HintsOverflowed {
        replica: String,
    },
    DiskFull {
        replica: String,
    },
    DiskFreed {
        replica: String,
    },
    SignatureRefused {
        from: SocketAddr,
        why: &'static str,
    },
    StampAhead {
        from: SocketAddr,
    },
    WrongShard {
        imsi: Imsi,
        from: SocketAddr,
    },
    ClockJumped {
        shift_s: u64,
    },
    RecordUnreadable {
        replica: String,
    },
    Purged {
        replica: String,
        records: u64,
    },
    NodeStoreRefused {
        why: String,
    },
    /// It waited for a disk that failed.
    AnswerWithdrawn,
    /// Whoever waits for this phone was told that it is back; or could not be.
    AlertSent {
        imsi: Imsi,
        to: SocketAddr,
    },
    AlertLost {
        imsi: Imsi,
        why: &'static str,
    },
    AlertReceived {
        imsi: Imsi,
        from: SocketAddr,
    },
    /// A mark that a replica missed is not kept for it, because so much else is.
    MarkNotKept {
        replica: String,
        imsi: Imsi,
    },
    /// `text` is the number under which the message centre keeps it.
    TextAccepted {
        text: u64,
        /// `None`: the centre's own words.
        sender: Option<Imsi>,
        recipient: Recipient,
    },
    /// The phone, or its base station, has sent again what is accepted or refused already.
    TextDuplicate {
        from: SocketAddr,
    },
    TextRefused {
        from: SocketAddr,
        code: u16,
        why: &'static str,
    },
    /// Octets behind its RPDU or TPDU, which are ignored.
    TextTrailing {
        from: SocketAddr,
        octets: usize,
    },
    TextDelivered {
        text: u64,
        recipient: Recipient,
        /// From the acceptance, and how many attempts it took.
        elapsed_ms: u64,
        attempts: u32,
    },
    /// It is sent again although the phone may have it already: an answer was lost, or a crash came between.
    TextPossibleDuplicate {
        text: u64,
        recipient: Recipient,
    },
    PhoneAbsent {
        text: u64,
        recipient: Recipient,
        why: &'static str,
        next_s: u64,
    },
    TextAttemptFailed {
        text: u64,
        recipient: Recipient,
        /// 0: nothing was sent.
        code: u16,
        why: &'static str,
        next_s: u64,
    },
    /// A phone with texts that wait is back.
    PhoneReturned {
        imsi: Imsi,
        texts: u64,
    },
    /// The phone's memory is full: it waits until the phone says otherwise.
    PhoneMemoryFull {
        text: u64,
        recipient: Recipient,
        next_s: u64,
    },
    PhoneHasMemory {
        imsi: Imsi,
    },
    /// A text came to an end that is no delivery.
    TextEnded {
        text: u64,
        recipient: Recipient,
        outcome: TextOutcome,
        why: String,
    },
    /// An IMS phone has not said yes to what it was told of its text: it sends that again, and is told again.
    TextAnswerUnheard {
        to: SocketAddr,
    },
    /// Its sender could not be told, because as many texts wait for him as may.
    TextNotTold {
        text: u64,
        sender: Imsi,
    },
    /// A text to several does not go to this one of them: as many wait for it as may.
    TextPassedOver {
        text: u64,
        imsi: Imsi,
    },
    /// No copy of a text goes to the mailbox of this one: as many texts wait as may.
    CopyLeftOut {
        imsi: Imsi,
    },
    /// The program behind a short code did not answer, or not as it should; a part of what it said may have been done.
    HookFailed {
        code: Msisdn,
        /// 0: there was no answer.
        status: u16,
        why: String,
    },
    /// A copy of a mail that has been taken.
    MailDuplicate {
        from: IpAddr,
    },
    /// A mail for one recipient was refused.
    MailRefused {
        from: IpAddr,
        code: u16,
        why: &'static str,
    },
    /// A server did not take a mail, and is asked again.
    MailNotTaken {
        text: u64,
        /// 0: there was no answer.
        code: u16,
        why: String,
        next_s: u64,
    },
    /// Whoever wrote a mail could not be told what became of it.
    MailNotTold {
        why: &'static str,
    },
    /// Nobody took what we had to tell of a mail: nobody is told of that.
    MailReportLost {
        text: u64,
        why: String,
    },
    /// A mail of a phone's that was handed over did not arrive, as somebody else says.
    MailCameBack {
        text: u64,
        sender: Imsi,
        why: String,
    },
    /// It is told of something that we know nothing of, or have told already.
    BounceIgnored {
        from: IpAddr,
        why: &'static str,
    },
    /// Nobody takes our mail: the relay, or the servers of a domain.
    RelayUnreached {
        direct: bool,
        why: String,
        waiting: usize,
        next_s: u64,
    },
    RelayReached {
        direct: bool,
    },
    /// As many mails, or texts, wait as may; and there is room again.
    MailSpoolFull {
        waiting: usize,
    },
    MailSpoolFreed {
        waiting: usize,
    },
    /// A number that a subscriber chose could not be given to him.
    NumberNotGiven {
        imsi: Imsi,
        why: String,
    },
    WelcomeNotSent {
        imsi: Imsi,
    },
    /// The messages' store refuses what is no promise: a note of an attempt, the removal of a delivered text.
    MessagesStoreRefused {
        why: String,
    },
    ConnectionRefused {
        from: SocketAddr,
        why: &'static str,
    },
}

impl Event {
    pub fn level(&self) -> Level {
        match self {
            Event::DatagramDropped { .. }
            | Event::MalformedAnswered { .. }
            | Event::Retransmission { .. }
            | Event::SentByDiffers { .. }
            | Event::Challenged { .. }
            | Event::AlertSent { .. }
            | Event::AlertReceived { .. }
            | Event::TextDuplicate { .. }
            | Event::MailDuplicate { .. }
            | Event::TextTrailing { .. }
            | Event::BounceIgnored { .. }
            | Event::ConnectionRefused { .. } => Level::Debug,
            Event::Registered { .. }
            | Event::FirstSeen { .. }
            | Event::NetworkChanged { .. }
            | Event::Detached { .. }
            | Event::DetachIgnored { .. }
            | Event::RegisterRefused { .. }
            | Event::RequestRefused { .. }
            | Event::Redirected { .. }
            | Event::RouteRefused { .. }
            | Event::CallAnswered { .. }
            | Event::CallRefused { .. }
            | Event::CallEnded { .. }
            | Event::CallsResumed { .. }
            | Event::EmergencyCall { .. }
            | Event::StrayAnswer { .. }
            | Event::WriteRestamped { .. }
            | Event::ReplicaLevel { .. }
            | Event::DiskFreed { .. }
            | Event::ReplicaFounded { .. }
            | Event::ReplicaRefilled { .. }
            | Event::AlertLost { .. }
            | Event::TextAccepted { .. }
            | Event::TextRefused { .. }
            | Event::MailRefused { .. }
            | Event::TextDelivered { .. }
            | Event::TextPossibleDuplicate { .. }
            | Event::PhoneAbsent { .. }
            | Event::PhoneMemoryFull { .. }
            | Event::PhoneHasMemory { .. }
            | Event::TextEnded { .. }
            | Event::RelayReached { .. }
            | Event::MailSpoolFreed { .. }
            | Event::MailReportLost { .. }
            | Event::MailCameBack { .. }
            | Event::TextAttemptFailed { .. }
            | Event::PhoneReturned { .. }
            | Event::Purged { .. } => Level::Info,
            Event::ReplicaMissedWrite { .. }
            | Event::TrunkSilent { .. }
            | Event::ProbeUnanswered { .. }
            | Event::ReplicaSilent { .. }
            | Event::SignatureRefused { .. }
            | Event::AnswerWithdrawn
            | Event::MarkNotKept { .. }
            | Event::TextNotTold { .. }
            | Event::TextAnswerUnheard { .. }
            | Event::TextPassedOver { .. }
            | Event::CopyLeftOut { .. }
            | Event::HookFailed { .. }
            | Event::MailNotTaken { .. }
            | Event::MailNotTold { .. }
            | Event::RelayUnreached { direct: true, .. }
            | Event::NumberNotGiven { .. }
            | Event::WelcomeNotSent { .. }
            | Event::WrongShard { .. }
            | Event::ClockJumped { .. } => Level::Warn,
            Event::RelayUnreached { direct: false, .. }
            | Event::MailSpoolFull { .. }
            | Event::ReplicaClosed { .. }
            | Event::ReplicaNotFounded { .. }
            | Event::HintsOverflowed { .. }
            | Event::DiskFull { .. }
            | Event::StampAhead { .. }
            | Event::RecordUnreadable { .. }
            | Event::MessagesStoreRefused { .. }
            | Event::NodeStoreRefused { .. } => Level::Alarm,
        }
    }

    /// The counter's name.
    pub fn name(&self) -> &'static str {
        match self {
            Event::DatagramDropped { why, .. } => match why {
                Drop::Unlisted => "drop_unlisted",
                Drop::Malformed(_) => "drop_malformed",
                Drop::KeepAlive => "keep_alive",
                Drop::ResponseUnknown => "drop_response_unknown",
                Drop::AnswerTooLong => "drop_answer_too_long",
                Drop::Ack => "ack",
                Drop::Overload => "drop_overload",
            },
            Event::MalformedAnswered { .. } => "malformed_answered",
            Event::Retransmission { .. } => "retransmission",
            Event::SentByDiffers { .. } => "sent_by_differs",
            Event::Challenged { .. } => "challenged",
            Event::Registered { .. } => "registered",
            Event::FirstSeen { .. } => "first_seen",
            Event::NetworkChanged { .. } => "network_changed",
            Event::Detached { .. } => "detached",
            Event::DetachIgnored { .. } => "detach_ignored",
            Event::RegisterRefused { .. } => "register_refused",
            Event::RequestRefused { .. } => "request_refused",
            Event::Redirected { .. } => "redirected",
            Event::RouteRefused { .. } => "route_refused",
            Event::CallAnswered { .. } => "call_answered",
            Event::CallRefused { .. } => "call_refused",
            Event::CallEnded { .. } => "call_ended",
            Event::CallsResumed { .. } => "calls_resumed",
            Event::EmergencyCall { .. } => "emergency_call",
            Event::StrayAnswer { .. } => "stray_answer",
            Event::TrunkSilent { .. } => "trunk_silent",
            Event::ProbeUnanswered { .. } => "probe_unanswered",
            Event::WriteRestamped { .. } => "write_restamped",
            Event::ReplicaMissedWrite { .. } => "replica_missed_write",
            Event::ReplicaLevel { .. } => "replica_level",
            Event::ReplicaSilent { .. } => "replica_silent",
            Event::ReplicaClosed { .. } => "replica_closed",
            Event::ReplicaFounded { .. } => "replica_founded",
            Event::ReplicaNotFounded { .. } => "replica_not_founded",
            Event::ReplicaRefilled { .. } => "replica_refilled",
            Event::HintsOverflowed { .. } => "hints_overflowed",
            Event::DiskFull { .. } => "disk_full",
            Event::DiskFreed { .. } => "disk_freed",
            Event::SignatureRefused { .. } => "signature_refused",
            Event::StampAhead { .. } => "stamp_ahead",
            Event::WrongShard { .. } => "wrong_shard",
            Event::ClockJumped { .. } => "clock_jumped",
            Event::RecordUnreadable { .. } => "record_unreadable",
            Event::Purged { .. } => "purged",
            Event::NodeStoreRefused { .. } => "node_store_refused",
            Event::AnswerWithdrawn => "answer_withdrawn",
            Event::AlertSent { .. } => "alert_sent",
            Event::AlertLost { .. } => "alert_lost",
            Event::AlertReceived { .. } => "alert_received",
            Event::MarkNotKept { .. } => "mark_not_kept",
            Event::TextAccepted { .. } => "text_accepted",
            Event::TextDuplicate { .. } => "text_duplicate",
            Event::TextRefused { .. } => "text_refused",
            Event::TextTrailing { .. } => "text_trailing",
            Event::TextDelivered { .. } => "text_delivered",
            Event::TextPossibleDuplicate { .. } => "text_possible_duplicate",
            Event::PhoneAbsent { .. } => "phone_absent",
            Event::TextAttemptFailed { code, .. } => match code {
                0..100 => "text_attempt_unsent",
                // The phone's own no, which a base station of another make hands on in a yes.
                100..300 => "text_attempt_failed_phone",
                300..500 => "text_attempt_failed_4xx",
                500..600 => "text_attempt_failed_5xx",
                _ => "text_attempt_failed_6xx",
            },
            Event::PhoneReturned { .. } => "phone_returned",
            Event::PhoneMemoryFull { .. } => "phone_memory_full",
            Event::PhoneHasMemory { .. } => "phone_has_memory",
            Event::TextEnded { outcome, .. } => match outcome {
                TextOutcome::Delivered => "text_delivered",
                TextOutcome::Answered => "text_answered",
                TextOutcome::Refused => "text_refused",
                TextOutcome::Failed => "text_failed",
                TextOutcome::Expired => "text_expired",
                TextOutcome::Dropped => "text_dropped",
                TextOutcome::Deleted => "text_deleted",
                TextOutcome::Replaced => "text_replaced",
            },
            Event::TextAnswerUnheard { .. } => "text_answer_unheard",
            Event::TextNotTold { .. } => "text_not_told",
            Event::TextPassedOver { .. } => "text_passed_over",
            Event::CopyLeftOut { .. } => "copy_left_out",
            Event::HookFailed { .. } => "hook_failed",
            Event::MailDuplicate { .. } => "mail_duplicate",
            Event::MailRefused { code, .. } => match code {
                ..500 => "mail_refused_4xx",
                500.. => "mail_refused_5xx",
            },
            Event::MailNotTaken { .. } => "mail_not_taken",
            Event::MailNotTold { .. } => "mail_not_told",
            Event::MailReportLost { .. } => "mail_report_lost",
            Event::MailCameBack { .. } => "mail_came_back",
            Event::BounceIgnored { .. } => "bounce_ignored",
            Event::RelayUnreached { .. } => "relay_unreached",
            Event::RelayReached { .. } => "relay_reached",
            Event::MailSpoolFull { .. } => "mail_spool_full",
            Event::MailSpoolFreed { .. } => "mail_spool_freed",
            Event::NumberNotGiven { .. } => "number_not_given",
            Event::WelcomeNotSent { .. } => "welcome_not_sent",
            Event::MessagesStoreRefused { .. } => "messages_store_refused",
            Event::ConnectionRefused { .. } => "connection_refused",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::DatagramDropped { from, why } => write!(f, "dropped a datagram of {from}: {why}"),
            Event::MalformedAnswered { from, code, why } => write!(f, "answered {code} to {from}: {why}"),
            Event::Retransmission { from } => write!(f, "a copy of a request of {from}"),
            Event::SentByDiffers { from } => write!(f, "{from} names another host in its Via"),
            Event::Challenged { imsi } => write!(f, "challenged {}", imsi.short()),
            Event::Registered { imsi, from, moved, elapsed_us } => {
                let how = if *moved { "moved to" } else { "registered at" };
                write!(f, "{} {how} {from} in {:.1} ms", imsi.short(), *elapsed_us as f64 / 1000.0)
            }
            Event::FirstSeen { imsi } => write!(f, "{} is here for the first time", imsi.short()),
            Event::NetworkChanged { imsi, network } => write!(f, "{} came to the network {network}", imsi.short()),
            Event::Detached { imsi } => write!(f, "{} detached", imsi.short()),
            Event::DetachIgnored { imsi } => {
                write!(
                    f,
                    "a detach of {} that names another contact than its binding: nothing is changed",
                    imsi.short()
                )
            }
            Event::RegisterRefused { imsi, from, code, why } => {
                let who = imsi.map(|imsi| imsi.short()).unwrap_or_else(|| "a REGISTER".into());
                write!(f, "refused {who} at {from} with {code}: {why}")
            }
            Event::RequestRefused { from, method, code, why } => {
                write!(f, "refused {method} of {from} with {code}: {why}")
            }
            Event::Redirected { imsi } => write!(f, "redirected a call to {}", imsi.short()),
            Event::RouteRefused { code, why } => write!(f, "refused a call with {code}: {why}"),
            Event::CallAnswered { from, to } => {
                write!(f, "a call of {} to {} is answered", last_digits(from), last_digits(to))
            }
            Event::CallRefused { code, why } => write!(f, "refused a call with {code}: {why}"),
            Event::CallEnded { from, to, why } => {
                write!(f, "the call of {} to {} has ended: {why}", last_digits(from), last_digits(to))
            }
            Event::CallsResumed { count, unreadable } => {
                write!(f, "took up {count} calls of an earlier run, {unreadable} could not be read")
            }
            Event::EmergencyCall { from } => write!(f, "an emergency call from {from}"),
            Event::StrayAnswer { from } => write!(f, "{from} answers an INVITE of a call that is no more: hung up"),
            Event::TrunkSilent { trunk } => write!(f, "trunk {trunk} does not answer"),
            Event::ProbeUnanswered { to } => write!(f, "{to}, where a call is up, does not answer"),
            Event::WriteRestamped { imsi } => {
                write!(f, "a replica knew a newer write of {}: stamped anew", imsi.short())
            }
            Event::ReplicaMissedWrite { replica, imsi, why } => {
                write!(f, "replica {replica} missed a write of {}: {why}; it is behind until it has it", imsi.short())
            }
            Event::ReplicaLevel { replica } => write!(f, "replica {replica} is level"),
            Event::ReplicaSilent { replica } => write!(f, "replica {replica} does not answer"),
            Event::ReplicaClosed { replica, why } => {
                write!(f, "replica {replica} is closed until the next start, its disk failed: {why}")
            }
            Event::ReplicaFounded { replica } => write!(f, "replica {replica} is founded"),
            Event::ReplicaNotFounded { replica } => write!(
                f,
                "replica {replica} is empty and has no founding mark: it takes writes but no *no* is believed of it; \
                 if this is a new site run encamp init, else wait until it is refilled"
            ),
            Event::ReplicaRefilled { replica, records } => {
                write!(f, "replica {replica} took {records} records from its siblings on this box")
            }
            Event::HintsOverflowed { replica } => {
                write!(f, "replica {replica} missed more writes than are kept for it: it needs repair")
            }
            Event::DiskFull { replica } => {
                write!(f, "the disk of replica {replica} is full up to its reserve: writes are refused, reads go on")
            }
            Event::DiskFreed { replica } => write!(f, "the disk of replica {replica} has room again"),
            Event::SignatureRefused { from, why } => write!(f, "refused a stamped request of {from}: {why}"),
            Event::StampAhead { from } => write!(f, "{from} stamps more than 5 minutes ahead of this clock"),
            Event::WrongShard { imsi, from } => {
                write!(f, "{from} asked for {}, which another shard owns", imsi.short())
            }
            Event::ClockJumped { shift_s } => {
                write!(f, "the clock jumped {shift_s} s forward: bindings made before keep their life")
            }
            Event::RecordUnreadable { replica } => write!(f, "replica {replica} holds a record that cannot be read"),
            Event::Purged { replica, records } => write!(f, "replica {replica} purged {records} records"),
            Event::AnswerWithdrawn => f.write_str("an answer that waited for a disk which has failed was not given"),
            Event::NodeStoreRefused { why } => write!(f, "the node's own store refuses: {why}"),
            Event::MessagesStoreRefused { why } => write!(f, "the messages' store refuses: {why}"),
            Event::AlertSent { imsi, to } => write!(f, "told {to} that {} is back", imsi.short()),
            Event::AlertLost { imsi, why } => {
                write!(f, "could not tell who waits for {} that it is back: {why}", imsi.short())
            }
            Event::AlertReceived { imsi, from } => write!(f, "{from} tells that {} is back", imsi.short()),
            Event::MarkNotKept { replica, imsi } => {
                write!(f, "replica {replica} missed a mark of {}, which is not kept for it", imsi.short())
            }
            Event::TextAccepted { text, sender: Some(sender), recipient } => {
                write!(f, "accepted text {text} of {} to {}", sender.short(), recipient)
            }
            Event::TextAccepted { text, sender: None, recipient } => {
                write!(f, "wrote text {text} to {}", recipient)
            }
            Event::TextDuplicate { from } => write!(f, "{from} repeats a text that has been answered"),
            Event::TextRefused { from, code, why } => write!(f, "refused a text of {from} with {code}: {why}"),
            Event::TextTrailing { from, octets } => write!(f, "ignored {octets} octets behind a text of {from}"),
            Event::TextDelivered { text, recipient, elapsed_ms, attempts } => {
                let seconds = *elapsed_ms as f64 / 1000.0;
                write!(f, "delivered text {text} to {recipient} after {seconds:.1} s, at attempt {attempts}")
            }
            Event::TextPossibleDuplicate { text, recipient } => {
                write!(f, "text {text} goes to {} again, which may have it already", recipient)
            }
            Event::PhoneAbsent { text, recipient, why, next_s } => {
                write!(f, "text {text} waits: {} is absent ({why}); tried when it is back, or in {next_s} s", recipient)
            }
            Event::TextAttemptFailed { text, recipient, code, why, next_s } => {
                write!(f, "text {text} could not be given to {recipient} ({code}, {why}); tried again in {next_s} s")
            }
            Event::PhoneReturned { imsi, texts } => write!(f, "{} is back; {texts} texts wait for it", imsi.short()),
            Event::PhoneMemoryFull { text, recipient, next_s } => {
                write!(
                    f,
                    "text {text} waits: the memory of {recipient} is full; tried when it has room, or in {next_s} s"
                )
            }
            Event::PhoneHasMemory { imsi } => write!(f, "{} has memory for texts again", imsi.short()),
            Event::TextEnded { text, recipient, outcome, why } => {
                let (word, colon) = (outcome.word(), if why.is_empty() { "" } else { ": " });
                write!(f, "text {text} to {recipient} is {word}{colon}{why}")
            }
            Event::TextAnswerUnheard { to } => write!(f, "{to} says nothing to what it was told of its text"),
            Event::TextNotTold { text, sender } => {
                write!(f, "{} could not be told of text {text}: as many texts wait for him as may", sender.short())
            }
            Event::TextPassedOver { text, imsi } => {
                write!(f, "text {text} does not go to {}: as many texts wait for it as may", imsi.short())
            }
            Event::CopyLeftOut { imsi } => {
                write!(f, "no copy of a text goes to the mailbox of {}: as many texts wait as may", imsi.short())
            }
            Event::HookFailed { code, status: 0, why } => write!(f, "the hook of {code} failed: {why}"),
            Event::HookFailed { code, status, why } => write!(f, "the hook of {code} answered {status}: {why}"),
            Event::MailDuplicate { from } => write!(f, "{from} repeats a mail that has been taken"),
            Event::MailRefused { from, code, why } => write!(f, "refused a mail of {from} with {code}: {why}"),
            Event::MailNotTaken { text, code: 0, why, next_s } => {
                write!(f, "mail {text} was not taken: {why}; again in {next_s} s")
            }
            Event::MailNotTaken { text, code, why, next_s } => {
                write!(f, "mail {text} was not taken: {code} {why}; again in {next_s} s")
            }
            Event::MailNotTold { why } => write!(f, "the writer of a mail could not be told what became of it: {why}"),
            Event::MailReportLost { text, why } => {
                write!(f, "mail {text}, which told of another one, did not leave: {why}")
            }
            Event::MailCameBack { text, sender, why } => {
                write!(f, "mail {text} of {} came back: {why}", sender.short())
            }
            Event::BounceIgnored { from, why } => write!(f, "ignored what {from} tells of a mail: {why}"),
            Event::RelayUnreached { direct, why, waiting, next_s } => {
                let who = if *direct { "the servers of a domain" } else { "the relay" };
                write!(f, "{who} cannot be reached: {why}; {waiting} mails wait, again in {next_s} s")
            }
            Event::MailSpoolFull { waiting } => {
                write!(f, "as many wait as may: mail is refused for now; {waiting} mails wait to leave")
            }
            Event::MailSpoolFreed { waiting } => {
                write!(f, "there is room for mail again; {waiting} mails wait to leave")
            }
            Event::RelayReached { direct: false } => f.write_str("the relay takes mail again"),
            Event::RelayReached { direct: true } => f.write_str("the servers of a domain take mail again"),
            Event::NumberNotGiven { imsi, why } => write!(f, "{} could not be given its number: {why}", imsi.short()),
            Event::WelcomeNotSent { imsi } => write!(f, "{} could not be welcomed", imsi.short()),
            Event::ConnectionRefused { from, why } => write!(f, "closed a connection of {from}: {why}"),
        }
    }
}

/// The last four digits of a number or an IMSI.
pub fn last_digits(text: &str) -> String {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    format!("…{}", digits[digits.len().saturating_sub(4)..].iter().collect::<String>())
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drop::Unlisted => f.write_str("its address is in no list"),
            Drop::Malformed(why) => f.write_str(why),
            Drop::KeepAlive => f.write_str("a keep-alive"),
            Drop::ResponseUnknown => f.write_str("a response to nothing asked"),
            Drop::AnswerTooLong => f.write_str("its Vias, tags and Call-ID leave no room for an answer"),
            Drop::Ack => f.write_str("an ACK"),
            Drop::Overload => f.write_str("overload"),
        }
    }
}
