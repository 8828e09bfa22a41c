//! How a caller's wish becomes a query.

use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{self, ProviderRecord, QueryId, Record as KadRecord, RecordKey as KadKey};
use libp2p::swarm::Swarm;
use tokio::sync::oneshot;
use wattle_types::limits::PUBLISHED_MAX;
use wattle_types::{Precedence, Record, Time, UnixTime};

use super::query::{Found, Job, Query};
use super::{Dht, Kad, QUERIES_MAX, target_key, void_at};
use crate::behaviour::{Behaviour, peer_id};
use crate::command::{DhtCommand, answer};
use crate::report::{DhtError, TraceTarget};

impl Dht {
    /// Starts the query of a command; when its caller must not hear of success before the disk has it, what
    /// to tell.
    pub(super) fn start_query(
        &mut self,
        now: Time,
        wall: UnixTime,
        swarm: &mut Swarm<Behaviour>,
        command: DhtCommand,
    ) -> Option<oneshot::Sender<()>> {
        if self.queries.len() >= QUERIES_MAX {
            command.refuse(DhtError::Busy(QUERIES_MAX));
            return None;
        }
        let kad = &mut swarm.behaviour_mut().kad;
        let alone = kad.kbuckets().all(|bucket| bucket.is_empty());
        let (done, durable) = oneshot::channel();
        let started = match command {
            DhtCommand::Put { record, lasting, timeout, reply } => {
                match self.start_put(now, wall, kad, &record, lasting) {
                    Ok(id) => Some((id, Job::Put { record, durable, reply, holders: None }, timeout)),
                    Err(error) => refuse(reply, error),
                }
            }
            // Nobody would hear it, and nobody would repeat it.
            DhtCommand::Provide { lasting: false, reply, .. } if alone => refuse(reply, DhtError::Alone),
            DhtCommand::Provide { key, lasting, timeout, reply } => {
                match self.start_provide(now, wall, kad, key, lasting) {
                    Ok(id) => Some((id, Job::Provide { durable, reply }, timeout)),
                    Err(error) => refuse(reply, error),
                }
            }
            DhtCommand::Get { key, timeout, reply } => {
                let kad_key = KadKey::new(&key.to_bytes(&self.network));
                if alone && kad.store_mut().get(&kad_key).is_none() {
                    refuse(reply, DhtError::Alone)
                } else {
                    Some((kad.get_record(kad_key), Job::Get { key, found: Found::default(), reply }, timeout))
                }
            }
            DhtCommand::FindProviders { key, count, timeout, reply } => {
                let kad_key = KadKey::new(key.as_bytes());
                if alone && kad.store_mut().providers(&kad_key).is_empty() {
                    refuse(reply, DhtError::Alone)
                } else {
                    let job = Job::FindProviders { count, found: std::collections::BTreeSet::new(), reply };
                    Some((kad.get_providers(kad_key), job, timeout))
                }
            }
            DhtCommand::FindPeer { reply, .. } if alone => refuse(reply, DhtError::Alone),
            DhtCommand::FindPeer { peer, timeout, reply } => {
                let id = kad.get_closest_peers(peer_id(peer));
                Some((id, Job::FindPeer { peer, found: Vec::new(), reply }, timeout))
            }
            DhtCommand::Closest { reply, .. } if alone => refuse(reply, DhtError::Alone),
            DhtCommand::Closest { target, timeout, reply } => {
                let key = target_key(&self.network, &target);
                let id = match target {
                    TraceTarget::Peer(peer) => kad.get_closest_peers(peer_id(peer)),
                    TraceTarget::Record(_) | TraceTarget::Provider(_) => kad.get_closest_peers(key.clone()),
                };
                Some((id, Job::Closest { key, found: Vec::new(), reply }, timeout))
            }
            DhtCommand::StopProviding { .. }
            | DhtCommand::IsProviding { .. }
            | DhtCommand::Nearest { .. }
            | DhtCommand::Table(_)
            | DhtCommand::Stats(_) => None,
        };
        let (id, job, timeout) = started?;
        let promised = matches!(job, Job::Put { .. } | Job::Provide { .. });
        self.queries.insert(id, Query::new(job, now, timeout));
        promised.then_some(done)
    }

    fn start_put(
        &mut self,
        now: Time,
        wall: UnixTime,
        kad: &mut Kad,
        record: &Record,
        lasting: bool,
    ) -> Result<QueryId, DhtError> {
        let key = record.key_bytes(&self.network);
        Record::check(&self.network, &key, record.value(), wall)?;
        let kad_key = KadKey::new(&key);
        let held = kad.store_mut().get(&kad_key).map(|held| held.value.clone());
        let held = held.and_then(|value| Record::check(&self.network, &key, &value, wall).ok());
        if let Some(held) = held
            && matches!(record.precedence_over(&held), Precedence::Stale | Precedence::Conflicting)
        {
            let (got, current) = (record.sequence().unwrap_or(0), held.sequence().unwrap_or(0));
            return Err(DhtError::Stale { got, current });
        }
        if !self.publisher.has_room() {
            return Err(DhtError::TooMany(PUBLISHED_MAX));
        }
        let stored = KadRecord::new(kad_key, record.value().to_vec());
        let expires = void_at(wall, record, None);
        let me = peer_id(self.me);
        if kad.store_mut().accept(stored.clone(), me, expires).is_err() {
            return Err(DhtError::TooMany(PUBLISHED_MAX));
        }
        self.publisher.add_record(now, record, expires, lasting);
        kad.put_record(stored, kad::Quorum::One).map_err(|_full| DhtError::TooMany(PUBLISHED_MAX))
    }

    fn start_provide(
        &mut self,
        now: Time,
        wall: UnixTime,
        kad: &mut Kad,
        key: wattle_types::ProviderKey,
        lasting: bool,
    ) -> Result<QueryId, DhtError> {
        if lasting && !self.publisher.has_room() {
            return Err(DhtError::TooMany(PUBLISHED_MAX));
        }
        let kad_key = KadKey::new(key.as_bytes());
        let record = ProviderRecord::new(kad_key.clone(), peer_id(self.me), Vec::new());
        let expires = void_at_cap(wall);
        if kad.store_mut().accept_provider(record, expires).is_err() {
            return Err(DhtError::TooMany(PUBLISHED_MAX));
        }
        if lasting {
            self.publisher.add_provider(now, &key);
        }
        kad.start_providing(kad_key).map_err(|_full| DhtError::TooMany(PUBLISHED_MAX))
    }
}

pub(super) fn void_at_cap(wall: UnixTime) -> UnixTime {
    wall.after(std::time::Duration::from_millis(wattle_types::limits::RECORD_TTL_MAX_MS))
}

fn refuse<T>(
    reply: crate::command::Reply<Result<T, DhtError>>,
    error: DhtError,
) -> Option<(QueryId, Job, std::time::Duration)> {
    answer(reply, Err(error));
    None
}
