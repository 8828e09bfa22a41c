//! Members: who is in the network, who is well, and who says so.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;
use wattle_types::NodeId;

use super::client::{cut_off, part, read_line};
use super::errors::Failure;
use super::output::Meaning;
use super::peers::socket_of;
use super::routes;
use super::session::{Session, Shown, who};
use super::table::{Table, fill, tame};
use super::values::{guessed, millis, short};
use crate::api::documents::{
    Member, MemberChange, MemberLine, MemberReason, MemberState, MembersDocument, MembersLeaveDocument,
    MembersRemoveDocument, MembersRemoveRequest,
};

/// Who is in the network, and who is well
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Members {
    #[command(subcommand)]
    command: Option<MembersCommand>,
    /// What happens among them from now on: who comes, who goes, who accuses whom and why
    #[arg(short, long)]
    watch: bool,
    /// Only those that stand there
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
    /// Only those with this tag; a key alone takes any value
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Status {
    /// It answers
    Alive,
    /// It is accused, and may still refute
    Suspect,
    /// It did not refute
    Faulty,
    /// It said that it goes
    Left,
}

#[derive(Subcommand)]
enum MembersCommand {
    Leave(Leave),
    Remove(Remove),
}

/// Tell the others that this node goes; it runs on without being a member
#[derive(Args)]
struct Leave {}

/// Take who is gone for good out of every list, until it runs again
#[derive(Args)]
struct Remove {
    /// Whom: a petname, a short id or a peer id
    peer: String,
}

pub(super) async fn members(session: &Session, args: Members) -> Result<(), Failure> {
    match args.command {
        Some(MembersCommand::Leave(Leave {})) => leave(session).await,
        Some(MembersCommand::Remove(Remove { peer })) => remove(session, peer).await,
        None if args.watch => watch(session, &args).await,
        None => list(session, &args).await,
    }
}

const fn standing(status: Status) -> (MemberState, &'static str) {
    match status {
        Status::Alive => (MemberState::Alive, "alive"),
        Status::Suspect => (MemberState::Suspect, "suspect"),
        Status::Faulty => (MemberState::Faulty, "faulty"),
        Status::Left => (MemberState::Left, "left"),
    }
}

async fn list(session: &Session, args: &Members) -> Result<(), Failure> {
    let status = args.status.map(|status| format!("status={}", standing(status).1));
    let tag = args.tag.as_ref().map(|tag| format!("tag={}", part(tag)));
    let query: Vec<String> = status.into_iter().chain(tag).collect();
    let path = match query.is_empty() {
        true => routes::MEMBERS.to_owned(),
        false => format!("{}?{}", routes::MEMBERS, query.join("&")),
    };
    let answer = session.client()?.get::<MembersDocument>(&path).await?;
    session.show(&answer, |document| table_of(session, document))
}

fn table_of(session: &Session, document: &MembersDocument) -> Shown {
    let ids = document.members.iter().map(|member| member.id.to_string()).collect();
    if document.members.is_empty() {
        return Shown { text: "no such members\n".to_owned(), ids };
    }
    let widest = document.members.iter().map(|member| called(member).width()).max().unwrap_or_default();
    let mut table = Table::new(&["MEMBER", "STATUS", ">SINCE", ">RTT", "ADDRESS", "INCARNATION", "TAGS"]);
    for member in &document.members {
        table.row(row_of(session, member, widest));
    }
    let mut text = table.render();
    let labelled = document.members.iter().any(|member| member.name.is_none() && member.label.is_some());
    if labelled {
        text.push_str("* what it calls itself\n");
    }
    if document.counts.self_suspect {
        text.push_str("!! so many fail at once that this node itself is likely cut off\n");
    }
    Shown { text, ids }
}

/// Its petname; else what it calls itself, marked as such.
fn called(member: &Member) -> String {
    let label = || member.label.as_deref().map(|label| format!("{}*", tame(label)));
    member.name.as_deref().map(tame).or_else(label).unwrap_or_default()
}

fn row_of(session: &Session, member: &Member, widest: usize) -> Vec<String> {
    let label = match widest {
        0 => format!("..{}", member.id.short()),
        _ => format!("{} ..{}", fill(&called(member), widest), member.id.short()),
    };
    let since = Timestamp::now().duration_since(member.since).unsigned_abs();
    let rtt = member.rtt_ms.map(millis).or_else(|| member.estimate_ms.map(guessed)).unwrap_or_default();
    let tags: Vec<String> = member.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        label,
        painted(session, member.state),
        short(Duration::from_secs(since.as_secs())),
        if member.myself { "this node".to_owned() } else { rtt },
        member.addresses.first().map(|address| socket_of(address)).unwrap_or_default(),
        member.incarnation.clone(),
        tame(&tags.join(" ")),
    ]
}

const fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Faulty => "faulty",
        MemberState::Left => "left",
        MemberState::Removed => "removed",
    }
}

fn painted(session: &Session, state: MemberState) -> String {
    let meaning = match state {
        MemberState::Alive => Meaning::Good,
        MemberState::Suspect => Meaning::Doubtful,
        MemberState::Faulty => Meaning::Bad,
        MemberState::Left | MemberState::Removed => return word(state).to_owned(),
    };
    session.out.paint(meaning, word(state))
}

async fn leave(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.post::<MembersLeaveDocument>(routes::MEMBERS_LEAVE, &()).await?;
    session.show(&answer, |answer| Shown {
        text: "left: the others no longer wait for this node\nit is a member again when it starts again\n"
            .to_owned(),
        ids: vec![answer.id.to_string()],
    })
}

async fn remove(session: &Session, peer: String) -> Result<(), Failure> {
    let request = MembersRemoveRequest { peer };
    let answer = session.client()?.post::<MembersRemoveDocument>(routes::MEMBERS_REMOVE, &request).await?;
    session.show(&answer, |answer| Shown {
        text: format!(
            "removed {}: the others hear of it now\nit comes back if it runs again\n",
            who(&answer.id, &answer.name)
        ),
        ids: vec![answer.id.to_string()],
    })
}

/// What a reader of the lines has to remember: since when members are suspect.
#[derive(Default)]
struct Watch {
    suspect: BTreeMap<NodeId, Timestamp>,
}

async fn watch(session: &Session, args: &Members) -> Result<(), Failure> {
    let mut lines = session.client()?.stream(Method::GET, routes::MEMBERS_FOLLOW, None::<&()>).await?;
    let wanted = args.status.map(|status| standing(status).0);
    let mut watch = Watch::default();
    while let Some(raw) = lines.next().await? {
        let line: MemberLine = read_line(&raw)?;
        let shown = match &line {
            MemberLine::Member { change, .. } => wanted.is_none_or(|wanted| wanted == change.to),
            _ => true,
        };
        let text = watch.text(session, &line);
        if let MemberLine::Error { error, .. } = line {
            return Err(error.into());
        }
        match (session.out.json, text) {
            _ if !shown => {}
            (true, _) => session.out.raw(&raw)?,
            (false, Some(text)) => session.out.line(&text)?,
            (false, None) => {}
        }
    }
    Err(cut_off())
}

impl Watch {
    fn text(&mut self, session: &Session, line: &MemberLine) -> Option<String> {
        let clock = |ts: &Timestamp| ts.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
        Some(match line {
            MemberLine::Member { ts, id, change } => {
                let MemberChange { name, from, to, reason, accusers, indirect, incarnation, reporter: _ } =
                    change;
                let since = match to {
                    MemberState::Suspect => self.suspect.insert(*id, *ts),
                    MemberState::Alive | MemberState::Faulty | MemberState::Left | MemberState::Removed => {
                        self.suspect.remove(id)
                    }
                };
                let lasted = since.map(|since| ts.duration_since(since).unsigned_abs());
                let why = why(*reason, accusers, indirect, incarnation, lasted);
                let state = if from.is_none() { fill("joined", 7) } else { fill(word(*to), 7) };
                let state = match to {
                    MemberState::Faulty => session.out.paint(Meaning::Bad, &state),
                    MemberState::Suspect => session.out.paint(Meaning::Doubtful, &state),
                    MemberState::Alive | MemberState::Left | MemberState::Removed => state,
                };
                format!("{}  {}  {state}  {why}", clock(ts), who(id, name)).trim_end().to_owned()
            }
            MemberLine::DuplicateIdentity { ts, id, name } => {
                format!("{}  {}  runs twice with one key: stop one of them", clock(ts), who(id, name))
            }
            MemberLine::SelfSuspect { ts, begins: true } => {
                format!("{}  so many fail at once that this node itself is likely cut off", clock(ts))
            }
            MemberLine::SelfSuspect { ts, begins: false } => {
                format!("{}  this node is well again", clock(ts))
            }
            MemberLine::Gap { lost, .. } => format!("{lost} lines were lost: this reader is too slow"),
            MemberLine::Error { .. } => return None,
        })
    }
}

/// Why, in words for a person.
fn why(
    reason: MemberReason,
    accusers: &[NodeId],
    indirect: &[NodeId],
    incarnation: &str,
    lasted: Option<Duration>,
) -> String {
    let names = |ids: &[NodeId]| {
        let names: Vec<String> = ids.iter().map(|id| format!("..{}", id.short())).collect();
        names.join(", ")
    };
    match reason {
        MemberReason::Joined => String::new(),
        MemberReason::Remembered => "remembered from before this node's start".to_owned(),
        MemberReason::NoAck if indirect.is_empty() => "no ack to this node (direct)".to_owned(),
        MemberReason::NoAck => {
            format!("no ack to this node, {} (direct + {} indirect)", names(indirect), indirect.len())
        }
        MemberReason::Accused => format!("accused by {}", names(accusers)),
        MemberReason::RanOut => {
            let lasted =
                lasted.map(|lasted| format!(" after {:.1}s", lasted.as_secs_f64())).unwrap_or_default();
            format!("suspicion ran out{lasted}; accused by {}", names(accusers))
        }
        MemberReason::Certified => format!("accused by a quorum: {}", names(accusers)),
        MemberReason::Refuted => format!("refuted, incarnation {incarnation}"),
        MemberReason::Spoke => format!("spoke again, incarnation {incarnation}"),
        MemberReason::Restarted => format!("started again, incarnation {incarnation}"),
        MemberReason::Left => "said goodbye".to_owned(),
        MemberReason::Removed => format!("by the operator of {}", names(accusers)),
    }
}
