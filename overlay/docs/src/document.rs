//! One open document: the Automerge replica, and whose word stands for each part of it.
//!
//! A document holds exactly the ancestors of the changes that its writers vouch for. So it is enough to look
//! at its heads: when each of them is vouched for, everything below is.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{ActorId, Author, Automerge, Change, ChangeHash, PatchLog};
use serde_bytes::{ByteArray, ByteBuf, Bytes};
use wattle_types::{DocId, Domain, Envelope, NetworkName, NodeId, SecretKey, UnixTime};

use crate::access::Members;
use crate::chunk;
use crate::payload::{Payload, Root, Vouch};

/// Where the type of an Automerge chunk stands, behind its magic number and its checksum.
const CHUNK_TYPE_AT: usize = 8;
const CHUNK_TYPE_DOCUMENT: u8 = 0;

/// What the change says that a document begins with which has the history of another.
const IMPORTED: &str = "imported";

/// An edit as a caller brings it: it changes the document inside a transaction, or says why it cannot.
pub type Edit = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<(), String> + Send>;

/// A question as a caller brings it; the answer is bytes of its choice.
pub type Read = Box<dyn FnOnce(&Automerge, &Authors<'_>) -> Vec<u8> + Send>;

/// Whose word stands for the changes of each actor.
pub struct Authors<'a> {
    vouches: &'a BTreeMap<ByteBuf, (Root, Envelope)>,
    cuts: &'a [(NodeId, Root)],
    /// The actor of this node, whose newest changes nobody may have vouched for yet.
    own: (&'a ActorId, NodeId),
}

impl Authors<'_> {
    /// Who vouches for the changes of an actor, or did until it was removed. None where no vouch names the
    /// actor: then its changes are here because a change of somebody else builds on them.
    #[must_use]
    pub fn of(&self, actor: &ActorId) -> Option<NodeId> {
        let bytes = actor.to_bytes();
        let vouched = self.vouches.get(Bytes::new(bytes)).map(|(_, envelope)| envelope.author());
        let cut = || self.cuts.iter().find(|(_, root)| root.actor == bytes).map(|(who, _)| *who);
        let own = || (self.own.0 == actor).then_some(self.own.1);
        vouched.or_else(cut).or_else(own)
    }
}

/// A hash of a change as it travels.
pub(crate) type Hash = ByteArray<32>;

/// What judges a payload: whose document, and who may write.
pub(crate) struct Judge<'a> {
    pub doc: DocId,
    pub network: &'a NetworkName,
    pub members: &'a Members,
    /// The highest epoch known here.
    pub epoch: u32,
}

/// What a payload did.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// What is new, for the disk and for other peers.
    pub payload: Payload,
    /// A change builds on one that is not here.
    pub missing: bool,
    /// Somebody vouches who may not, as far as is known here, and knew more operations.
    pub behind: bool,
    /// Changes that nobody who may write vouches for; they were left out.
    pub refused: bool,
}

/// What a peer did wrong with a payload. The document is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a signature does not verify")]
    BadSignature,
    #[error("bytes that are no Automerge change: {0}")]
    Malformed(String),
    #[error("bytes that the decoder does not survive")]
    Panicked,
}

/// An open document.
pub(crate) struct Document {
    automerge: Automerge,
    /// The newest vouched change of each actor, with the envelope that says so.
    vouches: BTreeMap<ByteBuf, (Root, Envelope)>,
    /// The last change of each actor.
    clock: BTreeMap<ByteBuf, u64>,
    /// Local changes that nobody vouched for yet: not on disk, not sent.
    fresh: Vec<Change>,
}

impl Document {
    /// An empty document, whose local changes will be by `author`.
    pub(crate) fn new(author: &NodeId, actor: &[u8; 16]) -> Self {
        let mut document = Self {
            automerge: Automerge::new(),
            vouches: BTreeMap::new(),
            clock: BTreeMap::new(),
            fresh: Vec::new(),
        };
        document.write_as(author, actor);
        document
    }

    /// A document that begins with the history of another. The first change here builds on all of it, so the
    /// signature on that one vouches for the whole.
    pub(crate) fn import(
        author: &NodeId,
        actor: &[u8; 16],
        history: Automerge,
        now: UnixTime,
        edit: Edit,
    ) -> Result<Self, EditFault> {
        let mut document = Self::new(author, actor);
        document.automerge = history;
        document.write_as(author, actor);
        document.count(&[]);
        document.fresh = document.automerge.get_changes(&[]);
        if document.edit(None, now, edit)?.is_none() {
            let options = CommitOptions::default().with_time(seconds(now)).with_message(IMPORTED);
            document.automerge.empty_commit(options);
            document.keep_fresh();
        }
        Ok(document)
    }

    /// A fresh actor each time a document is opened: an actor's numbers are never given out twice, whatever
    /// was lost.
    fn write_as(&mut self, author: &NodeId, actor: &[u8; 16]) {
        self.automerge.set_author(Some(Author::from(author.public_key().to_vec())));
        self.automerge.set_actor(ActorId::from(actor.as_slice()));
    }

    /// Reads back what was stored. The disk is believed about who might write then; signatures are checked.
    pub(crate) fn restore(
        author: &NodeId,
        actor: &[u8; 16],
        network: &NetworkName,
        payloads: Vec<Payload>,
    ) -> Result<Self, Fault> {
        let mut document = Self::new(author, actor);
        let mut vouched = Vec::new();
        for payload in payloads {
            for envelope in payload.vouches {
                let vouch = envelope.open::<Vouch>(Domain::DocVouch, network);
                let root = vouch.map_err(|_invalid| Fault::BadSignature)?.into_value().root;
                vouched.push((root, envelope));
            }
            let bytes: Vec<u8> = payload.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            let load = || document.automerge.load_incremental(&bytes);
            let loaded = catch_unwind(AssertUnwindSafe(load)).map_err(|_panic| Fault::Panicked)?;
            loaded.map_err(|error| Fault::Malformed(error.to_string()))?;
        }
        document.write_as(author, actor);
        document.automerge.set_actor(ActorId::from(actor.as_slice()));
        document.count(&[]);
        document.keep(vouched);
        Ok(document)
    }

    pub(crate) const fn automerge(&self) -> &Automerge {
        &self.automerge
    }

    /// Whose word stands for what.
    pub(crate) fn authors<'a>(&'a self, members: &'a Members, me: NodeId) -> Authors<'a> {
        Authors { vouches: &self.vouches, cuts: members.cuts(), own: (self.automerge.get_actor(), me) }
    }

    /// The heads, in order.
    pub(crate) fn heads(&self) -> Vec<Hash> {
        let mut heads: Vec<Hash> = self.automerge.get_heads().iter().map(|head| Hash::new(head.0)).collect();
        heads.sort();
        heads
    }

    pub(crate) fn clock(&self) -> Vec<(ByteBuf, u64)> {
        self.clock.iter().map(|(actor, seq)| (actor.clone(), *seq)).collect()
    }

    pub(crate) fn knows(&self, hash: &Hash) -> bool {
        self.automerge.get_change_meta_by_hash(&ChangeHash(**hash)).is_some()
    }

    /// Runs an edit on the current state, or on the state at `at` and merges it. Says whether it changed
    /// anything.
    pub(crate) fn edit(
        &mut self,
        at: Option<&[Hash]>,
        now: UnixTime,
        edit: Edit,
    ) -> Result<Option<Hash>, EditFault> {
        let options = CommitOptions::default().with_time(seconds(now));
        let automerge = &mut self.automerge;
        let run = || {
            let mut transaction = match at {
                None => automerge.transaction(),
                Some(heads) => {
                    let heads: Vec<ChangeHash> = heads.iter().map(|head| ChangeHash(**head)).collect();
                    let opened = automerge.transaction_at(PatchLog::inactive(), &heads);
                    opened.map_err(|error| EditFault::Refused(error.to_string()))?
                }
            };
            match edit(&mut transaction) {
                Ok(()) => Ok(transaction.commit_with(options).0),
                Err(why) => {
                    transaction.rollback();
                    Err(EditFault::Refused(why))
                }
            }
        };
        let ran = catch_unwind(AssertUnwindSafe(run)).map_err(|_panic| EditFault::Broken)?;
        let Some(hash) = ran? else { return Ok(None) };
        self.keep_fresh();
        Ok(Some(Hash::new(hash.0)))
    }

    /// Remembers the change that was just made, until it is vouched for.
    fn keep_fresh(&mut self) {
        if let Some(change) = self.automerge.get_last_local_change() {
            self.count(std::slice::from_ref(&change));
            self.fresh.push(change);
        }
    }

    /// Local changes since the last call, vouched for by this node.
    pub(crate) fn take_fresh(
        &mut self,
        doc: DocId,
        key: &SecretKey,
        network: &NetworkName,
        epoch: u32,
    ) -> Payload {
        let mut payload = Payload::default();
        let Some(last) = self.fresh.last() else { return payload };
        let root = root(last);
        let envelope =
            Envelope::seal(key, Domain::DocVouch, network, &Vouch { doc, root: root.clone(), epoch });
        payload.vouches.push(envelope.clone());
        payload.chunks =
            self.fresh.drain(..).map(|mut change| ByteBuf::from(change.bytes().to_vec())).collect();
        self.vouches.insert(root.actor.clone(), (root, envelope));
        payload
    }

    /// Applies what a peer sent, as far as who may write vouches for it.
    pub(crate) fn accept(&mut self, judge: &Judge<'_>, payload: &Payload) -> Result<Accepted, Fault> {
        let mut accepted = Accepted::default();
        let mut vouched = Vec::new();
        for envelope in &payload.vouches {
            let vouch = envelope.open::<Vouch>(Domain::DocVouch, judge.network);
            let vouch = vouch.map_err(|_invalid| Fault::BadSignature)?.into_value();
            if vouch.doc != judge.doc {
                return Err(Fault::BadSignature);
            }
            if judge.members.may_write(&envelope.author()) {
                vouched.push((vouch.root, envelope.clone()));
            } else {
                accepted.behind |= vouch.epoch > judge.epoch;
            }
        }
        let roots = self.roots(judge, &vouched);
        let apply = || self.applied(&payload.chunks, &roots);
        let applied = catch_unwind(AssertUnwindSafe(apply)).map_err(|_panic| Fault::Panicked)??;
        accepted.missing = applied.missing;
        accepted.refused = applied.refused;
        if !applied.changes.is_empty() {
            self.automerge = applied.automerge;
            self.count(&applied.changes);
            accepted.payload.chunks = applied.chunks;
        }
        accepted.payload.vouches = self.keep(vouched);
        Ok(accepted)
    }

    /// What may be a head: what writers or removals vouch for, now or before.
    fn roots(&self, judge: &Judge<'_>, vouched: &[(Root, Envelope)]) -> BTreeSet<ChangeHash> {
        let known = self.vouches.values().filter(|(_, envelope)| judge.members.may_write(&envelope.author()));
        let known = known.map(|(root, _)| root);
        let cuts = judge.members.cuts().iter().map(|(_, root)| root);
        let all = known.chain(vouched.iter().map(|(root, _)| root)).chain(cuts);
        let vouched = all.map(|root| ChangeHash(*root.change));
        // What this node wrote a moment ago, it is about to vouch for.
        vouched.chain(self.fresh.iter().map(Change::hash)).collect()
    }

    /// A copy with the chunks applied: what fails, fails on the copy.
    fn applied(&self, chunks: &[ByteBuf], roots: &BTreeSet<ChangeHash>) -> Result<Applied, Fault> {
        let incoming = self.unknown(chunks)?;
        let mut ready = self.ready(incoming);
        let missing = ready.1;
        let mut next = self.automerge.clone();
        apply(&mut next, &ready.0)?;
        let mut refused = false;
        if !next.get_heads().iter().all(|head| roots.contains(head)) {
            let before = ready.0.len();
            ready.0 = vouched_for(ready.0, roots);
            refused = ready.0.len() < before;
            next = self.automerge.clone();
            apply(&mut next, &ready.0)?;
        }
        let (changes, chunks) = ready.0.into_iter().unzip();
        Ok(Applied { automerge: next, changes, chunks, missing, refused })
    }

    /// The changes in the chunks that are not here yet, with their bytes.
    fn unknown(&self, chunks: &[ByteBuf]) -> Result<Vec<(Change, ByteBuf)>, Fault> {
        let mut incoming = Vec::new();
        let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        if !all.is_empty() {
            // What automerge would inflate without end, or build for ever, never reaches it.
            chunk::inspect(&all).map_err(|error| Fault::Malformed(error.to_string()))?;
        }
        let malformed = |error: &dyn std::fmt::Display| Fault::Malformed(error.to_string());
        for chunk in chunks {
            if chunk.get(CHUNK_TYPE_AT) == Some(&CHUNK_TYPE_DOCUMENT) {
                let whole = Automerge::load(chunk).map_err(|error| malformed(&error))?;
                for mut change in whole.get_changes(&[]) {
                    if self.automerge.get_change_meta_by_hash(&change.hash()).is_none() {
                        let bytes = ByteBuf::from(change.bytes().to_vec());
                        incoming.push((change, bytes));
                    }
                }
            } else {
                let change = Change::from_bytes(chunk.to_vec()).map_err(|error| malformed(&error))?;
                if self.automerge.get_change_meta_by_hash(&change.hash()).is_none() {
                    incoming.push((change, chunk.clone()));
                }
            }
        }
        Ok(incoming)
    }

    /// Those whose dependencies are here or among them, senders send them in order; and whether some are not.
    fn ready(&self, incoming: Vec<(Change, ByteBuf)>) -> (Vec<(Change, ByteBuf)>, bool) {
        let mut here = BTreeSet::new();
        let (mut ready, mut missing) = (Vec::new(), false);
        for (change, bytes) in incoming {
            let known = |hash: &ChangeHash| {
                here.contains(hash) || self.automerge.get_change_meta_by_hash(hash).is_some()
            };
            if !change.deps().iter().all(known) {
                missing = true;
            } else if here.insert(change.hash()) {
                ready.push((change, bytes));
            }
        }
        (ready, missing)
    }

    fn count(&mut self, changes: &[Change]) {
        let mut raise = |actor: &ActorId, seq: u64| {
            let last = self.clock.entry(ByteBuf::from(actor.to_bytes())).or_default();
            *last = (*last).max(seq);
        };
        if changes.is_empty() {
            for change in self.automerge.get_changes_meta(&[]) {
                raise(&change.actor, change.seq);
            }
        }
        for change in changes {
            raise(change.actor_id(), change.seq());
        }
    }

    /// Remembers the newest vouch of each actor whose change is here; gives those that were new.
    fn keep(&mut self, vouched: Vec<(Root, Envelope)>) -> Vec<Envelope> {
        let mut kept = Vec::new();
        for (root, envelope) in vouched {
            let true_to_fact =
                self.automerge.get_change_meta_by_hash(&ChangeHash(*root.change)).is_some_and(|change| {
                    change.seq == root.seq && change.actor.to_bytes() == root.actor.as_slice()
                });
            let newer = self.vouches.get(&root.actor).is_none_or(|(known, _)| known.seq < root.seq);
            if true_to_fact && newer {
                kept.push(envelope.clone());
                self.vouches.insert(root.actor.clone(), (root, envelope));
            }
        }
        kept
    }

    /// Whether every local change has been vouched for.
    pub(crate) fn is_vouched(&self) -> bool {
        self.fresh.is_empty()
    }

    /// What a peer with these heads and this clock lacks, but for what nobody vouches for yet.
    pub(crate) fn beyond(&self, heads: &[Hash], clock: &[(ByteBuf, u64)]) -> Payload {
        if heads.is_empty() && self.is_vouched() {
            return self.whole();
        }
        let fresh: BTreeSet<ChangeHash> = self.fresh.iter().map(Change::hash).collect();
        let known: Vec<ChangeHash> =
            heads.iter().filter(|head| self.knows(head)).map(|head| ChangeHash(**head)).collect();
        let clock: BTreeMap<&[u8], u64> = clock.iter().map(|(actor, seq)| (actor.as_slice(), *seq)).collect();
        let mut payload = Payload::default();
        let mut actors = BTreeSet::new();
        for mut change in self.automerge.get_changes(&known) {
            let actor = change.actor_id().to_bytes();
            if change.seq() > clock.get(actor).copied().unwrap_or(0) && !fresh.contains(&change.hash()) {
                actors.insert(ByteBuf::from(actor));
                payload.chunks.push(ByteBuf::from(change.bytes().to_vec()));
            }
        }
        let vouches = self.vouches.iter().filter(|(actor, _)| actors.contains(*actor));
        payload.vouches = vouches.map(|(_, (_, envelope))| envelope.clone()).collect();
        payload
    }

    /// All of it, as one chunk.
    pub(crate) fn whole(&self) -> Payload {
        let vouches = self.vouches.values().map(|(_, envelope)| envelope.clone()).collect();
        let empty = self.automerge.get_heads().is_empty();
        let chunks = if empty { Vec::new() } else { vec![ByteBuf::from(self.automerge.save())] };
        Payload { vouches, chunks }
    }

    /// The newest change here of each actor that this node vouched for: what a removal lets stand.
    pub(crate) fn roots_of(&self, author: &NodeId) -> Vec<Root> {
        let theirs = self.vouches.values().filter(|(_, envelope)| envelope.author() == *author);
        theirs.map(|(root, _)| root.clone()).collect()
    }

    /// Leaves out what nobody who may write vouches for any more; says whether something was.
    pub(crate) fn prune(
        &mut self,
        judge: &Judge<'_>,
        author: &NodeId,
        actor: &[u8; 16],
    ) -> Result<bool, Fault> {
        let roots = self.roots(judge, &[]);
        if self.automerge.get_heads().iter().all(|head| roots.contains(head)) {
            return Ok(false);
        }
        let all = self.automerge.get_changes(&[]);
        let before = all.len();
        let left = vouched_for(all.into_iter().map(|change| (change, ByteBuf::new())).collect(), &roots);
        let mut pruned = Self::new(author, actor);
        let work = || apply(&mut pruned.automerge, &left);
        catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| Fault::Panicked)??;
        pruned.count(&left.into_iter().map(|(change, _)| change).collect::<Vec<_>>());
        pruned.keep(std::mem::take(&mut self.vouches).into_values().collect());
        let fewer = pruned.automerge.get_changes_meta(&[]).len() < before;
        *self = pruned;
        Ok(fewer)
    }
}

/// Why an edit was not made. The document is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditFault {
    /// The edit itself says why.
    Refused(String),
    /// The library failed in the middle: the document must be read again.
    Broken,
}

struct Applied {
    automerge: Automerge,
    changes: Vec<Change>,
    chunks: Vec<ByteBuf>,
    missing: bool,
    refused: bool,
}

fn apply(automerge: &mut Automerge, changes: &[(Change, ByteBuf)]) -> Result<(), Fault> {
    let changes: Vec<Change> = changes.iter().map(|(change, _)| change.clone()).collect();
    automerge.apply_changes(changes).map_err(|error| Fault::Malformed(error.to_string()))
}

/// Those among `changes`, which are in order, that a root is or builds on.
fn vouched_for(changes: Vec<(Change, ByteBuf)>, roots: &BTreeSet<ChangeHash>) -> Vec<(Change, ByteBuf)> {
    let mut wanted = roots.clone();
    let mut kept: Vec<_> = changes
        .into_iter()
        .rev()
        .filter(|(change, _)| {
            let keep = wanted.contains(&change.hash());
            if keep {
                wanted.extend(change.deps());
            }
            keep
        })
        .collect();
    kept.reverse();
    kept
}

/// A time as Automerge has it.
fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_millis() / 1000).unwrap_or(i64::MAX)
}

fn root(change: &Change) -> Root {
    Root {
        actor: ByteBuf::from(change.actor_id().to_bytes()),
        seq: change.seq(),
        change: ByteArray::new(change.hash().0),
    }
}

#[cfg(test)]
mod tests;
