//! Texts at a base station, as an OpenBTS hands them in and takes them.
//!
//! Knows: wire.md section 4: any 2xx is an RP-ACK for the phone and all else RP-ERROR 127; an absent phone is never answered; a copy
//! after the 200 is a second text on the phone. Does not know: what a right message centre does.
//! Limits: a MESSAGE is sent at [`SEND_AT_MS`] and given up after [`GIVE_UP`] (32 s in the field).

use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::air::{Air, TRANSFER_TIME, Tick};
use super::bts::{Shared, Station, USER_AGENT, dice, letters, lock};
use super::heard::{Heard, uri_in, user_of};
use super::rp::{self, Brought, Deliver, Report, Written};
use crate::ident::Imsi;

/// "Retransmission about 1, 3, 7, 15, 31 s" (wire.md 4.1).
const SEND_AT_MS: [u64; 4] = [0, 1_000, 3_000, 7_000];
const GIVE_UP: Duration = Duration::from_secs(10);

/// A text on a phone.
#[derive(Clone, Debug)]
pub struct Text {
    pub imsi: Imsi,
    /// As the phone shows it.
    pub from: String,
    pub text: String,
    /// In how many messages it came.
    pub parts: u8,
    pub at: Instant,
}

/// A report on a phone.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub imsi: Imsi,
    pub report: Report,
    pub at: Instant,
}

/// A long text on a phone: whose parts belong together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Split {
    pub imsi: Imsi,
    pub from: String,
    pub reference: u16,
    pub count: u8,
}

/// An MT text under way.
pub(super) struct Arriving {
    request: Heard,
    imsi: Imsi,
    brought: Brought,
    paging_turn: u32,
}

/// One MESSAGE of a phone before it is text.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// SIP.Proxy.SMS.
    pub texts: SocketAddr,
    pub own: SocketAddr,
    pub imsi: &'a Imsi,
    pub call_id: &'a str,
    pub cseq: u32,
    pub tag: &'a str,
    pub branch: &'a str,
    /// RP-DATA, as lower-case hex.
    pub body: &'a str,
}

impl Submit<'_> {
    /// The datagram.
    ///
    /// Source: wire.md 4.1, seen live.
    pub fn text(&self) -> String {
        let Submit { texts, own, imsi, call_id, cseq, tag, branch, body } = *self;
        let head = format!(
            "MESSAGE sip:smsc@{texts} SIP/2.0\n\
             To:  <sip:smsc@{host}>\n\
             From:  <sip:IMSI{imsi}@{own}>;tag={tag}\n\
             Via: SIP/2.0/UDP {own};branch={branch}\n\
             Call-ID: {call_id}\n\
             CSeq: {cseq} MESSAGE\n\
             Contact: <sip:IMSI{imsi}@{own}>;expires=3600\n\
             Max-Forwards: 70\n\
             P-Preferred-Identity: <sip:IMSI{imsi}@{host}>\n\
             User-Agent: {USER_AGENT}\n\
             Content-Type: application/vnd.3gpp.sms\n\
             Content-Length: {len}\n\n",
            host = texts.ip(),
            len = body.len(),
        );
        head.replace('\n', "\r\n") + body
    }
}

impl Station {
    /// A phone hands in a text: the code of the final answer, `None` when there was none in time. Of a long text it hands in one part
    /// after the other, and the first that is not taken is the last.
    ///
    /// Errors: there are no dice.
    pub(super) fn text(&self, imsi: &Imsi, written: &Written<'_>) -> std::io::Result<Option<u16>> {
        let mut code = None;
        for body in rp::submits(written) {
            code = self.hand_up(imsi, &body)?;
            if !code.is_some_and(|code| (200..300).contains(&code)) {
                break;
            }
        }
        Ok(code)
    }

    /// The phone has no room for another text.
    pub(super) fn fill_up(&self, imsi: &Imsi) {
        lock(&self.shared.air).full.insert(*imsi);
    }

    /// Somebody has deleted texts, and the phone says that there is room: as [`Station::text`].
    ///
    /// Errors: there are no dice.
    pub(super) fn make_room(&self, imsi: &Imsi, reference: u8) -> std::io::Result<Option<u16>> {
        lock(&self.shared.air).full.remove(imsi);
        self.hand_up(imsi, &rp::has_room(reference))
    }

    /// An RPDU of a phone, in hex.
    fn hand_up(&self, imsi: &Imsi, body: &str) -> std::io::Result<Option<u16>> {
        let shared = &*self.shared;
        let dice = dice()?;
        let (call_id, cseq) = (format!("{:x}", dice >> 64 & u128::from(u64::MAX)), (dice & 0xF_FFFF) as u32);
        let submit = Submit {
            texts: shared.proxies.texts,
            own: shared.own,
            imsi,
            call_id: &call_id,
            cseq,
            tag: &format!("OBTS{}", letters()),
            branch: &format!("z9hG4bKOBTS{}", letters()),
            body,
        };
        let key = (call_id.clone(), cseq, "MESSAGE");
        let answer = self.transact(key, &submit.text(), shared.proxies.texts, &SEND_AT_MS, GIVE_UP);
        Ok(answer.map(|answer| answer.code()))
    }

    /// The texts on this phone whose text is so, as soon as there is one, else after `wait`.
    pub fn inbox_when(&self, imsi: &Imsi, wait: Duration, is_so: impl Fn(&Text) -> bool) -> Vec<Text> {
        let find = |air: &Air| -> Vec<Text> {
            air.inbox.iter().filter(|text| text.imsi == *imsi && is_so(text)).cloned().collect()
        };
        self.watch(wait, |air| Some(find(air)).filter(|found| !found.is_empty())).unwrap_or_default()
    }

    /// The report on this phone that is so, as soon as there is one.
    pub(super) fn report_when(
        &self,
        imsi: &Imsi,
        wait: Duration,
        is_so: impl Fn(&Reported) -> bool,
    ) -> Option<Reported> {
        self.watch(wait, |air| air.reports.iter().find(|one| one.imsi == *imsi && is_so(one)).cloned())
    }

    /// Whether this phone has refused more texts than so many, as soon as it has.
    pub(super) fn refused_when(&self, imsi: &Imsi, wait: Duration, more_than: u32) -> bool {
        self.watch(wait, |air| (air.refusal_count(imsi) > more_than).then_some(())).is_some()
    }

    pub(super) fn refusal_count(&self, imsi: &Imsi) -> u32 {
        lock(&self.shared.air).refusal_count(imsi)
    }

    /// Of each long text to this phone that is not whole: how many parts it has got, of how many.
    pub(super) fn torn(&self, imsi: &Imsi) -> Vec<(usize, u8)> {
        let air = lock(&self.shared.air);
        let split = air.split.iter().filter(|(split, _)| split.imsi == *imsi);
        let torn = split.filter(|(split, parts)| parts.len() < usize::from(split.count));
        torn.map(|(split, parts)| (parts.len(), split.count)).collect()
    }

    /// How many MESSAGEs came for this phone, copies included.
    pub fn message_count(&self, imsi: &Imsi) -> u32 {
        lock(&self.shared.air).message_counts.get(imsi).copied().unwrap_or(0)
    }

    /// Every text that arrived in this cell.
    pub fn inbox(&self) -> Vec<Text> {
        lock(&self.shared.air).inbox.clone()
    }
}

impl Air {
    fn refusal_count(&self, imsi: &Imsi) -> u32 {
        self.refusal_counts.get(imsi).copied().unwrap_or(0)
    }
}

impl Shared {
    pub(super) fn texted(&self, message: Heard) {
        let air = &mut *lock(&self.air);
        let user = user_of(message.uri());
        let Some(imsi) = user.strip_prefix("IMSI").and_then(|digits| Imsi::parse(digits).ok()) else {
            self.complain(format!("a MESSAGE for {user:?}, which is no IMSI: it is answered 404"));
            self.reply(&message, "404 Not Found - To header is not an IMSI", "", "", b"");
            return;
        };
        *air.message_counts.entry(imsi).or_default() += 1;
        let call_id = message.call_id().to_owned();
        if let Some(arriving) = air.arriving.get_mut(&call_id) {
            if arriving.request.cseq() != message.cseq() {
                self.complain("a second MESSAGE with the same Call-ID: it is answered 488".into());
                self.reply(&message, "488 Not Acceptable Here", "", "", b"");
                return;
            }
            // "a duplicate gets `100 Trying`, and each duplicate restarts paging" (wire.md 4.2).
            self.reply(&message, "100 Trying", "", "", b"");
            arriving.paging_turn += 1;
            let turn = arriving.paging_turn;
            return air.page(&call_id, turn, true);
        }
        if air.arriving.values().any(|arriving| arriving.imsi == imsi) {
            // "One MT SMS at a time per phone: queue per IMSI at the sender" (wire.md 4.2).
            self.complain("a second text for a phone before the first one is done".into());
        }
        let kind = message.get("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let read = match kind {
            "text/plain" => {
                let from = user_of(uri_in(message.get("From").unwrap_or_default())).to_owned();
                let text = String::from_utf8_lossy(&message.body).into_owned();
                Ok(Brought::Text(Deliver { from, text, stamp: String::new(), part: None }))
            }
            "application/vnd.3gpp.sms" => rp::brought(&message.body),
            _ => Err("its Content-Type is not understood"),
        };
        match read {
            Ok(brought) => {
                air.arriving.insert(call_id.clone(), Arriving { request: message, imsi, brought, paging_turn: 0 });
                air.page(&call_id, 0, true);
            }
            Err(why) => {
                self.complain(format!("a text that the phone refuses, because {why}"));
                self.reply(&message, "400 Bad Request", "", "", b"");
            }
        }
    }

    pub(super) fn paged_for_text(&self, air: &mut Air, call_id: String, turn: u32, until: Instant) {
        let Some(arriving) = air.arriving.get(&call_id).filter(|arriving| arriving.paging_turn == turn) else { return };
        if air.phones.contains_key(&arriving.imsi) {
            air.after(TRANSFER_TIME, Tick::Transferred(call_id));
        } else if Instant::now() < until {
            Shared::page_on(air, Tick::PageText { call_id, turn, until });
        } else {
            // "Absent phone, paging failure, lost radio: no final answer ever" (wire.md 4.2).
            air.arriving.remove(&call_id);
        }
    }

    /// "The 200 has no To tag"; where the phone has no room: "`400 Bad Request`, cause not visible" (wire.md 4.2).
    pub(super) fn transferred(&self, air: &mut Air, call_id: &str) {
        let Some(Arriving { request, imsi, brought, .. }) = air.arriving.remove(call_id) else { return };
        let at = Instant::now();
        match brought {
            Brought::Text(_) if air.full.contains(&imsi) => {
                *air.refusal_counts.entry(imsi).or_default() += 1;
                self.reply(&request, "400 Bad Request", "", "", b"");
            }
            Brought::Text(text) => {
                self.reply(&request, "200 OK", "", "", b"");
                self.keep(air, imsi, text, at);
            }
            Brought::Report(report) => {
                self.reply(&request, "200 OK", "", "", b"");
                if air.reports.iter().any(|had| had.imsi == imsi && had.report == report) {
                    self.complain(format!("a report of a text to {} that the phone has already", report.to));
                }
                air.reports.push(Reported { imsi, report, at });
            }
        }
    }

    /// The phone has it; a part is shown when all are there.
    fn keep(&self, air: &mut Air, imsi: Imsi, came: Deliver, at: Instant) {
        let Deliver { from, mut text, part, .. } = came;
        let mut count = 1;
        if let Some(part) = part {
            let split = Split { imsi, from: from.clone(), reference: part.reference, count: part.count };
            let parts = air.split.entry(split).or_default();
            match parts.entry(part.number) {
                Entry::Vacant(place) => drop(place.insert(text)),
                Entry::Occupied(_) => return self.complain(format!("a part from {from} that the phone has already")),
            }
            if parts.len() < usize::from(part.count) {
                return;
            }
            count = part.count;
            text = parts.values().map(String::as_str).collect();
        }
        if air.inbox.iter().any(|had| had.imsi == imsi && had.from == from && had.text == text) {
            self.complain(format!("a text from {from} that the phone has already: it is shown twice"));
        }
        air.inbox.push(Text { imsi, from, text, parts: count, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::air::Manner;
    use crate::rehearse::bts::{Cell, Dialect, Proxies};
    use std::net::UdpSocket;

    /// wire.md 4.1, seen live.
    #[test]
    fn a_message_is_byte_for_byte_what_was_seen_live() {
        let written =
            Written { number: "2101", text: "Hello self", reference: 0x2A, report_wanted: false, valid_for: None };
        let body = rp::submits(&written).remove(0);
        let submit = Submit {
            texts: "127.0.0.1:5063".parse().unwrap(),
            own: "127.0.0.1:5062".parse().unwrap(),
            imsi: &Imsi::parse("001010000000001").unwrap(),
            call_id: "927d512c1b2c876a",
            cseq: 131_737,
            tag: "OBTSvzgnaalnutwucdjc",
            branch: "z9hG4bKOBTSwwzwouywbrzggksh",
            body: &body,
        };
        let expected = "MESSAGE sip:smsc@127.0.0.1:5063 SIP/2.0\n\
            To:  <sip:smsc@127.0.0.1>\n\
            From:  <sip:IMSI001010000000001@127.0.0.1:5062>;tag=OBTSvzgnaalnutwucdjc\n\
            Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSwwzwouywbrzggksh\n\
            Call-ID: 927d512c1b2c876a\n\
            CSeq: 131737 MESSAGE\n\
            Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600\n\
            Max-Forwards: 70\n\
            P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>\n\
            User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\n\
            Content-Type: application/vnd.3gpp.sms\n\
            Content-Length: 52\n\n"
            .replace('\n', "\r\n");
        assert_eq!(submit.text(), expected + "002a000381000012012a0481121000000ac8329bfd06cdcb6c33");
    }

    #[test]
    fn a_text_arrives_once_an_absent_phone_is_silent_and_a_copy_is_a_second_text() {
        let centre = UdpSocket::bind("127.0.0.1:0").unwrap();
        centre.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let own = centre.local_addr().unwrap();
        let proxies = Proxies { registration: own, speech: own, texts: own };
        let cell = Cell { mcc: "001", mnc: "01", lac: 1000, ci: 10 };
        let hill = Station::new("hill", "127.0.0.1:0".parse().unwrap(), proxies, Dialect::V5, cell).unwrap();
        let ana = Imsi::parse("001010000000001").unwrap();
        let message = |call_id: &str| {
            format!(
                "MESSAGE sip:IMSI{ana}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{call_id}\r\nFrom: <sip:2101@{own}>;tag=1\r\n\
                 To: <sip:IMSI{ana}@{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 MESSAGE\r\nContent-Type: application/vnd.3gpp.sms\r\n\
                 Content-Length: 62\r\n\r\n01A203A1000000170404A1121000006211122100010009C8329BFD0609DF62",
                to = hill.address()
            )
        };
        let answer = || {
            let mut buffer = [0; 2000];
            centre.recv_from(&mut buffer).ok().and_then(|(len, _)| Heard::parse(&buffer[..len]))
        };
        // Absent: only the copy gets a 100.
        centre.send_to(message("a").as_bytes(), hill.address()).unwrap();
        centre.send_to(message("a").as_bytes(), hill.address()).unwrap();
        assert_eq!(answer().unwrap().code(), 100);
        assert!(answer().is_none());
        hill.camp(&ana, Manner::Answers);
        for _ in 0..2 {
            centre.send_to(message("b").as_bytes(), hill.address()).unwrap();
            let yes = answer().unwrap();
            assert_eq!((yes.code(), yes.get("To").unwrap().contains("tag")), (200, false));
        }
        let inbox =
            hill.inbox_when(&ana, Duration::from_secs(1), |text| text.from == "2101" && text.text == "Hello Bob");
        assert_eq!(inbox.len(), 2);
        assert!(hill.complaints()[0].0.contains("it is shown twice"), "{:?}", hill.complaints());
    }
}
