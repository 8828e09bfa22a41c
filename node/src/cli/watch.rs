//! `--watch`: the same screen again and again; redrawn on a terminal, appended anywhere else.

use std::time::Duration;

use super::errors::Failure;
use super::output::Output;

/// How often a watched screen is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// Shows what `screen` makes until it fails or Ctrl-C comes.
pub(super) async fn watch(
    out: Output,
    mut screen: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    loop {
        let text = screen().await?;
        if out.terminal && !out.json {
            // Home, then each line up to its end, then everything below: no flicker of an empty screen.
            let lines = text.replace('\n', "\u{1b}[K\n");
            out.text(&format!("\u{1b}[H{lines}\u{1b}[J"))?;
        } else {
            out.text(&text)?;
        }
        tokio::time::sleep(EVERY).await;
    }
}
