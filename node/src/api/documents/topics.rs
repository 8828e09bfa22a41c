//! Documents about topics.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{Bytes, ErrorDocument, PublishSchema, TopicReplySchema, TopicsSchema};

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// The payload, at most 128 KiB.
    pub data_b64: Bytes,
}

/// A message is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishDocument {
    /// `wattle.topic_pub/1`.
    pub schema: PublishSchema,
    /// The topic.
    pub topic: String,
    /// Bytes of the payload.
    pub bytes: u64,
    /// Mesh peers (or known subscribers) that it was given to.
    pub mesh_peers: u64,
    /// Subscribers on this node that got it.
    pub local: u64,
}

/// One line of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TopicLine {
    /// The node follows the patterns now: nothing published later is missed.
    Subscribed {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The patterns.
        patterns: Vec<String>,
    },
    /// A message arrived.
    Message(TopicMessageLine),
    /// Messages were lost because the reader was too slow.
    Gap {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// How many.
        lost: u64,
    },
    /// The subscription ended.
    Error {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Why.
        error: ErrorDocument,
    },
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicMessageLine {
    /// When it arrived.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// The topic.
    pub topic: String,
    /// Who published it; its signature was checked.
    #[schema(value_type = String)]
    pub from: NodeId,
    /// The publisher's petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The publisher's sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Bytes of the payload.
    pub bytes: u64,
    /// The payload.
    pub data_b64: Bytes,
    /// Where an answer is awaited: publish the answer there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The trace it belongs to, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// The topics this node follows or publishes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicsDocument {
    /// `wattle.topic_list/1`.
    pub schema: TopicsSchema,
    /// One row a root word.
    pub topics: Vec<TopicRow>,
}

/// A topic root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicRow {
    /// The root word.
    pub root: String,
    /// What is followed below it.
    pub patterns: Vec<TopicFollowers>,
    /// Peers in the mesh.
    #[schema(value_type = Vec<String>)]
    pub mesh: Vec<NodeId>,
    /// Connected peers that follow the root.
    pub subscribers: u64,
    /// Messages received since the start.
    pub received: u64,
    /// Messages published since the start.
    pub published: u64,
}

/// A pattern and its followers on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicFollowers {
    /// The pattern.
    pub pattern: String,
    /// How many subscriptions it has.
    pub followers: u64,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicQuestionRequest {
    /// The payload, at most 128 KiB.
    pub data_b64: Bytes,
    /// How long to wait for an answer; 10 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The first answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicReplyDocument {
    /// `wattle.topic_request/1`.
    pub schema: TopicReplySchema,
    /// Where the question went.
    pub topic: String,
    /// Who answered.
    #[schema(value_type = String)]
    pub from: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes of the answer.
    pub bytes: u64,
    /// The answer.
    pub data_b64: Bytes,
    /// How long it took.
    pub took_ms: u64,
}
