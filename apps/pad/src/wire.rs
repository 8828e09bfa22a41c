//! Hashes of changes in what crosses from the app to who asks.

/// One.
pub(crate) mod hash {
    use automerge::ChangeHash;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &ChangeHash, to: S) -> Result<S::Ok, S::Error> {
        hash.0.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ChangeHash, D::Error> {
        <[u8; 32]>::deserialize(from).map(ChangeHash)
    }
}

/// Some.
pub(crate) mod hashes {
    use automerge::ChangeHash;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(hashes: &[ChangeHash], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
        bytes.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChangeHash>, D::Error> {
        let bytes = Vec::<[u8; 32]>::deserialize(from)?;
        Ok(bytes.into_iter().map(ChangeHash).collect())
    }
}
