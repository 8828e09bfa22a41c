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

/// Batches that one block orders.
pub const BATCHES_MAX: usize = 256;

/// Bytes of one entry as it is ordered: with a batch of its own it still fits a message.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an app's name in an entry.
pub const APP_BYTES_MAX: usize = 32;

/// How far ahead the time may lie until which an entry may be ordered: a failed leader or three, and a clock that is
/// wrong. What was ordered is remembered for so long.
pub const ENTRY_LIFE_MAX_MS: u64 = 120_000;

/// Entries on one chain that were ordered and could still come again, at 40 bytes each. A block that would make them
/// more is invalid: 17 000 entries a second if each lives two minutes, and six times as many if each lives 20 s.
pub const LIVE_ENTRIES_MAX: usize = 2 * 1024 * 1024;

/// How far a block's time may be ahead of the clock of who votes for it.
pub const TIME_DRIFT_MAX_MS: u64 = 2_000;

/// Bytes of one batch: half of a message, so that it is not a long one's turn that a vote waits for.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Entries of one batch.
pub const BATCH_COUNT_MAX: usize = 8 * 1024;

/// Bytes that one block orders by its batches: a second's worth of a slow line.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Batches of one author that are not ordered yet. At the cap its next ones are not taken; it sends them again.
pub const AUTHOR_BATCHES_MAX: usize = 64;

/// Their bytes.
pub const AUTHOR_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Batches that are asked for at a time. At the cap a further one waits until its block is looked at again.
pub const WANTED_BATCHES_MAX: usize = 512;

/// Blocks whose batches are asked for before it is known what stands below them: a round trip's worth of catching up.
pub const LOOK_AHEAD: usize = 256;

/// Blocks above the tip whose payload is known. At the cap that of the lowest round goes that nothing stands on.
pub const KNOWN_BLOCKS_MAX: usize = 1024;

/// Blocks for which an author's batches are not ordered after one that nobody could get: doubled each time, up to
/// eight times.
pub const STRIKE_BLOCKS: u64 = 16;

/// Entries handed on by one peer in one message.
pub const HANDED_MAX: usize = 256;

/// Ordered batches whose content is kept in memory for those who ask, at 512 KiB each at the most.
pub const SERVED_BATCHES_MAX: usize = 64;

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

/// Approvals of next validators that count in one block: each costs a signature, so a block full of them is checked in
/// milliseconds.
pub const APPROVALS_PER_BLOCK_MAX: usize = 2 * VALIDATORS_MAX;

/// How long an approval counts behind the block that it stands in. Whether one who joins was heard depends on another
/// one that counted then: with half of the life of an entry either stands where it is told of after a start, and
/// behind a snapshot before anything is judged.
pub const APPROVAL_LIFE_MS: u64 = ENTRY_LIFE_MAX_MS / 2;

/// Epochs that one receipt leads through.
pub const EPOCH_PROOFS_MAX: usize = 1024;

/// Blocks between the last of an epoch and the one whose commit proves it, at 300 bytes each.
pub const EPOCH_LINKS_MAX: usize = 1024;

/// Epochs whose proof is kept to lead others out of them.
pub const EPOCHS_KEPT_MAX: usize = EPOCH_PROOFS_MAX;

/// Rounds back for which it is remembered who said what, to find those who say two things.
pub const WITNESS_ROUNDS_MAX: u64 = 16;

/// Messages that wait for the disk. At the cap nothing is repeated; what is new is bounded by the records.
pub const HELD_MAX: usize = 1024;

/// Heights whose committed block is remembered to notice a fork.
pub const PROVEN_MAX: usize = 64;

/// Bytes of fetched batches, for blocks that are not committed, that are kept in memory; the rest is read from disk
/// again.
pub const FETCHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Batches whose content the disk was asked for on behalf of others. At the cap they are told that it is not here.
pub const SERVING_MAX: usize = 64;

/// Blocks that are asked for by height at a time, of one node.
pub const RANGE_BLOCKS_MAX: usize = 64;

/// Such ranges ahead of the first missing block: with full payloads 40 MiB.
pub const RANGES_MAX: usize = 8;

/// Bytes of a piece of a snapshot: half of a message, so that it is not a long one's turn that a vote waits for.
pub const PIECE_BYTES_MAX: usize = 512 * 1024;

/// Pieces of a snapshot: a state of 1 GiB.
pub const PIECES_MAX: usize = 2048;

/// Blocks after which a snapshot is due: to apply them again takes a second or two.
pub const SNAPSHOT_BLOCKS: u64 = 4096;

/// Blocks before which none is due: the last one is proven by then.
pub const SNAPSHOT_BLOCKS_MIN: u64 = 32;

/// Bytes of entries before which none is due for their sake.
pub const SNAPSHOT_BYTES_MIN: u64 = 1 << 20;
