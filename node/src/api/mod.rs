//! The local API: one router, served on a Unix socket and on loopback TCP.
//!
//! The walk of a request: `listen` (which door, which user) -> `guard` (host, origin, token, role) ->
//! `observe` (span, counters) -> a route -> the overlay -> a document, or an
//! [`ErrorDocument`](documents::ErrorDocument).

mod access;
pub mod documents;
mod extract;
mod failure;
mod guard;
mod impatient;
mod listen;
mod names;
mod page;
mod routes;

pub use access::{Access, LOGIN_CODE_LIVES, NewToken, SESSION_LIVES, TOKENS_MAX, TokenError};
pub use failure::{ApiFailure, words};
pub use guard::{Door, Guard, Needs, cookie_name, needed};
pub use listen::{Server, Socket, bind_tcp};
pub use names::{Names, Whom, check_name};
pub use routes::gate::Gate;
#[doc(hidden)]
pub use routes::keys::check_key;
pub(crate) use routes::members::event as member_event;
pub(crate) use routes::order::{event as order_event, verified as verify_receipt};
pub use routes::{gate_only, openapi, router};
