//! From a failed operation to the catalogue: code, exit status, HTTP status, message, hint and rows for a
//! person.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wattle_net::{ConnectError, DhtError, PingError, PublishError, RequestError, Stopped};
use wattle_store::CommitError;

use super::access::TokenError;
use super::documents::ErrorDocument;
use crate::exit::ErrorCode;

/// An answer that says why not.
#[derive(Debug)]
pub struct ApiFailure {
    status: StatusCode,
    error: Box<ErrorDocument>,
}

impl ApiFailure {
    /// With a status of its own instead of the code's.
    #[must_use]
    pub fn with_status(status: StatusCode, error: ErrorDocument) -> Self {
        Self { status, error: Box::new(error) }
    }

    /// With nothing but a message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorDocument::new(code, message).into()
    }

    /// Bad input of the caller.
    #[must_use]
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::Usage, message.to_string())
    }

    /// With what to type now.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// With one more row for a person.
    #[must_use]
    pub fn detail(mut self, label: &str, text: impl Into<String>) -> Self {
        self.error.details.push([label.to_owned(), text.into()]);
        self
    }

    /// The document.
    #[must_use]
    pub fn into_document(self) -> ErrorDocument {
        *self.error
    }
}

impl From<ErrorDocument> for ApiFailure {
    fn from(error: ErrorDocument) -> Self {
        let status =
            StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with_status(status, error)
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        (self.status, axum::Json(*self.error)).into_response()
    }
}

impl From<Stopped> for ApiFailure {
    fn from(stopped: Stopped) -> Self {
        Self::new(ErrorCode::NoNode, stopped.to_string()).hint("wattle run")
    }
}

impl From<CommitError> for ApiFailure {
    fn from(error: CommitError) -> Self {
        Self::new(ErrorCode::Failed, format!("the disk did not take it: {error}"))
    }
}

impl From<TokenError> for ApiFailure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NotFound(_) => {
                Self::new(ErrorCode::NotFound, error.to_string()).hint("wattle token list")
            }
            TokenError::TooMany => {
                Self::new(ErrorCode::Conflict, error.to_string()).hint("wattle token list")
            }
            TokenError::NoRandomness(_) => Self::new(ErrorCode::Failed, error.to_string()),
            TokenError::Store(error) => error.into(),
        }
    }
}

/// A span as people read it.
#[must_use]
pub fn words(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        1000..60_000 => format!("{:.1}s", span.as_secs_f64()),
        60_000..3_600_000 => format!("{}m", millis / 60_000),
        _ => format!("{}h{:02}m", millis / 3_600_000, millis / 60_000 % 60),
    }
}

/// Why dialing `whom` did not work.
#[must_use]
pub(super) fn connect_failure(error: ConnectError, whom: &str) -> ApiFailure {
    match error {
        ConnectError::Stopped(stopped) => stopped.into(),
        ConnectError::Myself => ApiFailure::new(ErrorCode::Usage, format!("{whom} is this node itself")),
        ConnectError::NoAddress => {
            ApiFailure::new(ErrorCode::NotFound, format!("no address of {whom} is known"))
                .hint("wattle connect <multiaddr>, or wattle join <ticket>")
                .detail("looked in", "the address book and the DHT")
        }
        ConnectError::Blocked => ApiFailure::new(ErrorCode::Denied, format!("{whom} is blocked here"))
            .hint(format!("wattle peers unblock {whom}")),
        ConnectError::WrongPeer(other) => {
            ApiFailure::new(ErrorCode::Invalid, format!("another peer answered in place of {whom}"))
                .detail("answered", other.to_string())
                .hint("ask for a new address or ticket")
        }
        ConnectError::Unreachable { tried } => {
            let mut failure = ApiFailure::new(ErrorCode::Failed, format!("no address of {whom} answered"));
            for (address, why) in tried {
                failure = failure.detail("tried", format!("{address}: {why}"));
            }
            failure.hint("is it running, and can this machine reach it?")
        }
        ConnectError::HungUp(why) => {
            ApiFailure::new(ErrorCode::Denied, format!("{whom} answered and then hung up: {why}"))
                .detail("maybe", "it is in another network, or has another network key")
        }
    }
}

/// Why pinging `whom` did not work.
#[must_use]
pub(super) fn ping_failure(error: PingError, whom: &str) -> ApiFailure {
    match error {
        PingError::Stopped(stopped) => stopped.into(),
        PingError::Connect(error) => connect_failure(error, whom),
        PingError::Timeout(after) => {
            ApiFailure::new(ErrorCode::Timeout, format!("no answer from {whom} within {}", words(after)))
        }
        PingError::Broken(why) => ApiFailure::new(ErrorCode::Failed, format!("{whom} broke off: {why}")),
    }
}

/// Why a DHT operation on `what` (such as `peer ..Xs2fQm` or `the key greeting`) did not work.
#[must_use]
pub(super) fn dht_failure(error: DhtError, what: &str, network: &str) -> ApiFailure {
    match error {
        DhtError::Stopped(stopped) => stopped.into(),
        DhtError::Alone => {
            ApiFailure::new(ErrorCode::NotFound, "no peers to ask: this node knows nobody in the DHT yet")
                .hint("wattle status says why, and what to try")
        }
        DhtError::NotFound { asked, rejected } => {
            let code = if rejected.is_empty() { ErrorCode::NotFound } else { ErrorCode::Invalid };
            let mut failure = ApiFailure::new(code, format!("asked {asked} peers, none has {what}"));
            for answer in rejected {
                let who =
                    answer.peer.map_or_else(|| "somebody".to_owned(), |peer| format!("..{}", peer.short()));
                failure = failure.detail("refused", format!("{who}: {}", answer.why));
            }
            failure.detail("maybe", format!("it expired, or is in another network (yours: \"{network}\")"))
        }
        DhtError::Timeout { asked, answered, after } => {
            let message = format!("timed out after {} looking for {what}", words(after));
            let silent = asked.saturating_sub(answered);
            ApiFailure::new(ErrorCode::Timeout, message)
                .detail("", format!("asked {asked} peers; {answered} answered, {silent} did not"))
                .detail("maybe", format!("it is offline, or in another network (yours: \"{network}\")"))
        }
        DhtError::NotStored { asked } => {
            ApiFailure::new(ErrorCode::Failed, format!("no peer stored {what}: asked {asked}"))
        }
        DhtError::Invalid(why) => {
            ApiFailure::new(ErrorCode::Invalid, format!("the record is not valid: {why}"))
        }
        DhtError::Stale { got, current } => {
            let message = format!("a newer record is known (sequence {current}, yours {got})");
            ApiFailure::new(ErrorCode::Conflict, message).hint("is the clock of this machine slow?")
        }
        DhtError::TooMany(_) => ApiFailure::new(ErrorCode::Conflict, error.to_string()),
        DhtError::Busy(_) => ApiFailure::with_status(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorDocument::new(ErrorCode::Failed, error.to_string()),
        ),
    }
}

impl From<PublishError> for ApiFailure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Stopped(stopped) => stopped.into(),
            PublishError::TooLarge { .. } => Self::usage(error),
            PublishError::Busy => Self::with_status(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorDocument::new(ErrorCode::Failed, error.to_string()).hint("try again more slowly"),
            ),
        }
    }
}

/// Why a question on a topic got no answer.
#[must_use]
pub(super) fn request_failure(error: RequestError, topic: &str) -> ApiFailure {
    match error {
        RequestError::Publish(error) => error.into(),
        RequestError::Timeout { after, listeners } => {
            let message = format!("no answer on {topic} within {}", words(after));
            let failure = ApiFailure::new(ErrorCode::Timeout, message)
                .detail("", format!("{listeners} peers follow the topic"));
            if listeners == 0 {
                failure.hint(format!("wattle topic reply {topic} --exec CMD"))
            } else {
                failure
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_what_was_waited_for_how_long_and_how_far_it_got() {
        let error = DhtError::Timeout { asked: 14, answered: 11, after: Duration::from_secs(10) };
        let document = dht_failure(error, "peer ..Xs2fQm", "wattle").into_document();
        assert_eq!(document.message, "timed out after 10s looking for peer ..Xs2fQm");
        assert_eq!(document.exit, 5);
        assert_eq!(document.details[0], ["", "asked 14 peers; 11 answered, 3 did not"]);
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let cases = [(250, "250ms"), (3000, "3s"), (3500, "3.5s"), (120_000, "2m"), (8_040_000, "2h14m")];
        for (millis, text) in cases {
            assert_eq!(words(Duration::from_millis(millis)), text);
        }
    }
}
