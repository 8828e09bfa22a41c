//! Petnames: what this node's owner calls other peers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use wattle_net::Address;
use wattle_store::{CommitError, Failure, Store};
use wattle_types::{NodeId, Table, Ticket, Write};

use super::documents::PeerName;
use super::failure::ApiFailure;
use crate::clock::{timestamp, unix_now};
use crate::exit::ErrorCode;
use crate::node::Node;
use crate::paths::NodeName;

/// Characters in a petname.
const NAME_CHARS_MAX: usize = 32;
/// Characters of a short id that are enough when they are unique.
const SUFFIX_CHARS_MIN: usize = 4;

/// Labels kept: nodes on one machine are few.
const LABELS_MAX: usize = 1024;
/// Bytes of a text that names a peer; a ticket is the longest and has some 200.
const WHOM_BYTES_MAX: usize = 1024;

/// Petnames, kept on disk.
pub struct Names {
    names: RwLock<BTreeMap<NodeId, String>>,
    /// What nodes on this machine call themselves. They are for the eye: nobody is found by one.
    labels: RwLock<BTreeMap<NodeId, NodeName>>,
    store: Arc<Store>,
}

impl Names {
    /// Reads the names from disk.
    ///
    /// # Errors
    /// The disk's failure.
    pub fn open(store: Arc<Store>) -> Result<Self, Failure> {
        let row = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((NodeId::from_public_key(key.try_into().ok()?), String::from_utf8(value).ok()?))
        };
        let names = store.scan(Table::Petnames)?.into_iter().filter_map(row).collect();
        Ok(Self { names: RwLock::new(names), labels: RwLock::default(), store })
    }

    /// The petname of a peer.
    #[must_use]
    pub fn of(&self, peer: NodeId) -> Option<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    /// What a node on this machine calls itself.
    #[must_use]
    pub fn label(&self, peer: NodeId) -> Option<String> {
        self.labels.read().unwrap_or_else(PoisonError::into_inner).get(&peer).map(ToString::to_string)
    }

    /// Remembers what a node on this machine calls itself, until this one ends.
    pub fn set_label(&self, peer: NodeId, label: NodeName) {
        let mut labels = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        if labels.len() < LABELS_MAX || labels.contains_key(&peer) {
            labels.insert(peer, label);
        }
    }

    /// The peer of a petname.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<NodeId> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().find(|(_, known)| *known == name).map(|(peer, _)| *peer)
    }

    /// Every named peer.
    #[must_use]
    pub fn all(&self) -> BTreeMap<NodeId, String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A peer with its name, for a document.
    #[must_use]
    pub fn row(&self, id: NodeId) -> PeerName {
        PeerName { id, name: self.of(id) }
    }

    /// How a person is told of a peer: its petname, else `..` and its last six characters.
    #[must_use]
    pub fn shown(&self, peer: NodeId) -> String {
        self.of(peer).unwrap_or_else(|| format!("..{}", peer.short()))
    }

    /// Gives or takes a name; it is on disk when this returns.
    ///
    /// # Errors
    /// The disk's; nothing changed then.
    pub async fn set(&self, peer: NodeId, name: Option<String>) -> Result<(), CommitError> {
        let (table, key) = (Table::Petnames, peer.public_key().to_vec());
        let write = match &name {
            Some(name) => Write::Put { table, key, value: name.clone().into_bytes() },
            None => Write::Remove { table, key },
        };
        self.store.commit(vec![write]).await?;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        match name {
            Some(name) => drop(names.insert(peer, name)),
            None => drop(names.remove(&peer)),
        }
        Ok(())
    }
}

/// Checks a petname: it must never be taken for an id, an address, a ticket, a key or a flag.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let sized = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    let spelled = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    let starts = name.starts_with(char::is_alphanumeric);
    if !(sized && spelled && starts) {
        return Err(format!("`{name}` is no petname: 1 to {NAME_CHARS_MAX} letters, digits, `-` or `_`"));
    }
    if name.starts_with("12D3KooW") {
        return Err(format!("`{name}` looks like a peer id"));
    }
    Ok(())
}

/// Whom a person means.
#[derive(Clone, Debug)]
pub struct Whom {
    /// The peer, when the text says which. An address may not.
    pub id: Option<NodeId>,
    /// Addresses that the text itself holds.
    pub addresses: Vec<Address>,
    /// How to name it in messages.
    pub shown: String,
    /// The ticket, when it was one.
    pub ticket: Option<Ticket>,
}

/// Reads a petname, a unique short id, a full peer id, a multiaddr or a ticket.
///
/// # Errors
/// What the text is not, or whom it could mean.
pub(super) async fn resolve(node: &Node, text: &str) -> Result<Whom, ApiFailure> {
    let text = text.trim();
    if text.len() > WHOM_BYTES_MAX {
        return Err(ApiFailure::usage(format!(
            "whoever is meant, {} bytes are too many to say it",
            text.len()
        )));
    }
    if text.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("wattle:")) {
        let ticket = read_ticket(node, text)?;
        let addresses = ticket.endpoints.iter().flat_map(Address::of_endpoint).collect();
        let shown = node.names.shown(ticket.inviter);
        return Ok(Whom { id: Some(ticket.inviter), addresses, shown, ticket: Some(ticket) });
    }
    if text.starts_with('/') {
        let address: Address = text.parse().map_err(ApiFailure::usage)?;
        let id = address.peer();
        let shown = id.map_or_else(|| address.to_string(), |id| node.names.shown(id));
        return Ok(Whom { id, addresses: vec![address.without_peer()], shown, ticket: None });
    }
    let id = resolve_id(node, text).await?;
    Ok(Whom { id: Some(id), addresses: Vec::new(), shown: node.names.shown(id), ticket: None })
}

/// Like [`resolve`], where only a known peer will do.
///
/// # Errors
/// As [`resolve`].
pub(super) async fn resolve_peer(node: &Node, text: &str) -> Result<NodeId, ApiFailure> {
    let whom = resolve(node, text).await?;
    whom.id.ok_or_else(|| {
        ApiFailure::usage(format!("`{text}` does not say which peer")).hint("add /p2p/ and the peer id")
    })
}

/// Reads a ticket and checks that it leads into this node's network.
///
/// # Errors
/// Damaged, expired, or of another network.
pub(super) fn read_ticket(node: &Node, text: &str) -> Result<Ticket, ApiFailure> {
    let ticket = Ticket::read(text, unix_now()).map_err(|error| match error {
        wattle_types::TicketError::Expired { at } => {
            let day = timestamp(at).to_string();
            ApiFailure::new(ErrorCode::Invalid, format!("the ticket expired on {day}"))
                .hint("ask for a new one: wattle invite")
        }
        other => {
            ApiFailure::new(ErrorCode::Invalid, other.to_string()).hint("copy the whole ticket once more")
        }
    })?;
    if ticket.network != *node.overlay.network() {
        let message = format!(
            "the ticket is for network \"{}\", and this node is in \"{}\"",
            ticket.network,
            node.overlay.network()
        );
        return Err(ApiFailure::new(ErrorCode::Conflict, message)
            .hint("a second node can join it: wattle -n NAME join <ticket>"));
    }
    if ticket.network_key != node.network_key {
        let message = format!("the ticket holds another key of the private network \"{}\"", ticket.network);
        return Err(ApiFailure::new(ErrorCode::Conflict, message)
            .hint("a second node can join it: wattle -n NAME join <ticket>"));
    }
    Ok(ticket)
}

async fn resolve_id(node: &Node, text: &str) -> Result<NodeId, ApiFailure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if let Some(id) = node.names.peer(text) {
        return Ok(id);
    }
    let suffix = text.trim_start_matches(['.', '…']);
    let unknown = || {
        ApiFailure::new(ErrorCode::NotFound, format!("no peer is known as `{text}`"))
            .hint("wattle peers --all")
            .detail("a peer is", "a petname, a short id, a peer id, a multiaddr or a ticket")
    };
    if suffix.len() < SUFFIX_CHARS_MIN {
        return Err(unknown());
    }
    let status = node.overlay.status().await?;
    let mut known: Vec<NodeId> = status.peers.iter().map(|peer| peer.peer).collect();
    known.extend(node.names.all().into_keys());
    known.extend(node.overlay.blocked().await?);
    known.extend(node.overlay.known().await?.into_iter().map(|(peer, _addresses)| peer));
    known.extend(
        node.overlay.table().await?.iter().flat_map(|bucket| bucket.peers.iter().map(|peer| peer.peer)),
    );
    known.extend(node.members.view().members.iter().map(|member| member.id));
    known.push(node.overlay.id());
    known.retain(|id| id.to_string().ends_with(suffix));
    known.sort();
    known.dedup();
    match known.as_slice() {
        [] => Err(unknown()),
        [id] => Ok(*id),
        several => {
            let mut failure = ApiFailure::usage(format!("`{text}` could be {} peers", several.len()));
            for id in several {
                failure = failure.detail("maybe", id.to_string());
            }
            Err(failure.hint("give more characters of the id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use wattle_store::Owner;

    use super::*;

    #[tokio::test]
    async fn a_petname_outlives_a_restart_and_can_be_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(directory.path(), Owner::this_process("test")).unwrap();
            Names::open(Arc::new(store)).unwrap()
        };
        let bob = NodeId::from_public_key([7; 32]);
        let names = open();
        names.set(bob, Some("bob".to_owned())).await.unwrap();
        drop(names);
        let names = open();
        assert_eq!((names.of(bob).as_deref(), names.peer("bob")), (Some("bob"), Some(bob)));
        names.set(bob, None).await.unwrap();
        assert_eq!(names.shown(bob), format!("..{}", bob.short()));
    }

    #[test]
    fn a_petname_is_never_taken_for_something_else() {
        for bad in
            ["", "a b", "/ip4", "wattle:1x", "..abcd", "-n", "a/b", "hash:x", "12D3KooWx", &"a".repeat(33)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["bob", "Bob-2", "阿明"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
