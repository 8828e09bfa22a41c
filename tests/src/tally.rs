//! Counts what is said, on every node the same.

use wattle_app::{Answer, App, AppEvent, AppId, CallId, Context, Request, RequestId, set_kind};

/// How often anybody raised it.
#[derive(Default)]
pub struct Tally {
    count: u64,
    asked: std::collections::BTreeMap<CallId, RequestId>,
}

impl App for Tally {
    fn id(&self) -> AppId {
        AppId("tally/1")
    }

    // Documents whose `app` field says this are told to this app, and to no other.
    fn kind(&self) -> &'static str {
        "tally/1"
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>) {
        match event {
            // Entries of all members' feeds, checked and on disk.
            AppEvent::FeedGrew { posts, .. } => {
                self.count += posts.len() as u64;
                cx.emit(self.count.to_be_bytes().to_vec());
            }
            AppEvent::Done { call, result } => {
                if let Some(request) = self.asked.remove(&call) {
                    let answer = result.map(|answer| match answer {
                        Answer::Created { doc } => doc.as_bytes().to_vec(),
                        _ => Vec::new(),
                    });
                    cx.reply(request, answer.map_err(Into::into));
                }
            }
            _ => {}
        }
    }

    // Without a body: make a tally. With a document's id: raise it by one.
    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        let call = match <[u8; 16]>::try_from(request.body.as_slice()) {
            Ok(doc) => cx.append(wattle_types::DocId::from_bytes(doc), b"+1".to_vec()),
            Err(_) => cx.create(Box::new(|tx| set_kind(tx, "tally/1"))),
        };
        self.asked.insert(call, request.id);
    }
}
