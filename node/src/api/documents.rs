//! Every JSON document the API returns or accepts.
//!
//! The rules: a top-level document says what it is (`"schema": "wattle.<command>/1"`); times are RFC 3339 in
//! UTC, durations `*_ms`, ids in full, bytes `*_b64`; enumerations are lower_snake; what is unknown is
//! absent, never null. Streams are JSON Lines, each line with `type` and `ts`; the last line of a stream that
//! failed is `{"type":"error",..}`.

mod admin;
mod dht;
mod docs;
mod events;
mod faults;
mod members;
mod node;
mod order;
mod past;
mod peers;
mod register;
mod rooms;
mod topics;

pub use admin::*;
pub use dht::*;
pub use docs::*;
pub use events::*;
pub use faults::*;
pub use members::*;
pub use node::*;
pub use order::*;
pub use past::*;
pub use peers::*;
pub use register::*;
pub use rooms::*;
pub use topics::*;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::exit::ErrorCode;

/// Bytes, as base64 with padding in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = Byte, example = "aGVsbG8=")]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Names of documents: each a type of its own with one value, so that a document can neither be written nor
/// read under a name that is not its own.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $text:tt,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            /// The only version.
            #[default]
            #[serde(rename = $text)]
            V1,
        }
    )*};
}

schemas! {
    /// Names [`ErrorDocument`].
    ErrorSchema = "wattle.error/1",
    /// Names [`StatusDocument`].
    StatusSchema = "wattle.status/1",
    /// Names [`IdDocument`].
    IdSchema = "wattle.id/1",
    /// Names [`VersionDocument`].
    VersionSchema = "wattle.version/1",
    /// Names [`HealthDocument`].
    HealthSchema = "wattle.health/1",
    /// Names [`DoctorDocument`].
    DoctorSchema = "wattle.doctor/1",
    /// Names [`WaitDocument`].
    WaitSchema = "wattle.wait/1",
    /// Names [`StopDocument`].
    StopSchema = "wattle.stop/1",
    /// Names [`RunLine`]'s first line.
    RunSchema = "wattle.run/1",
    /// Names [`PeersDocument`].
    PeersSchema = "wattle.peers/1",
    /// Names [`ConnectDocument`].
    ConnectSchema = "wattle.connect/1",
    /// Names [`DisconnectDocument`].
    DisconnectSchema = "wattle.disconnect/1",
    /// Names [`BlockDocument`].
    BlockSchema = "wattle.block/1",
    /// Names [`NameDocument`].
    NameSchema = "wattle.name/1",
    /// Names the last line of a ping.
    PingSchema = "wattle.ping/1",
    /// Names [`MembersDocument`].
    MembersSchema = "wattle.members/1",
    /// Names [`MembersLeaveDocument`].
    MembersLeaveSchema = "wattle.members_leave/1",
    /// Names [`MembersRemoveDocument`].
    MembersRemoveSchema = "wattle.members_remove/1",
    /// Names [`OrderStatusDocument`].
    OrderStatusSchema = "wattle.order_status/1",
    /// Names [`OrderJoinDocument`].
    OrderJoinSchema = "wattle.order_join/1",
    /// Names [`OrderSubmitDocument`].
    OrderSubmitSchema = "wattle.order_submit/1",
    /// Names [`OrderValidatorsDocument`].
    OrderValidatorsSchema = "wattle.order_validators/1",
    /// Names [`OrderLogDocument`].
    OrderLogSchema = "wattle.order_log/1",
    /// Names [`OrderBlockDocument`].
    OrderBlockSchema = "wattle.order_block/1",
    /// Names [`OrderVerifyDocument`].
    OrderVerifySchema = "wattle.order_verify/1",
    /// Names [`OrderSubmissionsDocument`].
    OrderSubmissionsSchema = "wattle.order_submissions/1",
    /// Names [`OrderChangeDocument`].
    OrderChangeSchema = "wattle.order_change/1",
    /// Names [`OrderSnapshotDocument`].
    OrderSnapshotSchema = "wattle.order_snapshot/1",
    /// Names [`OrderSnapshotsDocument`].
    OrderSnapshotsSchema = "wattle.order_snapshots/1",
    /// Names [`OrderRestoreDocument`].
    OrderRestoreSchema = "wattle.order_restore/1",
    /// Names [`RegistersDocument`].
    RegistersSchema = "wattle.registers/1",
    /// Names [`RegisterDocument`].
    RegisterSchema = "wattle.register/1",
    /// Names [`RegisterAppendDocument`].
    RegisterAppendSchema = "wattle.register_append/1",
    /// Names [`InviteDocument`].
    InviteSchema = "wattle.invite/1",
    /// Names [`JoinDocument`].
    JoinSchema = "wattle.join/1",
    /// Names [`DhtPutDocument`].
    DhtPutSchema = "wattle.dht_put/1",
    /// Names [`DhtGetDocument`].
    DhtGetSchema = "wattle.dht_get/1",
    /// Names [`DhtProvideDocument`].
    DhtProvideSchema = "wattle.dht_provide/1",
    /// Names [`DhtProvidersDocument`].
    DhtProvidersSchema = "wattle.dht_find_providers/1",
    /// Names [`DhtPeerDocument`].
    DhtPeerSchema = "wattle.dht_find_peer/1",
    /// Names [`DhtClosestDocument`].
    DhtClosestSchema = "wattle.dht_closest/1",
    /// Names [`DhtTableDocument`].
    DhtTableSchema = "wattle.dht_table/1",
    /// Names the last line of a trace.
    DhtTraceSchema = "wattle.dht_trace/1",
    /// Names [`DhtStatsDocument`].
    DhtStatsSchema = "wattle.dht_stats/1",
    /// Names [`PublishDocument`].
    PublishSchema = "wattle.topic_pub/1",
    /// Names [`TopicsDocument`].
    TopicsSchema = "wattle.topic_list/1",
    /// Names [`TopicReplyDocument`].
    TopicReplySchema = "wattle.topic_request/1",
    /// Names [`DocDocument`].
    DocSchema = "wattle.doc/1",
    /// Names [`DocsDocument`].
    DocsSchema = "wattle.docs/1",
    /// Names [`DocContentDocument`].
    DocContentSchema = "wattle.doc_show/1",
    /// Names [`DocEditDocument`].
    DocEditSchema = "wattle.doc_edit/1",
    /// Names [`DocHistoryDocument`].
    DocHistorySchema = "wattle.doc_history/1",
    /// Names [`DocDiffDocument`].
    DocDiffSchema = "wattle.doc_diff/1",
    /// Names [`DocExportDocument`].
    DocExportSchema = "wattle.doc_export/1",
    /// Names [`DocTicketDocument`].
    DocTicketSchema = "wattle.doc_share/1",
    /// Names [`DocMembersDocument`].
    DocMembersSchema = "wattle.doc_members/1",
    /// Names [`DocDoneDocument`].
    DocDoneSchema = "wattle.doc_done/1",
    /// Names [`RoomDocument`].
    RoomSchema = "wattle.room/1",
    /// Names [`RoomsDocument`].
    RoomsSchema = "wattle.rooms/1",
    /// Names [`RoomMessagesDocument`].
    RoomMessagesSchema = "wattle.chat/1",
    /// Names [`SaidDocument`].
    SaidSchema = "wattle.chat_send/1",
    /// Names [`RoomDoneDocument`].
    RoomDoneSchema = "wattle.room_done/1",
    /// Names [`ConfigDocument`].
    ConfigSchema = "wattle.config/1",
    /// Names [`ConfigCheckDocument`].
    ConfigCheckSchema = "wattle.config_check/1",
    /// Names [`TokenDocument`].
    TokenSchema = "wattle.token/1",
    /// Names [`TokensDocument`].
    TokensSchema = "wattle.tokens/1",
    /// Names [`TokenRevokedDocument`].
    TokenRevokedSchema = "wattle.token_revoked/1",
    /// Names [`LoginCodeDocument`].
    LoginCodeSchema = "wattle.login_code/1",
    /// Names [`SessionDocument`].
    SessionSchema = "wattle.session/1",
    /// Names [`LogsDocument`].
    LogsSchema = "wattle.logs/1",
    /// Names [`LogLevelDocument`].
    LogLevelSchema = "wattle.log_level/1",
    /// Names [`FaultsDocument`].
    FaultsSchema = "wattle.faults/1",
    /// Names [`RuntimeDocument`].
    RuntimeSchema = "wattle.runtime/1",
    /// Names [`NeighbourDocument`].
    NeighbourSchema = "wattle.neighbour/1",
}

/// Why something did not work: what happened, why we think so, what to type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDocument {
    /// `wattle.error/1`.
    pub schema: ErrorSchema,
    /// What kind of failure.
    pub code: ErrorCode,
    /// The exit status of a command that ends so.
    pub exit: u8,
    /// What happened, in one line.
    pub message: String,
    /// What to type now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where more is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
    /// Rows of label and text for a person, such as `["start it", "wattle run"]`. An empty label continues
    /// the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<[String; 2]>,
}

impl ErrorDocument {
    /// A failure with nothing but its message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            schema: ErrorSchema::V1,
            code,
            exit: code.exit(),
            message: message.into(),
            hint: None,
            docs: None,
            details: Vec::new(),
        }
    }

    /// With what to type now.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With one more row for a person.
    #[must_use]
    pub fn detail(mut self, label: &str, text: impl Into<String>) -> Self {
        self.details.push([label.to_owned(), text.into()]);
        self
    }
}

impl std::fmt::Display for ErrorDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorDocument {}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransportName {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

/// Directly or through somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathName {
    /// Directly.
    Direct,
    /// Through a relay.
    Relayed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_the_contract_writes_it() {
        let error =
            ErrorDocument::new(ErrorCode::NoNode, "node \"default\" is not running").hint("wattle run");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            concat!(
                r#"{"schema":"wattle.error/1","code":"no_node","exit":3,"#,
                r#""message":"node \"default\" is not running","hint":"wattle run"}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<ErrorDocument>(&serde_json::to_string(&error).unwrap()).unwrap(),
            error
        );
    }

    #[test]
    fn a_document_is_never_read_under_another_name() {
        let other = r#"{"schema":"wattle.status/1","code":"failed","exit":1,"message":""}"#;
        assert!(serde_json::from_str::<ErrorDocument>(other).is_err());
    }

    #[test]
    fn bytes_travel_as_base64() {
        assert_eq!(serde_json::to_string(&Bytes(vec![0, 255, 10])).unwrap(), "\"AP8K\"");
        assert_eq!(serde_json::from_str::<Bytes>("\"AP8K\"").unwrap(), Bytes(vec![0, 255, 10]));
        assert!(serde_json::from_str::<Bytes>("\"?\"").is_err());
    }
}
