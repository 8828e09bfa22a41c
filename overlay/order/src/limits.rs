//! Every cap of the log, each with its reasoning.

/// Fewer cannot bear one that lies (n = 3f + 1, f = 1).
pub const VALIDATORS_MIN: usize = 4;

/// A certificate holds a signature of each: 128 make 8 KiB and 2 ms of checking.
pub const VALIDATORS_MAX: usize = 128;

/// Sum of all weights: products with small numbers stay far below 2^64.
pub const WEIGHT_MAX: u64 = 1 << 32;

/// Bytes of transactions in a block itself; more go by batches whose digests the block has.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;

/// Transactions in a block itself: each costs a hash.
pub const INLINE_COUNT_MAX: usize = 1024;

/// Batches that one block orders: at 500 kB each, 128 MB.
pub const BATCHES_MAX: usize = 256;

/// Proofs of misbehaviour in one block.
pub const EVIDENCE_PER_BLOCK_MAX: usize = 4;

/// Proofs of one kind against one validator that an epoch takes: the rest says nothing new.
pub const EVIDENCE_PER_SEAT_MAX: u64 = 64;

/// Proofs that wait for a block; beyond it new ones are dropped.
pub const EVIDENCE_WAITING_MAX: usize = 256;

/// Bytes of one message: 12 blocks with payload and certificates in them, each below 80 KiB.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Blocks in the answer to one fetch.
pub const FETCH_BLOCKS_MAX: usize = 12;

/// How often a missing block is asked for before blocks are fetched by height too.
pub const FETCH_ATTEMPTS_MAX: u32 = 16;

/// Committed blocks kept to answer those who are a little behind: with full payloads 2 MiB.
pub const KEPT_BLOCKS_MAX: usize = 64;

/// Blocks that wait for their parent. At the cap the one with the lowest round gives way.
pub const SUSPENDED_MAX: usize = 128;

/// Of these, blocks of one author that no certificate asks for.
pub const SUSPENDED_PER_AUTHOR_MAX: usize = 8;

/// Blocks that are asked for. At the cap a new wish replaces the oldest.
pub const WANTED_MAX: usize = 64;

/// Rounds ahead of the current one for which votes are kept, one of each validator: a vote may come before the
/// certificate that ends the round before it.
pub const VOTE_ROUNDS_MAX: u64 = 8;

/// Blocks of one round that are taken without a certificate asking for them: two prove that the leader lies.
pub const BLOCKS_PER_ROUND_MAX: usize = 2;

/// Blocks that are not committed and that no certificate asks for. At the cap those of the lowest rounds give way.
pub const LOOSE_BLOCKS_MAX: usize = 256;

/// Blocks that wait for their commit before blocks have to be empty.
pub const UNCOMMITTED_MAX: u64 = 64;

/// Records that are not on disk yet. At the cap nothing is signed: the disk has to catch up.
pub const UNPERSISTED_MAX: u64 = 256;

/// Results of execution that are remembered until a certificate names theirs.
pub const EXECUTED_MAX: usize = 1024;

/// Blocks behind at which a node stops voting and fetches by height.
pub const BEHIND_MAX: u64 = 32;

/// Signatures and certificates that were checked lately, 100 bytes each.
pub const CHECKED_MAX: usize = 64 * 1024;

/// Epochs that one receipt leads through.
pub const EPOCH_PROOFS_MAX: usize = 1024;

/// Blocks between the last of an epoch and the one whose commit proves it, at 300 bytes each.
pub const EPOCH_LINKS_MAX: usize = 1024;

/// Epochs whose proof is kept to lead others out of them.
pub const EPOCHS_KEPT_MAX: usize = 16;

/// Rounds back for which it is remembered who said what, to find those who say two things.
pub const WITNESS_ROUNDS_MAX: u64 = 16;

/// Messages that wait for the disk. At the cap nothing is repeated; what is new is bounded by the records.
pub const HELD_MAX: usize = 1024;

/// Heights whose committed block is remembered to notice a fork.
pub const PROVEN_MAX: usize = 64;
