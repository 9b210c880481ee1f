//! Calls at a base station, as an OpenBTS makes and takes them.
//!
//! Knows: wire.md section 3 and its oddities: the Contact of any answer is where ACK and BYE go, an ACK is late, a CANCEL is malformed,
//! a cancelled INVITE is never answered 487, a BYE from the called side goes to the top Via. Does not know: what a right box
//! does; a leg notes what the phone saw.
//! Limits: an INVITE is sent again at [`RESEND_AT_MS`] and given up after [`GIVE_UP`] (32 s in the field: a rehearsal does not
//! wait for a dead box).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::air::{ACK_AFTER, ANSWER_AFTER, Air, Manner, RING_AFTER, Tick};
use super::bts::{Shared, Station, USER_AGENT, dice, letters, lock, now_ms};
use super::heard::{Heard, cause_of, display_of, host_of, tag_of, uri_in, user_of};
use super::rtp::Ear;
use crate::ident::Imsi;

/// "Retransmission at 1, 3, 7, 15, 31 s" (wire.md 3.1).
const RESEND_AT_MS: [u64; 2] = [1_000, 3_000];
pub const GIVE_UP: Duration = Duration::from_secs(7);
/// BYE and CANCEL: "resent at 0.5, 1.5, 3.5 .. s" (wire.md 3.2).
const BYE_AT_MS: [u64; 4] = [0, 500, 1_500, 3_500];
const BYE_WAIT: Duration = Duration::from_secs(5);

/// How far a call has come for the phone on this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Outgoing, and nothing was heard.
    Calling,
    Proceeding,
    /// Incoming: paged.
    Paging,
    Ringing,
    Up,
    /// After it was up.
    Ended,
    Failed,
    Cancelled,
}

impl State {
    pub fn is_over(self) -> bool {
        matches!(self, State::Ended | State::Failed | State::Cancelled)
    }
}

/// One side of a call.
#[derive(Clone)]
pub struct Leg {
    pub imsi: Imsi,
    pub is_outgoing: bool,
    pub state: State,
    /// Of the final answer.
    pub code: u16,
    /// As the phone has it: of `Reason`, else what OpenBTS makes of the code.
    pub cause: u8,
    /// The number that the called phone shows.
    pub shown: String,
    /// The SDP of this side, and of the other.
    pub ours: Vec<u8>,
    pub theirs: Vec<u8>,
    pub ear: Arc<Ear>,
    pub began: Instant,
    /// The first answer, the first 180 or 183, the 200, the end.
    pub heard_at: Option<Instant>,
    pub rang_at: Option<Instant>,
    pub up_at: Option<Instant>,
    pub over_at: Option<Instant>,
    /// How often the INVITE was sent or came, and how often 180 and 183 came.
    pub invite_count: u32,
    pub ringing_count: u32,
    /// The other side's ACK came (incoming); ours went out (outgoing).
    pub is_acknowledged: bool,
    pub ended_by_them: bool,
    call_id: String,
    /// The INVITE: outgoing as it was sent, incoming as it came.
    invite: Vec<u8>,
    request: Option<Heard>,
    /// The Request-URI of the outgoing INVITE, and the user in it.
    uri: String,
    dialled: String,
    branch: String,
    tag: String,
    cseq: u32,
    remote: Option<SocketAddr>,
    remote_to: String,
    paging_turn: u32,
    last_answer: Vec<u8>,
}

impl Leg {
    fn end(&mut self, state: State) {
        self.state = state;
        self.over_at = Some(Instant::now());
    }

    /// A request of the caller in his dialog.
    fn in_dialog(&self, own: SocketAddr, method: &str, uri: &str, cseq: u32, branch: &str, more: &str) -> String {
        let Leg { imsi, tag, call_id, remote_to, .. } = self;
        let from = match &self.request {
            None => format!(" <sip:IMSI{imsi}@{own}>;tag={tag}"),
            // The called side: what was To is From.
            Some(invite) => format!(" {};tag={tag}", invite.get("To").unwrap_or_default()),
        };
        format!(
            "{method} {uri} SIP/2.0\r\nTo:  {remote_to}\r\nFrom: {from}\r\nVia: SIP/2.0/UDP {own};branch={branch}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{more}User-Agent: {USER_AGENT}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }
}

const CLEARING: &str = "Reason: Q.850;cause=16 ;text=\"Normal_Call_Clearing\"\r\n";

/// One INVITE of a phone before it is text.
#[derive(Clone, Copy, Debug)]
pub struct Invite<'a> {
    /// SIP.Proxy.Speech.
    pub speech: SocketAddr,
    pub own: SocketAddr,
    /// MCC and MNC, LAC and CI glued, as in P-Access-Network-Info.
    pub cell: &'a str,
    pub imsi: &'a Imsi,
    pub dialled: &'a str,
    /// The first of P-Associated-URI, where the registrar gave one.
    pub number: Option<&'a str>,
    pub call_id: &'a str,
    pub cseq: u32,
    pub tag: &'a str,
    pub branch: &'a str,
    pub time_ms: u64,
    pub sdp: &'a [u8],
}

impl Invite<'_> {
    /// The datagram.
    ///
    /// Source: wire.md 3.1, seen live.
    pub fn text(&self) -> Vec<u8> {
        let Invite { speech, own, cell, imsi, dialled, call_id, cseq, tag, branch, time_ms, sdp, .. } = *self;
        let number = self.number.map(|number| format!("P-Associated-URI: <tel:{number}>\n")).unwrap_or_default();
        let (seconds, millis) = (time_ms / 1000, time_ms % 1000);
        let head = format!(
            "INVITE sip:{dialled}@{speech} SIP/2.0\n\
             To:  <sip:{dialled}@{host}>\n\
             From:  <sip:IMSI{imsi}@{own}>;tag={tag}\n\
             Via: SIP/2.0/UDP {own};branch={branch}\n\
             Call-ID: {call_id}\n\
             CSeq: {cseq} INVITE\n\
             Contact: <sip:IMSI{imsi}@{own}>;expires=3600\n\
             Max-Forwards: 70\n\
             P-Preferred-Identity: <sip:IMSI{imsi}@{proxy}>\n\
             {number}\
             P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time={seconds}.{millis:03}\n\
             P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={cell}\n\
             User-Agent: {USER_AGENT}\n\
             Content-Type: application/sdp\n\
             Content-Length: {len}\n\n",
            host = own.ip(),
            proxy = speech.ip(),
            len = sdp.len(),
        );
        let mut datagram = head.replace('\n', "\r\n").into_bytes();
        datagram.extend_from_slice(sdp);
        datagram
    }
}

// --- What a phone does --------------------------------------------------------------------------------------------------

impl Station {
    /// A phone dials. Returns at once, with the Call-ID.
    ///
    /// Errors: no port is free for its RTP, or there are no dice.
    pub fn call(&self, imsi: &Imsi, dialled: &str) -> std::io::Result<String> {
        let shared = &*self.shared;
        let dice = dice()?;
        let (call_id, cseq) = (format!("{:x}", dice >> 64 & u128::from(u64::MAX)), (dice & 0xF_FFFF) as u32);
        let (tag, branch) = (format!("OBTS{}", letters()), format!("z9hG4bKOBTS{}", letters()));
        let ear = Arc::new(Ear::open(shared.own.ip())?);
        let sdp = ear.sdp(&format!("IMSI{imsi}"));
        let mut air = lock(&shared.air);
        let number = air.numbers.get(imsi).and_then(|numbers| numbers.first()).cloned();
        let invite = Invite {
            speech: shared.proxies.speech,
            own: shared.own,
            cell: &shared.cell.glued(),
            imsi,
            dialled,
            number: number.as_deref(),
            call_id: &call_id,
            cseq,
            tag: &tag,
            branch: &branch,
            time_ms: now_ms(),
            sdp: &sdp,
        }
        .text();
        shared.send(&invite, shared.proxies.speech);
        let leg = Leg {
            is_outgoing: true,
            state: State::Calling,
            invite_count: 1,
            uri: format!("sip:{dialled}@{}", shared.proxies.speech),
            dialled: dialled.to_owned(),
            remote: Some(shared.proxies.speech),
            remote_to: format!("<sip:{dialled}@{}>", shared.own.ip()),
            branch,
            cseq,
            ..Leg::new(imsi, ear, sdp, call_id.clone(), tag, invite)
        };
        air.legs.insert(call_id.clone(), leg);
        for at_ms in RESEND_AT_MS {
            air.after(Duration::from_millis(at_ms), Tick::Resend(call_id.clone()));
        }
        air.after(GIVE_UP, Tick::Resend(call_id.clone()));
        Ok(call_id)
    }

    /// The leg as soon as `is_so`, else as it is after `wait`.
    pub fn leg_when(&self, call_id: &str, wait: Duration, is_so: impl Fn(&Leg) -> bool) -> Option<Leg> {
        self.watch(wait, |air| air.legs.get(call_id).filter(|leg| is_so(leg)).cloned())
            .or_else(|| lock(&self.shared.air).legs.get(call_id).cloned())
    }

    /// The call that came in for this phone after `since`, with its Call-ID; as soon as `is_so`, else as it is after `wait`.
    pub fn incoming_when(
        &self,
        imsi: &Imsi,
        since: Instant,
        wait: Duration,
        is_so: impl Fn(&Leg) -> bool,
    ) -> Option<(String, Leg)> {
        let find = |air: &Air, is_so: &dyn Fn(&Leg) -> bool| {
            let ours = |leg: &&Leg| leg.imsi == *imsi && !leg.is_outgoing && leg.began >= since && is_so(leg);
            air.legs.values().filter(ours).max_by_key(|leg| leg.began).map(|leg| (leg.call_id.clone(), leg.clone()))
        };
        self.watch(wait, |air| find(air, &is_so)).or_else(|| find(&lock(&self.shared.air), &|_| true))
    }

    /// Every call that came in for this phone after `since`.
    pub fn incoming(&self, imsi: &Imsi, since: Instant) -> Vec<Leg> {
        let air = lock(&self.shared.air);
        let ours = |leg: &&Leg| leg.imsi == *imsi && !leg.is_outgoing && leg.began >= since;
        air.legs.values().filter(ours).cloned().collect()
    }

    /// The phones for which a call came in here.
    pub fn called_phones(&self) -> Vec<Imsi> {
        let air = lock(&self.shared.air);
        air.legs.values().filter(|leg| !leg.is_outgoing).map(|leg| leg.imsi).collect()
    }

    /// Sides of calls that are not over.
    pub fn open_legs(&self) -> Vec<Imsi> {
        let air = lock(&self.shared.air);
        air.legs.values().filter(|leg| !leg.state.is_over()).map(|leg| leg.imsi).collect()
    }

    /// The phone's own CANCEL: "malformed: new branch, CSeq = INVITE + 1, To with tag" (wire.md 3.2). The code of its answer.
    pub fn cancel(&self, call_id: &str) -> Option<u16> {
        let (key, text, to) = {
            let mut air = lock(&self.shared.air);
            let leg = air.legs.get_mut(call_id)?;
            leg.end(State::Cancelled);
            let branch = format!("z9hG4bKOBTS{}", letters());
            let text = leg.in_dialog(self.shared.own, "CANCEL", &leg.uri, leg.cseq + 1, &branch, CLEARING);
            ((call_id.to_owned(), leg.cseq + 1, "CANCEL"), text, leg.remote?)
        };
        self.shared.changed.notify_all();
        self.transact(key, &text, to, &BYE_AT_MS, BYE_WAIT).map(|answer| answer.code())
    }

    /// The phone hangs up. The code of the answer to its BYE.
    pub fn hang_up(&self, call_id: &str) -> Option<u16> {
        let (key, text, to) = {
            let mut air = lock(&self.shared.air);
            let leg = air.legs.get_mut(call_id)?;
            leg.end(State::Ended);
            let branch = format!("z9hG4bKOBTS{}", letters());
            let (uri, to) = match &leg.request {
                // "dialled user @ Contact host:port (the Contact's user part is lost)" (wire.md 3.2)
                None => (format!("sip:{}@{}", leg.dialled, leg.remote?), leg.remote?),
                // "BYE from the MT side goes to the top Via's sent-by of the INVITE, not to Contact" (wire.md 3.3)
                Some(invite) => {
                    let to = invite.sent_by()?;
                    let contact = invite.get("Contact").map(|contact| uri_in(contact).to_owned());
                    (contact.unwrap_or_else(|| format!("sip:{to}")), to)
                }
            };
            leg.cseq += 1;
            let text = leg.in_dialog(self.shared.own, "BYE", &uri, leg.cseq, &branch, CLEARING);
            ((call_id.to_owned(), leg.cseq, "BYE"), text, to)
        };
        self.shared.changed.notify_all();
        self.transact(key, &text, to, &BYE_AT_MS, BYE_WAIT).map(|answer| answer.code())
    }
}

impl Leg {
    /// An incoming one that is paged; every caller overwrites what is not so.
    fn new(imsi: &Imsi, ear: Arc<Ear>, ours: Vec<u8>, call_id: String, tag: String, invite: Vec<u8>) -> Leg {
        Leg {
            imsi: *imsi,
            is_outgoing: false,
            state: State::Paging,
            code: 0,
            cause: 0,
            shown: String::new(),
            ours,
            theirs: Vec::new(),
            ear,
            began: Instant::now(),
            heard_at: None,
            rang_at: None,
            up_at: None,
            over_at: None,
            invite_count: 1,
            ringing_count: 0,
            is_acknowledged: false,
            ended_by_them: false,
            call_id,
            invite,
            request: None,
            uri: String::new(),
            dialled: String::new(),
            branch: String::new(),
            tag,
            cseq: 0,
            remote: None,
            remote_to: String::new(),
            paging_turn: 0,
            last_answer: Vec::new(),
        }
    }
}

// --- The calling side -----------------------------------------------------------------------------------------------------

impl Shared {
    pub(super) fn resend(&self, air: &mut Air, call_id: &str) {
        let Some(leg) = air.legs.get_mut(call_id).filter(|leg| leg.state == State::Calling) else { return };
        if leg.began.elapsed() >= GIVE_UP {
            return leg.end(State::Failed);
        }
        leg.invite_count += 1;
        self.send(&leg.invite, self.proxies.speech);
    }

    /// An answer to an INVITE.
    pub(super) fn invite_answered(&self, answer: &Heard, number: u32) {
        let air = &mut *lock(&self.air);
        let call_id = answer.call_id().to_owned();
        let Some(leg) = air.legs.get_mut(&call_id).filter(|leg| leg.is_outgoing && leg.cseq == number) else { return };
        leg.heard_at.get_or_insert_with(Instant::now);
        if let Some(contact) = answer.get("Contact") {
            // "any INVITE answer's Contact overwrites the peer address" (wire.md 3.2)
            match host_of(uri_in(contact)) {
                Some(remote) => leg.remote = Some(remote),
                None => self.complain(format!("a Contact without a numeric address: {contact}")),
            }
        }
        if let Some(to) = answer.get("To") {
            leg.remote_to = to.to_owned();
        }
        let is_early = matches!(leg.state, State::Calling | State::Proceeding | State::Ringing);
        match answer.code() {
            100 if leg.state == State::Calling => leg.state = State::Proceeding,
            180 | 183 => {
                leg.ringing_count += 1;
                if is_early {
                    leg.state = State::Ringing;
                    leg.rang_at.get_or_insert_with(Instant::now);
                }
            }
            100..=199 => {}
            200..=299 if is_early => {
                leg.state = State::Up;
                (leg.code, leg.up_at) = (answer.code(), Some(Instant::now()));
                leg.theirs.clone_from(&answer.body);
                air.after(ACK_AFTER, Tick::Ack(call_id));
            }
            // A copy, because the ACK is late, or one that crossed the CANCEL.
            200..=299 => {
                if leg.is_acknowledged || leg.state == State::Cancelled {
                    self.acknowledge(air, &call_id);
                }
            }
            code => {
                if code < 400 {
                    self.complain(format!("a {code} to an INVITE: an OpenBTS does not follow it"));
                }
                if leg.code == 0 {
                    leg.code = code;
                    leg.cause = cause_at_phone(answer, leg.rang_at.is_some());
                }
                if is_early {
                    leg.end(State::Failed);
                }
                self.acknowledge(air, &call_id);
            }
        }
        self.changed.notify_all();
    }

    /// "`ACK sip:200@127.0.0.1:5060` to 127.0.0.1:5070, same branch as the INVITE": the Request-URI is the INVITE's, and it goes where the
    /// Contact says (wire.md 3.2).
    pub(super) fn acknowledge(&self, air: &mut Air, call_id: &str) {
        let Some(leg) = air.legs.get_mut(call_id) else { return };
        let Some(remote) = leg.remote else { return };
        let text = leg.in_dialog(self.own, "ACK", &leg.uri, leg.cseq, &leg.branch, "");
        leg.is_acknowledged = true;
        self.send(text.as_bytes(), remote);
    }
}

/// "If the phrase of a failure answer is one of these names it wins over the code, then `Reason: Q.850;cause=N`, then the code" (wire.md
/// 2); the codes of wire.md 3.2.
fn cause_at_phone(answer: &Heard, rang: bool) -> u8 {
    match answer.phrase() {
        "User_Busy" => return 17,
        "Call_Rejected" => return 21,
        "Unassigned_Number" => return 1,
        "Normal_Call_Clearing" => return 16,
        // No_Paging_Response is no cause of Q.850: it comes with its Reason.
        _ => {}
    }
    if let Some(cause) = cause_of(answer) {
        return cause;
    }
    match answer.code() {
        403 | 603 => 21,
        404 => 3,
        408 => 18,
        480 if rang => 19,
        480 => 18,
        503 => 34,
        // "everything else user busy"
        _ => 17,
    }
}

// --- The called side ------------------------------------------------------------------------------------------------------

impl Shared {
    pub(super) fn invited(&self, invite: Heard) {
        let air = &mut *lock(&self.air);
        let call_id = invite.call_id().to_owned();
        let cseq = invite.cseq().map_or(0, |(number, _)| number);
        if let Some(leg) = air.legs.get_mut(&call_id) {
            let is_copy = leg.request.as_ref().is_some_and(|first| first.cseq() == invite.cseq());
            if !is_copy {
                self.complain(format!("a second INVITE (CSeq {cseq}) in one call: it is answered 488"));
                self.reply(&invite, "488 Not Acceptable Here", "", "", b"");
                return;
            }
            leg.invite_count += 1;
            if leg.state == State::Cancelled {
                return self.complain("an INVITE that comes again after its CANCEL pages the phone again".into());
            }
            if let Some(to) = invite.sent_by() {
                self.send(&leg.last_answer, to);
            }
            if leg.state == State::Paging {
                // "A duplicate INVITE restarts the paging timer" (wire.md 3.3).
                leg.paging_turn += 1;
                let turn = leg.paging_turn;
                air.page(&call_id, turn, false);
            }
            return;
        }
        let user = user_of(invite.uri());
        let Some(imsi) = user.strip_prefix("IMSI").and_then(|digits| Imsi::parse(digits).ok()) else {
            self.complain(format!("an INVITE for {user:?}, which is no IMSI: it is answered 404"));
            self.reply(&invite, "404 Not Found - To header is not an IMSI", "", "", b"");
            return;
        };
        let ear = match Ear::open(self.own.ip()) {
            Ok(ear) => Arc::new(ear),
            Err(error) => return self.complain(format!("no port for RTP: {error}")),
        };
        // "Busy (a call or a paging for a call in progress): at once `486 User_Busy`" (wire.md 3.3).
        let is_busy = air.legs.values().any(|leg| leg.imsi == imsi && !leg.state.is_over());
        let (tag, sdp) = (format!("OBTS{}", letters()), ear.sdp(&format!("IMSI{imsi}")));
        let mut leg = Leg {
            theirs: invite.body.clone(),
            shown: shown_at_phone(&invite),
            cseq,
            remote_to: invite.get("From").unwrap_or_default().to_owned(),
            ..Leg::new(&imsi, ear, sdp, call_id.clone(), tag, Vec::new())
        };
        if tag_of(invite.get("From").unwrap_or_default()).is_empty() {
            self.complain("an INVITE without a tag in From".into());
        }
        let contact = self.contact(&imsi);
        if is_busy {
            let more = format!("{contact}Reason: Q.850;cause=17 ;text=\"User_Busy\"\r\n");
            leg.last_answer = self.reply(&invite, "486 User_Busy", &leg.tag, &more, b"");
            (leg.code, leg.cause) = (486, 17);
            leg.end(State::Failed);
        } else {
            leg.last_answer = self.reply(&invite, "100 Trying", &leg.tag, &contact, b"");
            air.page(&call_id, 0, false);
        }
        leg.request = Some(invite);
        air.legs.insert(call_id, leg);
        self.changed.notify_all();
    }

    fn contact(&self, imsi: &Imsi) -> String {
        format!("Contact: <sip:IMSI{imsi}@{}>;expires=3600\r\n", self.own)
    }

    /// An answer to the incoming INVITE of this leg, which a copy of the INVITE will get again.
    fn say(&self, leg: &mut Leg, status: &str, more: &str, body: &[u8]) {
        let Some(invite) = &leg.request else { return };
        let more = format!("{}{more}", self.contact(&leg.imsi));
        leg.last_answer = self.reply(invite, status, &leg.tag, &more, body);
    }

    pub(super) fn paged(&self, air: &mut Air, call_id: String, turn: u32, until: Instant) {
        let Some(leg) = air.legs.get_mut(&call_id) else { return };
        if leg.state != State::Paging || leg.paging_turn != turn {
            return;
        }
        if air.phones.contains_key(&leg.imsi) {
            leg.state = State::Ringing;
            self.say(leg, "100 Trying", "", b"");
            air.after(RING_AFTER, Tick::Ring(call_id));
        } else if Instant::now() < until {
            Shared::page_on(air, Tick::Page { call_id, turn, until });
        } else {
            self.say(leg, "480 No_Paging_Response", "Reason: Q.850;cause=27 ;text=\"No_Paging_Response\"\r\n", b"");
            (leg.code, leg.cause) = (480, 27);
            leg.end(State::Failed);
        }
    }

    pub(super) fn rings(&self, air: &mut Air, call_id: &str) {
        let Some(leg) = air.legs.get_mut(call_id).filter(|leg| leg.state == State::Ringing) else { return };
        leg.rang_at = Some(Instant::now());
        self.say(leg, "180 Ringing", "", b"");
        let answers = air.phones.get(&leg.imsi) == Some(&Manner::Answers);
        if answers {
            air.after(ANSWER_AFTER, Tick::Answer(call_id.to_owned()));
        }
    }

    /// "`200 OK` with SDP, P-PHY-Info (bare digits) and P-Access-Network-Info -> the serving cell of the call" (wire.md 3.3).
    pub(super) fn answers(&self, air: &mut Air, call_id: &str) {
        let Some(leg) = air.legs.get_mut(call_id).filter(|leg| leg.state == State::Ringing) else { return };
        leg.state = State::Up;
        leg.up_at = Some(Instant::now());
        let time_ms = now_ms();
        let more = format!(
            "P-PHY-Info: OpenBTS; IMSI={} TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time={}.{:03}\r\n\
             P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={}\r\nContent-Type: application/sdp\r\n",
            leg.imsi,
            time_ms / 1000,
            time_ms % 1000,
            self.cell.glued()
        );
        let sdp = leg.ours.clone();
        self.say(leg, "200 OK", &more, &sdp);
    }

    pub(super) fn acknowledged(&self, ack: &Heard) {
        if let Some(leg) = lock(&self.air).legs.get_mut(ack.call_id()) {
            leg.is_acknowledged = true;
        }
        self.changed.notify_all();
    }

    pub(super) fn hung_up(&self, bye: &Heard) {
        let air = &mut *lock(&self.air);
        let Some(leg) = air.legs.get_mut(bye.call_id()) else {
            self.complain("a BYE for a call that there is not".into());
            self.reply(bye, "404 Not Found", "", "", b"");
            return;
        };
        self.reply(bye, "200 OK", "", "", b"");
        if !leg.state.is_over() {
            leg.ended_by_them = true;
            leg.end(State::Ended);
        }
        self.changed.notify_all();
    }

    /// "CANCEL while paging: `200 OK` to the CANCEL and never a 487 for the INVITE" (wire.md 3.3).
    pub(super) fn cancelled(&self, cancel: &Heard) {
        let air = &mut *lock(&self.air);
        let Some(leg) = air.legs.get_mut(cancel.call_id()).filter(|leg| !leg.is_outgoing) else {
            self.complain("a CANCEL for a call that there is not".into());
            self.reply(cancel, "404 Not Found", "", "", b"");
            return;
        };
        self.reply(cancel, "200 OK", &leg.tag, "", b"");
        if matches!(leg.state, State::Paging | State::Ringing) {
            leg.end(State::Cancelled);
        }
        self.changed.notify_all();
    }
}

/// "Caller ID shown: From display name if it is not an IMSI, else P-Associated-URI, else P-Asserted-Identity, else From user" (wire.md
/// 3.3).
fn shown_at_phone(invite: &Heard) -> String {
    let from = invite.get("From").unwrap_or_default();
    let display = display_of(from);
    if !display.is_empty() && !display.starts_with("IMSI") {
        return display.to_owned();
    }
    ["P-Associated-URI", "P-Asserted-Identity"]
        .iter()
        .find_map(|name| invite.get(name))
        .map_or_else(|| user_of(uri_in(from)), |value| user_of(uri_in(value)))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::bts::{Cell, Dialect, Proxies};

    const CELL: Cell = Cell { mcc: "001", mnc: "01", lac: 1000, ci: 10 };

    /// wire.md 3.1, seen live.
    #[test]
    fn an_invite_is_byte_for_byte_what_was_seen_live() {
        let sdp = "v=0\no=IMSI001010000000001 0 0 IN IP4 127.0.0.1\ns=Talk Time\nt=0 0\nm=audio 16494 RTP/AVP 3\n\
                   c=IN IP4 127.0.0.1\na=rtpmap:3 GSM/8000\n"
            .replace('\n', "\r\n");
        let invite = Invite {
            speech: "127.0.0.1:5060".parse().unwrap(),
            own: "127.0.0.1:5062".parse().unwrap(),
            cell: &CELL.glued(),
            imsi: &Imsi::parse("001010000000001").unwrap(),
            dialled: "404",
            number: Some("2101"),
            call_id: "924a070e7621ca",
            cseq: 131_736,
            tag: "OBTSsocshaiikpzzmxoc",
            branch: "z9hG4bKOBTSgvweaomrrstmarme",
            time_ms: 1_795_265_097_613,
            sdp: sdp.as_bytes(),
        };
        let expected = "INVITE sip:404@127.0.0.1:5060 SIP/2.0\n\
            To:  <sip:404@127.0.0.1>\n\
            From:  <sip:IMSI001010000000001@127.0.0.1:5062>;tag=OBTSsocshaiikpzzmxoc\n\
            Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSgvweaomrrstmarme\n\
            Call-ID: 924a070e7621ca\n\
            CSeq: 131736 INVITE\n\
            Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600\n\
            Max-Forwards: 70\n\
            P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>\n\
            P-Associated-URI: <tel:2101>\n\
            P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265097.613\n\
            P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\n\
            User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\n\
            Content-Type: application/sdp\n\
            Content-Length: 135\n\n"
            .replace('\n', "\r\n");
        assert_eq!(String::from_utf8(invite.text()).unwrap(), expected + &sdp);
    }

    /// The two stations have no box between them: hill's proxy is dale, and who dials IMSI.. dials dale's phone.
    #[test]
    fn two_stations_without_a_box_make_a_call() {
        let any = "127.0.0.1:0".parse().unwrap();
        let nobody = "127.0.0.1:9".parse().unwrap();
        let proxies = Proxies { registration: nobody, speech: nobody, texts: nobody };
        let dale = Station::new("dale", any, proxies, Dialect::V5, CELL).unwrap();
        let proxies = Proxies { speech: dale.address(), ..proxies };
        let hill = Station::new("hill", any, proxies, Dialect::V5, CELL).unwrap();
        let (ana, ben) = (Imsi::parse("001010000000001").unwrap(), Imsi::parse("001010000000002").unwrap());
        let wait = Duration::from_secs(10);
        let dialled = format!("IMSI{ben}");

        dale.camp(&ben, Manner::Answers);
        let began = Instant::now();
        let call = hill.call(&ana, &dialled).unwrap();
        let caller = hill.leg_when(&call, wait, |leg| leg.state == State::Up).unwrap();
        let (_, called) = dale.incoming_when(&ben, began, wait, |leg| leg.state == State::Up).unwrap();
        assert_eq!((&caller.ours, &caller.theirs), (&called.theirs, &called.ours));
        assert_eq!((caller.state, called.shown.as_str()), (State::Up, "IMSI001010000000001"));
        // A third one finds the line busy.
        let other = hill.call(&Imsi::parse("001010000000003").unwrap(), &dialled).unwrap();
        let busy = hill.leg_when(&other, wait, |leg| leg.state.is_over()).unwrap();
        assert_eq!((busy.code, busy.cause), (486, 17));
        // The ACK is late, and goes to the Contact.
        let (_, called) = dale.incoming_when(&ben, began, wait, |leg| leg.is_acknowledged).unwrap();
        assert!(called.is_acknowledged);
        assert_eq!(hill.hang_up(&call), Some(200));
        assert!(dale.incoming(&ben, began).iter().all(|leg| leg.state.is_over()));

        // One who only rings: the CANCEL is answered, and there is no 487.
        dale.camp(&ben, Manner::Rings);
        let began = Instant::now();
        let call = hill.call(&ana, &dialled).unwrap();
        assert_eq!(hill.leg_when(&call, wait, |leg| leg.state == State::Ringing).unwrap().state, State::Ringing);
        assert_eq!(hill.cancel(&call), Some(200));
        let (_, called) = dale.incoming_when(&ben, began, wait, |leg| leg.state.is_over()).unwrap();
        assert_eq!(called.state, State::Cancelled);
        assert_eq!(hill.leg_when(&call, Duration::ZERO, |_| true).unwrap().code, 0);

        // Nobody there.
        dale.leave(&ben);
        let call = hill.call(&ana, &dialled).unwrap();
        let absent = hill.leg_when(&call, wait, |leg| leg.state.is_over()).unwrap();
        assert_eq!((absent.code, absent.cause), (480, 27));
        assert!(hill.complaints().is_empty() && dale.complaints().is_empty(), "{:?}", dale.complaints());
        assert!(hill.open_legs().is_empty() && dale.open_legs().is_empty());
    }
}
