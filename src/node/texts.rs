//! Texts, marks and alerts: which of them is for whom.

use std::net::SocketAddr;

use super::{Came, Node};
use crate::event::Event;
use crate::ident::Imsi;
use crate::mail::{MailFailure, MailIn, MailTaken, Reply};
use crate::register::asking::Write;
use crate::register::front::STORE_REFUSED;
use crate::register::locate::Finder;
use crate::register::serve;
use crate::seam::{Ctx, HttpAnswer, HttpFailure, NotGiven, Output, Port};
use crate::sip::parse::Message;
use crate::site::World;
use crate::sms::{answer, deliver, is_ours};
use crate::time::Stamp;

impl Node {
    /// A MESSAGE from somebody listed.
    pub(super) fn text(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        if !matches!(came.port, Port::Front(_)) || !self.site.settings.is_base_station(came.from.ip()) {
            return self.refuse(
                ctx,
                came,
                message,
                403,
                "Forbidden",
                "a text from an address that is no base station's",
            );
        }
        let Some(request) = self.first_copy(ctx, came, message) else { return };
        self.centre.message(world!(self, ctx), finder!(self), &request);
    }

    /// A MESSAGE from a trunk.
    pub(super) fn trunk_text(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>, trunk: usize) {
        if !matches!(came.port, Port::Front(_)) || !self.site.settings.trunks[trunk].texts {
            return self.refuse(ctx, came, message, 403, "Forbidden", "a text from a trunk that takes none");
        }
        let Some(request) = self.first_copy(ctx, came, message) else { return };
        self.centre.trunk_message(world!(self, ctx), trunk, &request);
    }

    /// A response to a MESSAGE of ours, by its branch; `false`: it is for somebody else.
    pub(super) fn text_response(&mut self, ctx: &mut Ctx<'_>, from: SocketAddr, message: &Message<'_>) -> bool {
        let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
        let ours = branch.starts_with(deliver::BRANCH);
        if ours {
            self.centre.response(world!(self, ctx), finder!(self), from, branch, message);
        }
        if branch.starts_with(answer::NOTE_BRANCH) {
            self.centre.note_response(world!(self, ctx), from, branch, message);
            return true;
        }
        ours
    }

    /// A NOTIFY of another node: a phone that we wait for is back.
    pub(super) fn alerted(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        if let Some(imsi) = serve::alert(world!(self, ctx), came.from, came.to, message) {
            ctx.out.event(Event::AlertReceived { imsi, from: came.from });
            self.centre.returned(world!(self, ctx), finder!(self), imsi, true);
        }
    }

    /// A phone is back: our own centre is told, and those elsewhere who wait for it.
    pub(super) fn phone_returned(&mut self, ctx: &mut Ctx<'_>, imsi: Imsi, owners: Vec<SocketAddr>, registered: bool) {
        let (ours, elsewhere): (Vec<_>, Vec<_>) = owners.into_iter().partition(|owner| is_ours(&self.site, *owner));
        if registered || !ours.is_empty() {
            self.centre.returned(world!(self, ctx), finder!(self), imsi, !ours.is_empty());
        }
        for owner in elsewhere {
            self.replicas.alert(world!(self, ctx), imsi, owner);
        }
    }

    /// What a program of the operator's said to a text.
    pub(super) fn hook_answered(&mut self, ctx: &mut Ctx<'_>, id: u64, result: Result<HttpAnswer, HttpFailure>) {
        self.centre.hook_answered(world!(self, ctx), finder!(self), id, result);
    }

    /// Whether the number that a subscriber chose is his.
    pub(super) fn number_given(&mut self, ctx: &mut Ctx<'_>, id: u64, result: Result<(), NotGiven>) {
        self.centre.number_given(world!(self, ctx), finder!(self), id, result);
    }

    /// A mail has come.
    pub(super) fn mail(&mut self, ctx: &mut Ctx<'_>, id: u64, mail: MailIn) {
        // Copies come again while a disk hangs, and each of them would wait for it.
        if self.holds_too_much(ctx) {
            let count = if mail.each_answered { mail.recipients.len() } else { 1 };
            let reply = Reply::new(451, (4, 3, 1), "the disk does not answer");
            ctx.out.event(Event::MailRefused { from: mail.peer.ip, code: reply.code, why: "the disk does not answer" });
            return ctx.out.send(Output::MailAnswer { id, replies: vec![reply; count] });
        }
        self.centre.mail_in(world!(self, ctx), finder!(self), id, mail);
    }

    /// What became of a mail of ours.
    pub(super) fn mail_sent(&mut self, ctx: &mut Ctx<'_>, id: u64, result: Result<MailTaken, MailFailure>) {
        self.centre.mail_sent(world!(self, ctx), finder!(self), id, result);
    }

    pub(super) fn written(
        &mut self,
        ctx: &mut Ctx<'_>,
        write: Write,
        replica: usize,
        older_than: Option<Stamp>,
        alert: Vec<SocketAddr>,
    ) {
        let w = world!(self, ctx);
        match write {
            Write::Register(id) => self.front.written(w, &mut self.replicas, id, replica, older_than, alert),
            Write::Mark(id) => self.marks.written(w, id, replica, alert),
        }
    }

    pub(super) fn not_written(&mut self, ctx: &mut Ctx<'_>, write: Write, replica: usize, why: &'static str) {
        let w = world!(self, ctx);
        match write {
            Write::Register(id) => self.front.not_written(w, &mut self.replicas, id, replica, why),
            Write::Mark(id) => self.marks.not_written(w, &mut self.replicas, id, replica, why),
        }
    }

    pub(super) fn refused_by_store(&mut self, ctx: &mut Ctx<'_>, write: Write, replica: usize) {
        self.not_written(ctx, write, replica, STORE_REFUSED);
    }
}
