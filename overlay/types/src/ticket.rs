//! The ticket: one string that lets somebody in.
//!
//! `wattle:1` and the base32 of
//!
//! ```text
//! flags u8 | expires u32 | inviter 32 | [name length u8, name] | [network key 32] |
//! [document id 16, read secret 16, bearer 16, [owner 32]] | endpoint count u8, endpoints |
//! signature 64, or checksum 8 behind a document
//! endpoint: tag u8 | [port u16] | address 4 or 16       integers are big-endian
//! ```
//!
//! Packed by hand instead of CBOR, because people paste it and cameras read it: a public ticket with three
//! IPv4 addresses stays below [`TICKET_CHARS_MAX`]. The signature covers everything before it, so one changed
//! character is noticed. A ticket to a document has a checksum in its place: what it lets in to is signed in
//! the document itself, by a grant to the ticket's bearer key, and a camera still reads it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::limits::{TICKET_CHARS_MAX, TICKET_ENDPOINTS_MAX};
use crate::{
    DocAccess, DocId, Domain, NetworkKey, NetworkName, NodeId, ReadSecret, SecretKey, UnixTime, keyed,
};

const PREFIX: &str = "wattle:";
const VERSION: char = '1';
const FLAG_NAMED_NETWORK: u8 = 1;
const FLAG_PRIVATE: u8 = 2;
const FLAG_DOCUMENT: u8 = 4;
const FLAG_OWNER: u8 = 8;
const FLAGS: u8 = FLAG_NAMED_NETWORK | FLAG_PRIVATE | FLAG_DOCUMENT | FLAG_OWNER;
const TAG_V6: u8 = 1;
const TAG_OWN_PORT: u8 = 2;
const TAG_QUIC: u8 = 4;
const TAG_TCP: u8 = 8;

/// Where a node can be dialed: one IP address and port, and the transports that listen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// UDP port for quic and TCP port for tcp.
    pub port: u16,
    /// Whether QUIC listens there.
    pub quic: bool,
    /// Whether TCP listens there.
    pub tcp: bool,
}

/// A document that a ticket leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketDocument {
    /// Which, and the secret of its readers.
    pub access: DocAccess,
    /// The seed of the key that a grant in the document names.
    pub bearer: [u8; 16],
}

/// An invitation, checked or about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The network it leads into.
    pub network: NetworkName,
    /// The key of a private network. It travels inside the ticket: whoever holds the ticket can join.
    pub network_key: Option<NetworkKey>,
    /// The document it leads to. Whoever holds the ticket may take part as the document's grant says.
    pub document: Option<TicketDocument>,
    /// Who invites, and signed this.
    pub inviter: NodeId,
    /// Where the inviter can be reached, best first; at most three.
    pub endpoints: Vec<Endpoint>,
    /// Until when it is valid, in whole seconds.
    pub expires: UnixTime,
}

/// Why a text is no valid ticket. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not begin with `wattle:`.
    #[error("a ticket begins with `wattle:`")]
    NotATicket,
    /// Made by a newer wattle.
    #[error("the ticket was made by a newer version of wattle")]
    Newer,
    /// A character is missing, changed or added.
    #[error("the ticket is damaged: a character is missing or was changed")]
    Damaged,
    /// Genuine, but past its time.
    #[error("the ticket expired")]
    Expired {
        /// When it did.
        at: UnixTime,
    },
}

impl Ticket {
    /// Writes and signs the ticket. Endpoints beyond the third are left out, and further ones as long as a
    /// public ticket is too long for a QR code that a phone reads.
    #[must_use]
    pub fn to_text(&self, key: &SecretKey) -> String {
        let mut endpoints = self.endpoints.as_slice();
        endpoints = endpoints.get(..TICKET_ENDPOINTS_MAX).unwrap_or(endpoints);
        loop {
            let text = self.write(key, endpoints);
            match endpoints.split_last() {
                Some((_, fewer)) if text.len() > TICKET_CHARS_MAX && fewer.len() > 1 => endpoints = fewer,
                _ => return text,
            }
        }
    }

    fn write(&self, key: &SecretKey, endpoints: &[Endpoint]) -> String {
        let named = self.network != NetworkName::default();
        let mut body = vec![
            (if named { FLAG_NAMED_NETWORK } else { 0 })
                | (if self.network_key.is_some() { FLAG_PRIVATE } else { 0 })
                | self.document.as_ref().map_or(0, |document| {
                    FLAG_DOCUMENT | (if document.access.owner.is_some() { FLAG_OWNER } else { 0 })
                }),
        ];
        let seconds = u32::try_from(self.expires.as_millis() / 1000).unwrap_or(u32::MAX);
        body.extend(seconds.to_be_bytes());
        body.extend(self.inviter.public_key());
        if named {
            let name = self.network.as_str().as_bytes();
            body.push(u8::try_from(name.len()).unwrap_or(0));
            body.extend(name);
        }
        if let Some(network_key) = &self.network_key {
            body.extend(network_key.as_bytes());
        }
        if let Some(TicketDocument { access, bearer }) = &self.document {
            body.extend(access.id.as_bytes());
            body.extend(access.read.as_bytes());
            body.extend(bearer);
            body.extend(access.owner.iter().flat_map(NodeId::public_key));
        }
        body.push(u8::try_from(endpoints.len()).unwrap_or(0));
        let mut port = None;
        for endpoint in endpoints {
            write_endpoint(&mut body, endpoint, &mut port);
        }
        if self.document.is_some() {
            body.extend(checksum(&body));
        } else {
            let signature = key.sign(Domain::Ticket, &self.network, &body);
            body.extend(signature);
        }
        let packed = data_encoding::BASE32_NOPAD.encode(&body).to_ascii_lowercase();
        format!("{PREFIX}{VERSION}{packed}")
    }

    /// Reads a ticket in either case (a QR code has capitals) and checks its signature and its time.
    ///
    /// # Errors
    /// [`TicketError`]; a damaged ticket never half works.
    pub fn read(text: &str, now: UnixTime) -> Result<Self, TicketError> {
        let ticket: Self = text.parse()?;
        if ticket.expires <= now {
            return Err(TicketError::Expired { at: ticket.expires });
        }
        Ok(ticket)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket and checks its signature, but not its time: [`Ticket::read`] does both.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.trim().to_ascii_lowercase();
        let rest = lower.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        let mut characters = rest.chars();
        match characters.next() {
            Some(VERSION) => {}
            Some(digit) if digit.is_ascii_digit() => return Err(TicketError::Newer),
            _ => return Err(TicketError::Damaged),
        }
        if rest.len() > 1024 {
            return Err(TicketError::Damaged);
        }
        let packed = characters.as_str().to_ascii_uppercase();
        let Ok(bytes) = data_encoding::BASE32_NOPAD.decode(packed.as_bytes()) else {
            return Err(TicketError::Damaged);
        };
        if bytes.first().is_some_and(|flags| flags & FLAG_DOCUMENT != 0) {
            let (body, sum) = bytes.split_last_chunk::<8>().ok_or(TicketError::Damaged)?;
            let ticket = read_body(&mut Reader(body)).filter(|_| checksum(body) == *sum);
            return ticket.ok_or(TicketError::Damaged);
        }
        let (body, signature) = bytes.split_last_chunk::<64>().ok_or(TicketError::Damaged)?;
        let ticket = read_body(&mut Reader(body)).ok_or(TicketError::Damaged)?;
        if !ticket.inviter.verifies(Domain::Ticket, &ticket.network, body, signature) {
            return Err(TicketError::Damaged);
        }
        Ok(ticket)
    }
}

/// Tells a mistyped ticket; it proves nothing.
fn checksum(body: &[u8]) -> [u8; 8] {
    let whole = keyed(blake3::hash(b"wattle ticket v1").as_bytes(), &[body]);
    whole.first_chunk().copied().unwrap_or_default()
}

fn write_endpoint(body: &mut Vec<u8>, endpoint: &Endpoint, port: &mut Option<u16>) {
    let own_port = *port != Some(endpoint.port);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    body.push(
        flag(endpoint.ip.is_ipv6(), TAG_V6)
            | flag(own_port, TAG_OWN_PORT)
            | flag(endpoint.quic, TAG_QUIC)
            | flag(endpoint.tcp, TAG_TCP),
    );
    if own_port {
        body.extend(endpoint.port.to_be_bytes());
        *port = Some(endpoint.port);
    }
    match endpoint.ip {
        IpAddr::V4(ip) => body.extend(ip.octets()),
        IpAddr::V6(ip) => body.extend(ip.octets()),
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }
}

fn read_body(reader: &mut Reader<'_>) -> Option<Ticket> {
    let flags = reader.byte().filter(|flags| flags & !FLAGS == 0)?;
    let expires = UnixTime::from_millis(u64::from(u32::from_be_bytes(reader.array()?)).saturating_mul(1000));
    let inviter = NodeId::from_public_key(reader.array()?);
    let network =
        if flags & FLAG_NAMED_NETWORK == 0 { NetworkName::default() } else { reader.text()?.parse().ok()? };
    let network_key =
        if flags & FLAG_PRIVATE == 0 { None } else { Some(NetworkKey::from_bytes(reader.array()?)) };
    let document =
        if flags & FLAG_DOCUMENT == 0 { None } else { Some(read_document(reader, flags & FLAG_OWNER != 0)?) };
    let count = reader.byte().filter(|count| usize::from(*count) <= TICKET_ENDPOINTS_MAX)?;
    let mut port = None;
    let mut endpoints = Vec::new();
    for _ in 0..count {
        endpoints.push(read_endpoint(reader, &mut port)?);
    }
    reader.0.is_empty().then_some(Ticket { network, network_key, document, inviter, endpoints, expires })
}

fn read_document(reader: &mut Reader<'_>, owned: bool) -> Option<TicketDocument> {
    let id = DocId::from_bytes(reader.array()?);
    let read = ReadSecret::from_bytes(reader.array()?);
    let bearer = reader.array()?;
    let owner = if owned { Some(NodeId::from_public_key(reader.array()?)) } else { None };
    Some(TicketDocument { access: DocAccess { id, read, owner }, bearer })
}

fn read_endpoint(reader: &mut Reader<'_>, port: &mut Option<u16>) -> Option<Endpoint> {
    let tag = reader.byte().filter(|tag| tag & !(TAG_V6 | TAG_OWN_PORT | TAG_QUIC | TAG_TCP) == 0)?;
    if tag & TAG_OWN_PORT != 0 {
        *port = Some(u16::from_be_bytes(reader.array()?));
    }
    let ip = if tag & TAG_V6 == 0 {
        IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))
    };
    Some(Endpoint { ip, port: (*port)?, quic: tag & TAG_QUIC != 0, tcp: tag & TAG_TCP != 0 })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[3; 32])
    }

    fn ticket() -> Ticket {
        let at = |ip: &str| Endpoint { ip: ip.parse().unwrap(), port: 7710, quic: true, tcp: true };
        Ticket {
            network: NetworkName::default(),
            network_key: None,
            document: None,
            inviter: key().node_id(),
            endpoints: vec![at("192.168.1.5"), at("10.0.0.4"), at("81.2.69.142")],
            expires: NOW.after(std::time::Duration::from_secs(3600)),
        }
    }

    #[test]
    fn a_ticket_survives_paste_and_qr_within_its_budget() {
        let text = ticket().to_text(&key());
        assert!(text.len() <= TICKET_CHARS_MAX, "{} characters", text.len());
        assert_eq!(Ticket::read(&text, NOW), Ok(ticket()));
        assert_eq!(Ticket::read(&text.to_uppercase(), NOW), Ok(ticket()));
        assert_eq!(Ticket::read(&format!(" {text}\n"), NOW), Ok(ticket()));
    }

    #[test]
    fn a_private_network_travels_with_its_key_and_name() {
        let private = Ticket {
            network: "home-lab".parse().unwrap(),
            network_key: Some(NetworkKey::from_bytes([9; 32])),
            ..ticket()
        };
        let text = private.to_text(&key());
        let read = Ticket::read(&text, NOW).unwrap();
        assert_eq!((&read.network, &read.network_key), (&private.network, &private.network_key));
        assert!(!read.endpoints.is_empty());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = ticket().to_text(&key());
        for (index, character) in text.char_indices() {
            let other = if character == 'a' { 'b' } else { 'a' };
            let mut changed = text.clone();
            changed.replace_range(index..=index, &other.to_string());
            assert!(Ticket::read(&changed, NOW).is_err(), "changed at {index}: {changed}");
        }
        for cut in 0..text.len() {
            assert!(Ticket::read(&text[..cut], NOW).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_ticket_to_a_document_fits_a_camera_too_and_notices_damage() {
        for owner in [None, Some(SecretKey::from_bytes(&[8; 32]).node_id())] {
            let access =
                DocAccess { id: DocId::from_bytes([5; 16]), read: ReadSecret::from_bytes([6; 16]), owner };
            let document = Some(TicketDocument { access, bearer: [7; 16] });
            let text = Ticket { document: document.clone(), ..ticket() }.to_text(&key());
            // One to a document that another program made names the key of its grants too, 52 characters.
            let room = if owner.is_some() { 52 } else { 0 };
            assert!(text.len() <= TICKET_CHARS_MAX + room, "{} characters", text.len());
            assert_eq!(Ticket::read(&text, NOW).unwrap().document, document);
            for (index, character) in text.char_indices() {
                let other = if character == 'a' { 'b' } else { 'a' };
                let mut changed = text.clone();
                changed.replace_range(index..=index, &other.to_string());
                assert!(Ticket::read(&changed, NOW).is_err(), "changed at {index}: {changed}");
            }
        }
    }

    #[test]
    fn an_old_ticket_says_when_it_expired() {
        let text = ticket().to_text(&key());
        let at = ticket().expires;
        assert_eq!(Ticket::read(&text, at), Err(TicketError::Expired { at }));
        assert_eq!(Ticket::read("hello", NOW), Err(TicketError::NotATicket));
        assert_eq!(Ticket::read("wattle:2abc", NOW), Err(TicketError::Newer));
    }
}
