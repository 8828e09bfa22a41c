//! The apps that have a state in the ordered log: the host's part of rules O1 to O4.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::{UnixTime, cbor, keyed};

use super::Host;
use crate::app::{App, Reject, RejectCode};
use crate::ordered::{
    ANSWER_BYTES_MAX, Corrupt, ENTRY_BYTES_MAX, Executed, Height, LogQuota, NotNext, Ordered, OrderedBlock,
    Outcome, Position, Receipt, SNAPSHOT_BYTES_MAX,
};

/// What an app may still do, as of a block's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    entries: u64,
    bytes: u64,
    /// None before the first entry.
    filled: Option<UnixTime>,
}

impl Bucket {
    /// O1: filled by the blocks' times, so that every replica refuses the same.
    fn take(&mut self, quota: &LogQuota, time: UnixTime, bytes: u64) -> bool {
        let all_entries = quota.entries_per_second.saturating_mul(2);
        let all_bytes = quota.bytes_per_second.saturating_mul(2);
        match self.filled {
            None => (self.entries, self.bytes, self.filled) = (all_entries, all_bytes, Some(time)),
            Some(filled) => {
                let millis = u64::try_from(time.since(filled).as_millis()).unwrap_or(u64::MAX);
                let more = quota.entries_per_second.saturating_mul(millis) / 1000;
                let more_bytes = quota.bytes_per_second.saturating_mul(millis) / 1000;
                if more > 0 && more_bytes > 0 {
                    self.entries = self.entries.saturating_add(more).min(all_entries);
                    self.bytes = self.bytes.saturating_add(more_bytes).min(all_bytes);
                    self.filled = Some(time);
                }
            }
        }
        let enough = self.entries > 0 && self.bytes >= bytes;
        if enough {
            self.entries -= 1;
            self.bytes -= bytes;
        }
        enough
    }
}

/// How far the apps are in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Log {
    /// The last block that was applied.
    height: Height,
    agreed: Agreed,
}

/// What the replicas have alike beside the states of the apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Agreed {
    /// All that entries came to, hashed one after the other.
    outcomes: [u8; 32],
    buckets: BTreeMap<String, Bucket>,
}

/// All there is to know of the apps behind a block.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    format: Format,
    log: Log,
    /// Of the height and the root that it makes.
    sum: ByteBuf,
    apps: BTreeMap<String, ByteBuf>,
}

#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "wattle apps snapshot v1")]
    V1,
}

fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let all: Vec<&[u8]> = std::iter::once(label.as_bytes()).chain(parts.iter().copied()).collect();
    keyed(&[0; 32], &all)
}

/// Of a height and the root behind it.
fn sum((height, root): (Height, [u8; 32])) -> [u8; 32] {
    hash("wattle apps sum v1", &[&height.0.to_be_bytes(), &root])
}

impl Host {
    fn in_log(&self) -> impl Iterator<Item = (&'static str, &dyn App)> {
        let ordered = self.apps.iter().filter(|(_, slot)| slot.app.in_log().is_some());
        ordered.map(|(id, slot)| (id.0, slot.app.as_ref() as &dyn App))
    }

    /// The apps that have a state in the log.
    pub fn apps_in_log(&self) -> impl Iterator<Item = &'static str> {
        self.in_log().map(|(name, _)| name)
    }

    /// Whether an entry is worth ordering: what [`App::check`] says. For what callers hand in for an app.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, app: &str, data: &[u8]) -> Result<(), Reject> {
        let found = self.in_log().find(|(name, _)| *name == app);
        let missing = || Reject::new(RejectCode::NotFound, format!("no app {app} has a state in the log"));
        let (_, app) = found.ok_or_else(missing)?;
        worth_ordering(app, data)
    }

    /// The last block that was applied, and the root behind it (O2).
    #[must_use]
    pub fn state(&self) -> (Height, [u8; 32]) {
        let mut root = hash("wattle apps root v1", &[&cbor::encode(&self.log.agreed)]);
        for (name, app) in self.in_log() {
            root = hash("wattle apps state v1", &[&root, name.as_bytes(), &app.digest()]);
        }
        (self.log.height, root)
    }

    /// The state of all apps behind the last block.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let states = self.in_log().map(|(name, app)| (name.to_owned(), ByteBuf::from(app.snapshot())));
        let (log, sum) = (self.log.clone(), ByteBuf::from(sum(self.state())));
        cbor::encode(&Snapshot { format: Format::V1, log, sum, apps: states.collect() })
    }

    /// O3.
    pub(super) fn order(&mut self, block: OrderedBlock) -> Result<Executed, NotNext> {
        let (height, time) = (block.height, block.time);
        if height <= self.log.height {
            return Err(NotNext { got: height, applied: self.log.height });
        }
        self.log.height = height;
        let mut outcomes = Vec::new();
        for Ordered { app, transaction, index, data } in block.entries {
            let at = Position { height, index, time };
            let receipt = self.apply(&app, at, &data);
            let (said, code) = match &receipt {
                Ok(answer) => (answer.as_slice(), None),
                // Words may change between versions, and are no part of what is agreed.
                Err(reject) => (&[][..], Some(reject.code)),
            };
            let came_to = cbor::encode(&(at, code));
            let before = self.log.agreed.outcomes;
            self.log.agreed.outcomes =
                hash("wattle apps outcome v1", &[&before, &transaction, &came_to, said]);
            outcomes.push(Outcome { transaction, at, receipt });
        }
        Ok(Executed { height, root: self.state().1, outcomes })
    }

    fn apply(&mut self, name: &str, at: Position, data: &[u8]) -> Receipt {
        let slot = self.apps.iter_mut().find(|(id, _)| id.0 == name).map(|(_, slot)| slot);
        let found = slot.and_then(|slot| slot.app.in_log().map(|quota| (quota, slot)));
        let Some((quota, slot)) = found else {
            return Err(Reject::new(RejectCode::NotFound, format!("no app {name} has a state in the log")));
        };
        check_size(data)?;
        let bucket = self.log.agreed.buckets.entry(name.to_owned()).or_default();
        if !bucket.take(&quota, at.time, data.len() as u64) {
            let why = format!("{name} did too much at once: try again later");
            return Err(Reject::new(RejectCode::Later, why));
        }
        let stored = slot.app.stored();
        if stored.saturating_add(data.len() as u64) > quota.stored_bytes {
            let why = format!("{name} keeps {stored} bytes, and {} are all that it may", quota.stored_bytes);
            return Err(Reject::new(RejectCode::NotSaved, why));
        }
        let mut answer = slot.app.apply(at, data)?;
        answer.truncate(ANSWER_BYTES_MAX);
        Ok(answer)
    }

    /// O4: all or nothing. The height and root that it makes are for the caller to compare with what a quorum vouches
    /// for.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(Height, [u8; 32]), Corrupt> {
        let corrupt = |why: String| Corrupt::new("the apps", why);
        let Snapshot { format: Format::V1, log, sum: named, apps: states } =
            cbor::decode(bytes, SNAPSHOT_BYTES_MAX).map_err(|error| corrupt(error.to_string()))?;
        if !states.keys().map(String::as_str).eq(self.apps_in_log()) {
            let theirs: Vec<&str> = states.keys().map(String::as_str).collect();
            return Err(corrupt(format!("it is of other apps: {}", theirs.join(" "))));
        }
        let before: BTreeMap<String, ByteBuf> =
            self.in_log().map(|(name, app)| (name.to_owned(), ByteBuf::from(app.snapshot()))).collect();
        let log_before = std::mem::replace(&mut self.log, log);
        let restored = self.restore_apps(&states).and_then(|()| {
            let state = self.state();
            let why = || corrupt("its state is not the one that it names".to_owned());
            if named.as_slice() == sum(state).as_slice() { Ok(state) } else { Err(why()) }
        });
        if restored.is_err() {
            self.log = log_before;
            // Ignored because an app takes back what it gave a moment ago; if it does not, its root tells.
            self.restore_apps(&before).unwrap_or_default();
        }
        restored
    }

    fn restore_apps(&mut self, states: &BTreeMap<String, ByteBuf>) -> Result<(), Corrupt> {
        for (id, slot) in &mut self.apps {
            if let Some(state) = states.get(id.0) {
                slot.app.restore(state)?;
            }
        }
        Ok(())
    }
}

/// Whether an app would apply an entry, as far as the entry alone tells.
pub(super) fn worth_ordering(app: &dyn App, data: &[u8]) -> Result<(), Reject> {
    check_size(data)?;
    app.check(data)
}

fn check_size(data: &[u8]) -> Result<(), Reject> {
    if data.len() <= ENTRY_BYTES_MAX {
        return Ok(());
    }
    let why = format!("an entry of {} bytes; apps are given at most {ENTRY_BYTES_MAX}", data.len());
    Err(Reject::new(RejectCode::Usage, why))
}
