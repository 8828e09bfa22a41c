//! Apps: what one is, what it may do, and the host that runs them.
//!
//! # What it does
//!
//! An app is a value that implements [`App`]: it is told what happened ([`AppEvent`]) and what somebody asks
//! ([`Request`]), and says through its [`Context`] what must happen. It has no socket, file or clock, so it
//! runs in a simulation as it is. The [`Host`] is the machine that holds the apps of a node: it gives each the
//! events of its kind of documents, numbers their calls, and holds them to their quota.
//!
//! # The walk of a request
//!
//! 1. A caller's bytes become [`Input::Request`]; the host gives them to the app they name, unless they are more than
//!    its quota allows.
//! 2. The app makes calls, each with a [`CallId`]; they leave as [`Output::Call`].
//! 3. What a call came to comes back as [`Input::Done`], and the app hears it as [`AppEvent::Done`]. A read runs where
//!    the document is, on all of it; what it answers with is all that leaves.
//! 4. The app replies, then or at once: [`Output::Reply`].
//!
//! # Invariants
//!
//! * **A1** A request is answered at most once; an answer to anything else is left out.
//! * **A2** Every call is answered exactly once, a call beyond the quota by [`CallError::OverQuota`].
//! * **A3** An app hears only of documents of its own kind.
//!
//! # The walk of an entry of the ordered log
//!
//! 1. An app proposes ([`Context::propose`]) and its own `check` says that it makes sense: [`Output::Propose`]. Who
//!    hands it in says by which hash ([`Input::Handed`]). What callers hand in for an app is shown to [`Host::check`].
//! 2. The log orders it. Its block comes to every replica ([`Input::Order`]), and the app applies the entry.
//! 3. The root behind the block goes to the log ([`Output::Executed`]), and what the entry came to goes to the app that
//!    proposed it ([`Answer::Ordered`]).
//!
//! Rules O1 to O4 are in `ordered`.
//!
//! # Bounds
//!
//! [`CALLS_MAX`] calls of one app wait at a time; [`Quota`] bounds the bytes that it is asked to write and that it
//! appends and proposes in a second. A closure of an edit tells nobody its size: what an app writes it was given in a
//! request. [`LogQuota`] bounds what an app does in the log, on every replica alike.
//!
//! # Not here
//!
//! Where calls go (weave), who may ask (the API), the log itself. An app that panics in `apply` does so on every
//! replica: nothing here catches that.

mod app;
mod host;
mod ordered;

pub use app::{
    Answer, App, AppEvent, AppId, Authors, Call, CallError, CallId, Context, DocInfo, Edit, Read, Reject,
    RejectCode, Request, RequestId, Steps, kind_of, set_kind,
};
pub use host::{CALLS_MAX, Config, Host, Input, Output, Quota};
pub use ordered::{
    ANSWER_BYTES_MAX, Corrupt, ENTRY_BYTES_MAX, Executed, Height, LogQuota, NotNext, Ordered, OrderedBlock,
    Outcome, Position, Receipt, SNAPSHOT_BYTES_MAX,
};
