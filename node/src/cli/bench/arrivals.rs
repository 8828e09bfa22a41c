//! What other nodes say that they have, and whoever waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::documents::ErrorDocument;
use crate::cli::errors::Failure;
use crate::cli::values::short;
use crate::exit::ErrorCode;

/// Things that are kept for those who ask later: more than are ever under way.
const KEPT_MAX: usize = 65_536;

/// How often each thing arrived, and when the last time was.
#[derive(Clone, Default)]
pub(super) struct Arrivals {
    table: Arc<Mutex<BTreeMap<String, (usize, Instant)>>>,
    news: Arc<Notify>,
}

impl Arrivals {
    /// It arrived at one node more.
    pub(super) fn note(&self, key: String) {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = table.entry(key).or_insert((0, now));
        *seen = (seen.0 + 1, now);
        if table.len() > KEPT_MAX {
            // Nobody waits for what came long after everybody gave it up; keys sort by their age.
            table.pop_first();
        }
        drop(table);
        self.news.notify_waiters();
    }

    fn take(&self, key: &str, count: usize) -> Option<Instant> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, last) = table.get(key).copied().filter(|(seen, _)| *seen >= count)?;
        table.remove(key);
        Some(last)
    }

    /// When it had arrived at so many, whether that was before or is to come.
    pub(super) async fn all(&self, key: &str, count: usize, within: Duration) -> Result<Instant, Failure> {
        let waiting = async {
            loop {
                // Before the look, so that nothing that comes after it is missed.
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(last) = self.take(key, count) {
                    return last;
                }
                news.await;
            }
        };
        tokio::time::timeout(within, waiting).await.map_err(|_elapsed| {
            let message = format!("it was not on every other node within {}", short(within));
            ErrorDocument::new(ErrorCode::Timeout, message).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_is_everywhere_is_told_to_who_asks_before_and_to_who_asks_after() {
        let arrivals = Arrivals::default();
        arrivals.note("early".to_owned());
        assert!(arrivals.all("early", 2, SOON).await.is_err(), "one node is not all");
        arrivals.note("early".to_owned());
        assert!(arrivals.all("early", 2, SOON).await.is_ok());
        assert!(arrivals.all("early", 1, SOON).await.is_err(), "it is told once");
        let (told, ()) = tokio::join!(arrivals.all("late", 1, Duration::from_secs(20)), async {
            tokio::time::sleep(SOON).await;
            arrivals.note("late".to_owned());
        });
        assert!(told.is_ok());
    }
}
