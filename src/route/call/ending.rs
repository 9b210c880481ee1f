//! How a call ends: a *no* to the caller, CANCEL, BYE of either side, or our own word.

use super::*;

impl Call {
    /// CANCEL, matched by Call-ID and From tag; it has been answered 200.
    pub fn cancelled(&mut self, w: &mut World<'_, '_>, message: &Message<'_>) {
        let reason = message.header(HeaderName::Reason).map(str::to_owned);
        self.caller_gave_up(w, reason);
    }

    pub(super) fn caller_gave_up(&mut self, w: &mut World<'_, '_>, reason: Option<String>) {
        let no = Refusal::of(No::Cancelled, self.caller_is_phone());
        match self.state {
            State::Checking | State::Locating | State::Ringing => {
                self.cancel_branches(w, reason.as_deref());
                self.refuse(w, no, "caller");
            }
            // The 200 of the called side crossed it: BYE (glare).
            State::Answering => {
                self.hang_up(w, Side::Called, reason);
                self.refuse(w, no, "caller");
            }
            State::Up => {
                self.hang_up(w, Side::Called, reason.clone());
                self.hang_up_caller(w, reason.clone());
                self.ended(w, "caller", reason.as_deref(), "the caller gave up when the call had just been answered");
            }
            State::Ending => {}
        }
    }

    /// BYE: 200 at once, and the other side is told.
    pub fn bye_came(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, inside: &Inside<'_>) {
        answer(w, inside, 200, "OK");
        let reason = inside.message.header(HeaderName::Reason).map(str::to_owned);
        match self.side_of(inside.message) {
            Some(Side::Caller) if matches!(self.state, State::Up) => {
                self.caller.resend = None;
                self.bye_caller = None;
                self.hang_up(w, Side::Called, reason.clone());
                self.ended(w, "caller", reason.as_deref(), "hung up");
            }
            Some(Side::Caller) => self.caller_gave_up(w, reason),
            Some(Side::Called) => {
                let callee = self.callee.take();
                match self.state {
                    State::Up => {
                        self.hang_up_caller(w, reason.clone());
                        self.ended(w, "called", reason.as_deref(), "hung up");
                    }
                    State::Answering => {
                        let phrase = "Temporarily Unavailable".into();
                        let why = "the called side hung up as soon as it had answered".into();
                        self.refuse(w, Refusal { code: 480, phrase, reason, why }, "called");
                    }
                    _ => self.callee = callee,
                }
            }
            None => {
                if let Some(at) = self.branches.iter().position(|branch| branch.leg.is_of(inside.message)) {
                    self.branches.remove(at);
                    self.branch_gone(w, finder, w.ctx.now);
                }
            }
        }
    }

    /// The operator ends it.
    pub fn end_by_hand(&mut self, w: &mut World<'_, '_>) {
        self.end_from_here(w, "us", "ended by the operator");
    }

    /// We end it: whatever its state.
    pub(super) fn end_from_here(&mut self, w: &mut World<'_, '_>, by: &'static str, why: &str) {
        let reason = Some("Q.850;cause=31".to_owned());
        match self.state {
            State::Ending => {}
            State::Up => {
                self.hang_up(w, Side::Called, reason.clone());
                self.hang_up_caller(w, reason.clone());
                self.ended(w, by, reason.as_deref(), why);
            }
            State::Checking | State::Locating | State::Ringing | State::Answering => {
                self.cancel_branches(w, reason.as_deref());
                self.hang_up(w, Side::Called, reason.clone());
                let phrase = "Temporarily Unavailable".into();
                self.refuse(w, Refusal { code: 480, phrase, reason, why: why.into() }, by);
            }
        }
    }

    /// A final *no* to the caller.
    pub(super) fn refuse(&mut self, w: &mut World<'_, '_>, refusal: Refusal, by: &'static str) {
        self.state = State::Ending;
        self.group_until = None;
        w.event(Event::CallRefused { code: refusal.code, why: refusal.why.clone() });
        let outcome = if refusal.code == 487 { CallOutcome::Cancelled } else { CallOutcome::Refused };
        self.record(w, outcome, refusal.code, refusal.cause(), by, &refusal.why);
        if let Some(mut writer) = self.to_caller(w, refusal.code, &refusal.phrase) {
            if let Some(reason) = &refusal.reason {
                writer.header("Reason", reason);
            }
            self.caller.last = writer.finish();
            self.caller.resend = Some(Resend::other(w.ctx.now, PATIENCE));
            self.say_again(w);
        }
    }

    pub fn refuse_no(&mut self, w: &mut World<'_, '_>, no: No) {
        let refusal = Refusal::of(no, self.caller_is_phone());
        self.refuse(w, refusal, "us");
    }

    /// An established call is over.
    pub(super) fn ended(&mut self, w: &mut World<'_, '_>, by: &'static str, reason: Option<&str>, why: &str) {
        self.state = State::Ending;
        self.end_at = None;
        self.probe_at = None;
        self.asks.retain(|ask| !matches!(ask.what, What::Probe(_)));
        // Whoever of the two was not heard to know it by the time of a crash is told again after it.
        self.keep(w, KeptState::Ending);
        w.event(Event::CallEnded { from: self.from.clone(), to: self.to.clone(), why: why.to_owned() });
        self.record(w, CallOutcome::Answered, 200, reason.map_or(0, cause_of), by, why);
    }

    /// BYE to one side, where it has a dialog.
    pub(super) fn hang_up(&mut self, w: &mut World<'_, '_>, side: Side, reason: Option<String>) {
        let leg = match side {
            Side::Caller => Some(self.caller.leg.clone()),
            Side::Called => self.callee.clone(),
        };
        if let Some(leg) = leg {
            if side == Side::Called && self.callee_ack.is_none() {
                // Without its ACK it would go on telling us 200.
                self.callee_ack = Some(self.acknowledge(w, &leg, None));
            }
            self.bye(w, leg, reason);
        }
    }

    /// BYE to the caller, once its ACK has come or the grace is over.
    pub(super) fn hang_up_caller(&mut self, w: &mut World<'_, '_>, reason: Option<String>) {
        if self.caller.resend.is_some() {
            self.bye_caller = Some((reason, w.ctx.now + ACK_GRACE));
        } else {
            self.hang_up(w, Side::Caller, reason);
        }
    }

    pub(super) fn bye(&mut self, w: &mut World<'_, '_>, mut leg: Leg, reason: Option<String>) {
        leg.cseq += 1;
        let branch = self.new_branch(w);
        let mut writer = leg.request(w.site, "BYE", leg.cseq, &branch);
        if let Some(reason) = reason {
            writer.header("Reason", &reason);
        }
        let bytes = writer.finish();
        self.ask(w, branch, bytes, leg.way, What::Bye, PATIENCE);
    }
}
