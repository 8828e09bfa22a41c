//! One open document: the Automerge replica, and whose word stands for each part of it.
//!
//! A document holds exactly the ancestors of the changes that its writers vouch for. So it is enough to look
//! at its heads: when each of them is vouched for, everything below is.

mod apply;
mod authors;
mod client;
mod edit;
mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Author, Automerge, Change, ChangeHash, ChangeMetadata};
use serde_bytes::{ByteArray, ByteBuf, Bytes};
use wattle_types::{DocId, Domain, Envelope, NetworkName, NodeId, SecretKey, UnixTime, Verified};

use crate::access::Members;
use crate::chunk::{self, CHANGE_ROWS_MAX, RATIO_FREE_BYTES, RATIO_MAX};
use crate::payload::{Payload, Root, Vouch};

pub(crate) use apply::heads_of;
use apply::{Incoming, apply, apply_and_look, gives_back_after, is_oversized};
pub use authors::Authors;
pub(crate) use client::Heard;
pub use client::{Conversation, GAP_BYTES_MAX};
pub use edit::{Edit, Steps};
pub(crate) use edit::{EditFault, Work};

/// Vouches for one batch of changes. What a program brings may have more actors; then only the changes that
/// nothing in the batch builds on are vouched for, which is enough for all of them.
const BATCH_VOUCHES_MAX: usize = 1024;

/// Where the type of an Automerge chunk stands, behind its magic number and its checksum.
const CHUNK_TYPE_AT: usize = 8;
const CHUNK_TYPE_DOCUMENT: u8 = 0;

/// What the change says that a document begins with which has the history of another.
const IMPORTED: &str = "imported";
/// Vouches of one payload: one for each actor that a document may have.
const VOUCHES_MAX: usize = 64 * 1024;

/// Places at which actors of one payload may have two changes, and that are looked at: the next payload shows more.
const STORIES_MAX: usize = 16;

/// Of those by nobody who may write, so many are looked at: one that knows more operations is enough.
const STRANGERS_MAX: usize = 16;

/// How far the numbers of a change's operations may lie above those that it builds on: what others wrote since
/// the version that was edited. Automerge counts a document's operations in 32 bits, and there is no way back.
const OPERATIONS_AHEAD_MAX: u64 = 1 << 26;

/// The highest number of an operation.
const OPERATION_MAX: u64 = 1 << 31;

/// A question as a caller brings it; the answer is bytes of its choice.
pub type Read = Box<dyn FnOnce(&Automerge, &Authors<'_>) -> Vec<u8> + Send>;

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
    /// Who vouched both for a change that is here and for another one under its number; that was left out.
    pub forked_by: BTreeSet<NodeId>,
    /// Of such places, which change is to stay if an admin decides it now.
    pub stories: Vec<Root>,
}

/// What a peer did wrong with a payload. The document is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a signature does not verify")]
    BadSignature,
    #[error("bytes that are no Automerge change: {0}")]
    Malformed(String),
    /// Whoever passed them on could take them, and this replica cannot.
    #[error("changes that do not fit what is here: {0}")]
    Unfit(String),
    #[error("bytes that the decoder does not survive")]
    Panicked,
}

/// A vouched change, with the envelope that says so.
#[derive(Clone)]
struct Vouched {
    root: Root,
    envelope: Envelope,
}

/// The newest of each actor; on the heap each, since most documents have one actor or two and a node of the tree has
/// room for eleven.
type Vouches = BTreeMap<ByteBuf, Box<Vouched>>;

/// An open document.
pub(crate) struct Document {
    automerge: Automerge,
    vouches: Vouches,
    /// The last change of each actor.
    clock: BTreeMap<ByteBuf, u64>,
    /// Operations of all changes.
    operations: u64,
    /// Bytes of all changes, none of them compressed.
    bytes: u64,
    /// Local changes that nobody vouched for yet: not on disk, not sent.
    fresh: Vec<Change>,
    /// They begin with a history that others made elsewhere: this node vouches for having it, not for each of
    /// its actors.
    imported: bool,
}

impl Document {
    /// An empty document, whose local changes will be by `author`.
    pub(crate) fn new(author: &NodeId, actor: &[u8; 16]) -> Self {
        let mut document = Self {
            automerge: Automerge::new(),
            vouches: BTreeMap::new(),
            clock: BTreeMap::new(),
            operations: 0,
            bytes: 0,
            fresh: Vec::new(),
            imported: false,
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
        work: Work,
    ) -> Result<Self, EditFault> {
        let mut document = Self::new(author, actor);
        document.automerge = history;
        document.write_as(author, actor);
        let history = document.automerge.get_changes(&[]);
        document.count(&history);
        let most = history.iter().map(Change::len).max().unwrap_or_default();
        edit::check(most as u64, document.operations).map_err(EditFault::Refused)?;
        document.fresh = history;
        document.imported = true;
        if document.work(None, now, work)?.is_none() {
            let options = CommitOptions::default().with_time(seconds(now)).with_message(IMPORTED);
            document.automerge.empty_commit(options);
            document.keep_fresh()?;
        }
        Ok(document)
    }

    /// Who its local changes are by.
    pub(crate) fn actor(&self) -> Option<[u8; 16]> {
        self.automerge.get_actor().to_bytes().try_into().ok()
    }

    /// A fresh actor each time a document is opened, unless all of the last one's is on disk: an actor's numbers are
    /// never given out twice, whatever was lost.
    fn write_as(&mut self, author: &NodeId, actor: &[u8; 16]) {
        self.automerge.set_author(Some(Author::from(author.public_key().to_vec())));
        self.automerge.set_actor(ActorId::from(actor.as_slice()));
    }

    /// Reads back what was stored. The disk is believed about who might write then; the signatures that count, the
    /// newest of each actor, are checked.
    pub(crate) fn restore(
        author: &NodeId,
        actor: &[u8; 16],
        network: &NetworkName,
        payloads: Vec<Payload>,
    ) -> Result<Self, Fault> {
        let mut document = Self::new(author, actor);
        let mut newest: BTreeMap<ByteBuf, (u64, Envelope)> = BTreeMap::new();
        let mut chunks = Vec::new();
        for payload in payloads {
            for envelope in payload.vouches {
                let vouch = envelope.reread::<Vouch>();
                let root = vouch.map_err(|error| Fault::Malformed(error.to_string()))?.root;
                if newest.get(&root.actor).is_none_or(|(seq, _)| *seq < root.seq) {
                    newest.insert(root.actor, (root.seq, envelope));
                }
            }
            chunks.extend(payload.chunks);
        }
        let open = |(_, envelope): (u64, Envelope)| {
            let vouch = envelope.open::<Vouch>(Domain::DocVouch, network);
            Ok((vouch.map_err(|_invalid| Fault::BadSignature)?.into_value().root, envelope))
        };
        let vouched = newest.into_values().map(open).collect::<Result<Vec<_>, _>>()?;
        let load = || apply::load(&mut document.automerge, &chunks);
        catch_unwind(AssertUnwindSafe(load)).map_err(|_panic| Fault::Panicked)??;
        document.write_as(author, actor);
        document.automerge.set_actor(ActorId::from(actor.as_slice()));
        document.count_history(&chunks);
        document.keep(vouched);
        Ok(document)
    }

    /// Whose word stands for what.
    pub(crate) fn authors<'a>(&'a self, members: &'a Members, me: NodeId) -> Authors<'a> {
        Authors { vouches: &self.vouches, cuts: members.cuts(), own: (self.automerge.get_actor(), me) }
    }

    /// The heads, in order.
    pub(crate) fn heads(&self) -> Vec<Hash> {
        apply::heads(&self.automerge)
    }

    pub(crate) fn clock(&self) -> Vec<(ByteBuf, u64)> {
        self.clock.iter().map(|(actor, seq)| (actor.clone(), *seq)).collect()
    }

    pub(crate) fn knows(&self, hash: &Hash) -> bool {
        self.automerge.get_change_meta_by_hash(&ChangeHash(**hash)).is_some()
    }

    /// All but what Automerge holds.
    fn without_automerge(&self) -> Self {
        Self {
            automerge: Automerge::new(),
            vouches: self.vouches.clone(),
            clock: self.clock.clone(),
            operations: self.operations,
            bytes: self.bytes,
            fresh: self.fresh.clone(),
            imported: self.imported,
        }
    }

    /// Remembers the change that was just made, until it is vouched for.
    fn keep_fresh(&mut self) -> Result<(), EditFault> {
        let last = self.answer(Automerge::get_last_local_change).ok_or(EditFault::Broken)?;
        if let Some(change) = last {
            self.count(std::slice::from_ref(&change));
            self.fresh.push(change);
        }
        Ok(())
    }

    /// Local changes since the last call, vouched for by this node: the newest of each actor.
    pub(crate) fn take_fresh(
        &mut self,
        doc: DocId,
        key: &SecretKey,
        network: &NetworkName,
        epoch: u32,
    ) -> Payload {
        let mut payload = Payload::default();
        let mut newest: BTreeMap<ByteBuf, Root> = BTreeMap::new();
        for root in self.fresh.iter().map(root) {
            newest.insert(root.actor.clone(), root);
        }
        if std::mem::take(&mut self.imported) || newest.len() > BATCH_VOUCHES_MAX {
            let below: BTreeSet<ChangeHash> =
                self.fresh.iter().flat_map(|change| change.deps().iter().copied()).collect();
            newest.retain(|_, root| !below.contains(&ChangeHash(*root.change)));
        }
        for (actor, root) in newest {
            let vouch = Vouch { doc, root: root.clone(), epoch };
            let envelope = Envelope::seal(key, Domain::DocVouch, network, &vouch);
            payload.vouches.push(envelope.clone());
            self.vouches.insert(actor, Box::new(Vouched { root, envelope }));
        }
        // With the room that it had: half a kilobyte for a change.
        let fresh = std::mem::take(&mut self.fresh);
        payload.chunks = fresh.into_iter().map(|mut change| packed(&mut change)).collect();
        payload
    }

    /// Applies what a peer sent, as far as who may write vouches for it.
    pub(crate) fn accept(&mut self, judge: &Judge<'_>, payload: &Payload) -> Result<Accepted, Fault> {
        let mut accepted = Accepted::default();
        let mut vouched = Vec::new();
        if payload.vouches.len() > VOUCHES_MAX {
            return Err(Fault::Malformed("more vouches than a document has actors".to_owned()));
        }
        let mut strangers = 0;
        for envelope in &payload.vouches {
            let may_write = judge.members.may_write(&envelope.author());
            strangers += usize::from(!may_write);
            if !may_write && strangers > STRANGERS_MAX {
                continue;
            }
            let vouch = self.opened(envelope, judge.network).ok_or(Fault::BadSignature)?;
            if vouch.doc != judge.doc {
                return Err(Fault::BadSignature);
            }
            if may_write {
                vouched.push((vouch.root, envelope.clone()));
            } else {
                accepted.behind |= vouch.epoch > judge.epoch;
            }
        }
        let roots = self.roots(judge, &vouched);
        let is_here = |root: &ChangeHash| self.automerge.get_change_meta_by_hash(root).is_some();
        if roots.iter().all(is_here) {
            // Nothing that a writer stands for can come of it: what strangers send never reaches the decoder.
            accepted.refused = !payload.chunks.is_empty();
            accepted.payload.vouches = self.keep(vouched);
            return Ok(accepted);
        }
        let apply = || self.applied(judge.members, &payload.chunks, &roots);
        let applied = catch_unwind(AssertUnwindSafe(apply)).map_err(|_panic| Fault::Panicked)??;
        accepted.missing = applied.missing;
        accepted.refused = applied.refused;
        let forked = vouched.iter().filter(|(root, _)| applied.forked.contains(&ChangeHash(*root.change)));
        let both = forked.filter(|(root, envelope)| {
            let here = applied.conflicts.iter().find(|it| it.actor == root.actor);
            here.is_some_and(|it| self.has_word_of(&envelope.author(), it))
        });
        accepted.forked_by = both.map(|(_, envelope)| envelope.author()).collect();
        let settled = judge.members.settled();
        let open = applied.conflicts.iter().filter(|it| !settled.contains_key(&(it.actor.clone(), it.seq)));
        accepted.stories = open.map(|it| self.story(it, &vouched, &applied)).collect();
        if !applied.changes.is_empty() {
            self.automerge = applied.automerge;
            self.count(&applied.changes);
            accepted.payload.chunks = applied.chunks;
        }
        accepted.payload.vouches = self.keep(vouched);
        Ok(accepted)
    }

    /// What a vouch says, if its signature holds. That of one that is here was checked.
    fn opened(&self, envelope: &Envelope, network: &NetworkName) -> Option<Vouch> {
        let said = envelope.reread::<Vouch>().ok()?;
        if self.vouches.get(&said.root.actor).is_some_and(|it| it.envelope == *envelope) {
            return Some(said);
        }
        envelope.open::<Vouch>(Domain::DocVouch, network).ok().map(Verified::into_value)
    }

    /// Whether somebody vouches for the change of an actor that is here under a number.
    fn has_word_of(&self, author: &NodeId, place: &Root) -> bool {
        let word = self.vouches.get(&place.actor);
        word.is_some_and(|it| it.envelope.author() == *author && it.root.seq >= place.seq)
    }

    /// Of the change that came under a number and the one that is here, the one that is to stay: the one that is
    /// here, unless the actor's author vouches for the other alone.
    fn story(&self, came: &Root, vouched: &[(Root, Envelope)], applied: &Applied) -> Root {
        let actor = ActorId::from(came.actor.as_slice());
        let author = applied.automerge.get_author_for_actor(&actor).and_then(|author| {
            let key: [u8; 32] = author.as_bytes().try_into().ok()?;
            Some(NodeId::from_public_key(key))
        });
        let is_by_author = |(root, envelope): &(Root, Envelope)| {
            root.actor == came.actor
                && Some(envelope.author()) == author
                && applied.forked.contains(&ChangeHash(*root.change))
        };
        let takes_it = came.seq > 1
            && vouched.iter().any(is_by_author)
            && author.is_some_and(|author| !self.has_word_of(&author, came));
        let metas = applied.automerge.get_changes_meta(&[]);
        let here = metas.iter().find(|change| *change.actor == actor && change.seq == came.seq);
        match here.filter(|_| !takes_it) {
            Some(here) => Root { change: Hash::new(here.hash.0), ..came.clone() },
            None => came.clone(),
        }
    }

    /// What may be a head: what writers or removals vouch for, now or before.
    fn roots(&self, judge: &Judge<'_>, vouched: &[(Root, Envelope)]) -> BTreeSet<ChangeHash> {
        let known = self.vouches.values().filter(|it| judge.members.may_write(&it.envelope.author()));
        let known = known.map(|it| &it.root);
        let cuts = judge.members.cuts().iter().map(|(_, root)| root);
        let all = known.chain(vouched.iter().map(|(root, _)| root)).chain(cuts);
        let vouched = all.map(|root| ChangeHash(*root.change));
        // What this node wrote a moment ago, it is about to vouch for.
        vouched.chain(self.fresh.iter().map(Change::hash)).collect()
    }

    /// A copy with the chunks applied: what fails, fails on the copy.
    fn applied(
        &self,
        members: &Members,
        chunks: &[ByteBuf],
        roots: &BTreeSet<ChangeHash>,
    ) -> Result<Applied, Fault> {
        let incoming = self.unknown(chunks)?;
        let Ready { mut changes, missing, others } = self.ready(members, incoming)?;
        let is_copy = self.is_copy(chunks);
        let mut next = self.automerge.clone();
        // What comes as one document may be kept as it came, and then need not be looked at.
        let mut gives_back = None;
        if is_copy {
            apply(&mut next, &changes)?;
        } else {
            gives_back = Some(apply_and_look(&mut next, &changes)?);
        }
        let mut refused = false;
        if !next.get_heads().iter().all(|head| roots.contains(head)) {
            let before = changes.len();
            changes = vouched_for(changes, roots);
            refused = changes.len() < before;
            next = self.automerge.clone();
            gives_back = Some(apply_and_look(&mut next, &changes)?);
        }
        // What Automerge reads in a document it does not check for order: only the changes one by one make the same
        // text of it everywhere. Where they make the same bytes again, those can be kept, and have been read back.
        let as_it_came =
            is_copy && !refused && !missing && chunks.iter().all(|it| next.save() == it.as_slice());
        let look = || as_it_came || gives_back_after(&next, &[], &changes);
        if !gives_back.unwrap_or_else(look) {
            return Err(Fault::Unfit("a change that does not come out as it went in".to_owned()));
        }
        // What nobody who may write stands for contradicts nothing.
        let others = vouched_for(others, roots);
        let forked: BTreeSet<ChangeHash> = others.iter().map(|(change, _)| change.hash()).collect();
        let is_first =
            |(change, _): &&(Change, ByteBuf)| change.deps().iter().all(|hash| !forked.contains(hash));
        let firsts = others.iter().filter(is_first).take(STORIES_MAX);
        let conflicts = firsts.map(|(change, _)| root(change)).collect();
        let chunks = if as_it_came { chunks.to_vec() } else { changes.iter_mut().map(bytes_of).collect() };
        let changes = changes.into_iter().map(|(change, _)| change).collect();
        Ok(Applied { automerge: next, changes, chunks, missing, refused, forked, conflicts })
    }

    /// Whether all that came is one document, and nothing was here before.
    fn is_copy(&self, chunks: &[ByteBuf]) -> bool {
        self.automerge.get_heads().is_empty() && matches!(chunks, [chunk] if is_document(chunk))
    }

    /// The changes in the chunks that are not here yet, with the bytes of those that came by themselves.
    fn unknown(&self, chunks: &[ByteBuf]) -> Result<Incoming, Fault> {
        let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        if !all.is_empty() {
            // What automerge would inflate without end, or build for ever, never reaches it.
            chunk::inspect(&all).map_err(|error| Fault::Malformed(error.to_string()))?;
        }
        drop(all);
        self.unknown_of_bounded(chunks)
    }

    /// The same, of chunks that were inspected.
    fn unknown_of_bounded(&self, chunks: &[ByteBuf]) -> Result<Incoming, Fault> {
        let mut incoming = Vec::new();
        let malformed = |error: &dyn std::fmt::Display| Fault::Malformed(error.to_string());
        for chunk in chunks {
            if is_document(chunk) {
                let whole = Automerge::load(chunk).map_err(|error| malformed(&error))?;
                for change in whole.get_changes(&[]) {
                    if self.automerge.get_change_meta_by_hash(&change.hash()).is_none() {
                        incoming.push((change, ByteBuf::new()));
                    }
                }
            } else {
                let change = Change::from_bytes(chunk.to_vec()).map_err(|error| malformed(&error))?;
                if self.automerge.get_change_meta_by_hash(&change.hash()).is_none() {
                    incoming.push((change, chunk.clone()));
                }
            }
        }
        if incoming.iter().any(|(change, _)| is_oversized(change)) {
            return Err(Fault::Malformed("a change of more operations than one may have".to_owned()));
        }
        Ok(incoming)
    }

    /// Those whose dependencies are here or among them; senders send them in order.
    ///
    /// A change under a number that its actor has used is left out, with all that builds on it: automerge
    /// holds one change for each number. First come stays, unless an admin settled it.
    fn ready(&self, members: &Members, incoming: Incoming) -> Result<Ready, Fault> {
        let mut here: BTreeMap<ChangeHash, u64> = BTreeMap::new();
        let mut clock: BTreeMap<ByteBuf, u64> = BTreeMap::new();
        let mut ready = Ready::default();
        let mut others: BTreeSet<ChangeHash> = BTreeSet::new();
        for (change, bytes) in incoming {
            let actor = ByteBuf::from(change.actor_id().to_bytes());
            let last = clock.get(&actor).or_else(|| self.clock.get(&actor)).copied().unwrap_or_default();
            let last_operation = |hash: &ChangeHash| {
                let known = || self.automerge.get_change_meta_by_hash(hash).map(|change| change.max_op);
                here.get(hash).copied().or_else(known)
            };
            let below: Option<Vec<u64>> = change.deps().iter().map(last_operation).collect();
            let builds_on_other = change.deps().iter().any(|hash| others.contains(hash));
            if here.contains_key(&change.hash()) || others.contains(&change.hash()) {
                continue;
            }
            if change.seq() <= last || builds_on_other || is_void(members, &change) {
                others.insert(change.hash());
                ready.others.push((change, bytes));
            } else if let Some(below) = below.filter(|_| change.seq() == last.saturating_add(1)) {
                let below = below.into_iter().max().unwrap_or_default();
                let (start, end) = (change.start_op().get(), change.max_op());
                // A document with such a change could be saved and not be loaded again. Where a change has no
                // operations, automerge takes any number above those that it builds on for one that is lost.
                let is_lost = change.is_empty() && start.saturating_sub(below) > 1;
                if start <= below || start - below > OPERATIONS_AHEAD_MAX || end > OPERATION_MAX || is_lost {
                    return Err(Fault::Unfit(format!("operations {start} to {end} on top of {below}")));
                }
                here.insert(change.hash(), end);
                clock.insert(actor, change.seq());
                ready.changes.push((change, bytes));
            } else {
                ready.missing = true;
            }
        }
        Ok(ready)
    }

    /// Remembers the newest vouch of each actor whose change is here; gives those that were new.
    fn keep(&mut self, vouched: Vec<(Root, Envelope)>) -> Vec<Envelope> {
        let mut kept = Vec::new();
        for (root, envelope) in vouched {
            let true_to_fact =
                self.automerge.get_change_meta_by_hash(&ChangeHash(*root.change)).is_some_and(|change| {
                    change.seq == root.seq && change.actor.to_bytes() == root.actor.as_slice()
                });
            let newer = self.vouches.get(&root.actor).is_none_or(|known| known.root.seq < root.seq);
            if true_to_fact && newer {
                kept.push(envelope.clone());
                self.vouches.insert(root.actor.clone(), Box::new(Vouched { root, envelope }));
            }
        }
        kept
    }

    /// Whether every local change has been vouched for.
    pub(crate) fn is_vouched(&self) -> bool {
        self.fresh.is_empty()
    }

    /// What a peer with these heads and this clock lacks, but for what nobody vouches for yet; all of the document
    /// where that would be more bytes. Nothing where the library fails.
    pub(crate) fn beyond(&self, heads: &[Hash], clock: &[(ByteBuf, u64)], bytes_max: usize) -> Payload {
        let beyond = || {
            let changes = self.changes_beyond(heads, clock);
            // A change by itself takes some hundred bytes, and a few in the document.
            let too_large = changes.bytes() > bytes_max && self.is_vouched();
            if too_large { self.whole() } else { changes }
        };
        let payload = catch_unwind(AssertUnwindSafe(beyond)).unwrap_or_default();
        // What no peer would take is not sent: that would count against this node.
        if self.is_taken(&payload) { payload } else { Payload::default() }
    }

    /// Whether peers take it: what an older build made at once, or a history of years, may be more than they do.
    fn is_taken(&self, payload: &Payload) -> bool {
        let chunks: Vec<u8> = payload.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let bounded = chunks.is_empty() || chunk::inspect(&chunks).is_ok();
        // A document does not say how large its changes are.
        let size = |change: &ChangeMetadata<'_>| (change.max_op + 1).saturating_sub(change.start_op);
        let oversized = || self.automerge.get_changes_meta(&[]).iter().any(|it| size(it) > CHANGE_ROWS_MAX);
        bounded && !(payload.chunks.iter().any(|chunk| is_document(chunk)) && oversized())
    }

    fn changes_beyond(&self, heads: &[Hash], clock: &[(ByteBuf, u64)]) -> Payload {
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
                payload.chunks.push(packed(&mut change));
            }
        }
        let vouches = self.vouches.iter().filter(|(actor, _)| actors.contains(*actor));
        payload.vouches = vouches.map(|(_, it)| it.envelope.clone()).collect();
        payload
    }

    /// Asks about the document; none where the library fails.
    pub(crate) fn answer<T>(&self, question: impl FnOnce(&Automerge) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| question(&self.automerge))).ok()
    }

    /// Whether it has more than is read as one chunk.
    pub(crate) fn is_large(&self) -> bool {
        apply::is_large(&self.automerge)
    }

    /// All of it, as one chunk, or as its changes where that one would take too much memory to read.
    pub(crate) fn whole(&self) -> Payload {
        let vouches = self.vouches.values().map(|it| it.envelope.clone()).collect();
        if self.is_large() {
            let chunks = self.automerge.get_changes(&[]).iter_mut().map(packed).collect();
            return Payload { vouches, chunks };
        }
        let empty = self.automerge.get_heads().is_empty();
        let mut chunks = Vec::new();
        if !empty {
            let saved = self.automerge.save();
            // Of megabytes of one letter: no peer would take it.
            let taken = chunk::inspect(&saved).is_ok();
            chunks.push(ByteBuf::from(if taken { saved } else { self.automerge.save_nocompress() }));
        }
        Payload { vouches, chunks }
    }

    /// The newest change here of each actor that this node vouched for: what a removal lets stand.
    pub(crate) fn roots_of(&self, author: &NodeId) -> Vec<Root> {
        let theirs = self.vouches.values().filter(|it| it.envelope.author() == *author);
        theirs.map(|it| it.root.clone()).collect()
    }

    /// Whether a change is here that gave way to another under its number.
    fn holds_void(&self, members: &Members) -> bool {
        members.settled().iter().any(|((actor, seq), change)| {
            self.clock.get(actor).is_some_and(|last| last >= seq) && !self.knows(change)
        })
    }

    /// Leaves out what nobody who may write vouches for any more, and what gave way to another change; gives
    /// where the cut went, if something was: the changes that were left out while all that they build on stays.
    pub(crate) fn prune(
        &mut self,
        judge: &Judge<'_>,
        author: &NodeId,
        actor: &[u8; 16],
    ) -> Result<Option<Vec<Hash>>, Fault> {
        let mut roots = self.roots(judge, &[]);
        if self.automerge.get_heads().iter().all(|head| roots.contains(head))
            && !self.holds_void(judge.members)
        {
            return Ok(None);
        }
        let all = self.answer(|automerge| automerge.get_changes(&[])).ok_or(Fault::Panicked)?;
        let mut void = BTreeSet::new();
        let mut valid = Vec::new();
        for change in &all {
            if is_void(judge.members, change) || change.deps().iter().any(|hash| void.contains(hash)) {
                void.insert(change.hash());
            } else {
                valid.push((change.clone(), ByteBuf::new()));
            }
        }
        // What this node vouched for by a change that goes, it vouches for anew as far as it stays.
        let mut again: BTreeMap<ByteBuf, Change> = BTreeMap::new();
        let may_write = judge.members.may_write(author);
        for (change, _) in valid.iter().filter(|_| may_write) {
            let word = self.vouches.get(Bytes::new(change.actor_id().to_bytes()));
            if word.is_some_and(|it| {
                it.envelope.author() == *author && void.contains(&ChangeHash(*it.root.change))
            }) {
                again.insert(ByteBuf::from(change.actor_id().to_bytes()), change.clone());
            }
        }
        roots.extend(again.values().map(Change::hash));
        let left = vouched_for(valid, &roots);
        let mut pruned = Self::new(author, actor);
        let work = || apply(&mut pruned.automerge, &left);
        catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| Fault::Panicked)??;
        pruned.count(&left.into_iter().map(|(change, _)| change).collect::<Vec<_>>());
        let vouched = std::mem::take(&mut self.vouches).into_values();
        pruned.keep(vouched.map(|it| (it.root, it.envelope)).collect());
        pruned.fresh = again.into_values().collect();
        let stays = |hash: &ChangeHash| pruned.automerge.get_change_meta_by_hash(hash).is_some();
        let cut = all.iter().filter(|change| !stays(&change.hash()) && change.deps().iter().all(stays));
        let cut: Vec<Hash> = cut.map(|change| Hash::new(change.hash().0)).collect();
        *self = pruned;
        Ok(Some(cut).filter(|cut| !cut.is_empty()))
    }
}

struct Applied {
    automerge: Automerge,
    changes: Vec<Change>,
    chunks: Vec<ByteBuf>,
    missing: bool,
    refused: bool,
    /// Changes under numbers that are taken, and what builds on them.
    forked: BTreeSet<ChangeHash>,
    /// The first of them of each actor.
    conflicts: Vec<Root>,
}

/// What came, sorted by what can be done with it.
#[derive(Default)]
struct Ready {
    changes: Vec<(Change, ByteBuf)>,
    missing: bool,
    /// Those under numbers that are taken or were given to another, and what builds on them.
    others: Vec<(Change, ByteBuf)>,
}

/// Whether bytes are a whole document.
pub(crate) fn is_document(chunk: &[u8]) -> bool {
    chunk.get(CHUNK_TYPE_AT) == Some(&CHUNK_TYPE_DOCUMENT)
}

/// A change's bytes as they came, or packed where it came in a document.
fn bytes_of((change, bytes): &mut (Change, ByteBuf)) -> ByteBuf {
    if bytes.is_empty() { packed(change) } else { std::mem::take(bytes) }
}

/// A change as it is stored and sent: compressed, unless that packs it so well that peers would call it a bomb.
fn packed(change: &mut Change) -> ByteBuf {
    let raw = change.raw_bytes().len() as u64;
    let bytes = change.bytes();
    let too_well = raw > RATIO_FREE_BYTES && raw / (RATIO_MAX / 2) > bytes.len() as u64;
    let bytes = bytes.to_vec();
    ByteBuf::from(if too_well { change.raw_bytes().to_vec() } else { bytes })
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

/// An actor and one of its numbers.
fn place(change: &Change) -> (ByteBuf, u64) {
    (ByteBuf::from(change.actor_id().to_bytes()), change.seq())
}

/// Whether an admin settled that another change stays under this one's number.
fn is_void(members: &Members, change: &Change) -> bool {
    let settled = members.settled();
    !settled.is_empty() && settled.get(&place(change)).is_some_and(|stays| **stays != change.hash().0)
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
