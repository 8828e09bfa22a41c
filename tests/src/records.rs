//! Records for tests: signed by test nodes, valid for an hour unless said otherwise.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use wattle_net::{Event, Misbehaviour};
use wattle_types::{NetworkName, NodeId, Record, RecordKey, RecordName, SecretKey, UnixTime};

use crate::overlay::fail;

/// The wall clock.
#[must_use]
pub fn wall() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn named(name: &str) -> RecordName {
    name.parse().unwrap_or_else(|error| fail(&format!("{name}: {error}")))
}

/// A record of `key`'s owner that expires then.
#[must_use]
pub fn signed_until(key: &SecretKey, name: &str, sequence: u64, payload: &str, expires: UnixTime) -> Record {
    let network = NetworkName::default();
    let record = Record::sign(key, &network, named(name), sequence, expires, payload.as_bytes());
    record.unwrap_or_else(|error| fail(&error.to_string()))
}

/// A record of `key`'s owner, valid for an hour.
#[must_use]
pub fn signed(key: &SecretKey, name: &str, sequence: u64, payload: &str) -> Record {
    signed_until(key, name, sequence, payload, wall().after(Duration::from_secs(3600)))
}

/// The key of a record of `owner`.
#[must_use]
pub fn key_of(owner: NodeId, name: &str) -> RecordKey {
    RecordKey::Signed { owner, name: named(name) }
}

/// The bytes of that key in the DHT.
#[must_use]
pub fn key_bytes(owner: NodeId, name: &str) -> Vec<u8> {
    key_of(owner, name).to_bytes(&NetworkName::default())
}

/// Waits until `events` tell that `peer` broke a rule, skipping everything else that happens.
///
/// # Panics
/// When nobody says so.
pub async fn reported(events: &mut Receiver<Event>, peer: NodeId) -> Misbehaviour {
    let waited = tokio::time::timeout(crate::overlay::PATIENCE, async {
        loop {
            if let Ok(Event::Misbehaved { peer: who, what }) = events.recv().await
                && who == peer
            {
                return what;
            }
        }
    });
    waited.await.unwrap_or_else(|_elapsed| fail("nobody reported the misbehaviour"))
}
