//! Membership: who is there, who is not, and who says so. SWIM with suspicion, Lifeguard, and signed claims.
//!
//! # What it does
//!
//! Every member probes another each period, and tells in passing what it learned. Who answers in no way is
//! accused by name, has time to refute, gets a last chance, and is then faulty until it comes back with a higher
//! incarnation. Consumers read numbered snapshots ([`Swim::view`]) and hear what changed ([`Event`]).
//!
//! # Sources
//!
//! * SWIM: Das, Gupta, Motivala, *SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
//!   Protocol*, DSN 2002: section 3.1 probing, 3.2 piggyback, 4.2 suspicion and incarnations, 4.3 round robin.
//! * Lifeguard: Dadgar, Phillips, Currey, arXiv 1707.00788: section IV-A local health, IV-B suspicion, IV-C buddy.
//! * Vivaldi: Dabek, Cox, Kaashoek, Morris, SIGCOMM 2004, with heights.
//!
//! # Protocol
//!
//! 1. **Start.** A run has an epoch: more than the last one on disk, at least the wall clock in seconds, and more
//!    than any record of this key that others show. It is on disk before anything is sent. An [`Incarnation`] is
//!    the epoch, and below it how often this run refuted.
//! 2. **Join.** `Hello` over a stream to seeds and to members remembered from before; tables are compared
//!    ([`Message`]) and the newcomer's record is told on.
//! 3. **Probe.** Each period one member, in an order that is drawn anew each round: a ping; after three times its
//!    slowest answer a second ping, three others are asked to ping ([`Body::PingRequest`], who answer with an ack
//!    or a nack), and [`Output::FallbackPing`] asks over the connection. Only when no way answers it is accused; by a
//!    node whose first pings often get lost, only when that happened twice in a row. Of fewer than eight members,
//!    the next is probed half a period after one that answered.
//! 4. **Suspicion.** A signed accusation of the incarnation that is known. It lasts from 6 x down to 1 x
//!    [`Timing::suspicion`] x log10(members, or 13), by the logarithm of how many distinct members accuse. The first
//!    accusation is told to all at once, and once more when half the way to the further ones is over; those are told
//!    a period before the shortest time is over. Five of those who hear the first probe the suspect next. Who is alone
//!    with its accusation then probes once more, which tells the suspect: it may have been deaf itself, and believed
//!    by nobody.
//! 5. **Refutation.** The accused signs its next incarnation. So does one that is held faulty: any higher
//!    incarnation revives, and nothing else does. Each accuser is refuted once in 10 s, and nobody who knows that
//!    believes it again sooner, whichever way its word comes. If a suspicion by those who accuse would be over sooner
//!    than that, they are refuted again, at most once a second: liars may have spent the first on the accused alone.
//! 6. **Verdict.** When the suspicion is over, or a certificate (accusations by a quorum: 3 members, 2 below 8, 1
//!    below 4) came, each member pings the suspect a last time, by packet and by connection. No answer: faulty. That
//!    last chance is the end of the suspicion. A certificate leaves a suspicion all but a period of the shortest time:
//!    the accused refutes before liars with a quorum of keys are heard.
//! 7. **Telling.** Rumours ride on every packet, and while any wait, three members are told. Order: own
//!    refutation, refutations, leaves, what a known member says anew, certificates, suspicions, further accusations,
//!    removals, newcomers. A rumour is told 2 x log2(members) times, less whatever comes back from others; but who
//!    left, started again or was removed is told of to the end.
//! 8. **Comparing.** Every eighth probe brings the other's fingerprint. If it differs while nothing is under way, or
//!    none agreed for 30 s, tables are compared over a stream: 256 buckets, then versions, then what differs. Who
//!    left or was removed is not in the fingerprints: newcomers need not know them. So whoever was away, and comes back
//!    with members that left, asks three others what became of those: some may have been removed since.
//! 9. **Leaving** is a signed claim that beats everything of its incarnation; late packets do not undo it.
//! 10. **Removal.** An operator's node signs that a member is gone for good. Where it is faulty or has left it is
//!     in the list no longer and is not tried any more; where it is suspect that waits for the verdict, where it is
//!     alive it says nothing. It is remembered as removed, so that nobody brings it back as faulty; its own next
//!     incarnation does. The operator is answered when the word is on disk.
//! 11. **After.** Faulty members are pinged now and then, and often for ten seconds after one came back: so halves
//!     of a split find each other. Who left or failed is remembered for a day, on disk too.
//!
//! # Deviations from the papers, and why
//!
//! * Faulty is refutable, and a verdict on an earlier incarnation is stale (SWIM: confirm overrides all): else one
//!   late or forged word removes a member for good.
//! * An incarnation is raised by its subject's signature, or by its own sealed packet, only. An accusation of an
//!   unknown one is answered with the question for its proof ([`Rumor::Ask`]), not with a fresh suspicion: a liar
//!   could name any number.
//! * An accuser is alive itself, has at most max(3, 2 %) accusations in 10 s, and one of the same member.
//! * Under loss an accusation takes two probes that fail: with one, each of a few thousand is told to all, and a group
//!   of 2 000 that loses a fifth of its packets spent 10 kB a second and node on it.
//! * A few members probe twice a period while all is well: the last of five to be found dead was found too late, and
//!   among few it costs little.
//! * Timeouts stretch with the local health as the period does; the paper's implementation stretches the period.
//! * The confirmations of step 4 are held back: most suspicions end before, and then two claims crossed the group
//!   instead of four.
//! * A node that was woken over half a period late blames nobody for that time: its probe is dropped and every
//!   deadline moves.
//!
//! # Invariants
//!
//! * **M1** completeness, **M2** accuracy, **M4** convergence, **M5** constant load, **M6** no oscillation: held by
//!   the simulator in `tests/simulated`.
//! * **M3** incarnations of a member only grow here, and states of one incarnation go alive, suspect, faulty, left,
//!   removed and never back.
//! * **S1** This node is not among the others. **S2, S3** Every ping is given up some time, and pings are bounded.
//!   **S4, S5** Every suspicion is decided some time. **S6** The own incarnation is never behind the own record.
//!   **S7** The table is bounded. And the fingerprint is that of the table. [`Swim::check_invariants`] holds them.
//!
//! # Bounds
//!
//! [`MEMBERS_MAX`] members of every state at about 1 KiB; at the cap those that were removed, left or failed longest
//! ago make room and if there are none a newcomer is refused. [`QUEUE_MAX`] rumours; the least urgent is dropped. 256
//! pings, 4 for each other member; beyond it a request is dropped. A packet has at most [`PACKET_BYTES_MAX`], a record
//! [`RECORD_BYTES_MAX`], a message [`STREAM_BYTES_MAX`], a batch 256 rows of 8 KiB at the most. Of one member 128
//! packets a second are read. An idle member sends two packets of 6 bytes a period, four among a few. The
//! work of an input is linear in its size; a wake's is that of what is due.
//!
//! # What the edge does
//!
//! One task owns the machine, the socket and the sessions: it gives the machine everything that has come, and only
//! then, if [`Machine::deadline`](wattle_types::Machine::deadline) has passed, [`Input::Wake`]. Packets go before
//! timers; else a paused process buries its neighbours with their answers in its socket.
//!
//! Outputs:
//!
//! * [`Output::Packet`]: seal it (both run keys, both ids, the network) and send one datagram to the address in the
//!   member's record. What fails is lost.
//! * [`Output::Message`]: send a frame over a stream to the member, dial if need be. What fails is lost.
//! * [`Output::FallbackPing`]: ping over a connection that is there, never dial. [`Input::FallbackAnswered`] says what
//!   came of it, at once if there is none.
//! * [`Output::Persist`]: write the batch to [`Table::Members`](wattle_types::Table::Members), then
//!   [`Input::Persisted`] or [`Input::NotPersisted`].
//! * [`Output::Contact`]: make or renew the session; packets are sealed for the key in this record.
//! * [`Output::Forget`]: drop the session.
//! * [`Output::Notify`]: pass it to consumers, by a bounded ring; one that is slow reads [`Swim::view`] again.
//! * [`Output::Reply`], [`Output::Removed`]: answer who asked. [`Output::Misbehaved`]: lower the peer's score.
//!
//! Inputs:
//!
//! * A datagram whose seal holds: if [`Swim::reads`] more of its sender, [`Packet::decode`] with [`Swim::resolve`],
//!   [`Swim::open`], which checks what matters here and takes the rest from what was checked before, then
//!   [`Input::Packet`] with whose seal it is. A claim that does not hold is the sender's fault.
//! * One whose seal does not hold: [`Input::Unreadable`] with the short id in its head. Nothing is answered by
//!   datagram, so nothing is amplified.
//! * A frame of the members' stream: [`Message::decode`], [`Message::open`], then [`Input::Message`] with whose stream
//!   it is.
//! * A connection to a member closed: [`Input::Doubt`]. It is probed at once instead of in its turn, which is most of
//!   the time until a killed process is suspect.
//! * A bootstrap peer or a ticket's node, a peer that was dialed: [`Input::Join`]; one that dialed: [`Input::Meet`].
//!   New addresses, tags, reach: [`Input::Describe`].
//! * The rows at the start: [`Memory::read`], then [`Swim::new`].
//!
//! The key for packets is made anew at each start and is in [`Description::boot_key`]. Before [`Event::Started`] no
//! output needs the network.
//!
//! # Not here
//!
//! Sockets, seals, replay windows and dialling (net); who may join (the network's key, and streams); eviction by the
//! validators (order); who is a validator, which never follows from membership. Coordinates and round trips choose
//! among equals; nothing here decides by them who is alive. Who signs is known; that a member is one machine and not
//! a hundred keys of one is not: against that stands only what joining costs.

mod claim;
mod config;
mod coordinate;
mod health;
mod pace;
mod queue;
mod random;
mod rtt;
mod stream;
mod suspicion;
mod swim;
mod table;
mod view;
mod wire;

pub use claim::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, ANCHORS_MAX, Claim, Description, Incarnation, InvalidDescription,
    NAME_BYTES_MAX, RECORD_BYTES_MAX, ROLE_BYTES_MAX, ROLES_MAX, Reach, RejectedClaim, ShortId, Signed,
    Stamp, TAGS_BYTES_MAX,
};
pub use config::{Config, InvalidConfig, Lifeguard, MEMBERS_MAX, Timing};
pub use coordinate::Coordinate;
pub use health::HEALTH_SCORE_MAX;
pub use queue::QUEUE_MAX;
pub use stream::{Entry, Message, MessageError, STREAM_BYTES_MAX, Version};
pub use swim::{
    Corrupt, Input, Memory, Output, PersistId, RemoveError, RequestId, SEEDS_MAX, Swim, own_row_key,
};
pub use view::{Counts, Event, MemberView, Reason, State, Status, View, Why};
pub use wire::{Body, CERTIFICATE_MAX, More, PACKET_BYTES_MAX, Packet, PacketError, RawClaim, Rumor};
