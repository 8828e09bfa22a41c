//! Documents of commands that work on files, and which the API therefore does not have.

mod bench;
mod testnet;

pub use bench::*;
pub use testnet::*;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::doctor::BundleDocument;
use super::reply::ReplyLine;
use crate::api::documents::{ConfigCheckDocument, DocAuthor, DoctorDocument, LogLine, ReadyLine};

/// The documents of the command line alone, for the description of everything `--json` prints.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    InitDocument,
    KeyDocument,
    JoinedDocument,
    ConfigCheckDocument,
    ConfigSetDocument,
    ConfigPathDocument,
    ConfigDefaultsDocument,
    BindLine,
    BundleDocument,
    DoctorDocument,
    ReplyLine,
    ReadyLine,
    LogLine,
    OrderInitDocument,
    OrderChangedDocument,
    UiDocument,
    TestnetUpDocument,
    TestnetDownDocument,
    TestnetListDocument,
    TestnetStatusDocument,
    TestnetNodesDocument,
    TestnetLinksDocument,
    TestnetExecLine,
    TestnetLogLine,
    TestnetReportDocument,
    TestnetChaosDocument,
    TestnetApplyDocument,
    BenchDocument,
)))]
pub struct Documents;

/// Names of documents, as in [`crate::api::documents`].
macro_rules! schemas {
    ($($name:ident = $text:tt,)*) => {$(
        #[doc = concat!("`", $text, "`.")]
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
    InitSchema = "wattle.init/1",
    KeySchema = "wattle.key/1",
    JoinedSchema = "wattle.joined/1",
    ConfigSetSchema = "wattle.config_set/1",
    ConfigPathSchema = "wattle.config_path/1",
    ConfigDefaultsSchema = "wattle.config_defaults/1",
    BundleSchema = "wattle.bundle/1",
    UiSchema = "wattle.ui/1",
    OrderInitSchema = "wattle.order_init/1",
    OrderChangedSchema = "wattle.order_changed/1",
    TestnetUpSchema = "wattle.testnet_up/1",
    TestnetDownSchema = "wattle.testnet_down/1",
    TestnetListSchema = "wattle.testnet_list/1",
    TestnetStatusSchema = "wattle.testnet_status/1",
    TestnetNodesSchema = "wattle.testnet_nodes/1",
    TestnetLinksSchema = "wattle.testnet_links/1",
    TestnetReportSchema = "wattle.testnet_report/1",
    TestnetChaosSchema = "wattle.testnet_chaos/1",
    TestnetApplySchema = "wattle.testnet_apply/1",
    BenchSchema = "wattle.bench/1",
    TestnetStateSchema = "wattle.testnet_state/1",
}

/// A node that was made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InitDocument {
    /// What this is.
    pub schema: InitSchema,
    /// The node's name on this machine.
    pub name: String,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// The network it will belong to.
    pub network: String,
    /// Whether that network has a key.
    pub private: bool,
    /// Where its key is.
    pub key_file: String,
    /// Where its config is.
    pub config_file: String,
}

/// The public half of a key, and where the key is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyDocument {
    /// What this is.
    pub schema: KeySchema,
    /// The peer id that goes with the key.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// The public key, 64 hexadecimal digits.
    pub public_key: String,
    /// The file.
    pub file: String,
}

/// Others vote in a log from now on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderChangedDocument {
    /// What this is.
    pub schema: OrderChangedSchema,
    /// What names the log.
    pub chain: String,
    /// The epoch that began.
    pub epoch: u64,
    /// Who votes in it, by seat.
    #[schema(value_type = Vec<String>)]
    pub validators: Vec<NodeId>,
}

/// A genesis was made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderInitDocument {
    /// What this is.
    pub schema: OrderInitSchema,
    /// What names the log.
    pub chain: String,
    /// Where the genesis is.
    pub file: String,
    /// The network that the log belongs to.
    pub network: String,
    /// Who votes, by seat.
    #[schema(value_type = Vec<String>)]
    pub validators: Vec<NodeId>,
    /// What is in the file.
    #[schema(value_type = Object)]
    pub genesis: serde_json::Value,
}

/// A ticket was accepted while the node was not running.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinedDocument {
    /// What this is.
    pub schema: JoinedSchema,
    /// The network the node will belong to.
    pub network: String,
    /// Whether that network has a key.
    pub private: bool,
    /// Who made the ticket.
    #[schema(value_type = String)]
    pub inviter: NodeId,
    /// Where the config is.
    pub config_file: String,
}

/// A setting was changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigSetDocument {
    /// What this is.
    pub schema: ConfigSetSchema,
    /// Which.
    pub key: String,
    /// What it is in the file now.
    #[schema(value_type = serde_json::Value)]
    pub value: serde_json::Value,
    /// The file.
    pub file: String,
}

/// Where the config is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigPathDocument {
    /// What this is.
    pub schema: ConfigPathSchema,
    /// The node's file.
    pub file: String,
    /// Whether it exists.
    pub exists: bool,
    /// The system's file, read before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_file: Option<String>,
}

/// Every key with its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigDefaultsDocument {
    /// What this is.
    pub schema: ConfigDefaultsSchema,
    /// Each key.
    pub keys: Vec<ConfigDefault>,
}

/// A key with its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigDefault {
    /// Such as `p2p.listen`.
    pub key: String,
    /// Its default, as TOML.
    pub default: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// What it does.
    pub comment: String,
}

/// One line of a binding.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BindLine {
    /// File and document are equal, and are kept so from now on.
    Bound {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The file.
        file: String,
        /// The document.
        id: String,
        /// What people call it.
        title: String,
        /// The version.
        heads: Vec<String>,
    },
    /// What was done to the file is in the document now.
    ToDocument {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The file.
        file: String,
        /// The document.
        id: String,
        /// The version that the edit made.
        heads: Vec<String>,
        /// Lines added.
        lines_added: u64,
        /// Lines removed.
        lines_removed: u64,
    },
    /// What others did to the document is in the file now.
    ToFile {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The file.
        file: String,
        /// The document.
        id: String,
        /// The version in the file.
        heads: Vec<String>,
        /// Lines added.
        lines_added: u64,
        /// Lines removed.
        lines_removed: u64,
        /// Who did it.
        by: Vec<DocAuthor>,
    },
}

/// A link that signs a browser in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UiDocument {
    /// What this is.
    pub schema: UiSchema,
    /// The link: works once.
    pub url: String,
    /// Whether a browser was told to open it.
    pub opened: bool,
    /// Until when it works.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}
