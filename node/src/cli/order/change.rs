//! The validators change: those who vote and those who are to say so, each on its own node.

use std::time::{Duration, Instant};

use clap::Args;
use wattle_types::NodeId;

use super::genesis::read_validator;
use crate::api::documents::{
    ErrorDocument, OrderChange, OrderChangeDocument, OrderChangeRequest, OrderStatusDocument, OrderValidator,
};
use crate::cli::documents::{OrderChangedDocument, OrderChangedSchema};
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::table::tame;
use crate::exit::ErrorCode;

/// How long it waits for the others when nobody says.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it waits until what it says is ordered, before it looks around again.
const ORDERED_WITHIN_MS: u64 = 10_000;
/// How often it looks how far they are, and how often who joins tries to be heard.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How often it says so again: an approval counts for a minute.
const SAY_EVERY: Duration = Duration::from_secs(20);

/// Replace the validators, once enough of the old and all of the new say so
#[derive(Args)]
pub(super) struct Change {
    /// Who votes then: peer ids, or names of nodes on this machine. Run it with the same on a quorum of those who vote
    /// now and on each of these
    #[arg(long, value_name = "P1,P2,P3,P4", value_delimiter = ',', required = true)]
    validators: Vec<String>,
}

pub(super) async fn change(session: &Session, args: &Change) -> Result<(), Failure> {
    let client = session.client()?;
    // That no node runs is the first thing to say.
    let before = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document;
    let ids = args.validators.iter().map(|text| read_validator(session, text.trim()));
    let ids = ids.collect::<Result<Vec<NodeId>, Failure>>()?;
    // Who names a time waits for so long, or for ever.
    let patience = if session.patient { session.timeout() } else { Some(PATIENCE) };
    let mut wanted = ids.clone();
    wanted.sort_unstable();
    let (began, mut epoch) = (Instant::now(), before.epoch);
    let (mut said, mut shown): (Option<(Instant, bool)>, Option<String>) = (None, None);
    let (mut known, mut hindered) = (None, None);
    loop {
        let status = client.get::<OrderStatusDocument>(routes::ORDER_STATUS).await?.document;
        if status.epoch > epoch {
            if said.is_some_and(|(_, heard)| heard) || votes(&status) == wanted {
                return done(session, &status, &wanted);
            }
            // One that comes from far behind: the epoch that is to end is a later one.
            (epoch, said) = (status.epoch, None);
        }
        let again = |(at, heard): (Instant, bool)| at.elapsed() >= if heard { SAY_EVERY } else { TRY_EVERY };
        if said.is_none_or(again) {
            let timeout_ms = Some(ORDERED_WITHIN_MS);
            let request = OrderChangeRequest { validators: ids.clone(), epoch, timeout_ms };
            match client.post::<OrderChangeDocument>(routes::ORDER_CHANGES, &request).await {
                Ok(answer) => {
                    (said, hindered) = (Some((Instant::now(), answer.document.heard)), None);
                    known = Some(answer.document.change);
                }
                // They changed a moment ago.
                Err(Failure::Error(error)) if error.code == ErrorCode::Conflict => {}
                // It waits for others anyway.
                Err(Failure::Error(error))
                    if matches!(error.code, ErrorCode::NoQuorum | ErrorCode::Timeout) =>
                {
                    (said, hindered) = (Some((Instant::now(), false)), Some(error));
                }
                Err(failure) => return Err(failure),
            }
        }
        known = status.changes.into_iter().find(|change| change.validators == wanted).or(known);
        if let Some(change) = &known {
            let typed: Vec<(NodeId, &str)> =
                ids.iter().copied().zip(args.validators.iter().map(String::as_str)).collect();
            let line = progress(change, &status.validators, &typed);
            if shown.as_ref() != Some(&line) {
                session.out.note(&line);
                shown = Some(line);
            }
        }
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            return Err(given_up(shown, said, hindered).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The others did not come, or the log stands still.
fn given_up(
    shown: Option<String>,
    said: Option<(Instant, bool)>,
    hindered: Option<Box<ErrorDocument>>,
) -> ErrorDocument {
    let so_far = |message| {
        ErrorDocument::new(ErrorCode::Timeout, message).detail("so far", shown.clone().unwrap_or_default())
    };
    let others = "timed out waiting for the others";
    let again = "wattle order change, with the same validators, on each of them";
    match (hindered, said) {
        // It says who is missing.
        (Some(error), _) if error.code == ErrorCode::NoQuorum => *error,
        (Some(_), _) => so_far("timed out: the log orders nothing")
            .detail(
                "",
                "whether this node was heard is NOT KNOWN yet; in a minute its word counts for nothing",
            )
            .hint("wattle order status"),
        (None, Some((_, true))) => {
            so_far(others).detail("", "what this node approved counts for a minute more").hint(again)
        }
        (None, _) => so_far(others)
            .detail("", "this node was not heard: nobody who votes wants these so far")
            .hint(again),
    }
}

/// Who votes.
fn votes(status: &OrderStatusDocument) -> Vec<NodeId> {
    status.validators.iter().map(|validator| validator.id).collect()
}

fn progress(change: &OrderChange, validators: &[OrderValidator], typed: &[(NodeId, &str)]) -> String {
    let of = |id: &NodeId| {
        let known = validators.iter().find(|validator| validator.id == *id);
        // A name that was typed is one that is understood.
        let named = typed.iter().find(|(of, name)| of == id && name.parse::<NodeId>().is_err());
        let named = named.map(|(_, name)| tame(name));
        named.or_else(|| known.map(super::label)).unwrap_or_else(|| format!("..{}", id.short()))
    };
    let missing: Vec<String> = change.missing.iter().map(of).collect();
    let wait = if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(", ")) };
    format!(
        "approved by {} of {} who vote now, {} needed{wait}",
        change.votes,
        validators.len(),
        change.quorum
    )
}

fn done(session: &Session, status: &OrderStatusDocument, wanted: &[NodeId]) -> Result<(), Failure> {
    let validators = votes(status);
    if validators != wanted {
        let message = format!("epoch {} began with other validators than these", status.epoch);
        return Err(ErrorDocument::new(ErrorCode::Conflict, message).hint("wattle order validators").into());
    }
    let document = OrderChangedDocument {
        schema: OrderChangedSchema::V1,
        chain: status.chain.clone(),
        epoch: status.epoch,
        validators,
    };
    session.show_own(&document, |document| {
        let names: Vec<String> = status.validators.iter().map(super::label).collect();
        Shown {
            text: format!("epoch {}: {} vote from now on\n", document.epoch, names.join(", ")),
            ids: document.validators.iter().map(NodeId::to_string).collect(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_up_is_told_what_was_missing_and_not_what_was_tried_last() {
        let hindered = |code| Some(Box::new(ErrorDocument::new(code, "tried last")));
        let said = |heard| Some((Instant::now(), heard));
        let told = |said, hindered| {
            let error = given_up(Some("approved by 1 of 4".to_owned()), said, hindered);
            (error.code, format!("{} {:?}", error.message, error.details))
        };
        let (code, words) = told(said(false), hindered(ErrorCode::NoQuorum));
        assert!(code == ErrorCode::NoQuorum && words.starts_with("tried last"), "{words}");
        let (code, words) = told(said(false), hindered(ErrorCode::Timeout));
        assert!(code == ErrorCode::Timeout && words.contains("the log orders nothing"), "{words}");
        assert!(words.contains("NOT KNOWN") && words.contains("approved by 1 of 4"), "{words}");
        assert!(told(said(true), None).1.contains("counts for a minute more"));
        assert!(told(said(false), None).1.contains("this node was not heard"));
    }
}
