//! From the answer to the BYE: the record before the 200, ACKs, what the sides tell each other inside the dialog, and whether they live.

use super::*;

impl Call {
    /// The first 200: the others are cancelled, and the record is written.
    pub(super) fn answered(&mut self, w: &mut World<'_, '_>, mut branch: Branch, message: &Message<'_>) {
        self.cancel_branches(w, None);
        self.group_until = None;
        self.state = State::Answering;
        if let Some(interval_s) = session_expires(message, "uas") {
            let interval = Duration::from_secs(interval_s);
            branch.leg.refresh = Some((w.ctx.now + interval, interval));
        }
        let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
        self.caller.leg.told = (!message.body.is_empty()).then(|| (kind, message.body.to_vec()));
        if !self.offerless {
            self.callee_ack = Some(self.acknowledge(w, &branch.leg, None));
        }
        self.callee = Some(branch.leg);
        let wall_ms = w.wall().ms;
        self.answered = Some((wall_ms, w.ctx.now));
        let call = self.id;
        let after = match self.write_kept(w, KeptState::Up) {
            Ok(commit) => After::nothing().and(commit),
            // "Disk full: lookups and calls go on" (promise 8); this one would not survive a restart, and the event has said so.
            Err(_) => After::nothing(),
        };
        w.ctx.out.after(after, Inner::CallKept { call });
    }

    /// The record is on the disk: the caller is told.
    pub fn kept(&mut self, w: &mut World<'_, '_>) {
        if self.state != State::Answering {
            return;
        }
        let asked = parse(&self.caller.invite).ok().and_then(|invite| session_expires(&invite, "uac"));
        let Some(mut writer) = self.to_caller(w, 200, "OK") else {
            // An INVITE that an earlier release had kept, and this one cannot read: the called side is not left on the line.
            return self.end_from_here(w, "us", "the caller's INVITE cannot be read any more");
        };
        writer.header("Allow", ALLOW);
        if let (Some(interval_s), false) = (asked, self.caller_is_phone()) {
            writer.header("Require", "timer").header_fmt("Session-Expires", format_args!("{interval_s};refresher=uac"));
            let interval = Duration::from_secs(interval_s);
            self.caller.leg.refresh = Some((w.ctx.now + interval, interval));
        }
        if let Some((kind, body)) = &self.caller.leg.told {
            writer.body(kind, body);
        }
        let bytes = writer.finish();
        if self.caller_is_phone() && bytes.len() > DATAGRAM_BYTES_MAX {
            self.hang_up(w, Side::Called, None);
            let why = "the answer's session description is too long for a base station".into();
            let reason = Some("Q.850;cause=95".into());
            self.refuse(w, Refusal { code: 488, phrase: "Not Acceptable Here".into(), reason, why }, "us");
            return;
        }
        self.caller.last = bytes;
        self.caller.resend = Some(Resend::other(w.ctx.now, PATIENCE));
        self.state = State::Up;
        self.watch(w, w.site.settings.calls.duration_max);
        w.event(Event::CallAnswered { from: self.from.clone(), to: self.to.clone() });
        self.say_again(w);
    }

    /// From now on the call has a longest life, and its base stations are asked whether they live.
    pub(super) fn watch(&mut self, w: &mut World<'_, '_>, left: Duration) {
        self.end_at = Some(w.ctx.now + left);
        let interval_ms = u64::try_from(w.site.settings.calls.probe_interval.as_millis()).unwrap_or(u64::MAX).max(2);
        let jittered_ms = interval_ms / 2 + w.ctx.rng.below(interval_ms / 2 + 1);
        self.probe_at = Some(w.ctx.now + Duration::from_millis(jittered_ms));
    }

    /// An ACK of the caller, seconds late, at whichever of our ports.
    pub fn acked(&mut self, w: &mut World<'_, '_>, message: &Message<'_>) {
        let (number, _) = message.cseq();
        self.refreshed.retain(|(_, cseq, ..)| *cseq != number);
        // A CANCEL counts one up (wire.md 3.2); the ACK of an OpenBTS keeps its INVITE's number.
        if number != self.caller.leg.remote_cseq || self.caller.resend.is_none() {
            return;
        }
        self.caller.resend = None;
        if self.state != State::Up {
            return;
        }
        self.keep_acked(w);
        if let Some(callee) = self.callee.as_ref().filter(|_| self.offerless && self.callee_ack.is_none()) {
            let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
            let leg = callee.clone();
            self.callee_ack = Some(self.acknowledge(w, &leg, Some((&kind, message.body))));
        }
    }

    /// ACK to a 200 (RFC 3261 §13.2.2.4): a transaction of its own, with the INVITE's number. Its bytes, for copies of the 200.
    pub(super) fn acknowledge(&mut self, w: &mut World<'_, '_>, leg: &Leg, body: Option<(&str, &[u8])>) -> Vec<u8> {
        let branch = self.new_branch(w);
        let mut writer = leg.request(w.site, "ACK", leg.cseq, &branch);
        if let Some((kind, body)) = body.filter(|(_, body)| !body.is_empty()) {
            writer.body(kind, body);
        }
        let bytes = writer.finish();
        leg.way.send(w, bytes.clone());
        bytes
    }

    /// INFO passes; a refreshing INVITE or UPDATE is answered with what the side last heard; a changed session is 488, because no base
    /// station takes one (wire.md 3.3).
    pub fn inside(&mut self, w: &mut World<'_, '_>, side: Side, inside: &Request<'_>) {
        let message = inside.message;
        let (number, method) = message.cseq();
        if self.state != State::Up {
            return answer(w, inside, 481, "Call/Transaction Does Not Exist");
        }
        let leg = match side {
            Side::Caller => &mut self.caller.leg,
            Side::Called => match &mut self.callee {
                Some(callee) => callee,
                None => return,
            },
        };
        match method {
            // One at a time: the ACK of the last one has not come.
            "INVITE" if self.refreshed.iter().any(|(of, ..)| *of == side) => answer(w, inside, 491, "Request Pending"),
            "INVITE" | "UPDATE" => {
                leg.remote_cseq = number.max(leg.remote_cseq);
                if let Some((at, interval)) = &mut leg.refresh {
                    *at = w.ctx.now + *interval;
                }
                let heard = match side {
                    Side::Caller => self.callee.as_ref().and_then(|callee| callee.told.clone()),
                    Side::Called => self.caller.leg.told.clone(),
                };
                let is_same =
                    message.body.is_empty() || heard.is_some_and(|(_, body)| is_same_session(&body, message.body));
                let leg = match side {
                    Side::Caller => &self.caller.leg,
                    Side::Called => match &self.callee {
                        Some(callee) => callee,
                        None => return,
                    },
                };
                if !is_same {
                    return answer(w, inside, 488, "Not Acceptable Here");
                }
                let mut writer = inside.stateless_response(w.site, 200, "OK");
                writer.header("Contact", &leg.contact(w.site, &escaped(&self.to))).header("Allow", ALLOW);
                if let Some((_, interval)) = leg.refresh {
                    let refresher = message.header_named("Session-Expires").map_or("uac", refresher_of);
                    writer
                        .header("Require", "timer")
                        .header_fmt("Session-Expires", format_args!("{};refresher={refresher}", interval.as_secs()));
                }
                if let Some((kind, body)) = leg.told.as_ref().filter(|_| method == "INVITE") {
                    writer.body(kind, body);
                }
                let bytes = writer.finish();
                if method == "INVITE" {
                    self.refreshed.push((side, number, bytes.clone(), Resend::other(w.ctx.now, PATIENCE)));
                }
                w.ctx.out.after(After::nothing(), Inner::Answer { key: Some(inside.key), to: inside.to, bytes });
            }
            "INFO" if self.asks.len() >= ASKS_MAX => answer(w, inside, 503, "Service Unavailable"),
            "INFO" => {
                let other = match side {
                    Side::Caller => self.callee.as_mut(),
                    Side::Called => Some(&mut self.caller.leg),
                };
                let Some(other) = other else { return };
                other.cseq += 1;
                let leg = other.clone();
                let branch = self.new_branch(w);
                let mut writer = leg.request(w.site, "INFO", leg.cseq, &branch);
                if let Some(kind) = message.header(HeaderName::ContentType).filter(|_| !message.body.is_empty()) {
                    writer.body(kind, message.body);
                }
                let bytes = writer.finish();
                let what = What::Relay {
                    key: inside.key,
                    reply: inside.to,
                    from: inside.from,
                    request: inside.bytes.to_vec(),
                };
                self.ask(w, branch, bytes, leg.way, what, PATIENCE);
            }
            "OPTIONS" => answer(w, inside, 200, "OK"),
            _ => answer(w, inside, 405, "Method Not Allowed"),
        }
    }

    /// Asks the base stations of the call whether they live: outside of the dialog, because inside a base station answers 404
    /// whatever it knows of the dialog (wire.md 2).
    pub(super) fn probe(&mut self, w: &mut World<'_, '_>) {
        let own = own_address(w.site);
        let legs = [(Side::Caller, Some(self.caller.leg.clone())), (Side::Called, self.callee.clone())];
        for (side, leg) in legs {
            let Some(leg) = leg.filter(|leg| leg.party.is_phone()) else { continue };
            let branch = self.new_branch(w);
            let peer = leg.way.peer();
            let domain = &w.site.settings.domain;
            let mut writer = Writer::request("OPTIONS", &format!("sip:{peer}"));
            writer
                .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
                .header_fmt("From", format_args!("<sip:probe@{domain}>;tag={:016x}", w.ctx.rng.u64()))
                .header_fmt("To", format_args!("<sip:{peer}>"))
                .header_fmt("Call-ID", format_args!("{}-{:016x}", self.name(), w.ctx.rng.u64()))
                .header("CSeq", "1 OPTIONS")
                .header("Max-Forwards", "70");
            let bytes = writer.finish();
            self.ask(w, branch, bytes, leg.way, What::Probe(side), PROBE_PATIENCE);
        }
        self.probe_at = Some(w.ctx.now + w.site.settings.calls.probe_interval);
    }
}

/// The interval of `Session-Expires`, where the side named is the one to refresh.
pub(super) fn session_expires(message: &Message<'_>, refresher: &str) -> Option<u64> {
    let value = message.header_named("Session-Expires")?;
    let seconds: u64 = value.split(';').next()?.trim().parse().ok()?;
    // "the absolute minimum for the Session-Expires header field is 90 seconds" (RFC 4028 §4).
    (seconds >= 90 && refresher_of(value) == refresher).then_some(seconds)
}

pub(super) fn refresher_of(value: &str) -> &'static str {
    let named = value.split(';').skip(1).find_map(|param| param.trim().strip_prefix("refresher="));
    if named.is_some_and(|named| named.trim().eq_ignore_ascii_case("uas")) { "uas" } else { "uac" }
}

/// Whether a session description is the one that is known, but for the version in its `o=` line.
pub(super) fn is_same_session(known: &[u8], offered: &[u8]) -> bool {
    let lines = |body: &[u8]| -> Vec<Vec<u8>> {
        let lines = body.split(|byte| *byte == b'\n').map(|line| line.trim_ascii().to_vec());
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"o=")).collect()
    };
    known == offered || lines(known) == lines(offered)
}
