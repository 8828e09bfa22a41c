//! For the shell: completions, manual pages, the version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};

use super::errors::{Failure, of_io};
use super::help;
use super::pages::page;
use super::routes;
use super::session::{Session, Shown};
use super::table::tame;
use crate::api::documents::{ErrorDocument, VersionDocument, VersionSchema};
use crate::exit::ErrorCode;

/// Print a completion script for your shell
#[derive(Args)]
pub(super) struct Completions {
    /// bash, zsh, fish or powershell
    shell: Shell,
}

/// Write the manual pages
#[derive(Args)]
pub(super) struct Man {
    /// Write one page a command into DIR; without it, wattle(1) goes to stdout
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Print the version of this program, and of the node when one runs
#[derive(Args)]
pub(super) struct Version {}

pub(super) fn completions(session: &Session, args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "wattle", &mut script);
    session.out.bytes(&script)
}

pub(super) fn man(session: &Session, args: &Man) -> Result<(), Failure> {
    let mut root = super::command();
    root.build();
    let Some(out) = &args.out else {
        let text = render(&root, "").map_err(|error| unwritten(&error))?;
        return session.out.bytes(&text);
    };
    fs::create_dir_all(out).map_err(|error| of_io("create", out, &error))?;
    let count = write_pages(&root, "", out)?;
    session.out.note(&format!("wrote {count} pages to {}", out.display()));
    Ok(())
}

fn unwritten(error: &io::Error) -> ErrorDocument {
    ErrorDocument::new(ErrorCode::Failed, format!("cannot write the manual: {error}"))
}

/// Writes the page of a command and those below it; gives how many.
fn write_pages(command: &clap::Command, path: &str, out: &Path) -> Result<usize, Failure> {
    let name =
        if path.is_empty() { "wattle".to_owned() } else { format!("wattle-{}", path.replace(' ', "-")) };
    let file = out.join(format!("{name}.1"));
    let text = render(command, path).map_err(|error| unwritten(&error))?;
    fs::write(&file, text).map_err(|error| of_io("write", &file, &error))?;
    let mut count = 1;
    let shown = |child: &&clap::Command| child.get_name() != "help" && !child.is_hide_set();
    for child in command.get_subcommands().filter(shown) {
        let below = if path.is_empty() { String::new() } else { format!("{path} ") };
        count += write_pages(child, &format!("{below}{}", child.get_name()), out)?;
    }
    Ok(count)
}

/// One page: what clap knows, and the examples and exit codes as sections of their own.
fn render(command: &clap::Command, path: &str) -> io::Result<Vec<u8>> {
    let full =
        if path.is_empty() { "wattle".to_owned() } else { format!("wattle-{}", path.replace(' ', "-")) };
    let bare = command
        .clone()
        .name(full.clone())
        .before_long_help(None::<&str>)
        .after_help(None::<&str>)
        .after_long_help(None::<&str>);
    let source = format!("wattle {}", env!("CARGO_PKG_VERSION"));
    let page_of = Page::new(bare).title(full.to_uppercase()).source(source).manual("wattle");
    let mut text = Vec::new();
    page_of.render_title(&mut text)?;
    page_of.render_name_section(&mut text)?;
    page_of.render_synopsis_section(&mut text)?;
    page_of.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        page_of.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        page_of.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    if let Some(page) = page(path) {
        more.control("SH", ["EXAMPLES"]);
        for (line, why) in page.examples {
            more.control("TP", []);
            more.text([bold(line)]);
            more.text([roman(why)]);
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    more.control("TP", []);
    more.text([bold("0")]);
    more.text([roman("it worked")]);
    for code in ErrorCode::ALL {
        let listed =
            page(path).is_none_or(|page| page.exits.contains(&code) || code == ErrorCode::Interrupted);
        if listed {
            more.control("TP", []);
            more.text([bold(code.exit().to_string())]);
            more.text([roman(help::meaning(code))]);
        }
    }
    if path.is_empty() {
        more.control("TP", []);
        more.text([bold("141")]);
        more.text([roman("the reader of the output went away")]);
    }
    more.to_writer(&mut text)?;
    Ok(text)
}
pub(super) async fn version(session: &Session) -> Result<(), Failure> {
    let mine = VersionDocument {
        schema: VersionSchema::V1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    };
    // Ignored because a node that does not run has no version, and this command does not need one.
    let node = session.client()?.get::<VersionDocument>(routes::VERSION).await.ok();
    if let Some(node) = &node
        && node.document.version != mine.version
    {
        session.out.warn("the node is of another version: restart it");
    }
    session.show_own(&mine, |mine| {
        let mut text = format!("wattle {}\n", mine.version);
        if let Some(node) = &node {
            text.push_str(&format!("node \"{}\" {}\n", session.globals.node, tame(&node.document.version)));
        }
        Shown { text, ids: vec![mine.version.clone()] }
    })
}
