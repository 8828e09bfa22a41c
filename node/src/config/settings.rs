//! What the values mean together. The only place where relations between keys are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use wattle_net::{Address, ConnectionLimits, DhtMode, Profile};
use wattle_swim::{ROLE_BYTES_MAX, ROLES_MAX, TAGS_BYTES_MAX, Timing};
use wattle_types::{NetworkKey, NetworkName, NodeId, SecretKey};

use super::layers::{Value, Values};
use super::problem::{Origin, Problem, Problems};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `network.name`.
    pub network: NetworkName,
    /// `network.private`.
    pub private: bool,
    /// `network.key_file`, when set.
    pub network_key_file: Option<PathBuf>,
    /// `p2p.listen`; without QUIC in a private network, when nobody chose.
    pub listen: Vec<Address>,
    /// Whether nobody chose `p2p.listen`: then a busy port is no error.
    pub listen_is_default: bool,
    /// `p2p.external`.
    pub external: Vec<Address>,
    /// `p2p.bootstrap`.
    pub bootstrap: Vec<Address>,
    /// `p2p.mdns`.
    pub mdns: bool,
    /// `p2p.same_machine`.
    pub same_machine: bool,
    /// `p2p.profile`.
    pub profile: Profile,
    /// `p2p.dht_mode`.
    pub dht_mode: DhtMode,
    /// `p2p.allow`.
    pub allow: Vec<NodeId>,
    /// `members.*`.
    pub members: MembersSettings,
    /// `connections.*`.
    pub connections: ConnectionLimits,
    /// `connections.memory_mib_max`.
    pub memory_bytes_max: usize,
    /// `api.*` and `metrics.*`.
    pub api: ApiSettings,
    /// `log.level`.
    pub log_level: String,
    /// `log.format`.
    pub log_format: LogFormat,
    /// `telemetry.*`.
    pub telemetry: TelemetrySettings,
}

/// What membership needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersSettings {
    /// `members.profile`.
    pub timing: Timing,
    /// `members.reach`.
    pub reach: wattle_swim::Reach,
    /// `members.roles`.
    pub roles: BTreeSet<String>,
    /// `members.tags`.
    pub tags: BTreeMap<String, String>,
}

/// What the API needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// `api.listen`.
    pub listen: ApiListen,
    /// `api.host_names`.
    pub host_names: Vec<String>,
    /// `api.allow_uids`.
    pub allow_uids: Vec<u32>,
    /// `metrics.open_on_loopback`.
    pub metrics_open: bool,
}

/// Where the API listens besides its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiListen {
    /// Nowhere.
    Off,
    /// There, or on the next free port: nobody chose.
    Default(SocketAddr),
    /// Exactly there.
    Exactly(SocketAddr),
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Text without times, with syslog priorities.
    Journald,
}

/// What telemetry needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `telemetry.otlp_endpoint`, when set.
    pub otlp_endpoint: Option<String>,
}

impl Settings {
    /// Checks the values and their relations.
    pub(super) fn new(values: &Values) -> Result<Self, Problems> {
        let mut reader = Reader { values, problems: Vec::new() };
        let settings = reader.settings();
        match (settings, reader.problems) {
            (Some(settings), problems) if problems.is_empty() => Ok(settings),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// What the overlay needs to know.
    #[must_use]
    pub fn overlay(&self, key: SecretKey, network_key: Option<NetworkKey>) -> wattle_net::Config {
        wattle_net::Config {
            key,
            network: self.network.clone(),
            network_key,
            listen: self.listen.clone(),
            external: self.external.clone(),
            bootstrap: self.bootstrap.clone(),
            mdns: self.mdns,
            dht_mode: self.dht_mode,
            profile: self.profile,
            connections: self.connections,
            allow: self.allow.clone(),
            memory_bytes_max: self.memory_bytes_max,
            agent: concat!("wattle/", env!("CARGO_PKG_VERSION")).to_owned(),
            faults: None,
        }
    }
}

struct Reader<'a> {
    values: &'a Values,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> (&Value, &Origin) {
        let (value, origin) = self.values.get(name).expect("the layers hold a value for every key");
        (value, origin)
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            (Value::Text(text), _) => text.clone(),
            (other, _) => unreachable!("{name} is a text in KEYS, and the layers check kinds: {other:?}"),
        }
    }

    fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), (Value::Bool(true), _))
    }

    fn count(&self, name: &str) -> NonZeroUsize {
        let count = match self.value(name) {
            (Value::Count(count), _) => usize::try_from(*count).unwrap_or(usize::MAX),
            (other, _) => unreachable!("{name} is a count in KEYS, and the layers check kinds: {other:?}"),
        };
        NonZeroUsize::new(count).expect("a count is from 1: the layers check it")
    }

    fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            (Value::Duration(span), _) => *span,
            (other, _) => unreachable!("{name} is a duration in KEYS, and the layers check kinds: {other:?}"),
        }
    }

    fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            (Value::Texts(texts), _) => texts.clone(),
            (other, _) => unreachable!("{name} is a list in KEYS, and the layers check kinds: {other:?}"),
        }
    }

    fn is_default(&self, name: &str) -> bool {
        *self.value(name).1 == Origin::Default
    }

    fn wrong(&mut self, name: &str, why: impl std::fmt::Display, hint: Option<&str>) {
        let origin = self.value(name).1.clone();
        self.problems.push(Problem {
            message: format!("`{name}`: {why},"),
            origin,
            hint: hint.map(str::to_owned),
        });
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in self.texts(name) {
            match text.parse() {
                Ok(value) => parsed.push(value),
                Err(error) => self.wrong(name, error, None),
            }
        }
        parsed
    }

    fn settings(&mut self) -> Option<Settings> {
        let network = match self.text("network.name").parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.wrong("network.name", error, None);
                None
            }
        };
        let private = self.bool("network.private");
        let key_file = self.text("network.key_file");
        if !key_file.is_empty() && !private {
            self.wrong(
                "network.key_file",
                "only a private network has a key",
                Some("set network.private = true"),
            );
        }
        let listen = self.listen(private);
        let bootstrap: Vec<Address> = self.bootstrap();
        let members = self.members();
        let connections = self.connections();
        let api = self.api();
        Some(Settings {
            network: network?,
            private,
            network_key_file: (!key_file.is_empty()).then(|| key_file.into()),
            listen,
            listen_is_default: self.is_default("p2p.listen"),
            external: self.parsed("p2p.external"),
            bootstrap,
            mdns: self.bool("p2p.mdns"),
            same_machine: self.bool("p2p.same_machine"),
            profile: if self.text("p2p.profile") == "lan" { Profile::Lan } else { Profile::Wan },
            dht_mode: match self.text("p2p.dht_mode").as_str() {
                "client" => DhtMode::Client,
                "server" => DhtMode::Server,
                _ => DhtMode::Auto,
            },
            allow: self.parsed("p2p.allow"),
            members,
            connections,
            memory_bytes_max: self.count("connections.memory_mib_max").get().saturating_mul(1024 * 1024),
            api: api?,
            log_level: self.log_level(),
            log_format: match self.text("log.format").as_str() {
                "json" => LogFormat::Json,
                "journald" => LogFormat::Journald,
                _ => LogFormat::Text,
            },
            telemetry: self.telemetry(),
        })
    }

    fn listen(&mut self, private: bool) -> Vec<Address> {
        let mut listen: Vec<Address> = self.parsed("p2p.listen");
        if self.is_default("p2p.listen") {
            listen.retain(|address| !private || !address.is_quic());
        } else if listen.is_empty() {
            self.wrong(
                "p2p.listen",
                "a node must listen somewhere",
                Some("leave the key out for the default"),
            );
        } else if let Some(quic) = listen.iter().find(|address| private && address.is_quic()) {
            let why = format!("{quic} uses QUIC, which cannot carry the key of a private network");
            self.wrong("p2p.listen", why, Some("listen on TCP only: [\"/ip4/0.0.0.0/tcp/7710\"]"));
        }
        listen
    }

    fn bootstrap(&mut self) -> Vec<Address> {
        let bootstrap: Vec<Address> = self.parsed("p2p.bootstrap");
        for address in &bootstrap {
            if address.peer().is_none() && !address.to_string().starts_with("/dnsaddr/") {
                let why = format!("{address} does not say whom to expect there");
                self.wrong("p2p.bootstrap", why, Some("add /p2p/ and the peer id, as `wattle id` prints it"));
            }
        }
        bootstrap
    }

    fn members(&mut self) -> MembersSettings {
        let timing = match self.text("members.profile").as_str() {
            "fast" => Timing::fast(),
            "wan" => Timing::wan(),
            _ => Timing::lan(),
        };
        let reach = match self.text("members.reach").as_str() {
            "anchored" => wattle_swim::Reach::Anchored,
            _ => wattle_swim::Reach::Public,
        };
        let roles: BTreeSet<String> = self.texts("members.roles").into_iter().collect();
        let mut tags = BTreeMap::new();
        for text in self.texts("members.tags") {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    tags.insert(key.to_owned(), value.to_owned());
                }
                _ => self.wrong("members.tags", format!("`{text}` is no tag"), Some("write it as key=value")),
            }
        }
        let bytes: usize = tags.iter().map(|(key, value): (&String, &String)| key.len() + value.len()).sum();
        if bytes > TAGS_BYTES_MAX {
            let why = format!("tags may have {TAGS_BYTES_MAX} bytes together, and these have {bytes}");
            self.wrong("members.tags", why, None);
        }
        let longest = roles.iter().map(String::len).max().unwrap_or(0);
        if roles.len() > ROLES_MAX || longest > ROLE_BYTES_MAX {
            let why = format!("at most {ROLES_MAX} roles of {ROLE_BYTES_MAX} bytes each");
            self.wrong("members.roles", why, None);
        }
        MembersSettings { timing, reach, roles, tags }
    }

    fn connections(&mut self) -> ConnectionLimits {
        let limits = ConnectionLimits {
            low_water: self.count("connections.low_water"),
            high_water: self.count("connections.high_water"),
            idle_after: self.duration("connections.idle_after"),
        };
        if limits.high_water < limits.low_water {
            let (high, low) = (limits.high_water, limits.low_water);
            let name = if self.is_default("connections.high_water") { "low_water" } else { "high_water" };
            let why = format!("high_water ({high}) is below low_water ({low})");
            self.wrong(&format!("connections.{name}"), why, None);
        }
        limits
    }

    fn api(&mut self) -> Option<ApiSettings> {
        let text = self.text("api.listen");
        let listen = match text.parse::<SocketAddr>() {
            _ if text == "off" => Some(ApiListen::Off),
            Ok(address) if !address.ip().is_loopback() => {
                let hint = "use 127.0.0.1, and reach it from elsewhere through ssh -L";
                self.wrong("api.listen", "the API is for this machine only", Some(hint));
                None
            }
            Ok(address) if self.is_default("api.listen") => Some(ApiListen::Default(address)),
            Ok(address) => Some(ApiListen::Exactly(address)),
            Err(_) => {
                let why = format!("`{text}` is not an address and port such as 127.0.0.1:7711, nor \"off\"");
                self.wrong("api.listen", why, None);
                None
            }
        };
        let uids = match self.value("api.allow_uids").0 {
            Value::Uids(uids) => uids.clone(),
            other => unreachable!("api.allow_uids is a list of uids in KEYS: {other:?}"),
        };
        Some(ApiSettings {
            listen: listen?,
            host_names: self.texts("api.host_names"),
            allow_uids: uids,
            metrics_open: self.bool("metrics.open_on_loopback"),
        })
    }

    fn log_level(&mut self) -> String {
        let level = self.text("log.level");
        if let Err(error) = level.parse::<tracing_subscriber::filter::Targets>() {
            self.wrong("log.level", format!("`{level}` is not a level or filter ({error})"), None);
        }
        level
    }

    fn telemetry(&mut self) -> TelemetrySettings {
        let endpoint = self.text("telemetry.otlp_endpoint");
        if !endpoint.is_empty() && !endpoint.starts_with("http://") {
            let why = format!("`{endpoint}` does not begin with http://");
            self.wrong(
                "telemetry.otlp_endpoint",
                why,
                Some("run a collector on this machine: http://127.0.0.1:4318"),
            );
        }
        TelemetrySettings { otlp_endpoint: (!endpoint.is_empty()).then_some(endpoint) }
    }
}
