//! What peers say: the handshake, operations, summaries, transfers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::limits::FEEDS_PER_DOC_MAX;
use wattle_types::{DocId, DocTag, Domain, Envelope, NodeId, Outbox, Time, bearer_key, cbor};

use super::feeds::ANSWER_POSTS;
use super::{
    Event, FIRST_WORD, HELLO_AGAIN, HELLOS_AT_ONCE, Job, Output, Presence, REPEAT, Replica, SUMMARY_AFTER,
    State, WAITING_MAX,
};
use crate::access::{Act, OPERATIONS_MAX, OpHash, Operation, Refusal};
use crate::document::{Fault, Hash};
use crate::feed::Top;
use crate::message::{
    AUTHORS_MAX, FRAME_BYTES_MAX, HEADS_MAX, Message, Nonce, PART_BYTES, PRESENCE_BYTES_MAX,
    SIGNAL_BYTES_MAX, frame, split,
};
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::session::{Outgoing, Progress, Session, Side, Standing, no_proof, nonce_for, proof};

/// Actors named in one clock. A document with more costs a whole transfer instead.
const CLOCK_MAX: usize = 4096;

/// Questions in a row that bring nothing of use, before all is asked for, once for each version of the peer.
const GAPS_MAX: u32 = 2;

/// Bytes of a message of the handshake: two nonces, a proof, a signed redemption.
const HANDSHAKE_BYTES_MAX: usize = 1024;

/// A channel to a peer.
pub(super) struct Link {
    secret: [u8; 32],
    /// Handshakes that this node began.
    hellos: BTreeMap<DocTag, (Nonce, Time)>,
    /// Documents whose turn for one comes when another has been answered.
    turns: BTreeSet<DocId>,
    /// When the channel opened, or the peer last began one.
    greeted: Time,
}

impl Replica {
    pub(super) fn peer_up(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        // A new channel starts afresh: what the old one carried last is not known.
        self.peer_down(now, &peer, out);
        let secret = self.draw();
        self.links
            .insert(peer, Link { secret, hellos: BTreeMap::new(), turns: BTreeSet::new(), greeted: now });
        let shared = self.entries.iter().filter(|(_, entry)| entry.contacts().any(|contact| contact == peer));
        for doc in shared.map(|(doc, _)| *doc).collect::<Vec<_>>() {
            self.greet(now, doc, peer, out);
        }
    }

    /// Begins a handshake, unless the peer does. Where both are members one word is enough, and both would say it; so
    /// the one with the higher id waits while the other goes through the documents that they share.
    fn greet(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let both = self.entries.get(&doc).is_some_and(|entry| {
            entry.members.role(&peer).is_some() && entry.members.role(&self.me).is_some()
        });
        let word = self.links.get(&peer).map(|link| link.greeted.after(FIRST_WORD));
        match word.filter(|word| both && peer < self.me && *word > now) {
            Some(word) => self.set_due(doc, word),
            None => self.hello_in_turn(now, doc, peer, out),
        }
    }

    /// Begins a handshake, once few enough are under way.
    fn hello_in_turn(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let fresh = link.hellos.values().filter(|(_, at)| now.since(*at) < REPEAT);
        if fresh.count() < HELLOS_AT_ONCE {
            return self.hello(now, doc, peer, out);
        }
        link.turns.insert(doc);
        // Should none of them be answered.
        self.set_due(doc, now.after(REPEAT));
    }

    /// A handshake was answered: it is another document's turn.
    fn next_turn(&mut self, now: Time, peer: NodeId, out: &mut Outbox<Output>) {
        while let Some(doc) = self.links.get_mut(&peer).and_then(|link| link.turns.pop_first()) {
            let entry = self.entries.get(&doc);
            if entry.is_some_and(|entry| !entry.sessions.contains_key(&peer)) {
                return self.hello(now, doc, peer, out);
            }
        }
    }

    pub(super) fn peer_down(&mut self, now: Time, peer: &NodeId, out: &mut Outbox<Output>) {
        self.links.remove(peer);
        let mut owed = Vec::new();
        for (doc, entry) in &mut self.entries {
            if let Some(session) = entry.sessions.remove(peer) {
                out.push(Output::Notify(Event::PeersChanged { doc: *doc }));
                owed.extend(Some(*doc).filter(|_| !session.fetching.is_empty()));
            }
        }
        for doc in owed {
            self.fetch_from_all(now, doc, out);
        }
    }

    pub(super) fn found(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        if let Some(entry) = self.entries.get_mut(&doc)
            && entry.found.len() < 64
        {
            entry.found.insert(peer);
            self.hello(now, doc, peer, out);
        }
    }

    /// Begins a handshake, unless there is a session or no channel.
    pub(super) fn hello(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let nonce = Nonce::new(self.draw());
        let Some(entry) = self.entries.get(&doc) else { return };
        let Some(link) = self.links.get_mut(&peer).filter(|_| !entry.sessions.contains_key(&peer)) else {
            return;
        };
        link.turns.remove(&doc);
        link.hellos.insert(entry.row.access.read.tag(), (nonce, now));
        self.send(&doc, peer, &Message::Hello { nonce }, out);
        self.set_due(doc, now.after(HELLO_AGAIN));
    }

    pub(super) fn received(&mut self, now: Time, peer: NodeId, bytes: &[u8], out: &mut Outbox<Output>) {
        let misbehaved = |why, out: &mut Outbox<Output>| out.push(Output::Misbehaved { peer, why });
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some((tag, body)) = split(bytes).filter(|_| bytes.len() <= FRAME_BYTES_MAX) else {
            return misbehaved("a document frame that is too short or too long", out);
        };
        let doc = self.tags.get(&tag).copied();
        let session = doc.and_then(|doc| self.entries.get(&doc)).and_then(|entry| entry.sessions.get(&peer));
        // Until a peer has proved the secret, only the three small messages of the handshake are decoded.
        if session.is_none() && body.len() > HANDSHAKE_BYTES_MAX {
            // A session that the other side still believes in, or nonsense.
            if let Some(doc) = doc.filter(|doc| self.is_contact(*doc, peer)) {
                self.hello(now, doc, peer, out);
            }
            return;
        }
        let Ok(message) = cbor::decode::<Message>(body, FRAME_BYTES_MAX) else {
            return misbehaved("a document message that cannot be read", out);
        };
        match (message, doc) {
            (Message::Hello { nonce }, None) => {
                let asked = nonce_for(&link.secret, &tag, &nonce);
                let proof = no_proof(&link.secret, &tag, &nonce);
                let answer = Message::Challenge { nonce: asked, asked: nonce, proof };
                out.push(Output::Send { peer, frame: frame(&tag, &answer) });
            }
            (Message::Hello { nonce }, Some(doc)) => {
                link.greeted = now;
                self.on_hello(doc, tag, peer, nonce, out);
            }
            (Message::Challenge { nonce, asked, proof }, Some(doc)) => {
                self.on_challenge(now, doc, tag, peer, (nonce, asked, proof), out);
            }
            (Message::Prove { asked, proof, redeem }, Some(doc)) => {
                self.on_prove(now, doc, tag, peer, (asked, proof, redeem), out);
            }
            (message, Some(doc)) if session.is_some() => self.on_session(now, doc, peer, message, out),
            // A session that the other side still believes in.
            (_, Some(doc)) if self.is_contact(doc, peer) => self.hello(now, doc, peer, out),
            // A document that was forgotten here, or never was.
            _ => {}
        }
    }

    fn on_hello(&self, doc: DocId, tag: DocTag, peer: NodeId, nonce: Nonce, out: &mut Outbox<Output>) {
        let (Some(entry), Some(link)) = (self.entries.get(&doc), self.links.get(&peer)) else { return };
        let asked = nonce_for(&link.secret, &tag, &nonce);
        let proof = proof(&entry.row.access.read, Side::Asked, (&peer, &nonce), (&self.me, &asked));
        self.send(&doc, peer, &Message::Challenge { nonce: asked, asked: nonce, proof }, out);
    }

    fn on_challenge(
        &mut self,
        now: Time,
        doc: DocId,
        tag: DocTag,
        peer: NodeId,
        (nonce, asked, theirs): (Nonce, Nonce, ByteArray<32>),
        out: &mut Outbox<Output>,
    ) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        // A question is answered once.
        if link.hellos.get(&tag).map(|(nonce, _)| *nonce) != Some(asked) {
            return;
        }
        link.hellos.remove(&tag);
        self.next_turn(now, peer, out);
        let Some(entry) = self.entries.get(&doc) else { return };
        let secret = &entry.row.access.read;
        if proof(secret, Side::Asked, (&self.me, &asked), (&peer, &nonce)) != theirs {
            // It does not hold the document.
            return;
        }
        let mine = proof(secret, Side::Asking, (&self.me, &asked), (&peer, &nonce));
        let gives_more = |bearer: &&ByteArray<16>| {
            let held = entry.members.role(&self.me);
            let given = entry.log.given_by(&bearer_key(bearer).node_id());
            given.is_none() || given > held
        };
        let redeem = entry.row.bearer.as_ref().filter(gives_more);
        let redeem = redeem.map(|bearer| {
            let act = Act::Redeem { member: self.me };
            let operation = Operation { doc, epoch: 0, act };
            Envelope::seal(&bearer_key(bearer), Domain::DocControl, &self.config.network, &operation)
        });
        self.send(&doc, peer, &Message::Prove { asked, proof: mine, redeem }, out);
        self.open_session(now, doc, peer, out);
    }

    fn on_prove(
        &mut self,
        now: Time,
        doc: DocId,
        tag: DocTag,
        peer: NodeId,
        (asked, theirs, redeem): (Nonce, ByteArray<32>, Option<Envelope>),
        out: &mut Outbox<Output>,
    ) {
        let (Some(entry), Some(link)) = (self.entries.get(&doc), self.links.get(&peer)) else { return };
        let nonce = nonce_for(&link.secret, &tag, &asked);
        if proof(&entry.row.access.read, Side::Asking, (&peer, &asked), (&self.me, &nonce)) != theirs {
            // As if there were no such document: what it is told must not depend on whether there is.
            return;
        }
        let held = entry.members.role(&peer);
        // A second ticket may give a member a better role; one that does not changes nothing.
        let redeem = redeem.filter(|it| held.is_none() || entry.log.given_by(&it.author()) > held);
        if let Some(redeem) = redeem {
            let redeemed = self.redeem(now, doc, peer, &redeem, out);
            if let (Err(why), None) = (redeemed, held) {
                return self.send(&doc, peer, &Message::Refused { why }, out);
            }
        } else if held.is_none() && entry.members.iter().next().is_some() {
            // It may know of a grant that has not come here yet: the session is open for operations.
            self.send(&doc, peer, &Message::Refused { why: Refusal::NotAMember }, out);
            // Who was removed while it was away learns of it now: otherwise it would go on writing for itself.
            let operations = entry.log.about(&peer, &entry.log.envelopes());
            if !operations.is_empty() {
                self.send(&doc, peer, &Message::Learn { operations }, out);
            }
        }
        self.open_session(now, doc, peer, out);
    }

    /// Lets a peer in by its ticket.
    fn redeem(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        redeem: &Envelope,
        out: &mut Outbox<Output>,
    ) -> Result<(), Refusal> {
        let wall = self.wall(now);
        let network = &self.config.network;
        let Some(entry) = self.entries.get_mut(&doc) else { return Err(Refusal::NotAMember) };
        let admission = entry.log.admits(&entry.row.access, network, redeem, wall)?;
        let mut operations = vec![redeem.clone()];
        if admission.needs_a_word {
            let act = Act::Admit { redemption: OpHash::new(redeem.hash()) };
            let operation = Operation { doc, epoch: 0, act };
            operations.push(Envelope::seal(&self.config.key, Domain::DocControl, network, &operation));
        }
        let mut log = entry.log.clone();
        log.extend(&entry.row.access, network, operations.clone());
        // A redemption names its member: one that was seen elsewhere lets nobody else in. Nor does a member
        // with a lower role than the ticket's.
        if log.members(&entry.row.access).role(&peer).is_none() {
            return Err(Refusal::NotAMember);
        }
        self.learn(now, doc, Some(peer), operations, out);
        Ok(())
    }

    fn open_session(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        // Both may have said hello: what a peer told in the meantime holds still.
        let Session { theirs, feeds, .. } = *entry.sessions.remove(&peer).unwrap_or_default();
        entry.sessions.insert(peer, Box::new(Session { opened: now, theirs, feeds, ..Session::default() }));
        out.push(Output::Notify(Event::PeersChanged { doc }));
        entry.used = now;
        // Who holds no operation yet knows no member that it may tell where it stands.
        if entry.log.is_empty() {
            self.send(&doc, peer, &Message::Operations { hashes: Vec::new() }, out);
        }
        self.summarise_to(now, doc, peer, out);
        self.set_due(doc, now.after(REPEAT));
    }

    fn send_operations(&self, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        if entry.members.role(&peer).is_some() {
            self.send(&doc, peer, &Message::Operations { hashes: entry.log.hashes() }, out);
        }
    }

    fn on_session(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        message: Message,
        out: &mut Outbox<Output>,
    ) {
        if !matches!(message, Message::Part { .. }) {
            self.apply_run(now, out);
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        // D3: operations are read from whoever proved the secret, since they prove themselves; the rest is
        // for members, as far as this replica knows.
        let member = entry.members.role(&peer).is_some();
        if let Some(session) = entry.sessions.get_mut(&peer) {
            session.heard = true;
        }
        match message {
            Message::Refused { why } => out.push(Output::Notify(Event::Refused { doc, peer, why })),
            Message::Learn { operations } if operations.len() <= OPERATIONS_MAX => {
                self.learn(now, doc, Some(peer), operations, out);
            }
            Message::Operations { hashes } if hashes.len() <= OPERATIONS_MAX => {
                self.on_operations(doc, peer, member, &hashes, out);
            }
            Message::Summary { control, heads, feeds } if member && heads.len() <= HEADS_MAX => {
                self.on_summary(now, doc, peer, Standing { control, heads, feeds }, out);
            }
            // Whoever let it in is not known here yet: it may tell.
            Message::Summary { control, .. } if !member && control != entry.log.fingerprint() => {
                let hashes = entry.log.hashes();
                self.send(&doc, peer, &Message::Operations { hashes }, out);
            }
            Message::Want { heads, clock }
                if member && heads.len() <= HEADS_MAX && clock.len() <= CLOCK_MAX =>
            {
                if let Some(session) = entry.sessions.get_mut(&peer) {
                    session.pruned.clear();
                }
                self.job(now, doc, Job::Want { peer, heads, clock }, out);
            }
            Message::Prune { authors } if member && authors.len() <= AUTHORS_MAX => {
                let authors = authors.into_iter().filter(|author| entry.members.may_write(author));
                if let Some(session) = entry.sessions.get_mut(&peer) {
                    session.pruned.extend(authors);
                }
            }
            Message::Part { transfer, part, parts, bytes } if member => {
                self.on_part(now, doc, peer, (transfer, part, parts, bytes), out);
            }
            Message::More { transfer, part } if member => self.on_more(doc, peer, transfer, part, out),
            Message::Feeds { tops }
                if member && tops.len() <= FEEDS_PER_DOC_MAX && tops.iter().all(Top::is_within_limits) =>
            {
                self.on_tops(now, doc, peer, tops, out);
            }
            Message::Fetch { feed, first, last } if member => {
                self.on_fetch(doc, peer, (feed, first, last), out);
            }
            Message::Posts { posts, asked } if member && posts.len() <= ANSWER_POSTS => {
                self.on_posts(now, doc, peer, posts, asked, out);
            }
            Message::Signal { bytes } if member && bytes.len() <= SIGNAL_BYTES_MAX => {
                let bytes = bytes.into_vec();
                if entry.sessions.get_mut(&peer).is_some_and(|session| session.signals.take(now)) {
                    out.push(Output::Notify(Event::Signal { doc, from: peer, bytes }));
                }
            }
            Message::Forked { entries } if member => self.on_forked(now, doc, peer, entries, out),
            Message::Ephemeral { sender, session, count, data }
                if member && data.len() <= PRESENCE_BYTES_MAX =>
            {
                let presence = Presence { sender, session, count, data: data.into_vec() };
                self.on_presence(now, doc, peer, presence, out);
            }
            _ if member => out.push(Output::Misbehaved { peer, why: "a document message over its limits" }),
            _ => {}
        }
    }

    /// Gives a member the operations that it lacks, and asks anybody for those that this replica lacks: a
    /// list of hashes tells nothing.
    fn on_operations(
        &self,
        doc: DocId,
        peer: NodeId,
        member: bool,
        theirs: &[OpHash],
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let operations = entry.log.beyond(theirs);
        if member {
            self.teach(doc, peer, &operations, out);
        }
        if entry.log.lacks(theirs) {
            self.send(&doc, peer, &Message::Operations { hashes: entry.log.hashes() }, out);
        }
    }

    /// Adds operations, and passes on what was new.
    fn learn(
        &mut self,
        now: Time,
        doc: DocId,
        from: Option<NodeId>,
        operations: Vec<Envelope>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let added = entry.log.extend(&entry.row.access, &self.config.network, operations);
        if added.is_empty() {
            return;
        }
        entry.writing().next.operations.extend(added);
        let mine = entry.log.members(&entry.row.access).role(&self.me);
        let came_in = mine.is_some() && entry.members.role(&self.me).is_none();
        let is_of_no_use = |bearer: ByteArray<16>| {
            let given = entry.log.given_by(&bearer_key(&bearer).node_id());
            given <= mine && (came_in || given.is_some())
        };
        if entry.row.bearer.is_some_and(is_of_no_use) {
            Arc::make_mut(&mut entry.row).bearer = None;
            entry.writing().next.row = true;
        }
        self.members_changed(now, doc, out);
        self.flush(doc, now, out);
        // Whoever told something may know changes that were not for this replica until now.
        if let Some(peer) = from {
            self.send_operations(doc, peer, out);
            self.summarise_to(now, doc, peer, out);
        }
    }

    fn on_summary(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        theirs: Standing,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let mine = entry.standing();
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        let news = session.theirs.as_ref() != Some(&theirs);
        let first = session.theirs.replace(theirs.clone()).is_none();
        if theirs == mine {
            if news {
                out.push(Output::Notify(Event::InSync { doc, peer }));
            }
            self.reached(doc, peer, out);
            let Some(session) = self.entries.get(&doc).and_then(|entry| entry.sessions.get(&peer)) else {
                return;
            };
            // Who says the same again does not know that it was answered.
            let again = !news && now.since(session.told_at) >= REPEAT / 2;
            if again || session.told.as_ref() != Some(&mine) {
                self.summarise_to(now, doc, peer, out);
            }
            return;
        }
        if first {
            // What it was told may have come before it knew who may tell it.
            self.summarise_to(now, doc, peer, out);
        }
        if theirs.control != mine.control {
            self.send_operations(doc, peer, out);
        }
        if theirs.heads != mine.heads && !theirs.heads.is_empty() {
            self.job(now, doc, Job::Ask { peer }, out);
        }
        if theirs.feeds != mine.feeds {
            self.send_tops(doc, peer, out);
            self.fetch_next(now, doc, peer, out);
        }
        self.set_due(doc, now.after(REPEAT));
    }

    /// Asks for what a peer has and this replica lacks, once at a time.
    pub(super) fn ask(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let State::Open(document) = &entry.state else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        let Some(theirs) = &session.theirs else { return };
        let lacks = theirs.heads.iter().any(|head| !document.knows(head));
        if !lacks || session.wanted_until.is_some_and(|until| until > now) {
            return;
        }
        if session.wanted_until.replace(now.after(REPEAT)).is_some() {
            // No answer, or one that was no use.
            session.gaps = session.gaps.saturating_add(1);
        }
        let mut clock = document.clock();
        clock.truncate(CLOCK_MAX);
        // What is missing time and again stands under a number that is taken here, so the clock hides it.
        if session.gaps >= GAPS_MAX && session.asked_whole.as_ref() != Some(&theirs.heads) {
            session.asked_whole = Some(theirs.heads.clone());
            clock.clear();
        }
        let heads = document.heads();
        self.send(&doc, peer, &Message::Want { heads, clock }, out);
        self.set_due(doc, now.after(REPEAT));
    }

    /// Gives a peer what it lacks. What is on its way to the disk is waited for.
    pub(super) fn give(
        &mut self,
        doc: DocId,
        peer: NodeId,
        heads: &[Hash],
        clock: &[(ByteBuf, u64)],
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.is_writing() {
            let job = Job::Want { peer, heads: heads.to_vec(), clock: clock.to_vec() };
            let wants = &mut entry.writing().wants;
            wants.retain(|it| !matches!(it, Job::Want { peer: of, .. } if *of == peer));
            if wants.len() < WAITING_MAX {
                wants.push(job);
            }
            return;
        }
        let State::Open(document) = &entry.state else { return };
        let payload = document.beyond(heads, clock, PAYLOAD_BYTES_MAX);
        if !payload.chunks.is_empty() {
            self.transfer(doc, peer, &payload, out);
        }
    }

    /// Starts a transfer: a small one is one frame, a large one is pulled.
    pub(super) fn transfer(&mut self, doc: DocId, peer: NodeId, payload: &Payload, out: &mut Outbox<Output>) {
        self.transfers = self.transfers.wrapping_add(1);
        let number = self.transfers;
        let outgoing = Outgoing::new(number, payload);
        if outgoing.is_too_large() {
            return;
        }
        let Some(first) = outgoing.part(number, 0) else { return };
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        if !outgoing.is_last(0) {
            session.outgoing = Some(outgoing);
        }
        self.send(&doc, peer, &first, out);
    }

    fn on_more(&mut self, doc: DocId, peer: NodeId, transfer: u32, part: u32, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        let Some(outgoing) = &session.outgoing else { return };
        let Some(message) = outgoing.part(transfer, part) else { return };
        if outgoing.is_last(part) {
            session.outgoing = None;
        }
        self.send(&doc, peer, &message, out);
    }

    fn on_part(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        (transfer, part, parts, bytes): (u32, u32, u32, ByteBuf),
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        match session.take_part(transfer, part, parts, &bytes) {
            Progress::Whole(payload) => {
                self.take_payload(now, doc, peer, payload, out);
            }
            Progress::Next(more) => {
                session.wanted_until = Some(now.after(REPEAT));
                self.send(&doc, peer, &more, out);
            }
            Progress::Stale => {}
            Progress::Malformed => {
                out.push(Output::Misbehaved { peer, why: "a transfer that is no payload" });
            }
        }
    }

    /// Applies what a peer sent.
    pub(super) fn accept(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        payload: &Payload,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let network = self.config.network.clone();
        let epoch = entry.log.epoch();
        let judge = crate::document::Judge { doc, network: &network, members: &entry.members, epoch };
        let State::Open(document) = &mut entry.state else { return };
        let accepted = match document.accept(&judge, payload) {
            Ok(accepted) => accepted,
            Err(fault) => {
                let why = match fault {
                    Fault::BadSignature => "a change whose signature does not verify",
                    Fault::Malformed(_) => "bytes that are no change",
                    Fault::Unfit(_) => "changes that do not fit together",
                    Fault::Panicked => "bytes that the decoder does not survive",
                };
                // Who passes on what another writer vouched for could take it and cannot know who does not.
                let passed_on = payload
                    .vouches
                    .iter()
                    .any(|envelope| envelope.author() != peer && entry.members.may_write(&envelope.author()));
                if passed_on && matches!(fault, Fault::Unfit(_) | Fault::Panicked) {
                    return;
                }
                return out.push(Output::Misbehaved { peer, why });
            }
        };
        if accepted.forked_by.contains(&peer) {
            out.push(Output::Misbehaved { peer, why: "two changes under one number" });
        }
        // What still misses something is asked for again, at the pace of the repetition.
        if let Some(session) = entry.sessions.get_mut(&peer) {
            session.gaps = if accepted.missing { session.gaps.saturating_add(1) } else { 0 };
            session.wanted_until = session.wanted_until.filter(|_| accepted.missing);
        }
        let next = &mut entry.writing.get_or_insert_default().next;
        let is_known = accepted.payload == Payload::default() && !accepted.missing;
        if accepted.payload != Payload::default() {
            let alone = next.payload == Payload::default() || next.from == Some(peer);
            next.from = (alone && document.is_vouched()).then_some(peer);
            next.payload.chunks.extend(accepted.payload.chunks);
            next.payload.vouches.extend(accepted.payload.vouches);
        }
        if accepted.behind {
            self.send_operations(doc, peer, out);
        }
        self.flush(doc, now, out);
        if is_known {
            self.prune_way(doc, peer, payload, out);
        }
        if accepted.missing {
            self.ask(now, doc, peer, out);
        }
        if !accepted.stories.is_empty() {
            self.settle_stories(now, doc, accepted.stories, out);
        }
    }

    /// Tells a peer where this replica stands.
    pub(super) fn summarise_to(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.members.role(&peer).is_none() {
            return;
        }
        let standing = entry.standing();
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        session.told = Some(standing.clone());
        session.told_at = now;
        let Standing { control, heads, feeds } = standing;
        self.send(&doc, peer, &Message::Summary { control, heads, feeds }, out);
    }

    /// Tells every peer that does not know, or whose last word was another; tries again what stands still.
    pub(super) fn summarise(&mut self, doc: DocId, now: Time, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let mine = entry.standing();
        let tag = entry.row.access.read.tag();
        entry.sessions.retain(|_, session| session.heard || now.since(session.opened) < REPEAT);
        let mut open = false;
        let mut tell = Vec::new();
        for (peer, session) in &mut entry.sessions {
            let equal = session.theirs.as_ref() == Some(&mine);
            if session.told.as_ref() != Some(&mine) || !equal {
                let control = session.theirs.as_ref().map(|theirs| theirs.control);
                tell.push((*peer, equal, control));
            }
            open |= !equal;
        }
        for (peer, equal, control) in tell {
            self.summarise_to(now, doc, peer, out);
            // Who has not said where it stands may not know yet whom it may tell.
            if control != Some(mine.control) {
                self.send_operations(doc, peer, out);
            }
            if !equal {
                self.job(now, doc, Job::Ask { peer }, out);
                self.fetch_next(now, doc, peer, out);
            }
        }
        if open {
            self.set_due(doc, now.after(REPEAT));
        }
        self.greet_again(now, doc, tag, out);
    }

    /// Asks peers anew that may hold the document and do not speak of it.
    fn greet_again(&mut self, now: Time, doc: DocId, tag: DocTag, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let silent = entry.contacts().filter(|peer| !entry.sessions.contains_key(peer));
        for peer in silent.filter(|peer| self.links.contains_key(peer)).collect::<BTreeSet<_>>() {
            let asked = self.links.get(&peer).and_then(|link| link.hellos.get(&tag)).copied();
            match asked.map(|(_, at)| at.after(HELLO_AGAIN)) {
                Some(again) if again > now => self.set_due(doc, again),
                _ => self.greet(now, doc, peer, out),
            }
        }
    }

    fn is_contact(&self, doc: DocId, peer: NodeId) -> bool {
        self.entries.get(&doc).is_some_and(|entry| entry.contacts().any(|contact| contact == peer))
    }

    /// After something new is on disk: at once to who may lack it, and a summary when it is quiet.
    pub(super) fn push(
        &mut self,
        now: Time,
        doc: DocId,
        payload: &Payload,
        from: Option<NodeId>,
        out: &mut Outbox<Output>,
    ) {
        if !payload.chunks.is_empty() {
            for peer in self.who_lacks(doc, payload, from) {
                self.transfer(doc, peer, payload, out);
            }
        }
        self.set_due(doc, now.after(SUMMARY_AFTER));
    }

    /// After operations are on disk: to every member, and to others what is about themselves.
    pub(super) fn push_operations(&self, doc: DocId, operations: &[Envelope], out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        for peer in entry.sessions.keys() {
            if entry.members.role(peer).is_some() {
                self.teach(doc, *peer, operations, out);
            } else {
                self.teach(doc, *peer, &entry.log.about(peer, operations), out);
            }
        }
    }

    /// Sends operations, as many in a frame as it takes.
    fn teach(&self, doc: DocId, peer: NodeId, operations: &[Envelope], out: &mut Outbox<Output>) {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for operation in operations {
            let more = cbor::encode(operation).len();
            if bytes + more > PART_BYTES && !some.is_empty() {
                self.send(&doc, peer, &Message::Learn { operations: std::mem::take(&mut some) }, out);
                bytes = 0;
            }
            bytes += more;
            some.push(operation.clone());
        }
        if !some.is_empty() {
            self.send(&doc, peer, &Message::Learn { operations: some }, out);
        }
    }
}
