//! Documents about settings, tokens, sessions and the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    ConfigCheckSchema, ConfigSchema, ErrorDocument, LogLevelSchema, LoginCodeSchema, LogsSchema,
    SessionSchema, TokenRevokedSchema, TokenSchema, TokensSchema,
};

/// Settings, with where each comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigDocument {
    /// `wattle.config/1`.
    pub schema: ConfigSchema,
    /// The files that were read, strongest last.
    pub files: Vec<String>,
    /// Every key.
    pub values: Vec<ConfigValue>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigValue {
    /// Such as `p2p.listen`.
    pub key: String,
    /// Its value.
    #[schema(value_type = serde_json::Value)]
    pub value: serde_json::Value,
    /// Such as `default`, `/etc/wattle/config.toml:3:1`, `env WATTLE_LOG_LEVEL`, `flag --listen`.
    pub origin: String,
}

/// What `wattle config check` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigCheckDocument {
    /// `wattle.config_check/1`.
    pub schema: ConfigCheckSchema,
    /// The files that were read.
    pub files: Vec<String>,
    /// Everything wrong; empty when nothing is.
    pub problems: Vec<ErrorDocument>,
}

/// What a token may do. Each role may do what the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look: status, peers, metrics, events.
    Read,
    /// Take part: dial, ping, DHT, topics, tickets.
    User,
    /// Change the node: settings, tokens, blocking, stop.
    Admin,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Admin => "admin",
        })
    }
}

/// Which token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenNewRequest {
    /// What it may do.
    pub role: Role,
    /// How long; for ever when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// A word to know it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A new token. Its secret is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenDocument {
    /// `wattle.token/1`.
    pub schema: TokenSchema,
    /// How to name it when revoking it.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// The secret: send it as `Authorization: Bearer ..`.
    pub token: String,
    /// Until when it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for TokenDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenDocument")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// The tokens of this node, without their secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokensDocument {
    /// `wattle.tokens/1`.
    pub schema: TokensSchema,
    /// Each.
    pub tokens: Vec<TokenRow>,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRow {
    /// How to name it when revoking it.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// The word to know it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Whether its time is over.
    pub expired: bool,
}

/// Which token to revoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeRequest {
    /// Its id.
    pub id: String,
}

/// A token works no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRevokedDocument {
    /// `wattle.token_revoked/1`.
    pub schema: TokenRevokedSchema,
    /// Its id.
    pub id: String,
}

/// A code that signs a browser in once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginCodeDocument {
    /// `wattle.login_code/1`.
    pub schema: LoginCodeSchema,
    /// The code: works once, for 60 s.
    pub code: String,
    /// The dashboard with the code in its fragment; absent when TCP is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Until when it works.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

impl std::fmt::Debug for LoginCodeDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginCodeDocument").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A code to exchange for a session cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The code.
    pub code: String,
}

impl std::fmt::Debug for SessionRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionRequest(secret)")
    }
}

/// The browser is signed in: the cookie came with this answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionDocument {
    /// `wattle.session/1`.
    pub schema: SessionSchema,
    /// The node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What the session may do.
    pub role: Role,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// How bad a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSeverity {
    /// Every step.
    Trace,
    /// For those who look for a fault.
    Debug,
    /// What an operator may want to know.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

/// One line of the node's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Grows by one a line.
    pub id: u64,
    /// `log`.
    #[serde(rename = "type")]
    pub kind: LogKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// How bad.
    pub level: LogSeverity,
    /// Which part of the program.
    pub target: String,
    /// What.
    pub message: String,
    /// Its named values.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = serde_json::Value)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// The type of a [`LogLine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// `log`.
    #[default]
    Log,
}

/// The newest lines of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogsDocument {
    /// `wattle.logs/1`.
    pub schema: LogsSchema,
    /// Oldest first.
    pub lines: Vec<LogLine>,
}

/// What to log from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevelRequest {
    /// Such as `info` or `info,libp2p_kad=debug`.
    pub level: String,
}

/// What is logged now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLevelDocument {
    /// `wattle.log_level/1`.
    pub schema: LogLevelSchema,
    /// The filter now.
    pub level: String,
    /// The filter before this request changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}
