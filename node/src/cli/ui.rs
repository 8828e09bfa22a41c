//! Opening the page of the node in a browser, signed in.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use super::documents::{UiDocument, UiSchema};
use super::errors::Failure;
use super::routes;
use super::session::{Session, Shown};
use crate::api::documents::{DocDocument, ErrorDocument, LoginCodeDocument};
use crate::exit::ErrorCode;

/// How long whoever opens a browser may take to say that it cannot.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Open the dashboard, already signed in
#[derive(Args)]
pub(super) struct Ui {
    /// Print the link, open nothing
    #[arg(long)]
    print: bool,
}

/// Open a document in the dashboard's editor
#[derive(Args)]
pub(super) struct Open {
    /// An id or a title
    doc: String,
    /// Print the link, open nothing
    #[arg(long)]
    print: bool,
}

pub(super) async fn ui(session: &Session, args: &Ui) -> Result<(), Failure> {
    enter(session, "/", args.print).await
}

pub(super) async fn open(session: &Session, args: &Open) -> Result<(), Failure> {
    let doc = session.client()?.get::<DocDocument>(&routes::one_doc(&args.doc)).await?.document.doc;
    enter(session, &format!("/docs/{}", doc.id), args.print).await
}

/// Signs a browser in at a place of the page.
async fn enter(session: &Session, place: &str, print: bool) -> Result<(), Failure> {
    let route = routes::SESSION_CODE;
    let answer = session.client()?.post::<LoginCodeDocument>(route, &serde_json::json!({})).await?;
    let LoginCodeDocument { code, url, expires, .. } = answer.document;
    let base = url.as_deref().and_then(|url| url.split_once("/#")).map(|(base, _)| base);
    let Some(base) = base else {
        let message = "this node has no port that a browser reaches: its API is on the Unix socket alone";
        return Err(ErrorDocument::new(ErrorCode::Failed, message)
            .hint("wattle config set api.listen 127.0.0.1:7711")
            .into());
    };
    // After the number sign: that part of an address is never sent, and is in no log.
    let link = format!("{base}{place}#k={code}");
    let opened = !print && in_browser(&link).await;
    if !opened && std::env::var_os("SSH_CONNECTION").is_some() {
        let port = base.rsplit(':').next().unwrap_or_default();
        session.out.note(&format!("from your own machine, first: ssh -L {port}:127.0.0.1:{port} <this one>"));
    }
    let document = UiDocument { schema: UiSchema::V1, url: link, opened, expires };
    session.show_own(&document, |document| Shown {
        text: if opened { format!("opened {base}{place}\n") } else { format!("{}\n", document.url) },
        ids: vec![document.url.clone()],
    })
}

/// Opens a link with what this person opens links with. Others on this machine may see the link among the
/// processes; it works once, and the page says so to who comes second.
async fn in_browser(link: &str) -> bool {
    let Some(mut command) = opener(link) else { return false };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            // A browser that stays in the foreground is open.
            Ok(None) if began.elapsed() >= OPENS_WITHIN => return true,
            Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
            Err(_gone) => return false,
        }
    }
}

fn opener(link: &str) -> Option<Command> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if let Some(browser) = set("BROWSER") {
        // As with EDITOR: the variable is a command line, and the shell knows how to read one.
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{browser} \"$1\"")).arg("sh").arg(link);
        return Some(command);
    }
    let name = if cfg!(target_os = "macos") {
        "open"
    } else {
        // Without a screen there is no browser to see.
        set("WAYLAND_DISPLAY").or_else(|| set("DISPLAY"))?;
        "xdg-open"
    };
    let mut command = Command::new(name);
    command.arg(link);
    Some(command)
}
