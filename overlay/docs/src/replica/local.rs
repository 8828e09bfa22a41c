//! What local callers ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use automerge::Automerge;
use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{
    DocAccess, DocId, Domain, Envelope, NodeId, Outbox, ReadSecret, SecretKey, Time, UnixTime, bearer_key,
};

use super::{DocError, Event, Job, Outcome, Output, Replica, RequestId, State, WAITING_MAX, Waiting};
use crate::access::{Act, Bearer, Operation, Role};
use crate::document::{Document, EditFault, Hash, Read, Work};
use crate::message::{Message, SIGNAL_BYTES_MAX};
use crate::payload::Root;
use crate::row::{Label, Row, Tip};

/// Places that are settled in one document without a person's word. Whoever fills them up tells stories on
/// purpose: further ones leave replicas apart, until an admin removes it.
const SETTLED_MAX: usize = 256;

impl Replica {
    pub(super) fn create(
        &mut self,
        now: Time,
        request: RequestId,
        history: Option<Box<Automerge>>,
        work: Work,
        out: &mut Outbox<Output>,
    ) {
        let (owner, id) = self.draw_owner();
        let access = DocAccess { id, read: ReadSecret::from_bytes(self.draw()), owner: None };
        let actor = self.draw();
        let made = match history {
            Some(history) => Document::import(&self.me, &actor, *history, self.wall(now), work),
            None => {
                let mut document = Document::new(&self.me, &actor);
                document.work(None, self.wall(now), work).map(|_change| document)
            }
        };
        let document = match made {
            Ok(document) => document,
            Err(fault) => {
                let why = match fault {
                    EditFault::Refused(why) => why,
                    EditFault::Broken => "the edit failed inside the document".to_owned(),
                };
                return out.push(Output::Reply { request, outcome: Err(DocError::Refused(why)) });
            }
        };
        let done = Waiting::Plain { request, outcome: Outcome::Opened { doc: id } };
        self.found_document(now, access, &owner, document, done, out);
    }

    /// Founds a document: this node is its first member, and holds the owner's key.
    pub(super) fn found_document(
        &mut self,
        now: Time,
        access: DocAccess,
        owner: &SecretKey,
        document: Document,
        done: Waiting,
        out: &mut Outbox<Output>,
    ) {
        let doc = access.id;
        let act = Act::Grant { to: self.me, role: Role::Admin, bearer: None };
        let operation = Operation { doc, epoch: 1, act };
        let grant = Envelope::seal(owner, Domain::DocControl, &self.config.network, &operation);
        let row = Row {
            access,
            owner: Some(ByteArray::new(*owner.to_bytes())),
            bearer: None,
            inviter: None,
            since: self.wall(now),
            label: Label::default(),
            cut: Vec::new(),
            tip: Tip::default(),
        };
        self.insert(row, vec![grant.clone()], now);
        if let Some(entry) = self.entries.get_mut(&doc) {
            entry.state = State::Open(Box::new(document));
            entry.writing().next.operations.push(grant);
            entry.writing().next.waiting.push(done);
        }
        self.opened(now, doc);
        self.flush(doc, now, out);
    }

    pub(super) fn join(
        &mut self,
        now: Time,
        request: RequestId,
        access: DocAccess,
        bearer: Option<[u8; 16]>,
        inviter: Option<NodeId>,
        out: &mut Outbox<Output>,
    ) {
        let doc = access.id;
        let tag = access.read.tag();
        if let Some(entry) = self.entries.get_mut(&doc) {
            if entry.row.access != access {
                // A program brought it, and it was adopted.
                let why = "a document with this id is here already, with another owner: forget it here first \
                           (wattle doc rm), then join";
                return out.push(Output::Reply { request, outcome: Err(DocError::Refused(why.to_owned())) });
            }
            // A second ticket to a document that is here: a better role, or another way in.
            let row = Arc::make_mut(&mut entry.row);
            row.bearer = bearer.map(ByteArray::new).or(row.bearer);
            row.inviter = inviter.or(row.inviter);
        } else {
            let row = Row {
                access,
                owner: None,
                bearer: bearer.map(ByteArray::new),
                inviter,
                since: self.wall(now),
                label: Label::default(),
                cut: Vec::new(),
                tip: Tip::default(),
            };
            self.insert(row, Vec::new(), now);
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        entry.writing().next.row = true;
        entry.writing().next.waiting.push(Waiting::Plain { request, outcome: Outcome::Opened { doc } });
        let members: Vec<NodeId> = entry.contacts().filter(|peer| *peer != self.me).collect();
        entry.sessions.clear();
        out.push(Output::Seek { doc, tag, members: members.clone() });
        self.flush(doc, now, out);
        for peer in members {
            self.hello(now, doc, peer, out);
        }
    }

    /// Does a job now if the document is open, or once it was read.
    pub(super) fn local_job(
        &mut self,
        now: Time,
        doc: DocId,
        request: RequestId,
        job: Job,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get(&doc) else {
            out.push(Output::Reply { request, outcome: Err(DocError::Unknown(doc)) });
            return;
        };
        if entry.members.iter().next().is_none() {
            out.push(Output::Reply { request, outcome: Err(DocError::NotHere) });
            return;
        }
        if !self.job(now, doc, job, out) {
            out.push(Output::Reply { request, outcome: Err(DocError::Busy) });
        }
    }

    /// Says whether the job was done or waits.
    pub(super) fn job(&mut self, now: Time, doc: DocId, job: Job, out: &mut Outbox<Output>) -> bool {
        let Some(entry) = self.entries.get_mut(&doc) else { return false };
        entry.used = now;
        match &mut entry.state {
            State::Loading(waiting) if waiting.len() >= WAITING_MAX => return false,
            State::Loading(waiting) => waiting.push(job),
            State::Open(_) => self.run(now, doc, job, out),
            State::Damaged(why) => {
                let outcome = Err(DocError::Damaged(why.clone()));
                if let Job::Edit { request, .. }
                | Job::Read { request, .. }
                | Job::Show { request }
                | Job::Lower { request, .. }
                | Job::Sync { request, .. } = job
                {
                    out.push(Output::Reply { request, outcome });
                }
            }
            State::Closed => {
                let keys = entry.row.tip.stored.keys(&doc);
                entry.state = State::Loading(vec![job]);
                out.push(Output::Load { doc, keys });
            }
        }
        true
    }

    pub(super) fn run(&mut self, now: Time, doc: DocId, job: Job, out: &mut Outbox<Output>) {
        match job {
            Job::Edit { request, at, work } => self.edit(now, doc, request, at.as_deref(), work, out),
            Job::Read { request, read } => self.read(doc, request, read, out),
            Job::Show { request } => {
                let bytes = self.config.show.bytes;
                self.read(doc, request, Box::new(move |automerge, _| bytes(automerge)), out);
            }
            Job::Lower { request, who, stays } => self.lower(now, doc, request, (who, stays), out),
            Job::Accept { peer, payload } => self.accept(now, doc, peer, &payload, out),
            Job::Want { peer, heads, clock } => self.give(doc, peer, &heads, &clock, out),
            Job::Ask { peer } => self.ask(now, doc, peer, out),
            Job::Prune => self.prune(now, doc, out),
            Job::Sync { request, conversation, heard } => {
                self.converse(now, doc, request, conversation, heard, out);
            }
        }
    }

    fn edit(
        &mut self,
        now: Time,
        doc: DocId,
        request: RequestId,
        at: Option<&[Hash]>,
        work: Work,
        out: &mut Outbox<Output>,
    ) {
        let wall = self.wall(now);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let mut reply = |outcome| out.push(Output::Reply { request, outcome });
        if !entry.members.may_write(&self.me) {
            return reply(Err(not_allowed("writer", entry.members.role(&self.me))));
        }
        let State::Open(document) = &mut entry.state else { return };
        if at.is_some_and(|heads| !heads.iter().all(|head| document.knows(head))) {
            let why = "the version that was edited is not in the document's history".to_owned();
            return reply(Err(DocError::Refused(why)));
        }
        let before = document.heads();
        match document.work(at, wall, work) {
            Ok(Some(_)) => {
                let after = document.heads();
                entry.writing().next.waiting.push(Waiting::Edit { request, before, after });
                self.flush(doc, now, out);
            }
            Ok(None) => {
                let heads: Vec<[u8; 32]> = before.iter().map(|head| **head).collect();
                reply(Ok(Outcome::Edited { before: heads.clone(), after: heads }));
            }
            Err(EditFault::Refused(why)) => reply(Err(DocError::Refused(why))),
            Err(EditFault::Broken) => {
                reply(Err(DocError::Refused("the edit failed inside the document".to_owned())));
                self.take_back(doc, now, "the document failed inside an edit", out);
            }
        }
    }

    fn read(&mut self, doc: DocId, request: RequestId, read: Read, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let State::Open(document) = &entry.state else { return };
        let authors = document.authors(&entry.members, self.me);
        let failed = || DocError::Damaged("it cannot be read without a failure of the library".to_owned());
        let read = document.answer(|automerge| read(automerge, &authors));
        let outcome = read.map(Outcome::Read).ok_or_else(failed);
        out.push(Output::Reply { request, outcome });
    }

    /// The key that signs a grant or a removal: the owner's where it is here, this node's where it is an
    /// admin.
    fn authority(&self, doc: DocId, needs_owner: bool) -> Result<SecretKey, DocError> {
        let entry = self.entries.get(&doc).ok_or(DocError::Unknown(doc))?;
        if let Some(owner) = &entry.row.owner {
            return Ok(SecretKey::from_bytes(owner));
        }
        let role = entry.members.role(&self.me);
        match role {
            Some(Role::Admin) if !needs_owner => Ok(self.config.key.clone()),
            _ => Err(not_allowed(if needs_owner { "owner" } else { "admin" }, role)),
        }
    }

    /// Signs operations, adds them, and answers when they are on disk.
    fn operate(
        &mut self,
        now: Time,
        doc: DocId,
        key: &SecretKey,
        acts: Vec<Act>,
        done: Option<Waiting>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let epoch = entry.log.epoch().saturating_add(1);
        for act in acts {
            let operation = Operation { doc, epoch, act };
            let envelope = Envelope::seal(key, Domain::DocControl, &self.config.network, &operation);
            entry.log.insert(&entry.row.access, &self.config.network, &envelope);
            entry.writing().next.operations.push(envelope);
        }
        entry.writing().next.waiting.extend(done);
        self.members_changed(now, doc, out);
        self.flush(doc, now, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(super) fn invite(
        &mut self,
        now: Time,
        request: RequestId,
        doc: DocId,
        role: Role,
        expires: Option<UnixTime>,
        uses: Option<u32>,
        out: &mut Outbox<Output>,
    ) {
        let key = match self.authority(doc, role == Role::Admin) {
            Ok(key) => key,
            Err(error) => return out.push(Output::Reply { request, outcome: Err(error) }),
        };
        let bearer: [u8; 16] = self.draw();
        let to = bearer_key(&bearer).node_id();
        let limits = Bearer { expires: expires.map(UnixTime::as_millis), uses };
        let act = Act::Grant { to, role, bearer: Some(limits) };
        let Some(access) = self.entries.get(&doc).map(|entry| entry.row.access.clone()) else { return };
        let done = Waiting::Plain { request, outcome: Outcome::Invited { access, bearer } };
        self.operate(now, doc, &key, vec![act], Some(done), out);
    }

    pub(super) fn grant(
        &mut self,
        now: Time,
        request: RequestId,
        doc: DocId,
        to: NodeId,
        role: Role,
        out: &mut Outbox<Output>,
    ) {
        let held = self.entries.get(&doc).and_then(|entry| entry.members.role(&to));
        if held > Some(role) {
            // What it wrote so far is to stay, so where that ends is looked up in the document.
            let job = Job::Lower { request, who: to, stays: Some(role) };
            return self.local_job(now, doc, request, job, out);
        }
        let needs_owner = role == Role::Admin || held == Some(Role::Admin);
        match self.authority(doc, needs_owner) {
            Ok(key) => {
                let acts = vec![Act::Grant { to, role, bearer: None }];
                let done = Waiting::Plain { request, outcome: Outcome::Done };
                self.operate(now, doc, &key, acts, Some(done), out);
            }
            Err(error) => out.push(Output::Reply { request, outcome: Err(error) }),
        }
    }

    /// Removes a member, or leaves it a lower role. Where that ends its writing its changes end where this
    /// replica has them; and so do the tickets that gave it more, though not the others who came by them.
    fn lower(
        &mut self,
        now: Time,
        doc: DocId,
        request: RequestId,
        (who, stays): (NodeId, Option<Role>),
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let held = entry.members.role(&who);
        if let Some(role) = stays.filter(|role| held <= Some(*role)) {
            // It changed while the document was being read.
            return self.grant(now, request, doc, who, role, out);
        }
        if held.is_none() {
            let why = "that node is not a member of the document".to_owned();
            return out.push(Output::Reply { request, outcome: Err(DocError::Refused(why)) });
        }
        let is_other_admin = |(node, role)| node != who && role == Role::Admin;
        if held == Some(Role::Admin) && !entry.members.iter().any(is_other_admin) {
            let why = "the last admin stays what it is: nobody could let anybody in any more".to_owned();
            return out.push(Output::Reply { request, outcome: Err(DocError::Refused(why)) });
        }
        let State::Open(document) = &entry.state else { return };
        let writes_on = stays >= Some(Role::Writer);
        let cut = if writes_on { Vec::new() } else { document.roots_of(&who) };
        let feeds = if writes_on { Vec::new() } else { self.feed_ends(doc, &who) };
        let mut acts = vec![Act::Remove { who, cut, feeds, keep: entry.log.signed_by(&who), stays }];
        for bearer in entry.log.bearers_of(&who, stays) {
            acts.push(Act::Remove {
                who: bearer,
                cut: Vec::new(),
                feeds: Vec::new(),
                keep: entry.log.signed_by(&bearer),
                stays: None,
            });
        }
        acts.extend(self.admitted_by(doc, &who));
        match self.authority(doc, held == Some(Role::Admin)) {
            Ok(key) => {
                let done = Waiting::Plain { request, outcome: Outcome::Done };
                self.operate(now, doc, &key, acts, Some(done), out);
            }
            Err(error) => out.push(Output::Reply { request, outcome: Err(error) }),
        }
    }

    /// Where actors have two changes under one number an admin's node says which one stays; others wait for it.
    pub(super) fn settle_stories(
        &mut self,
        now: Time,
        doc: DocId,
        stories: Vec<Root>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let settled = entry.members.settled();
        let room = SETTLED_MAX.saturating_sub(settled.len());
        let open = |story: &Root| !settled.contains_key(&(story.actor.clone(), story.seq));
        let stories: BTreeMap<_, _> =
            stories.into_iter().filter(open).map(|it| ((it.actor.clone(), it.seq), it)).collect();
        let acts: Vec<Act> = stories.into_values().take(room).map(|story| Act::Settle { story }).collect();
        if let (Ok(key), false) = (self.authority(doc, false), acts.is_empty()) {
            self.operate(now, doc, &key, acts, None, out);
        }
    }

    /// Whom a member let in stays when it goes or becomes less.
    fn admitted_by(&self, doc: DocId, who: &NodeId) -> Vec<Act> {
        let Some(entry) = self.entries.get(&doc) else { return Vec::new() };
        let admitted = entry.log.admitted_by(&entry.row.access, who);
        admitted.into_iter().map(|redemption| Act::Admit { redemption }).collect()
    }

    /// After the set of operations changed: who is in, who is out, what of the document stays.
    pub(super) fn members_changed(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let me = self.me;
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let members = entry.log.members(&entry.row.access);
        if members == entry.members {
            return;
        }
        // Also who wrote nothing that the remover knew of is cut: at its first change.
        let silenced = |(node, _)| entry.members.may_write(&node) && !members.may_write(&node);
        let silenced = entry.members.iter().any(silenced);
        let settled = members.settled() != entry.members.settled();
        let cut = silenced || settled || members.cuts() != entry.members.cuts();
        let ended = silenced || members.feed_ends() != entry.members.feed_ends();
        let came: Vec<NodeId> = members
            .iter()
            .map(|(node, _)| node)
            .filter(|node| *node != me && entry.members.role(node).is_none())
            .collect();
        entry.members = members;
        out.push(Output::Notify(Event::MembersChanged { doc }));
        if cut {
            self.job(now, doc, Job::Prune, out);
        }
        if ended {
            self.cut_feeds(doc, out);
        }
        for peer in came {
            self.hello(now, doc, peer, out);
        }
    }

    /// Says something in passing to every member that is here.
    pub(super) fn signal(&self, doc: DocId, request: RequestId, bytes: &[u8], out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else {
            return out.push(Output::Reply { request, outcome: Err(DocError::Unknown(doc)) });
        };
        if bytes.len() > SIGNAL_BYTES_MAX {
            let why = format!("{} bytes are more than the {SIGNAL_BYTES_MAX} that are passed", bytes.len());
            return out.push(Output::Reply { request, outcome: Err(DocError::Refused(why)) });
        }
        for peer in entry.sessions.keys().filter(|peer| entry.members.role(peer).is_some()) {
            self.send(&doc, *peer, &Message::Signal { bytes: ByteBuf::from(bytes) }, out);
        }
        out.push(Output::Reply { request, outcome: Ok(Outcome::Done) });
    }

    pub(super) fn forget(&mut self, request: RequestId, doc: DocId, out: &mut Outbox<Output>) {
        self.closed(doc);
        let Some(entry) = self.entries.remove(&doc) else {
            return out.push(Output::Reply { request, outcome: Err(DocError::Unknown(doc)) });
        };
        self.tags.remove(&entry.row.access.read.tag());
        if let Some(due) = entry.due {
            self.timers.remove(&(due, doc));
        }
        self.erase(request, entry, out);
    }
}

impl Job {
    pub(super) fn edit(request: RequestId, at: Option<Vec<[u8; 32]>>, work: Work) -> Self {
        Self::Edit { request, at: at.map(|heads| heads.into_iter().map(ByteArray::new).collect()), work }
    }
}

pub(super) fn not_allowed(needed: &'static str, held: Option<Role>) -> DocError {
    let held = match held {
        None => "no member",
        Some(Role::Reader) => "a reader",
        Some(Role::Writer) => "a writer",
        Some(Role::Admin) => "an admin",
    };
    DocError::NotAllowed { needed, held }
}
