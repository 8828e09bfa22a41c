//! The protocol of documents, written down a second time: what an attacker's own program says.
//!
//! Nothing here comes from the crate that is attacked but its machine: messages, operations and vouches are
//! structs of this module, the handshake is made here, and so are the changes.

use std::collections::BTreeMap;
use std::time::Duration;

use automerge::transaction::Transactable as _;
use automerge::{ActorId, Author, Automerge, Change};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_docs::{
    Authors, Config, DocError, Edit, Event, Input, Label, Outcome, Output, Replica, RequestId, Role, Show,
};
use wattle_types::{
    DocAccess, DocId, DocTag, Domain, Envelope, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Table,
    Time, UnixTime, Write, bearer_key, cbor,
};

use crate::overlay::fail;

/// When the clock of every [`Desk`] starts.
pub const STARTED: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// What two replicas say to each other about one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the protocol, as overlay/docs says")]
pub enum Message {
    /// 1.
    Hello { nonce: ByteArray<16> },
    /// 2.
    Challenge { nonce: ByteArray<16>, asked: ByteArray<16>, proof: ByteArray<32> },
    /// 3.
    Prove { asked: ByteArray<16>, proof: ByteArray<32>, redeem: Option<Envelope> },
    /// No.
    Refused { why: Refusal },
    /// What operations there are.
    Operations { hashes: Vec<ByteArray<32>> },
    /// Operations.
    Learn { operations: Vec<Envelope> },
    /// Where a replica stands.
    Summary { control: ByteArray<32>, heads: Vec<ByteArray<32>>, feeds: ByteArray<32> },
    /// A question for changes.
    Want { heads: Vec<ByteArray<32>>, clock: Vec<(ByteBuf, u64)> },
    /// A part of the answer.
    Part { transfer: u32, part: u32, parts: u32, bytes: ByteBuf },
    /// The next part.
    More { transfer: u32, part: u32 },
    /// How far feeds are.
    Feeds { tops: Vec<Top> },
    /// A question for entries.
    Fetch { feed: FeedId, first: u64, last: u64 },
    /// Entries.
    Posts { posts: Vec<Sent>, asked: Option<FeedId> },
    /// Something in passing.
    Signal { bytes: ByteBuf },
    /// Two entries for one place.
    Forked { entries: Vec<Envelope> },
}

/// Whose feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FeedId {
    pub author: NodeId,
    pub number: u16,
}

/// An entry that another names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PostLink {
    pub at: u64,
    pub id: ByteArray<32>,
}

/// How far a feed is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Top {
    pub feed: FeedId,
    pub last: u64,
    pub link: Option<PostLink>,
    pub fork: Option<(u64, Vec<ByteArray<32>>)>,
}

/// An entry on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Sent {
    pub number: u16,
    pub seq: u64,
    pub envelope: Envelope,
}

/// An entry's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Post {
    pub doc: DocId,
    pub feed: u16,
    pub seq: u64,
    pub at: u64,
    pub prev: Option<PostLink>,
    pub seen: Vec<PostLink>,
    pub body: ByteBuf,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Refusal {
    NotAMember,
    Expired,
    UsedUp,
}

/// A signed operation's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the protocol, as overlay/docs says")]
pub struct Operation {
    pub doc: DocId,
    pub epoch: u32,
    pub act: Act,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the protocol, as overlay/docs says")]
pub enum Act {
    Grant {
        to: NodeId,
        role: Role,
        bearer: Option<Bearer>,
    },
    Remove {
        who: NodeId,
        cut: Vec<Root>,
        feeds: Vec<FeedEnd>,
        keep: Vec<ByteArray<32>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stays: Option<Role>,
    },
    Redeem {
        member: NodeId,
    },
    Admit {
        redemption: ByteArray<32>,
    },
}

/// Where a removed author's feed ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FeedEnd {
    pub feed: FeedId,
    pub last: u64,
    pub link: Option<PostLink>,
}

/// The limits of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bearer {
    pub expires: Option<u64>,
    pub uses: Option<u32>,
}

/// The newest change of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Root {
    pub actor: ByteBuf,
    pub seq: u64,
    pub change: ByteArray<32>,
}

/// A word for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Vouch {
    pub doc: DocId,
    pub root: Root,
    pub epoch: u32,
}

/// Changes and words for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Payload {
    pub vouches: Vec<Envelope>,
    pub chunks: Vec<ByteBuf>,
}

/// A frame: the tag, then the message.
#[must_use]
pub fn frame(tag: &DocTag, message: &Message) -> Vec<u8> {
    [tag.as_bytes().as_slice(), &cbor::encode(message)].concat()
}

/// The tag and the message of a frame.
///
/// # Panics
/// When an honest node sent what is none.
#[must_use]
pub fn unframe(frame: &[u8]) -> (DocTag, Message) {
    let Some((tag, body)) = frame.split_first_chunk::<16>() else { fail("a frame without a tag") };
    let message = cbor::decode(body, body.len());
    (DocTag::from_bytes(*tag), message.unwrap_or_else(|error| fail(&format!("{error}: {body:02x?}"))))
}

/// Whether a message carries what only members may see: changes, operations, where a replica stands.
#[must_use]
pub const fn is_data(message: &Message) -> bool {
    !matches!(message, Message::Hello { .. } | Message::Challenge { .. })
}

/// An attacker: a key, and whatever it got hold of.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Its key; the channel proves it.
    pub key: SecretKey,
    /// What leads to the document, where it has a link.
    pub access: DocAccess,
    /// The key inside its ticket.
    pub bearer: Option<[u8; 16]>,
    /// The network it signs for.
    pub network: NetworkName,
    /// Its first nonce.
    pub nonce: [u8; 16],
}

impl Speaker {
    /// One with a link.
    #[must_use]
    pub fn new(key: SecretKey, access: DocAccess, bearer: Option<[u8; 16]>) -> Self {
        Self { key, access, bearer, network: NetworkName::default(), nonce: [7; 16] }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// A frame about its document.
    #[must_use]
    pub fn frame(&self, message: &Message) -> Vec<u8> {
        frame(&self.access.read.tag(), message)
    }

    /// The beginning of a handshake.
    #[must_use]
    pub fn hello(&self) -> Vec<u8> {
        self.frame(&Message::Hello { nonce: ByteArray::new(self.nonce) })
    }

    /// What it answers to the challenge of `peer`, and whether `peer` holds the secret.
    #[must_use]
    pub fn prove(&self, peer: NodeId, challenge: &Message, redeem: Option<Envelope>) -> (Vec<u8>, bool) {
        let Message::Challenge { nonce, asked, proof } = challenge else { fail("no challenge") };
        let over = |label: &[u8]| {
            let (me, peer) = (self.id(), *peer.public_key());
            self.access.read.proof(&[label, me.public_key(), asked.as_slice(), &peer, nonce.as_slice()])
        };
        let mine = ByteArray::new(over(b"asking"));
        let message = Message::Prove { asked: *asked, proof: mine, redeem };
        (self.frame(&message), **proof == over(b"asked"))
    }

    /// An operation signed by `key`.
    #[must_use]
    pub fn operation(&self, key: &SecretKey, epoch: u32, act: Act) -> Envelope {
        let operation = Operation { doc: self.access.id, epoch, act };
        Envelope::seal(key, Domain::DocControl, &self.network, &operation)
    }

    /// Its ticket, redeemed for `member`.
    #[must_use]
    pub fn redemption(&self, member: NodeId) -> Option<Envelope> {
        let bearer = self.bearer.as_ref()?;
        Some(self.operation(&bearer_key(bearer), 0, Act::Redeem { member }))
    }

    /// A word for a change, by `key`, for a document, at an epoch.
    #[must_use]
    pub fn vouch(&self, key: &SecretKey, doc: DocId, epoch: u32, change: &Change) -> Envelope {
        let root = Root {
            actor: ByteBuf::from(change.actor_id().to_bytes()),
            seq: change.seq(),
            change: ByteArray::new(change.hash().0),
        };
        Envelope::seal(key, Domain::DocVouch, &self.network, &Vouch { doc, root, epoch })
    }

    /// Its own word for whatever it names.
    #[must_use]
    pub fn vouch_for(&self, root: Root, epoch: u32) -> Envelope {
        Envelope::seal(
            &self.key,
            Domain::DocVouch,
            &self.network,
            &Vouch { doc: self.access.id, root, epoch },
        )
    }

    /// A change on top of a document, as its program would make it.
    ///
    /// # Panics
    /// When automerge refuses it.
    #[must_use]
    pub fn change(&self, on: &Automerge, actor: u8, key: &str, value: &str) -> Change {
        let mut document = on.clone();
        document.set_author(Some(Author::from(self.id().public_key().to_vec())));
        document.set_actor(ActorId::from([actor; 16].as_slice()));
        let mut transaction = document.transaction();
        if let Err(error) = transaction.put(automerge::ROOT, key, value) {
            fail(&error.to_string());
        }
        transaction.commit();
        document.get_last_local_change().unwrap_or_else(|| fail("nothing was changed"))
    }

    /// Changes with words for them, in one frame.
    #[must_use]
    pub fn push(&self, vouches: Vec<Envelope>, chunks: Vec<Vec<u8>>) -> Vec<u8> {
        let chunks = chunks.into_iter().map(ByteBuf::from).collect();
        let bytes = ByteBuf::from(cbor::encode(&Payload { vouches, chunks }));
        self.frame(&Message::Part { transfer: 1, part: 0, parts: 1, bytes })
    }
}

/// One honest machine with a disk that is a map, driven by hand.
pub struct Desk {
    /// The machine.
    pub replica: Replica,
    /// What is on its disk.
    pub disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    /// What time it is.
    pub now: Time,
    /// Frames it sent and nobody took yet.
    pub sent: Vec<(NodeId, Vec<u8>)>,
    /// Whom it sends away.
    pub misbehaved: Vec<(NodeId, &'static str)>,
    /// What it told those who watch.
    pub events: Vec<Event>,
    /// How often it read a document from its disk: before it did, no decoder can have seen a change.
    pub loads: u64,
    key: SecretKey,
    replies: BTreeMap<RequestId, Result<Outcome, DocError>>,
    requests: u64,
}

fn label(_: &Automerge) -> Label {
    Label::default()
}

impl Desk {
    /// A machine without documents.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        let replica = start(&key, &BTreeMap::new());
        Self {
            replica,
            disk: BTreeMap::new(),
            now: Time::ZERO,
            sent: Vec::new(),
            misbehaved: Vec::new(),
            events: Vec::new(),
            loads: 0,
            key,
            replies: BTreeMap::new(),
            requests: 0,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// What its disk leads to after a restart.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let mut again = Self::new(self.key.clone());
        again.disk = self.disk.clone();
        again.replica = start(&again.key, &again.disk);
        again.now = self.now;
        again
    }

    /// Something happens; disk and clock do their work at once.
    pub fn handle(&mut self, input: Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let mut out = Outbox::new();
            self.replica.handle(self.now, input, &mut out);
            for output in out.drain().collect::<Vec<_>>() {
                match output {
                    Output::Send { peer, frame } => self.sent.push((peer, frame)),
                    Output::Persist { id, writes } => {
                        apply(&mut self.disk, writes);
                        todo.insert(0, Input::Persisted { id });
                    }
                    Output::Load { doc, keys } => {
                        self.loads += 1;
                        let values = keys.into_iter().map(|key| self.disk.get(&key).cloned()).collect();
                        todo.insert(0, Input::Loaded { doc, values: Ok(values) });
                    }
                    Output::Fetch { id, keys } => {
                        let values = keys.into_iter().map(|key| self.disk.get(&key).cloned()).collect();
                        todo.insert(0, Input::Fetched { id, values: Ok(values) });
                    }
                    Output::Reply { request, outcome } => drop(self.replies.insert(request, outcome)),
                    Output::Notify(event) => self.events.push(event),
                    Output::Misbehaved { peer, why } => self.misbehaved.push((peer, why)),
                    Output::Seek { .. } | Output::Held { .. } | Output::Dropped { .. } => {}
                }
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, span: Duration) {
        let end = self.now.after(span);
        while let Some(at) = self.replica.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handle(Input::Wake);
        }
        self.now = end;
    }

    /// A frame arrives; what is said to its sender in return.
    pub fn hears(&mut self, from: NodeId, frame: Vec<u8>) -> Vec<Vec<u8>> {
        self.handle(Input::Received { peer: from, frame });
        let (back, other) = self.sent.drain(..).partition(|(to, _)| *to == from);
        self.sent = other;
        let back: Vec<(NodeId, Vec<u8>)> = back;
        back.into_iter().map(|(_, frame)| frame).collect()
    }

    /// A local caller asks.
    ///
    /// # Errors
    /// What the machine answers.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&mut self, input: impl FnOnce(RequestId) -> Input) -> Result<Outcome, DocError> {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.handle(input(request));
        self.replies.remove(&request).unwrap_or_else(|| fail("no answer"))
    }

    /// Makes a document.
    ///
    /// # Panics
    /// When that is refused.
    pub fn create(&mut self) -> DocId {
        match self.ask(|request| Input::Create { request, history: None, edit: put("title", "a document") }) {
            Ok(Outcome::Opened { doc }) => doc,
            other => fail(&format!("{other:?}")),
        }
    }

    /// Makes a ticket.
    ///
    /// # Panics
    /// When that is refused.
    pub fn invite(&mut self, doc: DocId, role: Role, limits: &Bearer) -> (DocAccess, [u8; 16]) {
        let (expires, uses) = (limits.expires.map(UnixTime::from_millis), limits.uses);
        match self.ask(|request| Input::Invite { request, doc, role, expires, uses }) {
            Ok(Outcome::Invited { access, bearer }) => (access, bearer),
            other => fail(&format!("{other:?}")),
        }
    }

    /// The document as it is now.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn read(&mut self, doc: DocId) -> Automerge {
        let read = Box::new(|automerge: &Automerge, _: &Authors<'_>| automerge.save());
        match self.ask(|request| Input::Read { request, doc, read }) {
            Ok(Outcome::Read(bytes)) => {
                Automerge::load(&bytes).unwrap_or_else(|error| fail(&error.to_string()))
            }
            other => fail(&format!("{other:?}")),
        }
    }

    /// Opens a channel and makes a session; what the machine said since.
    pub fn meet(&mut self, speaker: &Speaker, redeem: Option<Envelope>) -> Vec<Message> {
        self.handle(Input::PeerUp { peer: speaker.id() });
        let answers = self.hears(speaker.id(), speaker.hello());
        let tag = speaker.access.read.tag();
        let challenge = answers
            .iter()
            .map(|frame| unframe(frame))
            .find(|(of, message)| *of == tag && matches!(message, Message::Challenge { .. }));
        let Some((_, challenge)) = challenge else { fail("no challenge came") };
        let (prove, _) = speaker.prove(self.id(), &challenge, redeem);
        let answers = self.hears(speaker.id(), prove);
        answers.iter().map(|frame| unframe(frame).1).collect()
    }
}

fn start(key: &SecretKey, disk: &BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Replica {
    let rows = |table| {
        let rows = disk.iter().filter(move |((of, _), _)| *of == table);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    };
    let config = Config {
        key: key.clone(),
        network: NetworkName::default(),
        seed: *key.to_bytes(),
        started: STARTED,
        label,
        show: Show::NOTHING,
    };
    let replica = Replica::new(config, rows(Table::Docs), rows(Table::DocControl), rows(Table::DocFeeds));
    replica.unwrap_or_else(|error| fail(&error.to_string()))
}

fn apply(disk: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put { table, key, value } => drop(disk.insert((table, key), value)),
            Write::Remove { table, key } => drop(disk.remove(&(table, key))),
            Write::RemoveRange { table, range } => {
                disk.retain(|(of, key), _| *of != table || !range.contains(key));
            }
        }
    }
}

/// An edit that sets a key.
#[must_use]
pub fn put(key: &str, value: &str) -> Edit {
    let (key, value) = (key.to_owned(), value.to_owned());
    Box::new(move |transaction| {
        transaction.put(automerge::ROOT, key, value).map_err(|error| error.to_string())
    })
}
