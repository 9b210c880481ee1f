//! Finding the called side: where it is, whom to ring there, and what to try when it is not there.
//!
//! Groups of base stations page a phone together, one group after the other; trunks are tried one by one.

use super::*;

impl Call {
    /// Whether the caller is where it calls from.
    pub fn caller_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, located: Located) {
        if self.state != State::Checking {
            return;
        }
        match located {
            Located::Found { .. } => self.route(w, finder),
            Located::Away => self.refuse_no(w, No::NotBoundThere),
            Located::TooFew => self.refuse_no(w, No::TooFew),
        }
    }

    /// Resolves what was dialled.
    pub fn route(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        let site = w.site;
        let dialled = match self.caller_is_phone() {
            true => dialplan::by_phone(site, &self.to),
            false => dialplan::by_trunk(site, &self.to),
        };
        match dialled {
            Dialled::Nobody => self.refuse_no(w, No::UnknownNumber),
            Dialled::NoTrunk => self.refuse_no(w, No::NoTrunk),
            Dialled::Phone(subscriber) if subscriber.barred => self.refuse_no(w, No::Barred),
            Dialled::Phone(subscriber) => {
                let imsi = subscriber.imsi;
                self.plan = Plan::Phone { imsi, tried: Vec::new(), groups: VecDeque::new(), reread: false };
                self.state = State::Locating;
                finder.seek(w, imsi, Seeker::Callee(self.id), Want::Contact, None);
            }
            Dialled::Trunks(trunks) => self.dial_trunks(w, trunks, false),
            Dialled::Emergency(trunks) => {
                w.event(Event::EmergencyCall { from: self.caller.from });
                self.dial_trunks(w, trunks, true);
            }
        }
    }

    pub(super) fn dial_trunks(&mut self, w: &mut World<'_, '_>, trunks: Vec<usize>, emergency: bool) {
        self.plan = Plan::Trunks { left: trunks.into(), emergency };
        self.state = State::Ringing;
        self.next_trunk(w);
    }

    /// Where the called phone is: first by the word of one replica, then by that of all.
    pub fn callee_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, located: Located) {
        if self.state != State::Locating {
            return;
        }
        let Plan::Phone { imsi, tried, groups, reread } = &mut self.plan else { return };
        match located {
            Located::Found { contact, record, .. } => {
                if *reread {
                    *groups = elsewhere(w, *imsi, &contact, record.as_deref(), tried);
                } else {
                    groups.push_back(vec![contact]);
                }
                self.state = State::Ringing;
                self.next_group(w, finder);
            }
            // What the first base station said stands, where there was one.
            Located::Away | Located::TooFew if *reread => self.give_up(w),
            Located::Away => self.refuse_no(w, No::Away),
            Located::TooFew => self.refuse_no(w, No::TooFew),
        }
    }

    /// Pages the phone at the next group of places; with none left the replicas are read again, once.
    pub(super) fn next_group(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        self.group_until = None;
        let Plan::Phone { imsi, tried, groups, reread } = &mut self.plan else { return self.give_up(w) };
        let imsi = *imsi;
        while let Some(group) = groups.pop_front() {
            let mut ways = Vec::new();
            for contact in group {
                let Some(address) = address_of(&contact) else { continue };
                if let (Some(way), false) = (Way::to(w.site, address), tried.contains(&address)) {
                    tried.push(address);
                    ways.push((way, contact));
                }
            }
            if ways.is_empty() {
                continue;
            }
            for (way, contact) in ways {
                let party = Party::Phone { imsi: Some(imsi.as_str().to_owned()), cell: None };
                self.ring(w, party, way, contact, None);
            }
            if self.branches.iter().all(|branch| branch.cancelled) {
                // Nothing could be sent: the offer is too long for a base station, for this one as for any other.
                return self.give_up(w);
            }
            self.group_until = Some(w.ctx.now + w.site.settings.calls.ring_group);
            return self.keep(w, KeptState::Setup);
        }
        if *reread {
            return self.give_up(w);
        }
        // "480 No_Paging_Response: the other replicas are read again (the phone may have moved)".
        *reread = true;
        self.state = State::Locating;
        finder.seek(w, imsi, Seeker::Callee(self.id), Want::Newest, None);
    }

    /// The next trunk, as long as there is one.
    pub(super) fn next_trunk(&mut self, w: &mut World<'_, '_>) {
        loop {
            let Plan::Trunks { left, .. } = &mut self.plan else { return self.give_up(w) };
            let Some(index) = left.pop_front() else { return self.give_up(w) };
            let Some(trunk) = w.site.settings.trunks.get(index) else { continue };
            let (name, address) = (trunk.name.clone(), trunk.address);
            let Some(way) = Way::to(w.site, address) else { continue };
            let uri = format!("sip:{}@{address}", escaped(&self.to));
            self.ring(w, Party::Trunk { name }, way, uri, Some(index));
            return self.keep(w, KeptState::Setup);
        }
    }

    /// Sends an INVITE; what it says of the caller comes from our own data.
    pub(super) fn ring(&mut self, w: &mut World<'_, '_>, party: Party, way: Way, uri: String, trunk: Option<usize>) {
        let own = own_address(w.site);
        let domain = &w.site.settings.domain;
        let user = self.shown().unwrap_or_else(|| "anonymous".into());
        // An OpenBTS shows the display name if it is no IMSI (wire.md 3.3); it has no blanks here and needs no quotes.
        let local = match trunk {
            None => format!("{user} <sip:{user}@{own}>"),
            Some(_) => format!("{user} <sip:{user}@{domain}>"),
        };
        self.count += 1;
        let leg = Leg {
            party,
            way,
            call_id: format!("{}-{}-{:016x}", self.name(), self.count, w.ctx.rng.u64()),
            local,
            local_tag: format!("{:016x}", w.ctx.rng.u64()),
            remote: format!("<{uri}>"),
            remote_tag: None,
            target: uri.clone(),
            route: Vec::new(),
            cseq: 0,
            remote_cseq: 0,
            told: None,
            refresh: None,
        };
        let branch = Branch {
            leg,
            uri,
            branch: String::new(),
            bytes: Vec::new(),
            resend: None,
            rings: false,
            trunk,
            challenged: false,
            buried_at: None,
            cancelled: false,
        };
        self.send_invite(w, branch, None);
    }

    /// The caller's number as the called side is shown it; an IMSI is nobody's business.
    fn shown(&self) -> Option<String> {
        let is_number = self.from.bytes().any(|b| b.is_ascii_digit()) && !self.from.starts_with("IMSI");
        is_number.then(|| escaped(&self.from))
    }

    /// Sends the INVITE of a branch, the first time or with credentials.
    pub(super) fn send_invite(
        &mut self,
        w: &mut World<'_, '_>,
        mut branch: Branch,
        credentials: Option<(&'static str, String)>,
    ) {
        branch.leg.cseq += 1;
        branch.branch = self.new_branch(w);
        let Ok(invite) = parse(&self.caller.invite) else { return };
        let mut writer = branch.leg.request(w.site, "INVITE", branch.leg.cseq, &branch.branch);
        let shown = self.shown();
        writer.header("Contact", &branch.leg.contact(w.site, shown.as_deref().unwrap_or("anonymous")));
        if let Some(user) = shown {
            writer.header_fmt("P-Asserted-Identity", format_args!("<sip:{user}@{}>", w.site.settings.domain));
        }
        if branch.trunk.is_some() {
            writer
                .header("Allow", ALLOW)
                .header("Supported", "timer")
                .header_fmt("Session-Expires", format_args!("{SESSION_S};refresher=uas"));
            // Where an emergency call comes from is for those who help.
            if let (Plan::Trunks { emergency: true, .. }, Some(cell)) =
                (&self.plan, invite.header_named("P-Access-Network-Info"))
            {
                writer.header("P-Access-Network-Info", cell);
            }
        }
        if let Some((name, value)) = credentials {
            writer.header(name, &value);
        }
        if !invite.body.is_empty() {
            let kind = invite.header(HeaderName::ContentType).unwrap_or("application/sdp");
            writer.body(kind, invite.body);
            branch.leg.told = Some((kind.to_owned(), invite.body.to_vec()));
        }
        let bytes = writer.finish();
        if branch.leg.party.is_phone() && bytes.len() > DATAGRAM_BYTES_MAX {
            self.failure = Some(Refusal {
                code: 513,
                phrase: "Message Too Large".into(),
                reason: Some("Q.850;cause=95".into()),
                why: "its session description is too long for a base station".into(),
            });
            return;
        }
        // A base station that says nothing at all is as good as a phone that does not answer its paging: the group's time decides.
        let patience = if branch.trunk.is_some() { TRUNK_SILENCE } else { PATIENCE };
        branch.resend = Some(Resend::invite(w.ctx.now, patience));
        branch.bytes = bytes.clone();
        branch.leg.way.send(w, bytes);
        self.branches.push(branch);
    }

    /// An answer to an INVITE of ours.
    pub(super) fn invite_answered(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        at: usize,
        from: SocketAddr,
        message: &Message<'_>,
    ) {
        let code = message.code().unwrap_or_default();
        let now = w.ctx.now;
        if code < 200 {
            let branch = &mut self.branches[at];
            // A base station says its 200 once, and again only to a copy of the INVITE (wire.md 3.3): one that was lost would leave a
            // phone that was picked up with nobody to talk to. Before it rings a copy would page it anew.
            let asks_again = branch.trunk.is_none() && !branch.cancelled && (code > 100 || branch.rings);
            branch.resend = asks_again.then(|| Resend::every(now, RING_POLL, self.setup_until + BURIAL));
            if branch.cancelled {
                // A CANCEL must not overtake its INVITE (RFC 3261 §9.1): it has waited for this.
                return self.send_cancel(w, at, None);
            }
            if code > 100 && self.state == State::Ringing {
                branch.leg.learn(w.site, message, from);
                if !branch.rings {
                    branch.rings = true;
                    self.keep(w, KeptState::Setup);
                }
                // It rings somewhere: no other place is looked for.
                self.group_until = None;
                self.relay_ringing(w, code, message);
            }
            return;
        }
        let mut branch = self.branches.remove(at);
        // What has answered is not cancelled any more.
        self.asks.retain(|ask| !ask.is_cancel_of(message.call_id()));
        if code < 300 {
            branch.leg.learn(w.site, message, from);
            if self.state == State::Ringing && !branch.cancelled {
                return self.answered(w, branch, message);
            }
            // Answered when nobody waits for it any more: it is told so, decently.
            self.acknowledge(w, &branch.leg, None);
            return self.bye(w, branch.leg, None);
        }
        acknowledge_no(w, &branch, message);
        if branch.cancelled || self.state != State::Ringing {
            return;
        }
        if matches!(code, 401 | 407)
            && !branch.challenged
            && let Some(credentials) = credentials(w, &branch, message)
        {
            branch.challenged = true;
            self.send_invite(w, branch, Some(credentials));
            return self.keep(w, KeptState::Setup);
        }
        let mut refusal = Refusal::passed_on(message, code);
        let is_final = match branch.trunk {
            // It is not the phone's fault, and a base station would call its user busy.
            Some(_) if matches!(code, 300..=399 | 401 | 407) => {
                refusal = Refusal {
                    code: 503,
                    phrase: "Service Unavailable".into(),
                    reason: Some("Q.850;cause=38".into()),
                    why: format!("the trunk says {code}, which cannot be answered"),
                };
                false
            }
            Some(_) => !(500..600).contains(&code) && code != 408,
            // The phone was there, and said so; anything else only says that it is not there.
            None => match code {
                480 => branch.rings,
                404 | 408 | 500..=599 => false,
                _ => true,
            },
        };
        if is_final {
            self.cancel_branches(w, None);
            self.refuse(w, refusal, "called");
            return;
        }
        if self.failure.is_none() {
            self.failure = Some(refusal);
        }
        self.branch_gone(w, finder, now);
    }

    /// One place less: with the last of its group gone the next is tried.
    pub(super) fn branch_gone(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, now: Instant) {
        let waits = self.branches.iter().any(|branch| !branch.cancelled);
        if self.state != State::Ringing || waits {
            return;
        }
        if now >= self.setup_until {
            return self.give_up(w);
        }
        match self.plan {
            Plan::Trunks { .. } => self.next_trunk(w),
            Plan::Phone { .. } | Plan::Unknown => self.next_group(w, finder),
        }
    }

    /// Everything was tried.
    pub(super) fn give_up(&mut self, w: &mut World<'_, '_>) {
        let to_phone = self.caller_is_phone();
        let refusal = self.failure.take().unwrap_or_else(|| Refusal::of(No::Away, to_phone));
        self.cancel_branches(w, None);
        self.refuse(w, refusal, "called");
    }

    /// 180 and 183 pass once each.
    pub(super) fn relay_ringing(&mut self, w: &mut World<'_, '_>, code: u16, message: &Message<'_>) {
        if !matches!(code, 180 | 183) || self.relayed.contains(&code) {
            return;
        }
        self.relayed.push(code);
        let phrase = if code == 180 { "Ringing" } else { "Session Progress" };
        let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
        let Some(mut writer) = self.to_caller(w, code, phrase) else { return };
        if !message.body.is_empty() {
            writer.body(&kind, message.body);
        }
        self.caller.last = writer.finish();
        self.say_again(w);
    }

    pub(super) fn cancel_branches(&mut self, w: &mut World<'_, '_>, reason: Option<&str>) {
        for at in 0..self.branches.len() {
            if !self.branches[at].cancelled {
                let branch = &mut self.branches[at];
                branch.cancelled = true;
                branch.buried_at = Some(w.ctx.now + BURIAL);
                // A trunk that has said nothing yet must not be sent a CANCEL; a base station takes it by its Call-ID.
                if branch.resend.take().is_none() || branch.trunk.is_none() {
                    self.send_cancel(w, at, reason);
                }
            }
        }
    }

    /// CANCEL has its INVITE's branch, Request-URI, To and number (RFC 3261 §9.1).
    pub(super) fn send_cancel(&mut self, w: &mut World<'_, '_>, at: usize, reason: Option<&str>) {
        let branch = &self.branches[at];
        let name = format!("{}/CANCEL", branch.branch);
        if self.asks.iter().any(|ask| ask.branch == name) {
            return;
        }
        let bytes = cancel_bytes(w, &branch.leg, &branch.uri, &branch.branch, reason);
        let way = branch.leg.way;
        // Its answer has the INVITE's branch, too: told apart by the method ([`Call::cancel_answered`]).
        self.ask(w, name, bytes, way, What::Cancel, BURIAL);
    }

    /// An answer to a CANCEL of ours.
    pub fn cancel_answered(&mut self, branch: &str) {
        self.asks.retain(|ask| ask.branch.strip_suffix("/CANCEL") != Some(branch));
    }

    pub(super) fn branches_due(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        let now = w.ctx.now;
        let mut gone = false;
        let mut at = 0;
        while at < self.branches.len() {
            let branch = &mut self.branches[at];
            if branch.buried_at.is_some_and(|at| at <= now) {
                let branch = self.branches.remove(at);
                // It may have answered just before the CANCEL, and its 200 was lost: a CANCEL does not end that, and it goes on for
                // ever. A base station takes the BYE by its Call-ID, and says 404 where there is nothing left.
                if branch.leg.party.is_phone() {
                    self.bye(w, branch.leg, None);
                }
                continue;
            }
            if let Some(resend) = &mut branch.resend {
                if resend.is_over(now) {
                    if let Some(trunk) = branch.trunk.and_then(|trunk| w.site.settings.trunks.get(trunk)) {
                        w.event(Event::TrunkSilent { trunk: trunk.name.clone() });
                    }
                    self.branches.remove(at);
                    gone = true;
                    continue;
                }
                if resend.is_due(now) {
                    let (way, bytes) = (branch.leg.way, branch.bytes.clone());
                    way.send(w, bytes);
                }
            }
            at += 1;
        }
        if gone {
            if self.failure.is_none() && matches!(self.plan, Plan::Trunks { .. }) {
                self.failure = Some(Refusal {
                    code: 503,
                    phrase: "Service Unavailable".into(),
                    reason: Some("Q.850;cause=38".into()),
                    why: "no trunk answers".into(),
                });
            }
            self.branch_gone(w, finder, now);
        }
    }
}

/// The places where a phone may be that did not answer its paging: where it has been seen since, the other base stations of its
/// location area, and the one where it was before: "any BTS pages any IMSI" (wire.md 8).
pub(super) fn elsewhere(
    w: &World<'_, '_>,
    imsi: Imsi,
    contact: &str,
    record: Option<&Record>,
    tried: &[SocketAddr],
) -> VecDeque<Vec<String>> {
    let is_new = |contact: &str| address_of(contact).is_some_and(|address| !tried.contains(&address));
    let mut groups = VecDeque::new();
    if is_new(contact) {
        groups.push_back(vec![contact.to_owned()]);
    }
    let newest = record.and_then(Record::newest).map(|(_, _, binding)| binding);
    let settings = &w.site.settings;
    let area = newest.and_then(|binding| w.site.area_of(binding.source.ip()));
    let mut others: Vec<String> = settings
        .base_stations
        .iter()
        .filter(|station| area.is_some() && station.location_area.as_deref() == area)
        .map(|station| format!("sip:IMSI{imsi}@{}", station.address))
        .collect();
    others.extend(newest.and_then(|binding| binding.previous.clone()));
    others.retain(|other| is_new(other) && address_of(other) != address_of(contact));
    others.sort();
    others.dedup_by_key(|other| address_of(other));
    if !others.is_empty() {
        groups.push_back(others);
    }
    groups
}

pub(super) fn cancel_bytes(w: &World<'_, '_>, leg: &Leg, uri: &str, branch: &str, reason: Option<&str>) -> Vec<u8> {
    let mut invite = leg.clone();
    uri.clone_into(&mut invite.target);
    invite.remote_tag = None;
    invite.route.clear();
    let mut writer = invite.request(w.site, "CANCEL", invite.cseq, branch);
    if let Some(reason) = reason {
        writer.header("Reason", reason);
    }
    writer.finish()
}

/// ACK to a final *no*: in the INVITE's own transaction (RFC 3261 §17.1.1.3).
pub(super) fn acknowledge_no(w: &mut World<'_, '_>, branch: &Branch, message: &Message<'_>) {
    let mut leg = branch.leg.clone();
    branch.uri.clone_into(&mut leg.target);
    leg.route.clear();
    leg.remote_tag = message.to().ok().and_then(|to| to.tag()).map(str::to_owned);
    let bytes = leg.request(w.site, "ACK", leg.cseq, &branch.branch).finish();
    leg.way.send(w, bytes);
}

/// What a trunk's 401 or 407 is answered with, where it has credentials of ours.
pub(super) fn credentials(
    w: &mut World<'_, '_>,
    branch: &Branch,
    message: &Message<'_>,
) -> Option<(&'static str, String)> {
    let trunk = w.site.settings.trunks.get(branch.trunk?)?;
    let (username, password) = (trunk.username.as_deref()?, trunk.password.as_ref()?);
    let cnonce = format!("{:016x}", w.ctx.rng.u64());
    let credentials = digest::Credentials { username, password: &password.0 };
    digest::answer_to(message, &credentials, "INVITE", &branch.uri, &cnonce)
}
