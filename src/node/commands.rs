//! What an operator asks of a running node, and what he is told.

use super::Node;
use crate::ident::Imsi;
use crate::register::asking::Asker;
use crate::register::locate::Finder;
use crate::register::merge::{Binding, Record};
use crate::seam::{
    After, BindingAnswer, Command, CommandAnswer, Ctx, ErrorAnswer, LookupAnswer, Output, StatusAnswer, Who,
};
use crate::site::World;
use crate::store::StoreId;

/// `encamp lookup` of a phone whose replicas are elsewhere.
pub(super) struct LookupCommand {
    imsi: Imsi,
    /// Not asked yet, the next one last.
    left: Vec<usize>,
    asked: Option<usize>,
    /// How many caught-up replicas hold nothing, and how many must: an empty list is a *no*, too (promise 2).
    no: usize,
    no_needed: usize,
}

impl Node {
    pub(super) fn command(&mut self, ctx: &mut Ctx<'_>, id: u64, command: Command) {
        let answer = match command {
            Command::Replicas => {
                let now_ms = self.clock.wall(ctx.now, ctx.wall).ms;
                CommandAnswer::Replicas(self.replicas.describe(&self.site.settings, now_ms))
            }
            Command::Status => CommandAnswer::Status(StatusAnswer {
                registrations_under_way: self.front.under_way() as u64,
                challenges: self.front.challenge_count() as u64,
                epoch: self.site.epoch,
                zone_serial: self.zone.serial,
                clock_trusted: ctx.wall.trusted,
                texts_waiting: self.centre.waiting() as u64,
                alarms: [self.replicas.alarms(), self.centre.alarms()].concat(),
            }),
            Command::Lookup(who) => return self.lookup(ctx, id, who),
            Command::Calls => {
                let w: &World<'_, '_> = world!(self, ctx);
                CommandAnswer::Calls(self.calls.describe(w))
            }
            Command::CallEnd(call) => match self.calls.end(world!(self, ctx), &call) {
                true => CommandAnswer::Done,
                false => error("no such call", "no call under way has this id", "encamp calls shows them"),
            },
            Command::Queue(ask) => return self.centre.operate(world!(self, ctx), finder!(self), id, ask),
        };
        ctx.out.send(Output::Answer { id, answer });
    }

    fn lookup(&mut self, ctx: &mut Ctx<'_>, id: u64, who: Who) {
        let imsi = match who {
            Who::Imsi(imsi) => Some(imsi),
            Who::Number(number) => self.site.resolve(&number.to_string()).map(|subscriber| subscriber.imsi),
            Who::Mail(_) => None,
        };
        let Some(imsi) = imsi else {
            let answer =
                error("not provisioned", "no subscriber has this number", "encamp subscriber list shows all numbers");
            return ctx.out.send(Output::Answer { id, answer });
        };
        let Some(shard) = self.site.map.shard_of(&imsi) else { return };
        match self.replicas.read_local(world!(self, ctx), shard, imsi) {
            Ok(Some(record)) if record.newest().is_some() => self.lookup_answer(ctx, id, imsi, &record),
            Ok(_) => {
                let shard = &self.site.settings.shards[shard];
                let no_needed = shard.replicas.len() + 1 - shard.write_quorum;
                let mut left = self.replicas.in_order(&shard.replicas, imsi);
                left.retain(|index| self.replicas.is_remote(*index) && !self.front.is_owed(imsi, *index));
                let here = shard.replicas.iter().filter(|index| !self.replicas.is_remote(**index));
                let no = here.filter(|index| self.replicas.is_believed(**index, imsi)).count();
                let command = LookupCommand { imsi, left, asked: None, no, no_needed };
                self.commands.insert(id, command);
                self.lookup_told(ctx, id, None);
            }
            Err(store) => {
                let answer = error("cannot read the record", &store.to_string(), "see encamp replica status");
                ctx.out.send(Output::Answer { id, answer });
            }
        }
    }

    pub(super) fn lookup_told(&mut self, ctx: &mut Ctx<'_>, id: u64, record: Option<Record>) {
        let Some(mut command) = self.commands.remove(&id) else { return };
        let imsi = command.imsi;
        if let (Some(record), Some(asked)) = (record, command.asked) {
            if record.newest().is_some() {
                return self.lookup_answer(ctx, id, imsi, &record);
            }
            command.no += usize::from(self.replicas.is_believed(asked, imsi));
        }
        if command.no >= command.no_needed {
            return self.lookup_answer(ctx, id, imsi, &Record::default());
        }
        while let Some(index) = command.left.pop() {
            if self.replicas.query(world!(self, ctx), index, imsi, Asker::Command(id)) {
                command.asked = Some(index);
                self.commands.insert(id, command);
                return;
            }
        }
        let answer = error("nobody can say", "too few replicas of its shard answered", "see encamp replica status");
        ctx.out.send(Output::Answer { id, answer });
    }

    fn lookup_answer(&mut self, ctx: &mut Ctx<'_>, id: u64, imsi: Imsi, record: &Record) {
        let now_ms = i128::from(self.clock.wall(ctx.now, ctx.wall).ms);
        let subscriber = self.site.subscribers.get(&imsi);
        let settings = &self.site.settings;
        let binding = |(contact, stamp, binding): (&str, _, &Binding)| {
            let shift_ms = self.clock.shift_ms(stamp);
            let left_ms = i128::from(binding.expires_at_ms.saturating_add(shift_ms)) - now_ms;
            let station = settings.base_station_at(binding.source.ip());
            BindingAnswer {
                contact: contact.to_owned(),
                base_station: station.map(|station| station.name.clone()),
                location_area: self.site.area_of(binding.source.ip()).map(str::to_owned),
                cell: binding.cell.map(|cell| cell.to_string()),
                expires_s: i64::try_from(left_ms.div_euclid(1000)).unwrap_or(i64::MAX),
                stale: left_ms <= 0,
                since: binding.since_ms.saturating_add(shift_ms),
            }
        };
        let answer = LookupAnswer {
            imsi: imsi.to_string(),
            msisdn: subscriber.map(|s| s.msisdn.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            name: subscriber.map(|subscriber| subscriber.name.to_string()).unwrap_or_default(),
            bindings: record.bindings().map(binding).collect(),
        };
        // A list of bindings is a promise, an empty one is a *no*: both wait until what they were read from is synced (promise 1).
        let mut after = After::nothing();
        let shard = self.site.map.shard_of(&imsi).map(|shard| &self.site.settings.shards[shard]);
        let mut members: Vec<usize> = shard.map(|shard| shard.replicas.clone()).unwrap_or_default();
        // A closed store syncs no more, and nothing was read from it.
        members.retain(|index| self.replicas.open_local(*index).is_some());
        let w = world!(self, ctx);
        for commit in members.iter().filter_map(|index| w.unsynced(StoreId::Replica(*index as u16))) {
            after = after.and(commit);
        }
        ctx.out.send_after(after, Output::Answer { id, answer: CommandAnswer::Lookup(answer) });
    }

    /// The disk that an answer was waiting for has failed.
    pub(super) fn answer_failed(&self, ctx: &mut Ctx<'_>, id: u64) {
        let answer = error("no answer", "the disk that it was read from has failed", "see encamp replica status");
        ctx.out.send(Output::Answer { id, answer });
    }
}

fn error(error: &str, cause: &str, hint: &str) -> CommandAnswer {
    CommandAnswer::Error(ErrorAnswer { error: error.into(), cause: cause.into(), hint: hint.into() })
}
