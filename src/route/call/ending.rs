//! How a call ends: a *no* to the caller, CANCEL, BYE of either side, or our own word.

use super::*;

impl Call {
    /// CANCEL, matched by Call-ID and From tag.
    ///
    /// Its 200 promises that the called side will hear of it, as that to a BYE does: where the call was answered, it waits for the
    /// record that a restart ends the call by.
    pub fn cancelled(&mut self, w: &mut World<'_, '_>, inside: &Request<'_>) {
        let reason = inside.message.header(HeaderName::Reason).map(str::to_owned);
        let after = self.caller_gave_up(w, reason);
        answer_after(w, inside, 200, "OK", after);
    }

    pub(super) fn caller_gave_up(&mut self, w: &mut World<'_, '_>, reason: Option<String>) -> After {
        let no = Refusal::of(No::Cancelled, self.caller_is_phone());
        match self.state {
            State::Checking | State::Locating | State::Ringing => {
                self.cancel_branches(w, reason.as_deref());
                self.refuse(w, no, "caller");
            }
            // The 200 of the called side crossed it: BYE (glare).
            State::Answering => {
                self.hang_up(w, Side::Called, reason);
                return self.refuse(w, no, "caller");
            }
            State::Up => {
                self.hang_up(w, Side::Called, reason.clone());
                self.hang_up_caller(w, reason.clone());
                let why = "the caller gave up when the call had just been answered";
                return self.ended(w, "caller", reason.as_deref(), why);
            }
            State::Ending => return kept_so_far(w),
        }
        After::nothing()
    }

    /// BYE: the other side is told at once; the 200 waits until a restart would tell it, too.
    pub fn bye_came(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, inside: &Request<'_>) {
        let after = self.hung_up(w, finder, inside);
        answer_after(w, inside, 200, "OK", after);
    }

    fn hung_up(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, inside: &Request<'_>) -> After {
        let reason = inside.message.header(HeaderName::Reason).map(str::to_owned);
        match self.side_of(inside.message) {
            Some(Side::Caller) if matches!(self.state, State::Up) => {
                self.caller.resend = None;
                self.bye_caller = None;
                self.hang_up(w, Side::Called, reason.clone());
                return self.ended(w, "caller", reason.as_deref(), "hung up");
            }
            // It has cancelled before, and then heard our 200: what we still meant to say to it, it knows.
            Some(Side::Caller) if self.state == State::Ending => {
                self.bye_caller = None;
                self.caller.resend = None;
                return kept_so_far(w);
            }
            Some(Side::Caller) => return self.caller_gave_up(w, reason),
            Some(Side::Called) => {
                let callee = self.callee.take();
                self.to_cell = self.place(w, callee.as_ref());
                match self.state {
                    State::Up => {
                        self.hang_up_caller(w, reason.clone());
                        return self.ended(w, "called", reason.as_deref(), "hung up");
                    }
                    State::Answering => {
                        let phrase = "Temporarily Unavailable".into();
                        let why = "the called side hung up as soon as it had answered".into();
                        return self.refuse(w, Refusal { code: 480, phrase, reason, why }, "called");
                    }
                    _ => {
                        self.callee = callee;
                        return kept_so_far(w);
                    }
                }
            }
            None => {
                if let Some(at) = self.branches.iter().position(|branch| branch.leg.is_of(inside.message)) {
                    self.branches.remove(at);
                    self.asks.retain(|ask| !ask.is_cancel_of(inside.message.call_id()));
                    self.branch_gone(w, finder, w.ctx.now);
                }
            }
        }
        After::nothing()
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

    /// A final *no* to the caller; what the 200 to a BYE or CANCEL that led to it waits for.
    pub(super) fn refuse(&mut self, w: &mut World<'_, '_>, refusal: Refusal, by: &'static str) -> After {
        let was_answering = self.state == State::Answering;
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
        // The record says that it is up, or is about to.
        if was_answering { self.keep_ending(w) } else { After::nothing() }
    }

    pub fn refuse_no(&mut self, w: &mut World<'_, '_>, no: No) {
        let refusal = Refusal::of(no, self.caller_is_phone());
        self.refuse(w, refusal, "us");
    }

    /// An established call is over; what the 200 to a BYE or CANCEL that ended it waits for.
    pub(super) fn ended(&mut self, w: &mut World<'_, '_>, by: &'static str, reason: Option<&str>, why: &str) -> After {
        self.state = State::Ending;
        self.end_at = None;
        self.probe_at = None;
        self.asks.retain(|ask| !matches!(ask.what, What::Probe(_)));
        let after = self.keep_ending(w);
        w.event(Event::CallEnded { from: self.from.clone(), to: self.to.clone(), why: why.to_owned() });
        self.record(w, CallOutcome::Answered, 200, reason.map_or(0, cause_of), by, why);
        after
    }

    /// Whoever of the two was not heard to know it by the time of a crash is told again after it.
    fn keep_ending(&mut self, w: &mut World<'_, '_>) -> After {
        match self.write_kept(w, KeptState::Ending) {
            Ok(commit) => After::nothing().and(commit),
            // The disk is full, and the event has said so: the phones are not kept waiting for it.
            Err(_) => After::nothing(),
        }
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

/// What was written of the call's end, perhaps a moment ago.
fn kept_so_far(w: &mut World<'_, '_>) -> After {
    w.unsynced(StoreId::Node).map_or_else(After::nothing, |commit| After::nothing().and(commit))
}
