//! Every cap of the node, in one place, each with its reasoning.
//!
//! A number that arrives from a peer becomes a length, a duration or an index only after it passed one of
//! these.

/// Largest CBOR nesting that any message of ours needs is 4; 16 leaves room and keeps the decoder's stack
/// small.
pub const CBOR_DEPTH_MAX: usize = 16;

/// Length of a network name in bytes: it is part of every protocol name and of every ticket.
pub const NETWORK_NAME_BYTES_MAX: usize = 32;

/// Largest payload of a DHT record in bytes. A lookup asks 20 holders, so a record costs 20 times its size.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 8 * 1024;

/// Largest DHT record value on the wire: the payload, its key, the signature and the CBOR around them.
pub const RECORD_VALUE_BYTES_MAX: usize = RECORD_PAYLOAD_BYTES_MAX + 768;

/// Length of a record name in bytes.
pub const RECORD_NAME_BYTES_MAX: usize = 128;

/// Length of a record key on the wire: network name, kind, owner and name with their slashes.
pub const RECORD_KEY_BYTES_MAX: usize = 256;

/// A record lives at most this long without its publisher: two days covers a weekend's power cut of one
/// holder and is what Kademlia deployments use (libp2p kad: 48 h).
pub const RECORD_TTL_MAX_MS: u64 = 48 * 60 * 60 * 1000;

/// Clocks may disagree by this much before a record from the future is refused.
pub const CLOCK_SKEW_MAX_MS: u64 = 5 * 60 * 1000;

/// Largest topic payload in bytes. Bigger things are announced on a topic and pulled by other means.
pub const TOPIC_PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// Largest topic message on the wire: the payload, the topic and the headers around it.
pub const TOPIC_MESSAGE_BYTES_MAX: usize = TOPIC_PAYLOAD_BYTES_MAX + 1024;

/// Length of a topic in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;

/// Words in a topic (`a.b.c` has three).
pub const TOPIC_WORDS_MAX: usize = 16;

/// Addresses in a ticket: enough for quic and tcp on one LAN and one public address, few enough for a QR
/// code.
pub const TICKET_ENDPOINTS_MAX: usize = 3;

/// Characters in a ticket of a public network: a QR code of version 7 or 8 in alphanumeric mode.
pub const TICKET_CHARS_MAX: usize = 200;

/// Addresses kept per peer. A peer that announces more is most likely lying or churning through NAT ports.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;

/// Peers kept in the address book; beyond it the one seen longest ago is forgotten.
pub const ADDRESS_BOOK_PEERS_MAX: usize = 1024;

/// Records that this node holds for others, in all. With the largest payload that is 64 MiB on disk.
pub const RECORDS_HELD_MAX: usize = 8192;

/// Records that one peer may store here: a sixteenth of the whole, so that sixteen hostile peers are needed
/// to fill the store, and even then the records farthest from this node give way first.
pub const RECORDS_PER_PEER_MAX: usize = RECORDS_HELD_MAX / 16;

/// Provider records held for others, in all (about 200 bytes each in memory).
pub const PROVIDERS_HELD_MAX: usize = 16_384;

/// Provider records one peer may hold here.
pub const PROVIDERS_PER_PEER_MAX: usize = PROVIDERS_HELD_MAX / 64;

/// Providers remembered for one key: libp2p's own answer carries as many as Kademlia's k.
pub const PROVIDERS_PER_KEY_MAX: usize = 20;

/// Records and provider keys this node publishes itself and keeps alive.
pub const PUBLISHED_MAX: usize = 4096;

/// Largest frame of a channel: a mebibyte of changes or blocks, and room for the signatures and the CBOR
/// around them. Memory for a frame grows as its bytes arrive, so this is what a peer must send to occupy as much.
pub const CHANNEL_FRAME_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// Channels of one kind that one peer may have open here: one at work, and one that takes its place before
/// this node has noticed that the first has ended.
pub const CHANNELS_PER_PEER_MAX: usize = 2;

/// UTF-8 bytes in one section of a document's text. One remote change costs O(size of the text object it
/// touches): 0.3 ms per KiB (measured), so 20 ms at the most here and 3 s in one object of 10 MB.
pub const SECTION_BYTES_MAX: usize = 64 * 1024;

/// What a section is filled to when it is made: a remote change costs 5 ms, and the section can grow to four
/// times that before it is cut.
pub const SECTION_FILL_BYTES: usize = SECTION_BYTES_MAX / 4;

/// UTF-8 bytes that an edit may bring a document's text to. A document that is longer already may shrink.
pub const DOCUMENT_TEXT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Maps and lists within each other in a document that is read or written: JSON that people write has 10.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// Values of a document that one answer holds; at about 100 bytes each it stays below 10 MiB.
pub const DOCUMENT_VALUES_MAX: usize = 100_000;

/// Bytes of text in one answer about a document: the largest text and as much around it.
pub const DOCUMENT_ANSWER_BYTES_MAX: usize = 2 * DOCUMENT_TEXT_BYTES_MAX;

/// Lines that the difference of two versions is told in: more than anybody reads.
pub const DIFFERENCE_LINES_MAX: usize = 10_000;

/// Bytes of a path into a document, as typed.
pub const DOCUMENT_PATH_BYTES_MAX: usize = 1024;

/// Bytes of one datagram with its seal: with the headers of UDP and IPv6 still below 1280, the least that every
/// link must carry (RFC 8200, section 5). Larger ones are lost on real paths.
pub const DATAGRAM_BYTES_MAX: usize = 1231;

/// Peers that a node can seal datagrams for at once: 16 384 at about 400 bytes are 6.5 MiB.
pub const DATAGRAM_PEERS_MAX: usize = 16 * 1024;

/// Bytes of one entry of a feed: a chat message of four pages.
pub const POST_BYTES_MAX: usize = 16 * 1024;

/// Entries of other feeds that one entry names: so many can be written at once without knowing each other.
pub const POST_SEEN_MAX: usize = 8;

/// Feeds per document: its writers and what forks of theirs go on in.
pub const FEEDS_PER_DOC_MAX: usize = 4096;

/// Pieces of a feed that are here with gaps between them: what is whole from the beginning, and the newest. Beyond
/// it the oldest of these gives way; it comes again when the gaps behind it are closed.
pub const FEED_SPANS_MAX: usize = 64;
