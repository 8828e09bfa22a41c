//! One room: what is known of it in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value};
use serde::{Deserialize, Serialize};
use wattle_app::{DocInfo, set_kind};
use wattle_types::limits::FEEDS_PER_DOC_MAX;
use wattle_types::{FeedId, NodeId, PostId, PostLink, Posted};

use crate::ask::{Kind, Mark, MarkOf, Member, Message, NICK_CHARS_MAX, Room, TOPIC_BYTES_MAX};
use crate::chat::KIND;
use crate::said::Said;

/// Own messages whose way is followed.
const OWN_MAX: usize = 256;
/// Edits that are known of; the oldest are forgotten first.
const CHANGES_MAX: usize = 100_000;

/// What a room's document says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub topic: String,
    pub nicks: BTreeMap<String, String>,
}

/// The last word about a message.
#[derive(Clone, Debug)]
struct Change {
    link: PostLink,
    text: Option<String>,
}

/// An own message on its way.
struct Own {
    id: PostId,
    feed: FeedId,
    seq: u64,
    told: (Mark, u64),
}

pub(crate) struct Known {
    pub info: DocInfo,
    pub facts: Facts,
    /// Edits and deletions, by what they are about and who made them: somebody else's word must not hide the
    /// author's.
    changes: BTreeMap<(PostId, NodeId), Change>,
    /// The same, the oldest first.
    changes_by_age: BTreeMap<PostLink, (PostId, NodeId)>,
    /// Everything from here on was looked through for them.
    pub scanned: Option<PostLink>,
    reached: BTreeMap<NodeId, (FeedId, u64)>,
    own: VecDeque<Own>,
}

impl Known {
    pub(crate) const fn new(info: DocInfo) -> Self {
        Self {
            info,
            facts: Facts { topic: String::new(), nicks: BTreeMap::new() },
            changes: BTreeMap::new(),
            changes_by_age: BTreeMap::new(),
            scanned: None,
            reached: BTreeMap::new(),
            own: VecDeque::new(),
        }
    }

    pub(crate) fn nick(&self, node: &NodeId) -> String {
        self.facts.nicks.get(&node.to_string()).cloned().unwrap_or_default()
    }

    pub(crate) fn room(&self, me: NodeId) -> Room {
        let member = |id: NodeId| Member {
            id,
            nick: self.nick(&id),
            here: id == me || self.info.here.contains_key(&id),
            in_sync: id == me || self.info.here.get(&id) == Some(&true),
        };
        let mine = self.info.members.iter().filter(|id| **id == me);
        let others = self.info.members.iter().filter(|id| **id != me);
        Room {
            doc: self.info.doc,
            name: self.info.title.clone(),
            topic: self.facts.topic.clone(),
            since: self.info.since,
            may_write: self.info.may_write,
            members: mine.chain(others).map(|id| member(*id)).collect(),
            posts: self.info.posts,
            posts_missing: self.info.posts_missing,
        }
    }

    /// Takes note of an edit or a deletion.
    pub(crate) fn note(&mut self, posted: &Posted, said: &Said) {
        let (of, text) = match said {
            Said::Edit { of, text } => (*of, Some(text.clone())),
            Said::Delete { of } => (*of, None),
            Said::Text(_) | Said::Action(_) => return,
        };
        let (about, change) = ((of, posted.author), Change { link: posted.link(), text });
        if self.changes.get(&about).is_some_and(|known| known.link >= change.link) {
            return;
        }
        self.changes_by_age.insert(change.link, about);
        if let Some(older) = self.changes.insert(about, change) {
            self.changes_by_age.remove(&older.link);
        }
        if self.changes.len() > CHANGES_MAX
            && let Some((_, oldest)) = self.changes_by_age.pop_first()
        {
            self.changes.remove(&oldest);
        }
    }

    /// An entry as it is shown; none for one that only changes another.
    pub(crate) fn message(&self, me: NodeId, posted: &Posted) -> Option<Message> {
        let (kind, text) = match Said::decode(&posted.post.body) {
            Some(Said::Text(text)) => (Kind::Text, text),
            Some(Said::Action(text)) => (Kind::Action, text),
            Some(Said::Edit { .. } | Said::Delete { .. }) => return None,
            None => (Kind::Unknown, String::new()),
        };
        let change = self.changes.get(&(posted.id, posted.author));
        let (kind, text) = match change.map(|change| &change.text) {
            None => (kind, text),
            Some(Some(text)) => (kind, text.clone()),
            Some(None) => (Kind::Deleted, String::new()),
        };
        let way = (posted.author == me).then(|| self.way(&posted.feed(), posted.post.seq));
        Some(Message {
            id: posted.id,
            room: self.info.doc,
            from: posted.author,
            nick: self.nick(&posted.author),
            at: posted.post.at,
            parents: posted.post.prev.iter().chain(&posted.post.seen).map(|link| link.id).collect(),
            received: posted.received,
            late: posted.late,
            forked: posted.forked,
            kind,
            text,
            edited: change.is_some(),
            mark: way.map(|(mark, _)| mark),
            acks: way.map_or(0, |(_, acks)| acks),
        })
    }

    /// How far an own message came: who holds it, and whether that is everyone who is here.
    fn way(&self, feed: &FeedId, seq: u64) -> (Mark, u64) {
        let holds = |(of, last): &(FeedId, u64)| (of.number, *last) >= (feed.number, seq);
        let holders: BTreeSet<&NodeId> =
            self.reached.iter().filter(|(_, reached)| holds(reached)).map(|(peer, _)| peer).collect();
        let everyone = self.info.here.keys().all(|peer| holders.contains(peer));
        let mark = match (holders.is_empty(), everyone) {
            (true, _) => Mark::Local,
            (false, false) => Mark::Reached,
            (false, true) => Mark::Everyone,
        };
        (mark, holders.len() as u64)
    }

    pub(crate) fn follow(&mut self, posted: &Posted) {
        let own = Own { id: posted.id, feed: posted.feed(), seq: posted.post.seq, told: (Mark::Local, 0) };
        self.own.push_back(own);
        if self.own.len() > OWN_MAX {
            self.own.pop_front();
        }
    }

    pub(crate) fn reached(&mut self, peer: NodeId, feed: FeedId, seq: u64) {
        let last = self.reached.entry(peer).or_insert((feed, seq));
        *last = (*last).max((feed, seq));
    }

    /// Own messages that came farther since it was last asked.
    pub(crate) fn marks(&mut self) -> Vec<MarkOf> {
        let ways: Vec<_> = self.own.iter().map(|own| self.way(&own.feed, own.seq)).collect();
        let mut marks = Vec::new();
        for (own, way) in self.own.iter_mut().zip(ways) {
            if own.told != way {
                own.told = way;
                marks.push(MarkOf { id: own.id, mark: way.0, acks: way.1 });
            }
        }
        marks
    }
}

/// Writes what a new room holds.
pub(crate) fn found(tx: &mut Transaction<'_>, name: &str) -> Result<(), String> {
    set_kind(tx, KIND)?;
    let put = |error: automerge::AutomergeError| error.to_string();
    tx.put(ROOT, "title", name).map_err(put)?;
    tx.put_object(ROOT, "nicks", ObjType::Map).map_err(put).map(drop)
}

/// Sets what a node is called.
pub(crate) fn set_nick(tx: &mut Transaction<'_>, node: &NodeId, nick: &str) -> Result<(), String> {
    let nicks = match tx.get(ROOT, "nicks") {
        Ok(Some((Value::Object(ObjType::Map), id))) => Ok(id),
        _ => tx.put_object(ROOT, "nicks", ObjType::Map),
    };
    let nicks: ObjId = nicks.map_err(|error| error.to_string())?;
    let done = if nick.is_empty() {
        tx.delete(nicks, node.to_string())
    } else {
        tx.put(nicks, node.to_string(), nick)
    };
    done.map_err(|error| error.to_string())
}

/// Sets what a room is about.
pub(crate) fn set_topic(tx: &mut Transaction<'_>, topic: &str) -> Result<(), String> {
    tx.put(ROOT, "topic", topic).map_err(|error| error.to_string())
}

fn string(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Scalar(value) => match value.as_ref() {
            ScalarValue::Str(text) => Some(text.to_string()),
            _ => None,
        },
        Value::Object(_) => None,
    }
}

/// What a room's document says, as far as it makes sense: members write it, and nobody checked them.
pub(crate) fn facts(doc: &Automerge) -> Facts {
    let text = |value: Option<Value<'_>>, bytes_max: usize| {
        value.as_ref().and_then(string).filter(|text| text.len() <= bytes_max).unwrap_or_default()
    };
    let topic = doc.get(ROOT, "topic").ok().flatten().map(|(value, _)| value);
    let mut nicks = BTreeMap::new();
    if let Ok(Some((Value::Object(ObjType::Map), id))) = doc.get(ROOT, "nicks") {
        for key in doc.keys(&id).take(FEEDS_PER_DOC_MAX) {
            let value = doc.get(&id, key.as_str()).ok().flatten().map(|(value, _)| value);
            let nick = text(value, NICK_CHARS_MAX * 4);
            if !nick.is_empty() {
                nicks.insert(key, nick);
            }
        }
    }
    Facts { topic: text(topic, TOPIC_BYTES_MAX), nicks }
}
