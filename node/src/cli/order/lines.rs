//! Many entries: each line of stdin is one.

use clap::Args;

use super::Wait;
use crate::api::documents::{
    Bytes, ErrorDocument, OrderSubmission, OrderSubmissionState, OrderSubmissionsDocument,
    OrderSubmissionsRequest, OrderSubmitted, OrderWait, VersionDocument,
};
use crate::cli::client::Client;
use crate::cli::errors::Failure;
use crate::cli::routes;
use crate::cli::session::Session;
use crate::cli::table::tame;
use crate::cli::topic::stdin_messages;
use crate::exit::ErrorCode;

/// Lines of one request.
const TOGETHER: usize = 512;
/// Bytes of them: in base64 and with their names they are a request.
const TOGETHER_BYTES: usize = 512 * 1024;

/// Append each line of stdin; prints where each stands
#[derive(Args)]
pub(super) struct SubmitLines {
    /// For which app; nobody but people reads them without
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// How long to wait for each
    #[arg(long, value_name = "FOR", default_value = "commit")]
    wait: Wait,
}

pub(super) async fn submit(session: &Session, args: &SubmitLines) -> Result<(), Failure> {
    let client = session.client()?;
    // That no node runs is said before anything is read.
    client.get::<VersionDocument>(routes::VERSION).await?;
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        session.out.note("one entry a line; Ctrl-D ends it");
    }
    let mut lines = stdin_messages(b'\n', TOGETHER);
    let (mut number, mut failed, mut first) = (0u64, 0u64, None);
    while let Some(line) = lines.recv().await {
        let mut together = vec![read(line)?];
        let mut bytes = together.iter().map(Vec::len).sum::<usize>();
        // What is there goes together, and what comes meanwhile goes with the next.
        while together.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Ok(line) = lines.try_recv() else { break };
            let line = read(line)?;
            bytes += line.len();
            together.push(line);
        }
        together.retain(|line| !line.is_empty());
        if together.is_empty() {
            continue;
        }
        for submitted in append(session, &client, args, together).await? {
            number += 1;
            if is_failure(&submitted) {
                failed += 1;
                first.get_or_insert((number, submitted.clone()));
            }
            if session.out.json {
                session.out.document(&submitted)?;
            } else {
                session.out.line(&text(&submitted))?;
            }
        }
    }
    let Some((line, submitted)) = first else { return Ok(()) };
    let code = match submitted.state {
        OrderSubmissionState::Unknown => ErrorCode::Timeout,
        _ => ErrorCode::Failed,
    };
    let message = format!("{failed} of {number} entries are not ordered, the first is number {line}");
    Err(ErrorDocument::new(code, message).detail("why", submitted.why.unwrap_or_default()).into())
}

fn read(line: std::io::Result<Vec<u8>>) -> Result<Vec<u8>, Failure> {
    line.map_err(|error| ErrorDocument::new(ErrorCode::Failed, format!("cannot read stdin: {error}")).into())
}

async fn append(
    session: &Session,
    client: &Client,
    args: &SubmitLines,
    lines: Vec<Vec<u8>>,
) -> Result<Vec<OrderSubmitted>, Failure> {
    let entry = |line| OrderSubmission { app: args.app.clone(), data_b64: Bytes(line), ..Default::default() };
    let request = OrderSubmissionsRequest {
        entries: lines.into_iter().map(entry).collect(),
        wait: if args.wait == Wait::Accept { OrderWait::Accept } else { OrderWait::Commit },
        timeout_ms: session.timeout_ms(),
    };
    let answer = client.post::<OrderSubmissionsDocument>(routes::ORDER_SUBMISSIONS, &request).await?;
    Ok(answer.document.entries)
}

const fn is_failure(submitted: &OrderSubmitted) -> bool {
    !matches!(submitted.state, OrderSubmissionState::Ordered | OrderSubmissionState::Accepted)
}

fn text(submitted: &OrderSubmitted) -> String {
    let why = || tame(submitted.why.as_deref().unwrap_or_default());
    match (submitted.state, submitted.height, submitted.index) {
        (OrderSubmissionState::Ordered, Some(height), Some(index)) => format!("h={height} i={index}"),
        (OrderSubmissionState::Ordered | OrderSubmissionState::Accepted, ..) => {
            format!("accepted, not ordered yet: {}", submitted.entry)
        }
        (OrderSubmissionState::Refused, ..) => format!("NOT ordered: {}", why()),
        (OrderSubmissionState::Unknown, ..) => {
            format!("NOT KNOWN: {}   wattle order get {}", why(), submitted.entry)
        }
    }
}
