//! Base stations: a small OpenBTS written from what is known of it on the wire, with its oddities.
//!
//! It matches by Call-ID alone, sends ACK late and in its INVITE's branch, never a 487, no final answer twice but for a copy of the
//! INVITE, and 404 to whatever is outside of a dialog. A phone has one channel; whoever pages it meanwhile hears 486.

use std::net::SocketAddr;

use encamp::ident::Imsi;
use encamp::sip::parse::{Message, parse};

use crate::says::{self, Calling, Final};
use crate::world::{MS, SECOND, World};

/// GSM.Timer.T3113.
const PAGING_US: u64 = 10 * SECOND;
/// A phone that nobody picks up stops by itself in the end.
const ALERTING_US: u64 = 120 * SECOND;
/// A dialog that is over is known for so long.
const REMEMBERED_US: u64 = 32 * SECOND;
/// Retransmissions of an INVITE: first after 2*T1, doubling, not capped; then 64*T1.
pub const INVITE_AGAIN_MS: [u64; 5] = [1_000, 3_000, 7_000, 15_000, 31_000];
const GIVEN_UP_US: u64 = 32 * SECOND;
/// Of BYE and CANCEL.
const REQUEST_AGAIN_MS: [u64; 6] = [500, 1_500, 3_500, 7_500, 15_500, 31_500];

pub struct Cell {
    pub register_call_id: String,
    pub cseq: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Called,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Caller: nothing heard. Called: paging.
    Trying,
    /// Caller: a 1xx was heard. Called: the phone has answered the paging.
    Proceeding,
    /// Called: the phone rings.
    Ringing,
    /// A 200 was heard or sent, and the ACK not yet sent or heard.
    Answered,
    Up,
    /// Caller: CANCEL sent.
    Cancelling,
    /// BYE sent.
    Leaving,
    Over,
}

/// What a base station does when the 200 crosses its CANCEL: nobody has written it down, so each of them is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Glare {
    /// ACK, and it waits for a BYE.
    Acknowledges,
    /// ACK and BYE.
    HangsUp,
    Ignores,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tick {
    InviteAgain(usize),
    /// CANCEL or BYE again; the branch tells which.
    AskAgain(usize),
    Ack,
    /// The caller does not want to wait any longer.
    GivesUp,
    HangUp,
    /// Called: the phone answers the paging, rings, and what its user does then.
    PagingAnswered,
    Rings,
    PicksUp,
    Rejects,
    PagingOver,
    AlertingOver,
    /// Caller: CANCEL was answered and no final answer of the INVITE came.
    CancelOver,
    RadioLost,
}

/// One dialog at a base station.
pub struct Leg {
    pub side: Side,
    pub cell: usize,
    pub phone: Option<usize>,
    pub call: Option<usize>,
    pub state: State,
    pub calling: Calling,
    pub peer: SocketAddr,
    pub their_tag: String,
    /// Called: the INVITE and the last answer.
    pub invite: Vec<u8>,
    last: Vec<u8>,
    paging_until_us: u64,
    /// Under way: CANCEL or BYE.
    asking: Option<(Vec<u8>, u64)>,
    pub asked_cseq: u32,
    pub glare: Glare,
    pub acked: bool,
    pub rang: bool,
    /// What the phone was told, or what the base station answered.
    pub end: Option<Final>,
    pub body_heard: Vec<u8>,
    pub over_us: u64,
    /// The phone has hung up; its base station may still wait for something.
    pub hung_up: bool,
    /// Its box remembers nothing of the call, and has heard that it rings.
    pub ringing_heard: bool,
    /// A power cut took what the box knew of it.
    pub torn: bool,
    /// The base station was restarted: nobody was told.
    pub vanished: bool,
    /// It gave up telling: no answer to its CANCEL or BYE in 32 s.
    pub unheard: bool,
    /// It answered a BYE, or has had its own answered.
    pub bye_done: bool,
    /// A copy of its BYE or CANCEL reached a box; answers to it that left.
    pub end_heard: bool,
    pub end_answered: bool,
}

impl Leg {
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub fn rings(&self) -> bool {
        self.side == Side::Called && matches!(self.state, State::Trying | State::Proceeding | State::Ringing)
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Answered | State::Up)
    }
}

impl World {
    pub fn letters(&mut self) -> String {
        (0..16).map(|_| char::from(b'a' + self.rng.below(26) as u8)).collect()
    }

    pub fn new_leg(
        &mut self,
        side: Side,
        cell: usize,
        phone: Option<usize>,
        calling: Calling,
        peer: SocketAddr,
    ) -> usize {
        let glare = match self.rng.below(3) {
            0 => Glare::Acknowledges,
            1 => Glare::HangsUp,
            _ => Glare::Ignores,
        };
        let id = self.legs.len();
        self.leg_of.insert((cell, calling.call_id.clone()), id);
        let asked_cseq = calling.cseq;
        self.legs.push(Leg {
            side,
            cell,
            phone,
            call: None,
            state: State::Trying,
            calling,
            peer,
            their_tag: String::new(),
            invite: Vec::new(),
            last: Vec::new(),
            paging_until_us: 0,
            asking: None,
            asked_cseq,
            glare,
            acked: false,
            rang: false,
            end: None,
            body_heard: Vec::new(),
            over_us: 0,
            hung_up: false,
            ringing_heard: false,
            torn: false,
            vanished: false,
            unheard: false,
            bye_done: false,
            end_heard: false,
            end_answered: false,
        });
        id
    }

    pub fn leg_sends(&mut self, leg: usize, bytes: Vec<u8>) {
        let (from, to) = (self.plan.cells[self.legs[leg].cell].address, self.legs[leg].peer);
        self.send(from, to, bytes);
    }

    fn over(&mut self, leg: usize) {
        let one = &mut self.legs[leg];
        if one.state == State::Over {
            return;
        }
        one.state = State::Over;
        one.over_us = self.now_us;
        one.asking = None;
        let phone = one.phone;
        if let Some(phone) = phone.filter(|phone| self.phones[*phone].busy == Some(leg)) {
            self.phones[phone].busy = None;
        }
    }

    pub fn cell_restarts(&mut self, cell: usize) {
        tell!(self, "cell {cell} restarts");
        self.meet("cell restart");
        for leg in 0..self.legs.len() {
            if self.legs[leg].cell == cell && !self.legs[leg].is_over() {
                self.legs[leg].vanished = true;
                self.over(leg);
            }
        }
        self.leg_of.retain(|(at, _), _| *at != cell);
        self.texts_cell_restarts(cell);
        self.cells[cell].register_call_id = format!("{:x}", self.rng.u64());
        self.cells[cell].cseq = self.rng.below(1 << 20) as u32;
    }

    // --- Time ---

    pub fn leg_tick(&mut self, leg: usize, tick: Tick) {
        let (side, state) = (self.legs[leg].side, self.legs[leg].state);
        match (tick, side, state) {
            (_, _, State::Over) => {}
            (Tick::InviteAgain(n), Side::Caller, State::Trying) => {
                self.meet("INVITE again");
                let bytes = self.legs[leg].calling.invite();
                self.leg_sends(leg, bytes);
                if n + 1 == INVITE_AGAIN_MS.len() {
                    self.tick(leg, SECOND, Tick::CancelOver);
                }
            }
            // After a CANCEL that a 200 crossed the state is another.
            (Tick::AskAgain(n), _, _) => self.ask_again(leg, n),
            (Tick::Ack, Side::Caller, State::Answered) => {
                self.legs[leg].state = State::Up;
                self.acknowledge(leg);
                self.talk(leg);
            }
            (Tick::HangUp, _, _) | (Tick::GivesUp, _, State::Trying | State::Proceeding) => self.hangs_up(leg),
            (Tick::PagingAnswered, Side::Called, State::Trying) => self.paging_answered(leg),
            (Tick::Rings, Side::Called, State::Proceeding) => {
                self.legs[leg].state = State::Ringing;
                self.legs[leg].rang = true;
                self.says_final(leg, 180, "Ringing", "", &[]);
                let wait = self.between_ms(100, 20_000);
                match self.rng.below(20) {
                    0 => self.tick(leg, wait / 4, Tick::Rejects),
                    1 | 2 => self.meet("nobody picks up"),
                    _ => self.tick(leg, wait, Tick::PicksUp),
                }
                self.tick(leg, ALERTING_US, Tick::AlertingOver);
            }
            (Tick::PicksUp, Side::Called, State::Ringing) => self.picks_up(leg),
            (Tick::Rejects, Side::Called, State::Ringing) => {
                self.meet("rejected");
                self.refuses(leg, 403, "Call_Rejected", 21);
            }
            (Tick::PagingOver, Side::Called, State::Trying) => {
                if self.now_us >= self.legs[leg].paging_until_us {
                    self.meet("no paging response");
                    self.refuses(leg, 480, "No_Paging_Response", 27);
                }
            }
            (Tick::AlertingOver, Side::Called, State::Ringing) => {
                self.refuses(leg, 480, "User_Alerting_No_Answer", 19);
            }
            // It gives up at 64*T1, or after its CANCEL nothing more came.
            (Tick::CancelOver, Side::Caller, State::Trying | State::Cancelling) => {
                self.over(leg);
                self.gave_up(leg);
            }
            (Tick::RadioLost, _, State::Up | State::Answered) => self.hangs_up(leg),
            (
                Tick::InviteAgain(_)
                | Tick::Ack
                | Tick::GivesUp
                | Tick::PagingAnswered
                | Tick::Rings
                | Tick::PicksUp
                | Tick::Rejects
                | Tick::PagingOver
                | Tick::AlertingOver
                | Tick::CancelOver
                | Tick::RadioLost,
                _,
                _,
            ) => {}
        }
    }

    /// How long they talk; some go on until everybody hangs up. Now and then a phone is out of reach first.
    fn talk(&mut self, leg: usize) {
        let talk = self.between_ms(500, 40_000);
        match self.rng.below(6) {
            0 | 1 => {}
            2 => {
                self.meet("radio lost in a call");
                self.tick(leg, talk, Tick::RadioLost);
                if let Some(phone) = self.legs[leg].phone {
                    self.phones[phone].at = None;
                }
            }
            _ => self.tick(leg, talk, Tick::HangUp),
        }
    }

    fn hangs_up(&mut self, leg: usize) {
        let one = &self.legs[leg];
        if one.hung_up {
            return;
        }
        let node = self.box_at(one.peer).unwrap_or(0);
        let branch = format!("z9hG4bKOBTS{}", self.letters());
        let one = &mut self.legs[leg];
        match (one.side, one.state) {
            (Side::Caller, State::Trying | State::Proceeding) => {
                one.hung_up = true;
                one.state = State::Cancelling;
                let bytes = one.calling.cancel(&branch, &one.their_tag);
                one.asked_cseq = one.calling.cseq + 1;
                one.asking = Some((bytes, self.now_us));
                tell!(self, "the caller of leg {leg} gives up");
                self.meet("CANCEL");
            }
            (Side::Caller, State::Answered | State::Up) => {
                if one.state == State::Answered && !one.acked {
                    self.meet("BYE before ACK");
                }
                let one = &mut self.legs[leg];
                one.hung_up = true;
                one.state = State::Leaving;
                one.asked_cseq += 1;
                let bytes = one.calling.bye(&branch, &one.their_tag, one.peer, one.asked_cseq);
                one.asking = Some((bytes, self.now_us));
                tell!(self, "the caller of leg {leg} hangs up");
            }
            (Side::Called, State::Answered | State::Up) => {
                one.hung_up = true;
                one.state = State::Leaving;
                one.asked_cseq += 1;
                let address = self.plan.cells[one.cell].address;
                let Ok(invite) = parse(&one.invite) else { return };
                let bytes = says::bye_of_called(&invite, &one.calling.tag, address, &branch, one.asked_cseq);
                one.asking = Some((bytes, self.now_us));
                tell!(self, "the called side of leg {leg} hangs up");
                self.meet("BYE of the called side");
            }
            _ => return,
        }
        if let Some(phone) = self.legs[leg].phone.filter(|phone| self.phones[*phone].busy == Some(leg)) {
            self.phones[phone].busy = None;
        }
        if let Some((bytes, _)) = self.legs[leg].asking.clone() {
            self.leg_sends(leg, bytes);
        }
        for (n, ms) in REQUEST_AGAIN_MS.iter().enumerate() {
            self.tick(leg, ms * MS, Tick::AskAgain(n));
        }
        self.maybe_crash(node, 12);
    }

    fn ask_again(&mut self, leg: usize, n: usize) {
        let Some((bytes, since_us)) = self.legs[leg].asking.clone() else { return };
        // Of a CANCEL that became a BYE in between.
        if self.now_us - since_us + 10 * MS < REQUEST_AGAIN_MS[n] * MS {
            return;
        }
        self.leg_sends(leg, bytes);
        if n + 1 == REQUEST_AGAIN_MS.len() {
            self.over(leg);
            self.gave_up(leg);
        }
    }

    fn acknowledge(&mut self, leg: usize) {
        let one = &mut self.legs[leg];
        one.acked = true;
        let bytes = one.calling.ack(&one.their_tag);
        self.leg_sends(leg, bytes);
    }

    // --- Called: what the phone does ---

    fn paging_answered(&mut self, leg: usize) {
        let Some(phone) = self.legs[leg].phone else { return };
        if self.phones[phone].at != Some(self.legs[leg].cell) {
            return;
        }
        if self.phones[phone].busy.is_some_and(|busy| busy != leg) {
            return self.refuses(leg, 486, "User_Busy", 17);
        }
        self.phones[phone].busy = Some(leg);
        self.legs[leg].state = State::Proceeding;
        self.says_final(leg, 100, "Trying", "", &[]);
        let wait = self.between_ms(800, 2_000);
        self.tick(leg, wait, Tick::Rings);
    }

    fn picks_up(&mut self, leg: usize) {
        self.count += 1;
        let (imsi, address) = (self.legs[leg].calling.imsi, self.legs[leg].calling.cell);
        let port = 16_484 + 2 * self.rng.below(2_000) as u16;
        let sdp = says::sdp(imsi, address, port, self.count);
        self.answers.insert(sdp.clone(), leg);
        self.legs[leg].calling.sdp.clone_from(&sdp);
        self.legs[leg].state = State::Answered;
        tell!(self, "leg {leg} picks up");
        let cell = "P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n";
        self.says_final(leg, 200, "OK", cell, &sdp);
        self.talk(leg);
        // The moments that hurt: the caller gives up just now, or the box dies.
        if let Some(caller) = self.legs[leg].call.map(|call| self.calls[call].mo)
            && self.one_in(8)
        {
            let moment = self.rng.below(80 * MS);
            self.tick(caller, moment, Tick::GivesUp);
        }
        if let Some(node) = self.box_at(self.legs[leg].peer) {
            self.maybe_crash(node, 8);
        }
    }

    fn refuses(&mut self, leg: usize, code: u16, phrase: &str, cause: u8) {
        let reason = format!("Q.850;cause={cause} ;text=\"{phrase}\"");
        self.legs[leg].end = Some(Final { code, phrase: phrase.to_owned(), reason: reason.clone() });
        self.says_final(leg, code, phrase, &format!("Reason: {reason}\r\n"), &[]);
        self.over(leg);
    }

    /// An answer to the INVITE, kept for its copies.
    fn says_final(&mut self, leg: usize, code: u16, phrase: &str, more: &str, body: &[u8]) {
        let one = &self.legs[leg];
        let contact = format!("Contact: <sip:IMSI{}@{}>;expires=3600\r\n{more}", one.calling.imsi, one.calling.cell);
        let Ok(invite) = parse(&one.invite) else { return };
        let bytes = says::answer(&invite, code, phrase, &one.calling.tag, &contact, body);
        self.legs[leg].last.clone_from(&bytes);
        self.leg_sends(leg, bytes);
    }

    // --- What a base station hears ---

    pub fn cell_hears(&mut self, cell: usize, from: SocketAddr, message: &Message<'_>, bytes: &[u8]) {
        let key = (cell, message.call_id().to_owned());
        let leg = self.leg_of.get(&key).copied();
        let leg = leg.filter(|leg| !self.legs[*leg].is_over() || self.now_us < self.legs[*leg].over_us + REMEMBERED_US);
        if !message.is_request() {
            if message.cseq().1 == "REGISTER" {
                return self.register_answered(cell, message);
            }
            if let Some(leg) = leg {
                self.leg_answered(leg, message);
            } else if message.cseq().1 == "MESSAGE" {
                self.text_answered(cell, message);
            }
            return;
        }
        match (message.method().unwrap_or_default(), leg) {
            ("ACK", Some(leg)) => {
                if self.legs[leg].side == Side::Called && self.legs[leg].state == State::Answered {
                    self.legs[leg].state = State::Up;
                }
            }
            ("ACK", None) => {}
            ("INVITE", Some(leg)) if message.cseq().0 == self.legs[leg].calling.cseq => {
                self.meet("copy of an INVITE at a cell");
                if self.legs[leg].state == State::Trying {
                    // "A duplicate INVITE restarts the paging timer."
                    self.pages(leg);
                }
                let last = self.legs[leg].last.clone();
                self.leg_sends(leg, last);
            }
            ("INVITE", Some(_)) => self.simple_answer(cell, from, message, 488, "Not Acceptable Here"),
            ("INVITE", None) => self.called(cell, message, bytes),
            ("CANCEL", Some(leg)) => {
                self.simple_answer(cell, from, message, 200, "OK");
                // Never a 487; once it has answered nothing happens.
                if self.legs[leg].rings() {
                    self.over(leg);
                    if self.plan.forgets_cancelled {
                        self.leg_of.remove(&key);
                    }
                }
            }
            ("BYE", Some(leg)) => {
                self.legs[leg].bye_done = true;
                self.told.entry(message.call_id().to_owned()).or_default().byes_arrived += 1;
                self.simple_answer(cell, from, message, 200, "OK");
                self.over(leg);
            }
            ("MESSAGE", _) => self.text_comes(cell, message, bytes),
            _ => self.simple_answer(cell, from, message, 404, "Not Found"),
        }
    }

    pub fn simple_answer(&mut self, cell: usize, from: SocketAddr, message: &Message<'_>, code: u16, phrase: &str) {
        let to = says::sent_by(message).unwrap_or(from);
        let bytes = says::answer(message, code, phrase, "", "", &[]);
        self.send(self.plan.cells[cell].address, to, bytes);
    }

    fn register_answered(&mut self, cell: usize, message: &Message<'_>) {
        let (cseq, _) = message.cseq();
        if message.call_id() != self.cells[cell].register_call_id || message.code() != Some(200) {
            return;
        }
        let user = message.to().ok().and_then(|to| to.uri().ok()).and_then(|uri| uri.user).unwrap_or_default();
        let Ok(imsi) = Imsi::parse(user) else { return };
        let phone = self.plan.phones.iter().position(|phone| phone.imsi == imsi);
        let Some(phone) = phone else { return };
        let now_us = self.now_us;
        if let Some(registered) = self.phones[phone].registered.as_mut()
            && registered.cseq == cseq
            && registered.cell == cell
            && !registered.is_yes
        {
            registered.is_yes = true;
            registered.yes_us = now_us;
            self.phone_is_back(phone);
        }
    }

    /// "Any such IMSI is paged, known to this base station or not."
    fn called(&mut self, cell: usize, message: &Message<'_>, bytes: &[u8]) {
        let user = message.uri().and_then(|uri| uri.strip_prefix("sip:")?.split_once('@')).map(|(user, _)| user);
        let from = says::sent_by(message);
        let (Some(imsi), Some(peer)) = (user.and_then(|user| Imsi::parse(user).ok()), from) else {
            return self.broken("a base station can bear what it hears", "an INVITE for no IMSI".into());
        };
        let address = self.plan.cells[cell].address;
        let calling = Calling {
            imsi,
            cell: address,
            proxy: peer,
            dialled: String::new(),
            call_id: message.call_id().to_owned(),
            tag: format!("OBTS{}", self.letters()),
            branch: String::new(),
            cseq: message.cseq().0,
            sdp: Vec::new(),
        };
        let phone = self.plan.phones.iter().position(|phone| phone.imsi == imsi);
        let busy_here = phone.is_some_and(|phone| {
            let is_paged = self
                .legs
                .iter()
                .any(|leg| leg.cell == cell && leg.phone == Some(phone) && leg.side == Side::Called && leg.rings());
            is_paged || (self.phones[phone].at == Some(cell) && self.phones[phone].busy.is_some())
        });
        let leg = self.new_leg(Side::Called, cell, phone, calling, peer);
        self.legs[leg].invite = bytes.to_vec();
        self.called_begins(leg, message);
        if busy_here {
            self.meet("busy");
            return self.refuses(leg, 486, "User_Busy", 17);
        }
        self.says_final(leg, 100, "Trying", "", &[]);
        self.pages(leg);
        if phone.is_some_and(|phone| self.phones[phone].at == Some(cell)) {
            let wait = self.between_ms(300, 4_000);
            self.tick(leg, wait, Tick::PagingAnswered);
        }
    }

    fn pages(&mut self, leg: usize) {
        self.legs[leg].paging_until_us = self.now_us + PAGING_US;
        self.tick(leg, PAGING_US, Tick::PagingOver);
    }

    fn leg_answered(&mut self, leg: usize, message: &Message<'_>) {
        let code = message.code().unwrap_or_default();
        let (number, method) = message.cseq();
        let one = &mut self.legs[leg];
        if method != "INVITE" {
            // CANCEL or BYE.
            if code < 200 || number != one.asked_cseq {
                return;
            }
            match (method, one.state) {
                ("BYE", State::Leaving) => {
                    one.bye_done = true;
                    self.over(leg);
                }
                ("CANCEL", State::Cancelling) => {
                    one.asking = None;
                    // Nothing to cancel: the INVITE never came, or has long been answered.
                    if code >= 300 {
                        self.over(leg);
                    } else {
                        self.tick(leg, GIVEN_UP_US, Tick::CancelOver);
                    }
                }
                ("CANCEL", State::Up) => one.asking = None,
                _ => {}
            }
            return;
        }
        if one.side != Side::Caller || number != one.calling.cseq {
            return;
        }
        // "Any INVITE answer's Contact overwrites the peer address."
        if let Some(contact) = says::contact(message) {
            one.peer = contact;
        }
        let tag = says::to_tag(message);
        if !tag.is_empty() {
            one.their_tag = tag;
        }
        match code {
            100..200 => {
                if one.state == State::Trying {
                    one.state = State::Proceeding;
                }
                one.rang |= code == 180;
            }
            200..300 => self.caller_hears_yes(leg, message),
            _ => self.caller_hears_no(leg, message),
        }
    }

    fn caller_hears_yes(&mut self, leg: usize, message: &Message<'_>) {
        let one = &mut self.legs[leg];
        match one.state {
            State::Trying | State::Proceeding => {
                one.state = State::Answered;
                one.body_heard = message.body.to_vec();
                self.caller_connected(leg, message);
                let late = self.between_ms(0, 3_000);
                if late > 1_500 * MS {
                    self.meet("late ACK");
                }
                self.tick(leg, late, Tick::Ack);
                if self.one_in(12) {
                    self.tick(leg, late / 2, Tick::HangUp);
                }
                if let Some(node) = self.box_at(self.legs[leg].peer) {
                    self.maybe_crash(node, 12);
                }
            }
            State::Cancelling => {
                self.meet("glare");
                self.legs[leg].body_heard = message.body.to_vec();
                match self.legs[leg].glare {
                    Glare::Acknowledges => {
                        self.legs[leg].state = State::Up;
                        self.acknowledge(leg);
                    }
                    Glare::HangsUp => {
                        self.acknowledge(leg);
                        self.legs[leg].hung_up = false;
                        self.legs[leg].state = State::Up;
                        self.hangs_up(leg);
                    }
                    Glare::Ignores => self.over(leg),
                }
            }
            // A copy: our ACK was lost.
            _ if one.acked && !one.is_over() && !one.body_heard.is_empty() => self.acknowledge(leg),
            _ => {}
        }
    }

    fn caller_hears_no(&mut self, leg: usize, message: &Message<'_>) {
        let one = &self.legs[leg];
        match one.state {
            State::Trying | State::Proceeding | State::Cancelling => {
                let end = Final::of(message);
                self.legs[leg].end = Some(end.clone());
                self.acknowledge(leg);
                self.caller_refused(leg, &end);
                self.over(leg);
            }
            State::Over if one.end.is_some() => self.acknowledge(leg),
            _ => {}
        }
    }
}
