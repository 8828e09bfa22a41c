//! The app: what is asked becomes an entry of the log, what is ordered becomes a line.

use std::collections::BTreeMap;

use wattle_app::{
    Answer as Did, App, AppEvent, AppId, CallId, Context, Corrupt, LogQuota, Position, Receipt, Reject,
    RejectCode, Request, RequestId,
};
use wattle_types::cbor;

use crate::ask::{Answer, Ask, Change, LINE_BYTES_MAX, READ_BYTES_MAX, READ_MAX, Summary};
use crate::lines::Registers;

/// This app.
pub const ID: AppId = AppId("register/1");

/// Registers.
#[derive(Default)]
pub struct Register {
    registers: Registers,
    asked: BTreeMap<CallId, RequestId>,
}

impl Register {
    /// Without registers: they come with the log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer, if there is one at once.
    fn ask(&mut self, request: RequestId, ask: Ask, cx: &mut Context<'_>) -> Result<Option<Answer>, Reject> {
        match ask {
            Ask::List => {
                let summary = |(name, count): (&str, u64)| Summary { register: name.to_owned(), count };
                Ok(Some(Answer::List(self.registers.names().map(summary).collect())))
            }
            Ask::Append { register, line } => {
                let change = Change::Append { register, line };
                change.check()?;
                self.asked.insert(cx.propose(change.encode()), request);
                Ok(None)
            }
            Ask::Read { register, from, limit } => self.read(&register, from, limit).map(Some),
        }
    }

    fn read(&self, register: &str, from: Option<u64>, limit: usize) -> Result<Answer, Reject> {
        let missing = || Reject::new(RejectCode::NotFound, format!("no register {register} here"));
        let count = self.registers.count(register).ok_or_else(missing)?;
        let limit = limit.min(READ_MAX);
        let from = from.unwrap_or_else(|| count.saturating_sub(limit as u64));
        let mut bytes = 0;
        let fits = |line: &crate::ask::Line| {
            bytes += line.line.len();
            bytes <= READ_BYTES_MAX
        };
        let lines = self.registers.read(register, from).take(limit).take_while(fits).collect();
        Ok(Answer::Lines { lines, count })
    }
}

fn reply(cx: &mut Context<'_>, request: RequestId, answer: Result<Answer, Reject>) {
    cx.reply(request, answer.map(|answer| cbor::encode(&answer)));
}

/// What an append came to, as its receipt says.
fn appended(at: Position, receipt: Receipt) -> Result<Answer, Reject> {
    let unread = |_| Reject::new(RejectCode::Failed, "the receipt is not one of register's");
    let number = receipt?.try_into().map(u64::from_be_bytes).map_err(unread)?;
    Ok(Answer::Appended { number, at })
}

impl App for Register {
    fn id(&self) -> AppId {
        ID
    }

    fn kind(&self) -> &'static str {
        ID.0
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Context<'_>) {
        let AppEvent::Done { call, result } = event else { return };
        let Some(request) = self.asked.remove(&call) else { return };
        let answer = match result {
            Ok(Did::Ordered { at, receipt }) => appended(at, receipt),
            Ok(_) => Err(Reject::new(RejectCode::Failed, "the log gave another answer than was asked for")),
            Err(error) => Err(error.into()),
        };
        reply(cx, request, answer);
    }

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        let Ok(ask) = cbor::decode::<Ask>(&request.body, LINE_BYTES_MAX + 1024) else {
            let why = Reject::new(RejectCode::Usage, "a question that register does not understand");
            return reply(cx, request.id, Err(why));
        };
        match self.ask(request.id, ask, cx) {
            Ok(None) => {}
            Ok(Some(answer)) => reply(cx, request.id, Ok(answer)),
            Err(why) => reply(cx, request.id, Err(why)),
        }
    }

    fn in_log(&self) -> Option<LogQuota> {
        Some(LogQuota::default())
    }

    fn check(&self, data: &[u8]) -> Result<(), Reject> {
        Change::decode(data).map(drop)
    }

    fn apply(&mut self, at: Position, data: &[u8]) -> Receipt {
        let number = self.registers.apply(at, Change::decode(data)?)?;
        Ok(number.to_be_bytes().to_vec())
    }

    fn digest(&self) -> [u8; 32] {
        self.registers.digest()
    }

    fn stored(&self) -> u64 {
        self.registers.stored()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.registers.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.registers = Registers::restore(bytes)?;
        Ok(())
    }
}
