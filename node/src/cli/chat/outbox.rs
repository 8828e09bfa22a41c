//! What was typed and the node does not have yet: one file for each text, on disk before it is sent and removed
//! once the node has it. A text that was written while the node was away, or by a chat that was killed, goes when
//! node and chat are there again; its number makes sure that it is said once.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::documents::{SayOnce, SayRequest};
use crate::cli::errors::{Failure, of_io};
use crate::cli::files::private_dir;
use crate::paths::Paths;

/// One text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Letter {
    /// A number nobody else draws: 16 hexadecimal digits.
    pub(super) id: String,
    /// The document of the room it is for.
    pub(super) room: String,
    pub(super) text: String,
    pub(super) action: bool,
    pub(super) written: Timestamp,
    /// The place of a message that was in the room before: this one will stand behind it.
    after: u64,
}

impl Letter {
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(room: String, text: String, action: bool, after: u64) -> io::Result<Self> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let id = format!("{:016x}", u64::from_be_bytes(id));
        Ok(Self { id, room, text, action, written: Timestamp::now(), after })
    }

    /// The question for it; `again` when the node may have it already.
    pub(super) fn request(&self, again: bool) -> SayRequest {
        let once = SayOnce {
            id: self.id.clone(),
            written: Some(self.written),
            after: again.then(|| format!("{:016x}", self.after)),
        };
        SayRequest { text: self.text.clone(), action: self.action, once: Some(once), ..SayRequest::default() }
    }
}

/// The texts of one node, in its state directory.
#[derive(Debug)]
pub(super) struct Outbox {
    directory: PathBuf,
    kept: u64,
}

/// What was found there.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By age.
    pub(super) letters: Vec<(PathBuf, Letter)>,
    /// Files that are no letters. They stay where they are.
    pub(super) strange: Vec<PathBuf>,
}

impl Outbox {
    /// The outbox of the node with this id: another node may have had this name before.
    pub(super) fn open(paths: &Paths, node: &str) -> Result<Self, Failure> {
        let directory = paths.log_file.with_file_name("outbox").join(node);
        private_dir(&directory)?;
        Ok(Self { directory, kept: 0 })
    }

    /// Keeps a text; it is on disk when this returns.
    pub(super) fn keep(&mut self, letter: &Letter) -> io::Result<PathBuf> {
        self.kept += 1;
        let (millis, number) = (letter.written.as_millisecond(), self.kept);
        let file = self.directory.join(format!("{millis:014}-{number:08}-{}.json", letter.id));
        wattle_store::write_atomically(&file, &serde_json::to_vec(letter)?, 0o600)?;
        Ok(file)
    }

    /// What is there, from an earlier chat or from another that runs.
    pub(super) fn all(&self) -> Result<Found, Failure> {
        let broken = |error: &io::Error| of_io("read", &self.directory, error);
        let mut found = Found::default();
        for entry in std::fs::read_dir(&self.directory).map_err(|error| broken(&error))? {
            let path = entry.map_err(|error| broken(&error))?.path();
            // Where a chat was killed while it wrote, `.NAME.tmp` is left: that text was never accepted.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match std::fs::read(&path) {
                Ok(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(letter) => found.letters.push((path, letter)),
                    Err(_) => found.strange.push(path),
                },
                // Another chat has sent it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(broken(&error).into()),
            }
        }
        found.letters.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }
}

/// The node has it, or refused it.
pub(super) fn forget(file: &Path) {
    // Ignored because it is said once even if it is found there again.
    drop(std::fs::remove_file(file));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_in_the_order_in_which_they_were_written_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox { directory: dir.path().to_owned(), kept: 0 };
        let letter = |text: &str| Letter::new("automerge:a".to_owned(), text.to_owned(), false, 7).unwrap();
        let letters: Vec<Letter> = (0..20).map(|number| letter(&number.to_string())).collect();
        let files: Vec<PathBuf> = letters.iter().map(|letter| outbox.keep(letter).unwrap()).collect();
        std::fs::write(dir.path().join("broken.json"), "{").unwrap();
        std::fs::write(dir.path().join(".half.json.tmp"), "{").unwrap();
        let found = outbox.all().unwrap();
        assert_eq!(found.letters.iter().map(|(_, letter)| letter.clone()).collect::<Vec<_>>(), letters);
        assert_eq!(found.strange, [dir.path().join("broken.json")]);
        files.iter().for_each(|file| forget(file));
        assert!(outbox.all().unwrap().letters.is_empty());
    }

    #[test]
    fn only_what_may_be_there_already_is_looked_for() {
        let letter = Letter::new("automerge:a".to_owned(), "hi".to_owned(), true, 255).unwrap();
        let (first, again) = (letter.request(false), letter.request(true));
        assert_eq!(first.once.as_ref().unwrap().after, None);
        assert_eq!(again.once.as_ref().unwrap().after.as_deref(), Some("00000000000000ff"));
        assert_eq!(first.once.unwrap().id, again.once.unwrap().id);
        assert!(first.action);
    }
}
