//! A subscriber's own choice of a number, written to the operator's files and taken in.
//!
//! Knows: the files as they are at this moment, which may be newer than what the node knows. Does not know: who asked, and what he is told.

use std::path::Path;
use std::time::Duration;

use super::control::Desk;
use super::files::{self, Fault, NotChanged};
use crate::config::choose::{WhyNot, may_have};
use crate::config::edit::add_number;
use crate::ident::{Imsi, Msisdn};
use crate::seam::NotGiven;

/// A node that has too much to do is told the new settings again so often, after so long.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Gives it, durably, and has the node told of it; blocks.
pub fn give(desk: &Desk, imsi: Imsi, number: Msisdn) -> Result<(), NotGiven> {
    write(&desk.config, imsi, number)?;
    for _ in 0..TRIES {
        match desk.apply().exit {
            0 => return Ok(()),
            // Somebody has changed the files to something wrong since: the number is his once they are right again.
            1 => break,
            _ => std::thread::sleep(PAUSE),
        }
    }
    Err(NotGiven::Failed("the number is written, but the settings could not be taken in".into()))
}

/// Writes it to 90-local.toml, where it is still free; one that he has already is his: it was written, and not taken in.
fn write(config: &Path, imsi: Imsi, number: Msisdn) -> Result<(), NotGiven> {
    let changed = files::change_local(config, |sources, local| {
        let (settings, _) = files::complete(sources).map_err(|fault| NotGiven::Failed(words(&fault)))?;
        if settings.subscribers.by_number(&number).is_some_and(|owner| owner.imsi == imsi) {
            return Ok(None);
        }
        // The node has asked itself the same, of the settings as they were then.
        may_have(&settings, imsi, number).map_err(|why| match why {
            WhyNot::Taken | WhyNot::Reserved => NotGiven::Taken,
            WhyNot::Held => NotGiven::Failed("he has a number already".into()),
            WhyNot::Digits => NotGiven::Failed("it has too few digits or too many".into()),
        })?;
        let added = add_number(local, imsi, number);
        added.map(Some).map_err(|problem| NotGiven::Failed(format!("{}: {}", problem.place, problem.what)))
    });
    changed.map(drop).map_err(|error| match error {
        NotChanged::Refused(not_given) => not_given,
        NotChanged::Wrong(fault) => NotGiven::Failed(words(&fault)),
        NotChanged::NoDataDir => NotGiven::Failed("the configuration names no data_dir".into()),
        NotChanged::Unwritable(path, error) => NotGiven::Failed(format!("{}: {error}", path.display())),
    })
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Unreadable(path, error) => format!("{}: {error}", path.display()),
        Fault::Wrong(problems) => problems
            .first()
            .map(|problem| format!("{}: {}", problem.place, problem.what))
            .unwrap_or_else(|| "the files are wrong".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A box's files: of three SIMs the first has a number.
    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            let files = Files { folder: tempfile::tempdir().unwrap() };
            files.write("");
            files
        }

        fn config(&self) -> PathBuf {
            self.folder.path().join("encamp.toml")
        }

        fn local(&self) -> PathBuf {
            self.folder.path().join("data/subscribers.d/90-local.toml")
        }

        fn write(&self, more: &str) {
            let sim = |n: u8, more: &str| {
                format!("[[subscriber]]\nimsi = \"00101000000000{n}\"\nauth = {{ algorithm = \"none\" }}\n{more}")
            };
            let subscribers = sim(1, "msisdn = [\"5550001\"]\n") + &sim(2, "") + &sim(3, "");
            let data = self.folder.path().join("data");
            let head = format!("domain = \"gsm.example\"\ndata_dir = {:?}\n", data.display().to_string());
            fs::write(self.config(), format!("{head}{more}\n{subscribers}")).unwrap();
        }

        fn give(&self, sim: u8, number: &str) -> Result<(), NotGiven> {
            write(&self.config(), imsi(sim), Msisdn::parse(number).unwrap())
        }

        fn number_of(&self, sim: u8) -> Vec<String> {
            let (settings, _) = files::load(&self.config()).unwrap();
            settings.subscribers.get(&imsi(sim)).unwrap().msisdn.iter().map(ToString::to_string).collect()
        }
    }

    fn imsi(sim: u8) -> Imsi {
        Imsi::parse(&format!("00101000000000{sim}")).unwrap()
    }

    #[test]
    fn of_two_who_want_the_same_number_the_second_is_told_that_it_is_taken() {
        let files = Files::new();
        assert_eq!(files.give(2, "5550002"), Ok(()));
        assert_eq!(files.give(3, "5550002"), Err(NotGiven::Taken));
        assert_eq!((files.number_of(2), files.number_of(3)), (vec!["5550002".to_owned()], vec![]));
        // Told once more after a node that did not hear it: he has it.
        let written = fs::read_to_string(files.local()).unwrap();
        assert_eq!(files.give(2, "5550002"), Ok(()));
        assert_eq!(fs::read_to_string(files.local()).unwrap(), written);
    }

    #[test]
    fn at_once_from_many_threads_every_number_is_written_and_none_twice() {
        let files = Files::new();
        let given: Vec<_> = std::thread::scope(|scope| {
            let files = &files;
            let asked = [(2, "5550002"), (3, "5550002"), (2, "5550002"), (3, "5550003")];
            let threads = asked.map(|(sim, number)| scope.spawn(move || (sim, number, files.give(sim, number))));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (sim, number, result) in given {
            assert_eq!(result.is_ok(), files.number_of(sim) == [number], "{sim} {number} {result:?}");
        }
        let (two, three) = (files.number_of(2), files.number_of(3));
        assert!(two.len() <= 1 && three.len() == 1 && two != three, "{two:?} {three:?}");
    }

    #[test]
    fn what_the_files_say_by_now_counts() {
        let files = Files::new();
        assert_eq!(files.give(2, "5550001"), Err(NotGiven::Taken));
        files.write("[messages]\nservice_centre = \"5550009\"\n[emergency]\nnumbers = [\"5550008\"]\n");
        assert_eq!(files.give(2, "5550009"), Err(NotGiven::Taken));
        assert_eq!(files.give(2, "5550008"), Err(NotGiven::Taken));
        assert!(matches!(files.give(1, "5550007"), Err(NotGiven::Failed(why)) if why.contains("already")));
        assert!(matches!(files.give(2, "17"), Err(NotGiven::Failed(why)) if why.contains("digits")));
        files.write("[messages]\nnobody = 1\n");
        assert!(matches!(files.give(2, "5550002"), Err(NotGiven::Failed(why)) if why.contains("encamp.toml:4:1")));
        assert!(!files.local().exists(), "nothing was written");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_the_old_one_stays() {
        let files = Files::new();
        files.give(2, "5550002").unwrap();
        let written = fs::read_to_string(files.local()).unwrap();
        // Where the new text would be written aside stands something that is no file.
        fs::create_dir(files.local().with_extension("new")).unwrap();
        assert!(matches!(files.give(3, "5550003"), Err(NotGiven::Failed(why)) if why.contains("90-local")));
        assert_eq!(fs::read_to_string(files.local()).unwrap(), written);
        fs::remove_dir(files.local().with_extension("new")).unwrap();
        assert_eq!(files.give(3, "5550003"), Ok(()));
    }
}
