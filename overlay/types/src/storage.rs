//! What the disk owner keeps: tables of bytes, changed by batches of writes.
//!
//! The crates that decide what must survive (net, later the cores) and the one that makes it survive (store)
//! meet in these two types and in nothing else.

/// A named, durable map from bytes to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// DHT records held for others and for this node: record key -> record with its bookkeeping.
    Records,
    /// Provider records held: provider key and provider -> expiry.
    Providers,
    /// What this node publishes and keeps alive in the DHT.
    Published,
    /// The address book: peer -> addresses and when they last worked.
    Addresses,
    /// Names people gave to peers.
    Petnames,
    /// Peers that may not connect.
    Blocked,
    /// API tokens, by the hash of the secret.
    Tokens,
    /// Documents known here: id -> what leads to it; id and a letter -> how far it is.
    Docs,
    /// Who may do what: document and hash -> signed operation.
    DocControl,
    /// Changes since the snapshot: document and number -> changes with who vouches for them.
    DocChanges,
    /// Snapshots in parts: document, generation and part -> bytes.
    DocSnapshots,
    /// What large documents show at first, in parts: document and part -> bytes.
    DocShown,
    /// How far a feed is here: document and feed -> spans.
    DocFeeds,
    /// Entries of feeds: document, feed and number -> signed entry and when it came.
    DocPosts,
    /// The members, whatever became of them, and this node's own epoch: id -> signed claims and state.
    Members,
    /// The ordered log: what it began with, what this node signed last, how far it is.
    Order,
    /// Its blocks: height and id -> block. Up to the committed height there is one for each.
    OrderBlocks,
    /// What proves them: height -> the certificate that commits the block there, and all before it.
    OrderProofs,
    /// Where each of its entries stands: run of entries and hash -> height and place in the block.
    OrderEntries,
    /// What its blocks order by their digests: digest -> entries.
    OrderBatches,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 20] = [
        Self::Records,
        Self::Providers,
        Self::Published,
        Self::Addresses,
        Self::Petnames,
        Self::Blocked,
        Self::Tokens,
        Self::Docs,
        Self::DocControl,
        Self::DocChanges,
        Self::DocSnapshots,
        Self::DocShown,
        Self::DocFeeds,
        Self::DocPosts,
        Self::Members,
        Self::Order,
        Self::OrderBlocks,
        Self::OrderProofs,
        Self::OrderEntries,
        Self::OrderBatches,
    ];

    /// The table's name on disk. Renaming one is a new data version.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Providers => "providers",
            Self::Published => "published",
            Self::Addresses => "addresses",
            Self::Petnames => "petnames",
            Self::Blocked => "blocked",
            Self::Tokens => "tokens",
            Self::Docs => "docs",
            Self::DocControl => "doc_control",
            Self::DocChanges => "doc_changes",
            Self::DocSnapshots => "doc_snapshots",
            Self::DocShown => "doc_shown",
            Self::DocFeeds => "doc_feeds",
            Self::DocPosts => "doc_posts",
            Self::Members => "members",
            Self::Order => "order",
            Self::OrderBlocks => "order_blocks",
            Self::OrderProofs => "order_proofs",
            Self::OrderEntries => "order_entries",
            Self::OrderBatches => "order_batches",
        }
    }
}

/// The keys from one on, up to another and without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { from: Vec::new(), to: None }
    }

    /// From `from` up to `to` and without it: none when `to` is not behind `from`.
    #[must_use]
    pub fn between(from: &[u8], to: &[u8]) -> Self {
        Self { from: from.to_vec(), to: Some(to.to_vec()) }
    }

    /// The keys that begin with these bytes.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        // The first key behind them all: the prefix with its last byte that can grow grown, and nothing after.
        let grows = prefix.iter().rposition(|byte| *byte < u8::MAX);
        let to = grows.and_then(|last| {
            let mut to = prefix.get(..=last)?.to_vec();
            let byte = to.last_mut()?;
            *byte = byte.saturating_add(1);
            Some(to)
        });
        Self { from: prefix.to_vec(), to }
    }

    /// What of it lies behind a key: where to read on.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        if key >= self.from.as_slice() {
            // The next key is the same with the least byte behind it.
            self.from = [key, &[0]].concat();
        }
        self
    }

    /// The first key that may be in it.
    #[must_use]
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// The first key behind it; `None` when it has no end.
    #[must_use]
    pub fn to(&self) -> Option<&[u8]> {
        self.to.as_deref()
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_deref().is_none_or(|to| key < to)
    }
}

/// One change to one table. A batch of them is applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put {
        /// Where.
        table: Table,
        /// Which key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key; one that is absent stays absent.
    Remove {
        /// Where.
        table: Table,
        /// Which key.
        key: Vec<u8>,
    },
    /// Removes every key of a range.
    RemoveRange {
        /// Where.
        table: Table,
        /// Which keys.
        range: KeyRange,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys in which the bytes that matter are frequent.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255)], 0..4)
    }

    proptest! {
        #[test]
        fn a_prefix_holds_exactly_the_keys_that_begin_with_it(prefix in key(), other in key()) {
            prop_assert_eq!(KeyRange::prefix(&prefix).contains(&other), other.starts_with(&prefix));
        }

        #[test]
        fn after_a_key_comes_exactly_what_is_behind_it(from in key(), to in key(), last in key(), other in key()) {
            let range = KeyRange::between(&from, &to);
            prop_assert_eq!(range.contains(&other), from <= other && other < to);
            let rest = range.clone().after(&last);
            prop_assert_eq!(rest.contains(&other), range.contains(&other) && other > last);
            prop_assert_eq!(KeyRange::all().after(&last).contains(&other), other > last);
        }
    }
}
