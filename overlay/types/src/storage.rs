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
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Records,
        Self::Providers,
        Self::Published,
        Self::Addresses,
        Self::Petnames,
        Self::Blocked,
        Self::Tokens,
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
        }
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
}
