//! Topics: dotted words, patterns over them, and the message that carries a payload.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::NetworkName;
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_WORDS_MAX};

/// A topic: words of letters, digits, `-` and `_`, joined by dots, as in `sensors.kitchen`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(String);

/// A topic in which `*` stands for one word and a last `>` for one or more: `sensors.*`, `sensors.>`.
///
/// The first word is never a wildcard: it chooses the gossip mesh that carries the messages ([`TopicRoot`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(String);

/// The first word of a topic. One gossip mesh carries everything below one root, so that a pattern is a
/// filter at the subscriber and never a question to the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicRoot(String);

/// Why a text is no topic or pattern. Caller error; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// Empty, or over 200 bytes or 16 words.
    #[error("a topic has 1 to {TOPIC_WORDS_MAX} words and at most {TOPIC_BYTES_MAX} bytes")]
    Size,
    /// An empty word or a character that no word may have.
    #[error("the words of a topic are letters, digits, `-` and `_`, joined by dots: sensors.kitchen")]
    Word,
    /// A wildcard where none may stand.
    #[error(
        "`*` stands for one whole word, `>` only for the last ones, and neither for the first: sensors.*, sensors.>"
    )]
    Wildcard,
}

fn check_words(text: &str, wildcards: bool) -> Result<(), InvalidTopic> {
    let count = text.split('.').count();
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX || count > TOPIC_WORDS_MAX {
        return Err(InvalidTopic::Size);
    }
    for (index, word) in text.split('.').enumerate() {
        match word {
            "*" | ">" if !wildcards || index == 0 => return Err(InvalidTopic::Wildcard),
            ">" if index + 1 != count => return Err(InvalidTopic::Wildcard),
            "*" | ">" => {}
            _ if word.contains(['*', '>']) => return Err(InvalidTopic::Wildcard),
            _ if word.is_empty() => return Err(InvalidTopic::Word),
            _ if !word.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') => {
                return Err(InvalidTopic::Word);
            }
            _ => {}
        }
    }
    Ok(())
}

fn root_of(text: &str) -> TopicRoot {
    TopicRoot(text.split('.').next().unwrap_or_default().to_owned())
}

impl Topic {
    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The mesh that carries it.
    #[must_use]
    pub fn root(&self) -> TopicRoot {
        root_of(&self.0)
    }
}

impl TopicPattern {
    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The mesh that carries everything this pattern can match.
    #[must_use]
    pub fn root(&self) -> TopicRoot {
        root_of(&self.0)
    }

    /// Whether `topic` is one of those meant.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut words = topic.0.split('.');
        for wanted in self.0.split('.') {
            match (wanted, words.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(word)) if wanted == word => {}
                _ => return false,
            }
        }
        words.next().is_none()
    }
}

impl TopicRoot {
    /// The gossipsub topic of this root in `network`.
    #[must_use]
    pub fn gossip_topic(&self, network: &NetworkName) -> String {
        Self::gossip_prefix(network) + &self.0
    }

    /// How the gossipsub topics of `network` begin.
    #[must_use]
    pub fn gossip_prefix(network: &NetworkName) -> String {
        format!("/{network}/topics/1/")
    }

    /// The root as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_of_words {
    ($name:ident, $wildcards:literal) => {
        impl FromStr for $name {
            type Err = InvalidTopic;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_words(text, $wildcards)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidTopic;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                check_words(&text, $wildcards)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_of_words!(Topic, false);
text_of_words!(TopicPattern, true);

/// Where a request came from, in W3C Trace Context terms: it lets one trace cover every node a request
/// touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace, 16 bytes.
    pub trace_id: ByteArray<16>,
    /// The span that caused this message, 8 bytes.
    pub span_id: ByteArray<8>,
}

/// What a gossip message of wattle holds. gossipsub itself signs it and says who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMessage {
    /// The whole topic; its root is the gossipsub topic it travels on.
    pub topic: Topic,
    /// Bytes, end to end.
    pub payload: ByteBuf,
    /// Where an answer is awaited, when this is a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Topic>,
    /// The trace this message belongs to, when it is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().unwrap()
    }

    #[test]
    fn wildcards_match_one_word_or_all_the_rest() {
        let topic: Topic = "sensors.kitchen.heat".parse().unwrap();
        for yes in ["sensors.kitchen.heat", "sensors.*.heat", "sensors.*.*", "sensors.>", "sensors.kitchen.>"]
        {
            assert!(pattern(yes).matches(&topic), "{yes}");
        }
        for no in ["sensors", "sensors.*", "sensors.kitchen.heat.>", "sensors.kitchen.heat.*", "lamps.>"] {
            assert!(!pattern(no).matches(&topic), "{no}");
        }
    }

    #[test]
    fn what_is_no_topic_is_refused_with_the_reason() {
        let long = "a.".repeat(TOPIC_WORDS_MAX) + "a";
        for (bad, why) in [
            ("", InvalidTopic::Size),
            (long.as_str(), InvalidTopic::Size),
            ("a..b", InvalidTopic::Word),
            (".a", InvalidTopic::Word),
            ("a b", InvalidTopic::Word),
            ("a/b", InvalidTopic::Word),
            ("a.*", InvalidTopic::Wildcard),
        ] {
            assert_eq!(bad.parse::<Topic>(), Err(why), "{bad}");
        }
        for bad in ["*", ">", "*.a", "a.>.b", "a.b*"] {
            assert_eq!(bad.parse::<TopicPattern>(), Err(InvalidTopic::Wildcard), "{bad}");
        }
    }

    #[test]
    fn a_root_names_the_mesh_of_one_network() {
        let root = pattern("sensors.>").root();
        assert_eq!(root.gossip_topic(&NetworkName::default()), "/wattle/topics/1/sensors");
    }
}
