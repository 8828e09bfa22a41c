//! Messages as CBOR maps with text keys.
//!
//! Reading is tolerant where JavaScript is: unknown fields, any length prefix, indefinite lengths, tags (cbor-x
//! puts 64 before a `Uint8Array`), `undefined` for what is absent, whole numbers as floats.

use std::fmt;

use ciborium::de::from_reader_with_recursion_limit;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::Bytes;
use wattle_types::cbor;
use wattle_types::limits::CBOR_DEPTH_MAX;

use super::{
    DecodeError, DocumentId, Ephemeral, ID_BYTES_MAX, Message, PeerId, PeerMetadata, ProtocolVersion,
    REASON_BYTES_MAX, SessionId, StorageId, Sync, VERSIONS_MAX,
};

const JOIN: &str = "join";
const PEER: &str = "peer";
const LEAVE: &str = "leave";
const ERROR: &str = "error";
const REQUEST: &str = "request";
const SYNC: &str = "sync";
const UNAVAILABLE: &str = "doc-unavailable";
const EPHEMERAL: &str = "ephemeral";
const REMOTE_SUBSCRIPTION_CHANGE: &str = "remote-subscription-change";
const REMOTE_HEADS_CHANGED: &str = "remote-heads-changed";

const KINDS: [&str; 10] = [
    JOIN,
    PEER,
    LEAVE,
    ERROR,
    REQUEST,
    SYNC,
    UNAVAILABLE,
    EPHEMERAL,
    REMOTE_SUBSCRIPTION_CHANGE,
    REMOTE_HEADS_CHANGED,
];

/// The largest whole number that JavaScript counts to: 2^53 - 1.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

pub(super) fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    // The type comes first in what cbor-x writes, and tells which fields are to be believed.
    let Kind(kind) = read(&mut &frame[..])?;
    let known = KINDS.into_iter().find(|known| *known == kind);
    let mut rest = frame;
    let message = if let Some(kind) = known {
        read::<Fields>(&mut rest)?.into_message(kind)?
    } else {
        let IgnoredAny = read(&mut rest)?;
        Message::Unknown { kind: cut(kind, ID_BYTES_MAX) }
    };
    if rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing(rest.len())) }
}

fn read<T: DeserializeOwned>(frame: &mut &[u8]) -> Result<T, DecodeError> {
    from_reader_with_recursion_limit(frame, CBOR_DEPTH_MAX)
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// The type of a message; nothing behind it is read.
struct Kind(String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                while let Some(key) = map.next_key::<String>()? {
                    if key == "type" {
                        return map.next_value().map(Kind);
                    }
                    let IgnoredAny = map.next_value()?;
                }
                Err(A::Error::missing_field("type"))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// The fields that the known types have, whichever came.
#[derive(Default)]
struct Fields {
    sender: Option<PeerId>,
    target: Option<PeerId>,
    document: Option<DocumentId>,
    data: Option<Data>,
    count: Option<Count>,
    session: Option<SessionId>,
    reason: Option<String>,
    metadata: Option<Metadata>,
    versions: Option<Versions>,
    version: Option<ProtocolVersion>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut fields, mut kind) = (Fields::default(), None::<String>);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => once(&mut kind, &mut map, "type")?,
                        "senderId" => once(&mut fields.sender, &mut map, "senderId")?,
                        "targetId" => once(&mut fields.target, &mut map, "targetId")?,
                        "documentId" => once(&mut fields.document, &mut map, "documentId")?,
                        "data" => once(&mut fields.data, &mut map, "data")?,
                        "count" => once(&mut fields.count, &mut map, "count")?,
                        "sessionId" => once(&mut fields.session, &mut map, "sessionId")?,
                        "message" => once(&mut fields.reason, &mut map, "message")?,
                        "peerMetadata" => once(&mut fields.metadata, &mut map, "peerMetadata")?,
                        "supportedProtocolVersions" => once(&mut fields.versions, &mut map, "versions")?,
                        "selectedProtocolVersion" => once(&mut fields.version, &mut map, "version")?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Reads a field into its place, where there must be none yet; `null` and `undefined` are none.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    place: &mut Option<T>,
    map: &mut A,
    name: &'static str,
) -> Result<(), A::Error> {
    if place.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *place = map.next_value()?;
    Ok(())
}

impl Fields {
    fn into_message(self, kind: &'static str) -> Result<Message, DecodeError> {
        let need = Need { kind };
        Ok(match kind {
            JOIN => Message::Join {
                sender: need.of("senderId", self.sender)?,
                metadata: self.metadata.unwrap_or_default().0,
                versions: self.versions.map_or_else(|| vec![ProtocolVersion::one()], |versions| versions.0),
            },
            PEER => Message::Peer {
                sender: need.of("senderId", self.sender)?,
                target: need.of("targetId", self.target)?,
                metadata: self.metadata.unwrap_or_default().0,
                version: need.of("selectedProtocolVersion", self.version)?,
            },
            LEAVE => Message::Leave { sender: need.of("senderId", self.sender)? },
            ERROR => Message::Error {
                sender: need.of("senderId", self.sender)?,
                target: need.of("targetId", self.target)?,
                reason: cut(need.of("message", self.reason)?, REASON_BYTES_MAX),
            },
            REQUEST => Message::Request(self.into_sync(need)?),
            SYNC => Message::Sync(self.into_sync(need)?),
            EPHEMERAL => Message::Ephemeral(self.into_ephemeral(need)?),
            UNAVAILABLE => Message::Unavailable {
                sender: need.of("senderId", self.sender)?,
                target: need.of("targetId", self.target)?,
                document: need.of("documentId", self.document)?,
            },
            REMOTE_SUBSCRIPTION_CHANGE => Message::RemoteSubscriptionChange {
                sender: need.of("senderId", self.sender)?,
                target: need.of("targetId", self.target)?,
            },
            REMOTE_HEADS_CHANGED => Message::RemoteHeadsChanged {
                sender: need.of("senderId", self.sender)?,
                target: need.of("targetId", self.target)?,
                document: need.of("documentId", self.document)?,
            },
            other => Message::Unknown { kind: other.to_owned() },
        })
    }

    fn into_sync(self, need: Need) -> Result<Sync, DecodeError> {
        Ok(Sync {
            sender: need.of("senderId", self.sender)?,
            target: need.of("targetId", self.target)?,
            document: need.of("documentId", self.document)?,
            data: need.of("data", self.data)?.0,
        })
    }

    fn into_ephemeral(self, need: Need) -> Result<Ephemeral, DecodeError> {
        Ok(Ephemeral {
            sender: need.of("senderId", self.sender)?,
            target: need.of("targetId", self.target)?,
            document: need.of("documentId", self.document)?,
            count: need.of("count", self.count)?.0,
            session: need.of("sessionId", self.session)?,
            data: need.of("data", self.data)?.0,
        })
    }
}

/// Takes the fields that messages of a type must have.
#[derive(Clone, Copy)]
struct Need {
    kind: &'static str,
}

impl Need {
    fn of<T>(self, field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or(DecodeError::Missing { kind: self.kind, field })
    }
}

/// What is only for people is cut, not refused.
fn cut(mut text: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

/// A byte string: no array of numbers, and none held twice.
struct Data(Vec<u8>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Data, E> {
                Ok(Data(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Data, E> {
                Ok(Data(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Read)
    }
}

/// A whole number as JavaScript has it: cbor-x writes those over 32 bits as floats.
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Count, E> {
                Ok(Count(number))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Count, E> {
                let count = number as u64;
                if count <= SAFE_INTEGER_MAX && number == count as f64 {
                    Ok(Count(count))
                } else {
                    Err(E::custom("not a whole number"))
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The versions of a `join`.
struct Versions(Vec<ProtocolVersion>);

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Versions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("at most 16 versions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Versions, A::Error> {
                let mut versions = Vec::new();
                while let Some(version) = list.next_element()? {
                    if versions.len() == VERSIONS_MAX {
                        return Err(A::Error::invalid_length(VERSIONS_MAX.saturating_add(1), &self));
                    }
                    versions.push(version);
                }
                Ok(Versions(versions))
            }
        }
        deserializer.deserialize_seq(Read)
    }
}

/// What a peer says of itself.
#[derive(Default)]
struct Metadata(PeerMetadata);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("what a peer says of itself")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let (mut storage, mut ephemeral) = (None::<StorageId>, None::<bool>);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "storageId" => once(&mut storage, &mut map, "storageId")?,
                        "isEphemeral" => once(&mut ephemeral, &mut map, "isEphemeral")?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Metadata(PeerMetadata { storage, ephemeral: ephemeral.unwrap_or_default() }))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A message as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'m> {
    r#type: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_id: Option<&'m PeerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_id: Option<&'m PeerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document_id: Option<&'m DocumentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_metadata: Option<WrittenMetadata<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supported_protocol_versions: Option<&'m [ProtocolVersion]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selected_protocol_version: Option<&'m ProtocolVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'m SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'m Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_heads: Option<Nothing>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_id: Option<&'m StorageId>,
    is_ephemeral: bool,
}

/// An empty map: automerge-repo walks over the new heads without asking whether there are any.
#[derive(Serialize)]
struct Nothing {}

impl<'m> Written<'m> {
    const fn new(kind: &'m str) -> Self {
        Self {
            r#type: kind,
            sender_id: None,
            target_id: None,
            document_id: None,
            peer_metadata: None,
            supported_protocol_versions: None,
            selected_protocol_version: None,
            message: None,
            count: None,
            session_id: None,
            data: None,
            new_heads: None,
        }
    }

    const fn between(kind: &'m str, sender: &'m PeerId, target: &'m PeerId) -> Self {
        Self { sender_id: Some(sender), target_id: Some(target), ..Self::new(kind) }
    }

    fn sync(kind: &'m str, sync: &'m Sync) -> Self {
        let Sync { sender, target, document, data } = sync;
        Self {
            document_id: Some(document),
            data: Some(Bytes::new(data)),
            ..Self::between(kind, sender, target)
        }
    }

    fn ephemeral(ephemeral: &'m Ephemeral) -> Self {
        let Ephemeral { sender, target, document, count, session, data } = ephemeral;
        Self {
            document_id: Some(document),
            count: Some(*count),
            session_id: Some(session),
            data: Some(Bytes::new(data)),
            ..Self::between(EPHEMERAL, sender, target)
        }
    }
}

impl<'m> From<&'m PeerMetadata> for WrittenMetadata<'m> {
    fn from(metadata: &'m PeerMetadata) -> Self {
        Self { storage_id: metadata.storage.as_ref(), is_ephemeral: metadata.ephemeral }
    }
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let written = match message {
        Message::Join { sender, metadata, versions } => Written {
            sender_id: Some(sender),
            peer_metadata: Some(metadata.into()),
            supported_protocol_versions: Some(versions),
            ..Written::new(JOIN)
        },
        Message::Peer { sender, target, metadata, version } => Written {
            peer_metadata: Some(metadata.into()),
            selected_protocol_version: Some(version),
            ..Written::between(PEER, sender, target)
        },
        Message::Leave { sender } => Written { sender_id: Some(sender), ..Written::new(LEAVE) },
        Message::Error { sender, target, reason } => {
            Written { message: Some(reason), ..Written::between(ERROR, sender, target) }
        }
        Message::Request(sync) => Written::sync(REQUEST, sync),
        Message::Sync(sync) => Written::sync(SYNC, sync),
        Message::Unavailable { sender, target, document } => {
            Written { document_id: Some(document), ..Written::between(UNAVAILABLE, sender, target) }
        }
        Message::Ephemeral(ephemeral) => Written::ephemeral(ephemeral),
        Message::RemoteSubscriptionChange { sender, target } => {
            Written::between(REMOTE_SUBSCRIPTION_CHANGE, sender, target)
        }
        Message::RemoteHeadsChanged { sender, target, document } => Written {
            document_id: Some(document),
            new_heads: Some(Nothing {}),
            ..Written::between(REMOTE_HEADS_CHANGED, sender, target)
        },
        Message::Unknown { kind } => Written::new(kind),
    };
    cbor::encode(&written)
}
