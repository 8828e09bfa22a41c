//! Documents about peers and tickets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    BlockSchema, ConnectSchema, DisconnectSchema, Doc, DocRole, ErrorDocument, InviteSchema, JoinSchema,
    NameSchema, PathName, PeersSchema, PingSchema, TransportName,
};

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is called on this machine, when it runs here too: a label it gave itself, no petname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Directly or relayed.
    pub path: PathName,
    /// Over what.
    pub transport: TransportName,
    /// Which peer relays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub via: Option<NodeId>,
    /// The other end, as a multiaddr.
    pub address: String,
    /// Smoothed round trip, once one was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The round trip that both nodes' network coordinates predict, when it is a member whose coordinate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<f64>,
    /// How long it has been connected.
    pub connected_ms: u64,
    /// Whether this node dialed.
    pub outbound: bool,
    /// How it was found.
    pub source: SourceName,
    /// Bytes received from it.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The protocols it speaks.
    pub protocols: Vec<String>,
    /// Where it says it listens.
    pub listens: Vec<String>,
}

/// How a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceName {
    /// It dialed us, or the DHT told of it.
    Overlay,
    /// From an earlier run.
    AddressBook,
    /// Configured.
    Bootstrap,
    /// Multicast on the local network.
    Mdns,
    /// A file of another node on this machine.
    SameMachine,
    /// Somebody typed it, or a ticket had it.
    Asked,
}

/// A peer by id, with its petname.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerName {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The connections of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeersDocument {
    /// `wattle.peers/1`.
    pub schema: PeersSchema,
    /// Connected peers.
    pub peers: Vec<Peer>,
    /// Peers of a name or of the address book that are not connected; only with `all=true`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<PeerName>,
    /// Blocked peers; only with `all=true`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<PeerName>,
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectRequest {
    /// A petname, short id, peer id, multiaddr or ticket.
    pub peer: String,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A peer is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectDocument {
    /// `wattle.connect/1`.
    pub schema: ConnectSchema,
    /// The connection.
    pub peer: Peer,
}

/// Whom to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectRequest {
    /// A petname, short id or peer id.
    pub peer: String,
}

/// A peer was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisconnectDocument {
    /// `wattle.disconnect/1`.
    pub schema: DisconnectSchema,
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// False when it was not connected.
    pub disconnected: bool,
}

/// Whom to block or let in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// A petname, short id or peer id.
    pub peer: String,
    /// False lets it in again.
    pub blocked: bool,
}

/// A peer is blocked, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockDocument {
    /// `wattle.block/1`.
    pub schema: BlockSchema,
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is blocked now.
    pub blocked: bool,
}

/// Which petname to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NameRequest {
    /// A petname, short id, peer id, multiaddr with an id, or ticket.
    pub peer: String,
    /// The new petname; absent removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A peer has a petname, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NameDocument {
    /// `wattle.name/1`.
    pub schema: NameSchema,
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Whom to ping, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// A petname, short id, peer id, multiaddr or ticket.
    pub peer: String,
    /// How many; 4 when absent, 0 = until the client hangs up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Between two; 1 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// For each; 10 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// End with the first direct answer.
    #[serde(default)]
    pub until_direct: bool,
}

/// One line of a ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PingLine {
    /// An answer.
    Reply {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which ping, from 1.
        seq: u64,
        /// Who answered.
        #[schema(value_type = String)]
        id: NodeId,
        /// Its petname here.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The round trip.
        rtt_ms: f64,
        /// Directly or relayed.
        path: PathName,
        /// Over what.
        transport: TransportName,
        /// Which peer relays.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        via: Option<NodeId>,
        /// The other end.
        address: String,
    },
    /// No answer.
    Lost {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Which ping, from 1.
        seq: u64,
        /// Why.
        error: ErrorDocument,
    },
    /// The sum, last.
    Done {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// `wattle.ping/1`.
        schema: PingSchema,
        /// Who was pinged.
        #[schema(value_type = String)]
        id: NodeId,
        /// Its petname here.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Pings sent.
        sent: u64,
        /// Answers.
        answered: u64,
        /// The fastest.
        #[serde(skip_serializing_if = "Option::is_none")]
        min_ms: Option<f64>,
        /// The mean.
        #[serde(skip_serializing_if = "Option::is_none")]
        avg_ms: Option<f64>,
        /// The slowest.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_ms: Option<f64>,
        /// The path of the last answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<PathName>,
        /// The transport of the last answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        transport: Option<TransportName>,
    },
}

/// What a ticket should say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// How long it lets somebody in; 7 days when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Into which room, by its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// To which document, by its title or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// What whoever uses it may do with the room or document; a writer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<DocRole>,
    /// How many it lets into the room or document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteDocument {
    /// `wattle.invite/1`.
    pub schema: InviteSchema,
    /// The text to hand over.
    pub ticket: String,
    /// The network it leads into.
    pub network: String,
    /// The room it leads into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The document it leads to; a room's too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// Whether the key of a private network travels inside: then whoever holds the ticket can join.
    pub private: bool,
    /// Who invites.
    #[schema(value_type = String)]
    pub inviter: NodeId,
    /// The addresses inside, `ip:port`.
    pub addresses: Vec<String>,
    /// Until when it lets somebody in.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// What to know before handing it over, such as that only this machine can reach the addresses inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Which ticket to accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The ticket.
    pub ticket: String,
    /// A petname for the inviter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What this node calls itself in the room that the ticket leads into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nick: Option<String>,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A ticket was accepted: the inviter is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JoinDocument {
    /// `wattle.join/1`.
    pub schema: JoinSchema,
    /// The network.
    pub network: String,
    /// The inviter.
    pub peer: Peer,
    /// The room that was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The document that was opened; a room's too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<Doc>,
    /// How long it took.
    pub took_ms: u64,
}
