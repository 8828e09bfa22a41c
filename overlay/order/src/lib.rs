//! One log for everybody, though some of those who keep it lie: two-chain HotStuff, as Jolteon has it.
//!
//! # What it does
//!
//! A group of validators orders entries into one log. Less than a third of their weight may crash, forget or lie, and
//! no two honest nodes ever have different blocks at a height (safety, whatever the network does); while more than
//! two thirds hear each other, blocks are committed (liveness). [`Core`] is one node's part; [`Checker`] is its edge.
//!
//! # Sources
//!
//! * HotStuff: Yin et al., PODC 2019. Jolteon: Gelashvili et al., *Jolteon and Ditto*, FC 2022, section 3.
//! * The pacemaker and the embedded votes: *DiemBFT v4*, sections 3.3 to 3.5. Twins: Bano et al., OPODIS 2021.
//!
//! # Rules
//!
//! The letters stand at the code that keeps each rule, and in the tests that prove it.
//!
//! * **R, round entry.** `round = max(high_qc.round, high_tc.round) + 1`, never by a clock. A certificate is
//!   processed before the message that carries it, wherever it was seen.
//! * **P, proposal.** A leader proposes at most once in a round, on its highest certificate, and signs it. Its own
//!   proposal is its vote.
//! * **V, vote.** For B iff (1) epoch, author, signatures and certificates are right; (2) its round is the current
//!   one; (3) it is above `last_round`; (4) `B.qc.round = r - 1`, or `B.tc.round = r - 1` and B.qc is as high as the
//!   highest in it; (5) its parent is here and valid; (6) its payload is here, durable and valid; (7) its time is not
//!   before its parent's.
//! * **L, lock.** The lock is the highest certificate: monotone, on disk before the vote leaves, told truthfully in
//!   timeouts. V4 stands for "extends the lock".
//! * **T, timeout.** When a round takes too long, or f + 1 say so: no vote in it any more, and the timeout is told
//!   again for as long as the round lasts. A quorum of one epoch and round makes a certificate, which everybody tells
//!   on once.
//! * **C, commit.** A certificate for B1 commits its parent B0 and all before it iff `B1.round = B0.round + 1`,
//!   ascending, each once.
//! * **E, evidence.** (1) two proposals of one leader and round; (2) two votes of one validator and round; (3) a vote
//!   on a certificate of round q, and a timeout of that round or later that claims less than q.
//! * **M, payload.** What a block orders stands nowhere before on its chain, and is on the disk of who votes for it:
//!   rules M1 to M6 in [`payloads`], a machine of its own beside the core.
//! * **N, next validators.** They are agreed on in the log: by approvals that stand in blocks of the epoch that is to
//!   end, and count for a minute. When a quorum approves one set, each by its last word, and so does everybody in the
//!   set, the next block names it, and is the last of its epoch; a block that names another, or none, is invalid.
//! * **F, fetch by height.** What is far behind is fetched from several at once, each answer proven by itself: rules F1
//!   to F5 in [`catch_up`].
//! * **B, base.** Who begins from a snapshot ([`Certified`]) has all that is to be known of what was before it but the
//!   entries that were ordered last: it calls nothing valid, so that it neither votes nor leads, before the log's time
//!   is so far behind the snapshot's that none of them could come again.
//! * **K, one key, one record.** After a start a validator signs nothing new before it heard from so many that they and
//!   it are a quorum; who signed nothing yet in a log that is under way, not before the round after the one in which it
//!   asked is certified. It tells that it started until it may, and who leads meanwhile does not rest. If anybody
//!   shows a signature of its key that its record does not know of, it signs nothing more in this epoch, and its
//!   record says so. So a data directory that was wiped or copied is found out before it
//!   signs twice, as far as the others tell what they have; that one key signs at the same moment in two places only
//!   its evidence shows. Into an epoch each key comes with nothing signed, and signs at once: to wait there for others
//!   would stop a log in which one was away when the epoch began and another one died since.
//! * **Persist before send.** What is signed leaves only when the disk has the record that covers it; the types of
//!   `journal` leave no other way.
//!
//! # Deviations, and why
//!
//! * The last block of an epoch is the one that names the next validators, whichever certificate commits it, and the
//!   proof leads from it to the committed block. "The first block with a commit of its own behind it" is not the same
//!   for all: a certificate may be seen by one node only.
//! * A leader follows from the chain below its block (who failed to lead is read from committed blocks), so two
//!   leaders of one round are possible on two chains. V3 makes that a question of liveness only.
//! * A timeout shows why its author is in the round, so none is ever ahead of the receiver and f + 1 are counted for
//!   one round only.
//!
//! # Bounds
//!
//! [`limits`] has every cap with its behaviour. The work of an input is linear in it, plus the blocks that it
//! completes.
//!
//! # Not here
//!
//! Signatures on a pool (the edge), disk and streams, the state of the application, order votes.

mod approval;
mod block;
pub mod catch_up;
mod certificate;
mod check;
mod collect;
mod committee;
mod config;
mod core;
mod entry;
mod epoch;
mod evidence;
mod ids;
mod journal;
mod leader;
pub mod limits;
mod merkle;
mod message;
pub mod payloads;
mod receipt;
mod safety;
mod snapshot;
mod tree;

pub use approval::{APPROVALS_APP, Approval, Change};
pub use block::{BatchRef, Block, BlockInfo, Executed, Header, Left, Payload, Proposal, batch_digest};
pub use certificate::{Claim, CommitInfo, Qc, Signers, Tc, Timeout, TimeoutData, Vote, VoteData};
pub use check::{ChainEnd, Checked, Checker, Rejected, Seen, Sound};
pub use committee::{Anchor, Committee, Genesis, InvalidValidators, Rules, Validator, Validators};
pub use config::Config;
pub use core::{Alarm, Core, Corrupt, Counts, Input, Kept, Output, Recovered, Status, To};
pub use entry::{Entry, InvalidEntry, Whole, is_app_name};
pub use epoch::EpochProof;
pub use evidence::{Evidence, EvidenceKey, Offence};
pub use ids::{BlockId, ChainId, Digest, Epoch, Height, Round, Seat, Seq, Signature};
pub use journal::{Record, SafetyRecord};
pub use merkle::{Path, Tree, transaction_hash, tree_root};
pub use message::Message;
pub use receipt::{Format, InvalidReceipt, Position, Receipt};
pub use safety::Refusal;
pub use snapshot::{Base, Certified, Manifest, Pace, apps_root, ordered_after, piece_digest, state_root};
pub use tree::{Root, Verdict};
