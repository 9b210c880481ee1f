//! What of a call is kept on the disk, taken up again after a restart, shown to the operator and written into the records.

use super::*;

impl Call {
    /// Keeps what a restart must know, without waiting for it.
    pub(super) fn keep(&mut self, w: &mut World<'_, '_>, state: KeptState) {
        // A refusal has been told; without the record the call goes on, and would not survive us.
        let _ = self.write_kept(w, state);
    }

    pub(super) fn write_kept(
        &mut self,
        w: &mut World<'_, '_>,
        state: KeptState,
    ) -> Result<crate::store::CommitId, StoreError> {
        let branch = |branch: &Branch| KeptBranch {
            leg: KeptLeg::of(&branch.leg),
            branch: branch.branch.clone(),
            uri: branch.uri.clone(),
        };
        let is_setup = state == KeptState::Setup;
        let kept = Kept {
            id: self.id,
            state,
            started_ms: self.started_ms,
            answered_ms: self.answered.map(|(ms, _)| ms),
            from: self.from.clone(),
            to: self.to.clone(),
            to_imsi: self.to_imsi().map(|imsi| imsi.as_str().to_owned()),
            caller: KeptLeg::of(&self.caller.leg),
            invite: Vec::new(),
            callee: self.callee.as_ref().map(KeptLeg::of),
            branches: if is_setup { self.branches.iter().map(branch).collect() } else { Vec::new() },
        };
        let mut batch = kept::put(Batch::default(), &kept);
        if !self.is_kept {
            batch = kept::put_invite(batch, self.id, &self.caller.invite);
        }
        let commit = w.node_write(batch)?;
        self.is_kept = true;
        Ok(commit)
    }

    /// The caller has our 200: nobody needs to tell him after a restart.
    pub(super) fn keep_acked(&mut self, w: &mut World<'_, '_>) {
        if self.is_kept {
            // Where the store refuses he is told once more, and acknowledges once more.
            let _ = w.node_write(kept::delete_invite(Batch::default(), self.id));
        }
    }

    /// Takes the record away: nothing is under way any more. `false` where the store refuses, and it is to be tried again.
    pub fn forget(&mut self, w: &mut World<'_, '_>) -> bool {
        !self.is_kept || w.node_write(kept::delete(Batch::default(), self.id)).is_ok()
    }

    /// A call that an earlier run left behind.
    pub fn resume(w: &mut World<'_, '_>, kept: Kept) -> Option<Call> {
        let now = w.ctx.now;
        let leg = kept.caller.leg(w.site, now)?;
        let callee = kept.callee.as_ref().and_then(|callee| callee.leg(w.site, now));
        let (from, reply) = match leg.way {
            Way::Datagram { from, to } => (to, ReplyTo::Datagram { from, to }),
            Way::Stream { conn, peer } => (peer, ReplyTo::Stream(conn)),
        };
        let invite = kept.invite;
        let offerless = parse(&invite).is_ok_and(|invite| invite.body.is_empty());
        let plan = match kept.to_imsi.as_deref().and_then(|imsi| Imsi::parse(imsi).ok()) {
            Some(imsi) => Plan::Phone { imsi, tried: Vec::new(), groups: VecDeque::new(), reread: true },
            None => Plan::Unknown,
        };
        let mut call = Call {
            id: kept.id,
            state: State::Up,
            started_ms: kept.started_ms,
            answered: kept.answered_ms.map(|ms| (ms, now)),
            from: kept.from,
            to: kept.to,
            caller: Caller { leg, invite, from, reply, last: Vec::new(), resend: None },
            callee_ack: None,
            callee,
            plan,
            branches: Vec::new(),
            asks: Vec::new(),
            count: 0x1000,
            failure: None,
            to_cell: String::new(),
            relayed: Vec::new(),
            group_until: None,
            setup_until: now,
            bye_caller: None,
            offerless,
            end_at: None,
            probe_at: None,
            probes_missed: [0; 2],
            refreshed: Vec::new(),
            armed: None,
            is_kept: true,
            is_recorded: false,
        };
        match kept.state {
            KeptState::Up => {
                let lived_ms = w.wall().ms.saturating_sub(kept.answered_ms.unwrap_or_default());
                let left = w.site.settings.calls.duration_max.saturating_sub(Duration::from_millis(lived_ms));
                call.watch(w, left);
                // Whether the other ends were restarted as well is not known: they are asked soon.
                call.probe_at = Some(now + Duration::from_millis(1000 + w.ctx.rng.below(10_000)));
                if let Some(callee) = call.callee.clone() {
                    // Should its 200 come again, it has the same ACK as before.
                    let branch = call.new_branch(w);
                    let ack = callee.request(w.site, "ACK", callee.cseq.saturating_sub(1000), &branch).finish();
                    call.callee_ack = Some(ack);
                }
                if !call.caller.invite.is_empty() {
                    // Whether the caller was told is not known: he is told (again), and acknowledges.
                    call.state = State::Answering;
                    call.kept(w);
                }
            }
            KeptState::Ending => {
                call.state = State::Ending;
                call.is_recorded = true;
                call.hang_up(w, Side::Called, None);
                call.hang_up(w, Side::Caller, None);
            }
            // "A call in the making at a crash: after the restart CANCEL to the called base station, 503 cause 41 to the caller."
            KeptState::Setup => {
                call.state = State::Ringing;
                for branch in kept.branches {
                    let Some(mut leg) = branch.leg.leg(w.site, now) else { continue };
                    leg.cseq = leg.cseq.saturating_sub(1000);
                    let mut unknown_tag = leg.clone();
                    unknown_tag.remote_tag = None;
                    let bytes =
                        ringing::cancel_bytes(w, &unknown_tag, &branch.uri, &branch.branch, Some("Q.850;cause=41"));
                    call.ask(w, format!("{}/CANCEL", branch.branch), bytes, leg.way, What::Cancel, BURIAL);
                    // It may have been answered in the last moment, which a CANCEL does not end; a base station takes the BYE by
                    // its Call-ID.
                    if leg.party.is_phone() || leg.remote_tag.is_some() {
                        call.bye(w, leg, Some("Q.850;cause=41".into()));
                    }
                }
                call.refuse_no(w, No::Restarted);
            }
        }
        Some(call)
    }

    /// The base station or trunk of a side, with the cell where that is known.
    pub(super) fn place(&self, w: &World<'_, '_>, leg: Option<&Leg>) -> String {
        let Some(leg) = leg else { return String::new() };
        match &leg.party {
            Party::Trunk { name } => name.clone(),
            Party::Phone { cell, .. } => {
                let name = w.site.station_name(leg.way.peer());
                match cell {
                    Some(cell) => format!("{name} {cell}"),
                    None => name,
                }
            }
        }
    }

    /// Where the called side is; also after it has hung up.
    fn far_place(&self, w: &World<'_, '_>) -> String {
        match self.callee.as_ref().or_else(|| self.branches.first().map(|branch| &branch.leg)) {
            Some(leg) => self.place(w, Some(leg)),
            None => self.to_cell.clone(),
        }
    }

    pub fn describe(&self, w: &World<'_, '_>) -> CallAnswer {
        let state = match self.state {
            State::Checking | State::Locating => "locating",
            State::Ringing | State::Answering => "ringing",
            State::Up => "up",
            State::Ending => "ending",
        };
        let since = self.answered.map_or(self.started_ms, |(ms, _)| ms);
        CallAnswer {
            id: self.name(),
            state,
            from: self.from.clone(),
            to: self.to.clone(),
            since,
            duration_s: self.answered.map_or(0, |(ms, _)| w.wall().ms.saturating_sub(ms) / 1000),
            cells: vec![self.place(w, Some(&self.caller.leg)), self.far_place(w)],
        }
    }

    /// One record per call.
    pub(super) fn record(
        &mut self,
        w: &mut World<'_, '_>,
        outcome: CallOutcome,
        code: u16,
        cause: u8,
        by: &'static str,
        why: &str,
    ) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        let record = CallRecord {
            id: self.name(),
            started_ms: self.started_ms,
            answered_ms: self.answered.map(|(ms, _)| ms).filter(|_| outcome == CallOutcome::Answered),
            ended_ms: w.wall().ms,
            from: self.from.clone(),
            to: self.to.clone(),
            from_imsi: self.caller.leg.party.imsi(),
            to_imsi: self.to_imsi(),
            from_cell: self.place(w, Some(&self.caller.leg)),
            to_cell: self.far_place(w),
            outcome,
            code,
            cause,
            ended_by: by,
            why: why.to_owned(),
        };
        w.ctx.out.send(Output::CallRecord(Box::new(record)));
    }
}
