//! Routes about registers: questions to the app of that name, which has its state in the ordered log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use utoipa::IntoParams;
use wattle_app::{Position, Reject, RejectCode};
use wattle_register::{Answer as RegisterAnswer, Ask};

use super::super::documents::{
    Bytes, ErrorDocument, RegisterAppendDocument, RegisterAppendRequest, RegisterAppendSchema,
    RegisterDocument, RegisterLine, RegisterRow, RegisterSchema, RegistersDocument, RegistersSchema,
};
use super::super::extract::{Json, Parameters, Part, timeout};
use super::super::failure::{ApiFailure, words};
use super::order;
use crate::clock::timestamp;
use crate::exit::ErrorCode;
use crate::node::{Node, whole_millis};

type Result<T> = std::result::Result<T, ApiFailure>;

/// Lines in one answer, when nothing is said.
const PAGE: usize = 20;
/// How long a line may take to be ordered, when nothing is said.
const ORDERED_WITHIN: Duration = Duration::from_secs(30);

async fn ask(node: &Node, question: Ask) -> Result<RegisterAnswer> {
    let answer = node.apps.ask(wattle_register::ID, &question).await;
    answer.map_err(|reject: Reject| {
        let missing = reject.code == RejectCode::NotFound;
        let failure = ApiFailure::from(reject);
        if missing { failure.hint("wattle register list") } else { failure }
    })
}

fn unexpected() -> ApiFailure {
    ApiFailure::new(ErrorCode::Failed, "register gave an answer of another kind")
}

/// Which registers there are.
#[utoipa::path(get, path = "/registers", tag = "order",
    responses((status = 200, body = RegistersDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Answer<RegistersDocument>> {
    let height = order::log(&node)?.tip().borrow().0;
    let RegisterAnswer::List(registers) = ask(&node, Ask::List).await? else { return Err(unexpected()) };
    let row =
        |summary: wattle_register::Summary| RegisterRow { register: summary.register, count: summary.count };
    let registers = registers.into_iter().map(row).collect();
    Ok(Answer(RegistersDocument { schema: RegistersSchema::V1, height, registers }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LinesQuery {
    /// From this number on; the newest when absent.
    from: Option<u64>,
    /// So many at most; 20 when absent, 1000 at most.
    count: Option<usize>,
}

/// Lines of a register, in order.
#[utoipa::path(get, path = "/registers/{register}", tag = "order", params(LinesQuery,
    ("register" = String, Path, description = "Its name")),
    responses((status = 200, body = RegisterDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn read(
    State(node): State<Arc<Node>>,
    Part(register): Part,
    Parameters(query): Parameters<LinesQuery>,
) -> Result<Answer<RegisterDocument>> {
    let height = order::log(&node)?.tip().borrow().0;
    let limit = query.count.unwrap_or(PAGE).max(1);
    let question = Ask::Read { register: register.clone(), from: query.from, limit };
    let RegisterAnswer::Lines { lines, count } = ask(&node, question).await? else {
        return Err(unexpected());
    };
    let row = |line: wattle_register::Line| RegisterLine {
        number: line.number,
        height: line.at.height.0,
        index: line.at.index,
        time: timestamp(line.at.time),
        line_b64: Bytes(line.line.into_vec()),
    };
    let lines = lines.into_iter().map(row).collect();
    Ok(Answer(RegisterDocument { schema: RegisterSchema::V1, register, count, height, lines }))
}

/// Append a line. While too few validators are there to order it, that is said at once, and nothing is kept of it.
#[utoipa::path(post, path = "/registers/{register}", tag = "order", request_body = RegisterAppendRequest,
    params(("register" = String, Path, description = "Its name; it begins with its first line")),
    responses((status = 200, body = RegisterAppendDocument), (status = "default", body = ErrorDocument)))]
pub(super) async fn append(
    State(node): State<Arc<Node>>,
    Part(register): Part,
    Json(request): Json<RegisterAppendRequest>,
) -> Result<Answer<RegisterAppendDocument>> {
    let began = Instant::now();
    let limit = timeout(request.timeout_ms, ORDERED_WITHIN);
    order::check_quorum(&node, "your line was NOT accepted; wattle order status tells when it will be")
        .await?;
    let line = ByteBuf::from(request.line_b64.0);
    let asked = ask(&node, Ask::Append { register: register.clone(), line });
    let answer = tokio::time::timeout(limit, asked).await.map_err(|_elapsed| {
        let message = format!("timed out after {} waiting for the commit", words(limit));
        ApiFailure::new(ErrorCode::Timeout, message)
            .detail("", "whether your line is ordered is NOT KNOWN yet; a minute after you asked it is or never will be")
            .detail("find out", format!("wattle register read {register}"))
            .hint(format!("wattle register read {register}"))
    })??;
    let RegisterAnswer::Appended { number, at: Position { height, index, .. } } = answer else {
        return Err(unexpected());
    };
    let took_ms = whole_millis(began.elapsed());
    let schema = RegisterAppendSchema::V1;
    Ok(Answer(RegisterAppendDocument { schema, register, number, height: height.0, index, took_ms }))
}
