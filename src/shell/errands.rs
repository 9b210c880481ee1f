//! What the node asks of the world that takes longer than a moment: a POST to a program, a number that a subscriber chose,
//! a mail that leaves.
//!
//! The node's thread hands it over and goes on; each errand is answered through [`Door`], once, whatever became of it. Requests to
//! programs run side by side ([`super::hooks`]), and so do mails ([`super::relay`]); numbers are given one after the other ([`super::numbers`]): two who want the same one
//! cannot both have it. Limits: those of the hooks; [`NUMBERS_WAITING_MAX`] numbers wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::control::Desk;
use super::hooks::Hooks;
use super::node::{Door, Told};
use super::numbers;
use super::relay::Mailer;
use crate::config::Settings;
use crate::ident::{Imsi, Msisdn};
use crate::mail::{MailFailure, MailOut};
use crate::seam::{HttpFailure, NotGiven};

/// Numbers that wait to be written; with more, new ones fail at once.
const NUMBERS_WAITING_MAX: usize = 64;

/// The node's side.
pub struct Errands {
    runtime: Handle,
    door: Door,
    hooks: Arc<Hooks>,
    mailer: Arc<Mailer>,
    wishes: mpsc::Sender<Wish>,
}

/// A subscriber wants this number.
struct Wish {
    id: u64,
    imsi: Imsi,
    number: Msisdn,
}

/// The side that gives the numbers.
pub struct Wishes(mpsc::Receiver<Wish>);

impl Errands {
    /// To be called on the runtime, which does them.
    pub fn new(door: Door, hooks: Arc<Hooks>, mailer: Arc<Mailer>) -> (Errands, Wishes) {
        let (wishes, receiver) = mpsc::channel(NUMBERS_WAITING_MAX);
        (Errands { runtime: Handle::current(), door, hooks, mailer, wishes }, Wishes(receiver))
    }

    pub fn post(&self, id: u64, url: String, body: Vec<u8>, timeout: Duration) {
        let (door, hooks) = (self.door.clone(), Arc::clone(&self.hooks));
        self.runtime.spawn(async move {
            // In a task of its own: one that breaks off is an answer too.
            let result = tokio::spawn(async move { hooks.post(url, body, timeout).await }).await;
            let result = result.unwrap_or_else(|_| Err(HttpFailure("the request broke off".into())));
            door.tell_patiently(Told::HttpDone { id, result }).await;
        });
    }

    pub fn give(&self, id: u64, imsi: Imsi, number: Msisdn) {
        if self.wishes.try_send(Wish { id, imsi, number }).is_err() {
            let (door, result) = (self.door.clone(), Err(NotGiven::Failed("too many numbers wait already".into())));
            self.runtime.spawn(async move { door.tell_patiently(Told::NumberGiven { id, result }).await });
        }
    }

    pub fn send_mail(&self, id: u64, mail: Box<MailOut>, timeout: Duration) {
        let (door, mailer) = (self.door.clone(), Arc::clone(&self.mailer));
        self.runtime.spawn(async move {
            let result = tokio::spawn(async move { mailer.send(&mail, timeout).await }).await;
            // Where it broke off nobody knows.
            let result = result.unwrap_or_else(|_| Err(MailFailure::Lost("handing it over broke off".into())));
            door.tell_patiently(Told::MailSent { id, result }).await;
        });
    }

    /// New settings are in force.
    pub fn follow(&self, settings: &Settings) {
        self.hooks.forget_certificates();
        self.mailer.follow(settings.mail.as_deref());
    }
}

/// Gives one number after the other.
pub async fn give_numbers(mut wishes: Wishes, desk: Arc<Desk>) {
    while let Some(Wish { id, imsi, number }) = wishes.0.recv().await {
        let giving = Arc::clone(&desk);
        let given = tokio::task::spawn_blocking(move || numbers::give(&giving, imsi, number)).await;
        let result = given.unwrap_or_else(|_| Err(NotGiven::Failed("it broke off".into())));
        match &result {
            Ok(()) => tracing::info!("{} has the number {} now", imsi.short(), number.short()),
            Err(NotGiven::Taken) => tracing::info!("the number {} is not free", number.short()),
            Err(NotGiven::Failed(why)) => tracing::error!("{} cannot be given a number: {why}", imsi.short()),
        }
        desk.door.tell_patiently(Told::NumberGiven { id, result }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use arc_swap::ArcSwap;

    use super::super::files;
    use super::super::node::door;
    use super::super::relay::{Journal, Ways};
    use super::super::run::first_zone;
    use super::*;

    const CONFIG: &str = "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\n\
                          [[subscriber]]\nimsi = \"001010000000002\"\nauth = { algorithm = \"none\" }\n";

    fn mailer() -> Arc<Mailer> {
        Mailer::new(None, Ways::default(), Journal::default())
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn the_node_is_told_new_settings_before_it_is_told_that_the_number_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("encamp.toml");
        let data_dir = folder.path().join("data").display().to_string();
        fs::write(&config, format!("domain = \"gsm.example\"\ndata_dir = {data_dir:?}\n{CONFIG}")).unwrap();
        let settings = Arc::new(files::load(&config).unwrap().0);
        let (door, ear) = door().unwrap();
        let runtime = runtime();
        let (errands, wishes) = runtime.block_on(async { Errands::new(door.clone(), Arc::default(), mailer()) });
        let desk = Desk {
            config,
            door,
            zone: Arc::new(ArcSwap::from_pointee(first_zone(&settings))),
            settings: ArcSwap::new(settings),
            since_ms: 0,
            loaded: Mutex::default(),
            roles: Vec::new(),
            more_counts: Box::new(Vec::new),
            applying: Mutex::new(()),
        };
        let number = Msisdn::parse("5550001").unwrap();
        let sims = ["001010000000001", "001010000000002"].map(|imsi| Imsi::parse(imsi).unwrap());
        // Both want it at once; who asked first has it.
        errands.give(7, sims[0], number);
        errands.give(8, sims[1], number);
        runtime.spawn(give_numbers(wishes, Arc::new(desk)));
        let Some(Told::Settings(settings)) = ear.next() else { panic!("no settings first") };
        assert_eq!(settings.subscribers.by_number(&number).map(|owner| owner.imsi), Some(sims[0]));
        assert!(matches!(ear.next(), Some(Told::NumberGiven { id: 7, result: Ok(()) })));
        assert!(matches!(ear.next(), Some(Told::NumberGiven { id: 8, result: Err(NotGiven::Taken) })));
    }

    #[test]
    fn with_too_many_who_wait_each_has_his_answer_all_the_same() {
        let (door, ear) = door().unwrap();
        let runtime = runtime();
        let (errands, wishes) = runtime.block_on(async { Errands::new(door, Arc::default(), mailer()) });
        let (imsi, number) = (Imsi::parse("001010000000001").unwrap(), Msisdn::parse("5550001").unwrap());
        // Nobody gives them meanwhile.
        (0..=NUMBERS_WAITING_MAX as u64).for_each(|id| errands.give(id, imsi, number));
        let Some(Told::NumberGiven { id, result: Err(NotGiven::Failed(why)) }) = ear.next() else {
            panic!("no answer")
        };
        assert_eq!((id, why.as_str()), (NUMBERS_WAITING_MAX as u64, "too many numbers wait already"));
        drop(wishes);
    }

    #[test]
    fn what_became_of_a_post_is_told_under_its_id() {
        let (door, ear) = door().unwrap();
        let runtime = runtime();
        let (errands, _wishes) = runtime.block_on(async { Errands::new(door, Arc::default(), mailer()) });
        errands.post(9, "ftp://127.0.0.1/".into(), Vec::new(), Duration::from_secs(10));
        assert!(matches!(ear.next(), Some(Told::HttpDone { id: 9, result: Err(HttpFailure(_)) })));
    }
}
