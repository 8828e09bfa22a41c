//! One room: what is known of it in memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value};
use serde::{Deserialize, Serialize};
use wattle_app::{DocInfo, RequestId, set_kind};
use wattle_types::limits::FEEDS_PER_DOC_MAX;
use wattle_types::{FeedId, NodeId, PostId, PostLink, Posted};

use crate::ask::{Kind, Mark, MarkOf, Member, Message, NICK_CHARS_MAX, Room, TOPIC_BYTES_MAX};
use crate::chat::KIND;
use crate::said::{Kept, KeptId, Said};

/// Own messages whose way is followed.
const OWN_MAX: usize = 256;
/// Bytes of edits that are known of: some ten thousand. The oldest are forgotten first, and what they changed is
/// shown as it was.
const CHANGES_BYTES_MAX: usize = 8 << 20;
/// Own messages that programs kept and whose numbers are known; the oldest are forgotten first, and would be said
/// twice if a program still asked for them.
const KEPT_MAX: usize = 16 * 1024;
/// A message that a program kept for longer is late.
const LATE: Duration = Duration::from_secs(5);
/// What an edit takes beside its text.
const CHANGE_BYTES: usize = 256;

/// What a room's document says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub topic: String,
    pub nicks: BTreeMap<String, String>,
}

/// The last word of somebody about a message.
#[derive(Clone, Debug)]
struct Change {
    link: PostLink,
    text: Option<String>,
}

impl Change {
    fn bytes(&self) -> usize {
        CHANGE_BYTES + self.text.as_ref().map_or(0, String::len)
    }
}

/// An own message on its way.
struct Own {
    id: PostId,
    feed: FeedId,
    seq: u64,
    told: (Mark, u64),
}

/// How far own messages came, each named by its feed's number and its own.
struct Reach {
    /// To each peer, in order.
    each: Vec<(u16, u64)>,
    /// To all who are here; none while somebody here has nothing.
    everyone: Option<(u16, u64)>,
}

impl Reach {
    /// How far one came: who holds it, and whether that is everyone who is here.
    fn way(&self, feed: &FeedId, seq: u64) -> (Mark, u64) {
        let place = (feed.number, seq);
        let holders = self.each.len() - self.each.partition_point(|reached| *reached < place);
        let mark = match (holders, self.everyone >= Some(place)) {
            (0, _) => Mark::Local,
            (_, false) => Mark::Reached,
            (_, true) => Mark::Everyone,
        };
        (mark, holders as u64)
    }
}

pub(crate) struct Known {
    pub info: DocInfo,
    pub facts: Facts,
    /// Edits and deletions, by what they are about and who says so. Somebody else's word about a message counts for
    /// nothing; whose it is may not be known yet.
    changes: BTreeMap<(PostId, NodeId), Change>,
    /// The same by age.
    changed: BTreeMap<PostLink, (PostId, NodeId)>,
    change_bytes: usize,
    /// Own messages that programs kept, by number and by age.
    kept: BTreeMap<KeptId, PostLink>,
    kept_by_age: BTreeMap<PostLink, KeptId>,
    /// Those on their way to the disk, and who waits for them.
    pub keeping: BTreeMap<KeptId, Vec<RequestId>>,
    /// Everything from here on was looked through for edits and for kept messages.
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
            changed: BTreeMap::new(),
            change_bytes: 0,
            kept: BTreeMap::new(),
            kept_by_age: BTreeMap::new(),
            keeping: BTreeMap::new(),
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

    /// The own message with this number.
    pub(crate) fn kept(&self, id: KeptId) -> Option<PostId> {
        self.kept.get(&id).map(|link| link.id)
    }

    fn note_kept(&mut self, id: KeptId, link: PostLink) {
        // Of two with one number, which only another copy of this node can have made, the first counts.
        if self.kept.get(&id).is_some_and(|known| *known <= link) {
            return;
        }
        if let Some(before) = self.kept.insert(id, link) {
            self.kept_by_age.remove(&before);
        }
        self.kept_by_age.insert(link, id);
        if self.kept_by_age.len() > KEPT_MAX
            && let Some((_, oldest)) = self.kept_by_age.pop_first()
        {
            self.kept.remove(&oldest);
        }
    }

    /// Takes note of an edit, a deletion, or the number of an own message.
    pub(crate) fn note(&mut self, me: NodeId, posted: &Posted, said: &Said) {
        let (of, text) = match said {
            Said::Edit { of, text } => (*of, Some(text.clone())),
            Said::Delete { of } => (*of, None),
            Said::Kept(kept) if posted.author == me => return self.note_kept(kept.id, posted.link()),
            Said::Text(_) | Said::Action(_) | Said::Kept(_) => return,
        };
        let change = Change { link: posted.link(), text };
        let key = (of, posted.author);
        if self.changes.get(&key).is_some_and(|known| known.link >= change.link) {
            return;
        }
        self.changed.insert(change.link, key);
        self.change_bytes += change.bytes();
        if let Some(before) = self.changes.insert(key, change) {
            self.changed.remove(&before.link);
            self.change_bytes -= before.bytes();
        }
        while self.change_bytes > CHANGES_BYTES_MAX {
            let Some((_, oldest)) = self.changed.pop_first() else { return };
            self.change_bytes -= self.changes.remove(&oldest).map_or(0, |change| change.bytes());
        }
    }

    /// Whether an entry is a message, not a word about another.
    pub(crate) fn is_message(said: Option<&Said>) -> bool {
        !matches!(said, Some(Said::Edit { .. } | Said::Delete { .. }))
    }

    /// An entry as it is shown; none for one that only changes another.
    pub(crate) fn message(&self, me: NodeId, posted: &Posted) -> Option<Message> {
        let signed = posted.post.at.wall();
        let mut written = signed;
        let (kind, text) = match Said::decode(&posted.post.body) {
            Some(Said::Text(text)) => (Kind::Text, text),
            Some(Said::Action(text)) => (Kind::Action, text),
            Some(Said::Kept(Kept { written: at, action, text, .. })) => {
                written = at.min(signed);
                (if action { Kind::Action } else { Kind::Text }, text)
            }
            Some(Said::Edit { .. } | Said::Delete { .. }) => return None,
            None => (Kind::Unknown, String::new()),
        };
        let change = self.changes.get(&(posted.id, posted.author));
        let (kind, text) = match change.map(|change| &change.text) {
            None => (kind, text),
            Some(Some(text)) => (kind, text.clone()),
            Some(None) => (Kind::Deleted, String::new()),
        };
        let way = (posted.author == me).then(|| self.reach().way(&posted.feed(), posted.post.seq));
        Some(Message {
            id: posted.id,
            room: self.info.doc,
            from: posted.author,
            nick: self.nick(&posted.author),
            at: posted.post.at,
            written,
            parents: posted.post.prev.iter().chain(&posted.post.seen).map(|link| link.id).collect(),
            received: posted.received,
            late: posted.late || signed.since(written) > LATE,
            forked: posted.forked,
            kind,
            text,
            edited: change.is_some(),
            mark: way.map(|(mark, _)| mark),
            acks: way.map_or(0, |(_, acks)| acks),
        })
    }

    fn reach(&self) -> Reach {
        let place = |(feed, last): &(FeedId, u64)| (feed.number, *last);
        let mut each: Vec<(u16, u64)> = self.reached.values().map(place).collect();
        each.sort_unstable();
        let here = self.info.here.keys().map(|peer| self.reached.get(peer).map(place));
        Reach { each, everyone: here.min().unwrap_or(Some((u16::MAX, u64::MAX))) }
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
        let (reach, mut marks) = (self.reach(), Vec::new());
        for own in &mut self.own {
            let way = reach.way(&own.feed, own.seq);
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

/// Whether a nick can be shown: something of it is seen, and it does nothing to the text around it.
pub(crate) fn is_nick(nick: &str) -> bool {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !nick.chars().any(|c| c.is_control() || turns(c)) && !shape(nick).is_empty()
}

/// What people see of a nick, as far as that can be said simply: letters of other scripts that look alike are not
/// looked into.
fn shape(nick: &str) -> String {
    let is_seen = |c: &char| {
        let hidden = matches!(*c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}');
        !hidden && !c.is_whitespace()
    };
    nick.chars().filter(is_seen).flat_map(char::to_lowercase).collect()
}

/// C1: of those that call themselves the same, and of who calls itself like the end of an id, the ends of their ids
/// are shown too.
fn told_apart(nicks: BTreeMap<String, (NodeId, String)>) -> BTreeMap<String, String> {
    let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
    for (_, nick) in nicks.values() {
        *shapes.entry(shape(nick)).or_default() += 1;
    }
    let shown = |(key, (node, nick)): (String, (NodeId, String))| {
        let shape = shape(&nick);
        let alone = shapes.get(&shape) == Some(&1) && !shape.starts_with("..");
        (key, if alone { nick } else { format!("{nick}..{}", node.short()) })
    };
    nicks.into_iter().map(shown).collect()
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
            if let Some(node) = key.parse::<NodeId>().ok().filter(|_| is_nick(&nick)) {
                nicks.insert(key, (node, nick));
            }
        }
    }
    let nicks = told_apart(nicks);
    Facts { topic: text(topic, TOPIC_BYTES_MAX), nicks }
}
