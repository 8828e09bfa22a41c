//! Every key there is: its kind, its default, and what to say about it. The reference file
//! `configs/node.toml` is made of this.

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A whole number from 1.
    Count,
    /// A span such as `"500ms"`, `"20s"`, `"5m"`.
    Duration,
    /// A list of texts.
    Texts,
    /// A list of user ids.
    Uids,
}

impl Kind {
    /// What to tell somebody who wrote something else.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Text => "a text in quotes".to_owned(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            Self::Count => "a whole number from 1".to_owned(),
            Self::Duration => "a duration such as \"500ms\", \"20s\", \"5m\", \"24h\"".to_owned(),
            Self::Texts => "a list of texts such as [\"a\", \"b\"]".to_owned(),
            Self::Uids => "a list of user ids such as [1000]".to_owned(),
        }
    }
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Section and name, such as `p2p.listen`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its default, as TOML.
    pub default: &'static str,
    /// What it does, one line or more.
    pub comment: &'static str,
}

impl Key {
    /// The environment variable that sets it: `p2p.listen` is `WATTLE_P2P_LISTEN`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("WATTLE_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The key of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The known name nearest to a misspelled one.
    #[must_use]
    pub fn nearest(name: &str) -> Option<&'static str> {
        nearest(name, KEYS.iter().map(|key| key.name))
    }
}

/// The candidate nearest to a misspelled word, when one is near at all.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Sections, with a line about each.
const SECTIONS: &[(&str, &str)] = &[
    ("network", "The overlay this node belongs to. Networks never mix."),
    ("p2p", "How this node listens and finds others."),
    ("members", "What the other members are told of this node, and how fast one that is gone is found out."),
    ("connections", "How many connections are kept."),
    ("api", "How programs on this machine reach the node. The Unix socket is always on."),
    ("metrics", "Prometheus metrics, at /metrics of the API."),
    ("log", "What is written to stderr."),
    ("telemetry", "Traces for an OpenTelemetry collector. Nothing is ever sent unless this is set."),
];

const fn key(name: &'static str, kind: Kind, default: &'static str, comment: &'static str) -> Key {
    Key { name, kind, default, comment }
}

/// Every key, by section.
pub const KEYS: &[Key] = &[
    key(
        "network.name",
        Kind::Text,
        "\"wattle\"",
        "Lower-case letters, digits and dashes. Part of every protocol name.",
    ),
    key(
        "network.private",
        Kind::Bool,
        "false",
        "Only nodes that hold the network key can connect. TCP only: QUIC cannot carry such a key.",
    ),
    key(
        "network.key_file",
        Kind::Text,
        "\"\"",
        "The file with the network key, 64 hexadecimal digits, mode 0600.\n\
         Empty: network.key in the data directory, made when it is absent.",
    ),
    key(
        "p2p.listen",
        Kind::Texts,
        "[\"/ip4/0.0.0.0/udp/7710/quic-v1\", \"/ip4/0.0.0.0/tcp/7710\"]",
        "Where to listen. When the default port is busy, the next free of 7720, 7730, ... is taken;\n\
         a port that is configured here is never changed.",
    ),
    key(
        "p2p.external",
        Kind::Texts,
        "[]",
        "Addresses under which others reach this node although it does not listen on them: forwarded ports.",
    ),
    key(
        "p2p.bootstrap",
        Kind::Texts,
        "[]",
        "Peers to dial at the start, as /ip4/../udp/../quic-v1/p2p/12D3KooW.. or /dnsaddr/...",
    ),
    key("p2p.mdns", Kind::Bool, "true", "Look for peers on the local network by multicast DNS."),
    key("p2p.same_machine", Kind::Bool, "true", "Look for other nodes of this user on this machine."),
    key(
        "p2p.profile",
        Kind::Choice(&["lan", "wan"]),
        "\"wan\"",
        "Timing: \"lan\" for one machine or a local network, \"wan\" for the internet.",
    ),
    key(
        "p2p.dht_mode",
        Kind::Choice(&["auto", "client", "server"]),
        "\"auto\"",
        "Whether to answer DHT queries of others. A node that nobody can dial should be a client.",
    ),
    key("p2p.allow", Kind::Texts, "[]", "When not empty, only these peer ids may connect."),
    key(
        "members.profile",
        Kind::Choice(&["lan", "fast", "wan"]),
        "\"lan\"",
        "Timing of probes. \"lan\": a node that is gone is found out in 4 to 6 s; \"fast\": a third sooner, where\n\
         machines are never paused; \"wan\": in half a minute, where round trips take a second.",
    ),
    key(
        "members.reach",
        Kind::Choice(&["public", "anchored"]),
        "\"public\"",
        "How packets of other members reach this node. \"anchored\": only in answer to its own, as behind a\n\
         router or a firewall; others ask after it at up to three members that it is connected to.",
    ),
    key(
        "members.roles",
        Kind::Texts,
        "[]",
        "What this node does, as words: at most 8. Every member sees them.",
    ),
    key(
        "members.tags",
        Kind::Texts,
        "[]",
        "What else members should know of this node, as [\"rack=7\", \"zone=b\"]: at most 512 bytes.",
    ),
    key("connections.low_water", Kind::Count, "48", "Trimming stops at so many connections."),
    key(
        "connections.high_water",
        Kind::Count,
        "64",
        "Above so many connections, the least valuable are closed. Not below low_water.",
    ),
    key(
        "connections.idle_after",
        Kind::Duration,
        "\"2s\"",
        "A connection over which nothing came or went for so long is idle, and closed before those in use.",
    ),
    key(
        "connections.memory_mib_max",
        Kind::Count,
        "512",
        "No new connections while the process uses more memory than this.",
    ),
    key(
        "api.listen",
        Kind::Text,
        "\"127.0.0.1:7711\"",
        "Where browsers and TCP clients reach the API: a loopback address, or \"off\".\n\
         When the default port is busy, the next free one is taken.",
    ),
    key(
        "api.host_names",
        Kind::Texts,
        "[]",
        "Further names under which the API may be asked for, besides localhost, 127.0.0.1 and [::1].",
    ),
    key(
        "api.allow_uids",
        Kind::Uids,
        "[]",
        "Users besides yours who may use the Unix socket, with all rights. What is above wattle's own directory\n\
         must let them pass; /run/user/UID does not, a --home that everybody may enter does.",
    ),
    key(
        "metrics.open_on_loopback",
        Kind::Bool,
        "false",
        "Let anybody on this machine read /metrics without a token.",
    ),
    key(
        "log.level",
        Kind::Text,
        "\"warn,libp2p_kad=error\"",
        "error, warn, info, debug or trace; also per part: \"info,libp2p_kad=debug\".\n\
         `wattle logs` keeps more than is written, and `wattle logs level` changes both.",
    ),
    key(
        "log.format",
        Kind::Choice(&["text", "json", "journald"]),
        "\"text\"",
        "\"journald\" is text without times, with the priorities systemd understands.",
    ),
    key(
        "telemetry.otlp_endpoint",
        Kind::Text,
        "\"\"",
        "Where to send traces by OTLP over HTTP, such as http://127.0.0.1:4318. Empty: nowhere.",
    ),
];

/// The reference file: every key, commented out, with its default.
#[must_use]
pub fn defaults_toml() -> String {
    let mut text = String::from(
        "# Every setting of a wattle node, with its default. Remove the `#` before a key to change it.\n\
         # Stronger than this file: WATTLE_<SECTION>_<KEY> in the environment, then flags.\n\
         # See where a value comes from: wattle config show --origin\n",
    );
    for (section, about) in SECTIONS {
        text.push_str(&format!("\n# {about}\n[{section}]\n"));
        for key in KEYS {
            let Some(name) = key.name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            for line in key.comment.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&format!("# {name} = {}\n", key.default));
        }
    }
    text
}

/// The names of the sections.
pub(super) fn section_names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name)
}
