//! The log in files: written, listed, and gone on from.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::api::documents::{
    ErrorDocument, OrderArchive, OrderArchiveRow, OrderRestoreDocument, OrderRestoreRequest,
    OrderSnapshotDocument, OrderSnapshotRequest, OrderSnapshotsDocument, VersionDocument,
};
use crate::cli::errors::{Failure, of_io};
use crate::cli::routes;
use crate::cli::session::{Session, Shown};
use crate::cli::table::{Table, tame};
use crate::cli::values::{bytes, clock};
use crate::exit::ErrorCode;

/// The log in files: its state, and every block behind it
#[derive(Args)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Subcommand)]
enum SnapshotCommand {
    Create(Create),
    List(List),
    Restore(Restore),
}

/// Write the log into a file that anybody can check and go on from
#[derive(Args)]
struct Create {
    /// Into this file; into one in the data directory of the node without
    #[arg(short, long, value_name = "F")]
    output: Option<PathBuf>,
    /// Then remove what nobody needs who has the newest snapshot: old entries are no longer here to be read
    #[arg(long)]
    compact: bool,
}

/// The files that this node wrote
#[derive(Args)]
struct List {}

/// Go on from a file, without the blocks before it
#[derive(Args)]
struct Restore {
    /// What `order snapshot create` wrote
    file: PathBuf,
}

pub(super) async fn snapshot(session: &Session, args: Snapshot) -> Result<(), Failure> {
    match args.command {
        SnapshotCommand::Create(args) => create(session, &args).await,
        SnapshotCommand::List(List {}) => list(session).await,
        SnapshotCommand::Restore(args) => restore(session, &args).await,
    }
}

/// The node has another working directory.
fn whole(file: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(file).map_err(|error| of_io("find", file, &error))?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let message = format!("{} is no text: call the file otherwise", file.display());
        ErrorDocument::new(ErrorCode::Usage, message).into()
    })
}

async fn create(session: &Session, args: &Create) -> Result<(), Failure> {
    let file = args.output.as_deref().map(whole).transpose()?;
    let request = OrderSnapshotRequest { file, compact: args.compact };
    let answer = session.client()?.post::<OrderSnapshotDocument>(routes::ORDER_SNAPSHOTS, &request).await?;
    session.show(&answer, |answer| {
        let OrderArchive { file, height, state_height, bytes: size, .. } = &answer.snapshot;
        let state = match state_height {
            0 => "every block".to_owned(),
            height => format!("the state at {height} and every block behind it"),
        };
        let mut text = format!("{}   height {height}   {}   {state}\n", tame(file), bytes(*size));
        if args.compact {
            let line = match answer.removed {
                0 => format!("nothing to remove: the log begins at height {} here\n", answer.first),
                removed => {
                    format!("{removed} blocks removed: the log begins at height {} here\n", answer.first)
                }
            };
            text.push_str(&line);
        }
        Shown { text, ids: vec![file.clone()] }
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.get::<OrderSnapshotsDocument>(routes::ORDER_SNAPSHOTS).await?;
    session.show(&answer, |answer| {
        let mut table = Table::new(&["FILE", ">HEIGHT", ">STATE AT", ">SIZE", "TIME"]);
        let mut ids = Vec::new();
        for row in &answer.snapshots {
            match row {
                OrderArchiveRow::Archive(archive) => {
                    ids.push(archive.file.clone());
                    table.row([
                        tame(&archive.file),
                        archive.height.to_string(),
                        archive.state_height.to_string(),
                        bytes(archive.bytes),
                        clock(archive.time),
                    ]);
                }
                OrderArchiveRow::Damaged { file, why } => {
                    table.row([tame(file), String::new(), String::new(), String::new(), tame(why)]);
                }
            }
        }
        let mut text = if answer.snapshots.is_empty() {
            "no files yet: wattle order snapshot create\n".to_owned()
        } else {
            table.render()
        };
        let given = answer.certified.map(|certified| {
            format!("others are given the state at height {}, {}", certified.height, bytes(certified.bytes))
        });
        let given = given.unwrap_or_else(|| "no state that a quorum vouches for yet".to_owned());
        text.push_str(&format!("{given}; blocks are kept from height {} on\n", answer.first));
        Shown { text, ids }
    })
}

async fn restore(session: &Session, args: &Restore) -> Result<(), Failure> {
    let client = session.client()?;
    // That no node runs is the first thing to say.
    client.get::<VersionDocument>(routes::VERSION).await?;
    let request = OrderRestoreRequest { file: whole(&args.file)? };
    let answer = client.post::<OrderRestoreDocument>(routes::ORDER_RESTORE, &request).await?;
    session.show(&answer, |answer| {
        let keeps = super::keeps(answer.role, &answer.chain);
        let text = format!(
            "{keeps}, at height {}; blocks are kept from height {} on\n",
            answer.height, answer.first
        );
        Shown { text, ids: vec![answer.chain.clone()] }
    })
}
