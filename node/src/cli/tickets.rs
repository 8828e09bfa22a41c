//! Tickets: letting somebody in, and being let in.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use wattle_net::Address;
use wattle_types::{Ticket, TicketError, UnixTime};

use super::documents::{JoinedDocument, JoinedSchema};
use super::errors::{Failure, advise};
use super::files::{self, tilde};
use super::peers::{path_of, socket_of};
use super::routes;
use super::session::{Session, Shown, who};
use super::table::tame;
use super::values::{Span, as_ms};
use crate::api::documents::{
    DocRole, ErrorDocument, InviteDocument, InviteRequest, JoinDocument, JoinRequest,
};
use crate::config::Origin;
use crate::exit::ErrorCode;
use crate::paths::Paths;

/// Make a ticket that lets someone in
#[derive(Args)]
pub(super) struct Invite {
    /// How long it is valid
    #[arg(short, long, value_name = "D", default_value = "7d")]
    expires: Span,
    /// Into a room, by its name or id
    #[arg(long, value_name = "ROOM", conflicts_with = "doc")]
    room: Option<String>,
    /// To a document, by its title or id
    #[arg(long, value_name = "DOC")]
    doc: Option<String>,
    /// Whoever uses it reads the room or document, and cannot write
    #[arg(long)]
    ro: bool,
    /// How many it lets into the room or document
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// Show it as a QR code too
    #[arg(long)]
    qr: bool,
}

/// Accept a ticket: network, peers, room or document, in one go
#[derive(Args)]
pub(super) struct Join {
    /// The text that begins with `wattle:`; `-` reads stdin
    ticket: String,
    /// Start the node in the background when it is not running (the default)
    #[arg(long, overrides_with = "no_run")]
    run: bool,
    /// Only write the config
    #[arg(long)]
    no_run: bool,
    /// What to be called in the room that the ticket leads into
    #[arg(long = "as", value_name = "NICK")]
    nick: Option<String>,
}

pub(super) async fn invite(session: &Session, args: &Invite) -> Result<(), Failure> {
    let request = InviteRequest {
        expires_ms: Some(as_ms(args.expires.0)),
        room: args.room.clone(),
        doc: args.doc.clone(),
        role: args.ro.then_some(DocRole::Reader),
        uses: args.uses,
    };
    let answer = session.client()?.post::<InviteDocument>(routes::TICKETS, &request).await?;
    for warning in &answer.document.warnings {
        session.out.warn(&tame(warning));
    }
    session.show(&answer, |answer| Shown { text: invitation(answer, args), ids: vec![answer.ticket.clone()] })
}

fn invitation(answer: &InviteDocument, args: &Invite) -> String {
    let target = match (&answer.room, &args.doc) {
        (Some(room), _) => format!("#{} in ", tame(room)),
        (None, Some(doc)) => format!("\"{}\" in ", tame(doc)),
        (None, None) => String::new(),
    };
    let uses = how_often(args.uses);
    let mut text = format!(
        "Ticket for {target}network {} ({}, {uses}):\n  {}   ({} chars)\n",
        tame(&answer.network),
        long(args.expires.0),
        answer.ticket,
        answer.ticket.len()
    );
    if answer.private {
        text.push_str("It carries the key of this private network: whoever has it can join. Send it over a safe channel.\n");
    }
    if answer.doc.is_some() {
        text.push_str("Whoever has it is let in: send it over a safe channel.\n");
    }
    text.push_str(&format!("They type:   wattle join {}\n", answer.ticket));
    if args.qr {
        // Capitals and digits need half the room of mixed text; tickets are read in either case.
        text.push_str(&super::qr::render(&answer.ticket.to_uppercase()));
    }
    text
}

/// How many a ticket lets in, in words.
pub(super) fn how_often(uses: Option<u32>) -> String {
    match uses {
        None => "any number of uses".to_owned(),
        Some(1) => "1 use".to_owned(),
        Some(uses) => format!("{uses} uses"),
    }
}

/// A validity in words: `7 days`, `1 hour`.
pub(super) fn long(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let whole = units.into_iter().find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    let (count, unit) = whole.map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn join(session: &Session, args: &Join) -> Result<(), Failure> {
    let text = if args.ticket == "-" {
        String::from_utf8_lossy(&session.block_on(session.stdin())?).trim().to_owned()
    } else {
        args.ticket.clone()
    };
    let now = UnixTime::from_millis(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
    let ticket = Ticket::read(&text, now).map_err(|error| of_ticket(&error))?;
    match session.block_on(ask_to_join(session, &text, args.nick.as_ref())) {
        Err(Failure::Error(error)) if error.code == ErrorCode::NoNode && session.globals.api.is_none() => {}
        ended => return ended,
    }
    let paths = session.paths()?;
    enter_network(session, &paths, &ticket)?;
    if args.no_run {
        let document = JoinedDocument {
            schema: JoinedSchema::V1,
            network: ticket.network.to_string(),
            private: ticket.network_key.is_some(),
            inviter: ticket.inviter,
            config_file: paths.config_file.display().to_string(),
        };
        return session.show_own(&document, |document| Shown {
            text: format!(
                "node \"{}\" will join network {} through ..{}\n  config   {}\nstart it     {} run\n",
                paths.node,
                document.network,
                document.inviter.short(),
                tilde(&paths.config_file),
                session.program()
            ),
            ids: vec![document.inviter.to_string()],
        });
    }
    super::run::start_detached(session, &paths, &[])?;
    session.block_on(ask_to_join(session, &text, args.nick.as_ref()))
}

/// Gives the ticket to the running node.
async fn ask_to_join(session: &Session, ticket: &str, nick: Option<&String>) -> Result<(), Failure> {
    let (ticket, nick) = (ticket.to_owned(), nick.cloned());
    let request = JoinRequest { ticket, name: None, nick, timeout_ms: session.timeout_ms() };
    let answer = session.client()?.post::<JoinDocument>(routes::JOIN, &request).await?;
    session.show(&answer, |answer| {
        let mut text = format!(
            "joined network {}: connected to {}   {}   {}\n",
            tame(&answer.network),
            who(&answer.peer.id, &answer.peer.name),
            path_of(&answer.peer),
            socket_of(&answer.peer.address)
        );
        match (&answer.room, &answer.doc) {
            (Some(room), _) => {
                let room = tame(room);
                let wattle = session.program();
                text.push_str(&format!("entered #{room}\n  talk       {wattle} chat {room}\n"));
            }
            (None, Some(doc)) => {
                let called = if doc.title.is_empty() { tame(&doc.id) } else { tame(&doc.title) };
                text.push_str(&format!(
                    "opened \"{called}\"\n  read it    {} doc show {}\n",
                    session.program(),
                    tame(&doc.id)
                ));
            }
            (None, None) => {}
        }
        Shown { text, ids: vec![answer.peer.id.to_string()] }
    })
}

fn of_ticket(error: &TicketError) -> ErrorDocument {
    let (label, text) = match error {
        TicketError::NotATicket => ("looks like", "wattle:1 and about 160 letters and digits".to_owned()),
        TicketError::Newer => ("update", "this is wattle ".to_owned() + env!("CARGO_PKG_VERSION")),
        TicketError::Damaged => {
            ("maybe", "a part is missing: copy the whole line, or scan the QR code".to_owned())
        }
        TicketError::Expired { at } => {
            let at = i64::try_from(at.as_millis()).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
            ("expired at", at.map(|at| at.to_string()).unwrap_or_default())
        }
    };
    let document = ErrorDocument::new(ErrorCode::Invalid, error.to_string()).detail(label, text);
    document.detail("ask for", "a new one: whoever invited you types `wattle invite`")
}

/// Writes what a ticket says into the node's config. A node that was configured for another network is not
/// moved.
fn enter_network(session: &Session, paths: &Paths, ticket: &Ticket) -> Result<(), Failure> {
    let config = files::load_config(paths)?;
    let (current, private) = (&config.settings.network, config.settings.private);
    let chosen =
        config.values.iter().any(|(key, _, origin)| key.name == "network.name" && *origin != Origin::Default);
    if chosen && *current != ticket.network {
        let message = format!(
            "node \"{}\" belongs to network {current}, the ticket leads into {}",
            paths.node, ticket.network
        );
        let command = format!("wattle -n {} join TICKET", ticket.network);
        return Err(
            advise(ErrorDocument::new(ErrorCode::Conflict, message), "another node", &command, "").into()
        );
    }
    if private && ticket.network_key.is_none() {
        let message = format!("network {current} is private here, and the ticket carries no key");
        let document = ErrorDocument::new(ErrorCode::Conflict, message);
        return Err(advise(document, "another node", "wattle -n bob join TICKET", "").into());
    }
    files::own_key(paths)?;
    if let Some(key) = &ticket.network_key {
        files::write_network_key(paths, key)?;
    }
    let bootstrap: Vec<String> = (ticket.endpoints.iter().flat_map(Address::of_endpoint))
        .map(|address| address.with_peer(ticket.inviter).to_string())
        .collect();
    if bootstrap.is_empty() {
        session.out.warn("the ticket has no addresses: the inviter is found only on this network or machine");
    }
    files::edit_config(paths, |edit| {
        edit.set("network.name", ticket.network.as_str())?;
        if ticket.network_key.is_some() {
            edit.set("network.private", "true")?;
        }
        edit.add("p2p.bootstrap", &bootstrap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_said_in_words() {
        assert_eq!(long(Duration::from_secs(7 * 86_400)), "7 days");
        assert_eq!(long(Duration::from_secs(3600)), "1 hour");
        assert_eq!(long(Duration::from_secs(5400)), "90 minutes");
        assert_eq!(long(Duration::from_secs(1)), "1 second");
    }
}
