//! `dht trace`: the walk of a lookup, as a table and as a drawing.

use hyper::Method;

use super::client::{cut_off, read_line};
use super::dht::Trace;
use super::errors::{Failure, of_io};
use super::output::Meaning;
use super::routes;
use super::session::{Session, who};
use super::table::{fill, tame};
use super::values::millis;
use crate::api::documents::{DhtTargetRequest, TraceDone, TraceLine, TraceStep};
use crate::exit::ErrorCode;

/// One peer asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) hop: u32,
    /// What to call it.
    pub(super) peer: String,
    pub(super) shared_bits: u32,
    pub(super) rtt_ms: Option<f64>,
    /// What came of it, in words.
    pub(super) answered: String,
    pub(super) end: End,
}

/// How a question ended, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    Found,
    Failed,
}

/// Follows the walk as it happens: a line for every peer that answered or failed.
pub(super) async fn trace(session: &Session, args: &Trace) -> Result<(), Failure> {
    let request = DhtTargetRequest { target: args.target.clone(), timeout_ms: session.timeout_ms() };
    let mut lines = session.client()?.stream(Method::POST, routes::DHT_TRACE, Some(&request)).await?;
    let out = session.out;
    let screen = !out.json && !out.quiet;
    if screen {
        out.line(&format!("looking for {}   alpha 3   k 20", tame(&args.target)))?;
        out.line(&out.paint(Meaning::Faint, &columns("hop", "peer", "shared bits", "rtt", "answered")))?;
    }
    let mut steps = Vec::new();
    while let Some(raw) = lines.next().await? {
        if out.json {
            out.raw(&raw)?;
        }
        let (step, end) = match read_line(&raw)? {
            TraceLine::Query(_) | TraceLine::Closer(_) => continue,
            TraceLine::Response(step) if step.has_target => (step, End::Found),
            TraceLine::Response(step) => (step, End::Answered),
            TraceLine::Timeout(step) | TraceLine::Failed(step) => (step, End::Failed),
            TraceLine::Done(done) => return finish(session, args, &steps, &done),
            TraceLine::Error { error, .. } => return Err(error.into()),
        };
        let step = Step::of(&step, end);
        if screen {
            out.line(&step.line(session))?;
        }
        steps.push(step);
    }
    Err(cut_off())
}

fn columns(hop: &str, peer: &str, bits: &str, rtt: &str, answered: &str) -> String {
    format!("{hop:>3}  {}  {bits:>11}   {rtt:<9}  {answered}", fill(peer, 20))
}

fn finish(session: &Session, args: &Trace, steps: &[Step], done: &TraceDone) -> Result<(), Failure> {
    let failures = if done.failures > 0 { format!(" ({} failed)", done.failures) } else { String::new() };
    let took = format!("{} hops, {} queries{failures}, {} ms", done.hops, done.queries, done.took_ms);
    let summary = match (done.found, done.addresses.first()) {
        (true, Some(address)) => format!("found in {took}: {}", tame(address)),
        (true, None) => format!("reached in {took}"),
        (false, _) => format!("not found after {took}"),
    };
    if let Some(file) = &args.svg {
        let drawing = svg(&args.target, steps, &summary);
        std::fs::write(file, drawing).map_err(|error| of_io("write", file, &error))?;
        session.out.note(&format!("drawn into {}", file.display()));
    }
    if session.out.quiet && !session.out.json {
        for peer in &done.closest {
            session.out.line(&peer.id.to_string())?;
        }
    } else if !session.out.json {
        session.out.line(&summary)?;
        for address in done.addresses.iter().skip(1) {
            session.out.line(&format!("  {}", tame(address)))?;
        }
    }
    if done.found { Ok(()) } else { Err(ErrorCode::NotFound.into()) }
}

impl Step {
    fn of(step: &TraceStep, end: End) -> Self {
        let best = step.closer.iter().map(|peer| peer.shared_bits).max();
        let answered = match (end, best) {
            (End::Found, _) => "has the peer".to_owned(),
            (End::Failed, _) => tame(step.why.as_deref().unwrap_or("no answer")),
            (End::Answered, Some(best)) if step.closer.len() == 1 => format!("1 peer, {best} bits"),
            (End::Answered, Some(best)) => format!("{} peers, best {best} bits", step.closer.len()),
            (End::Answered, None) => "no peers".to_owned(),
        };
        Self {
            hop: step.hop,
            peer: who(&step.peer, &step.name),
            shared_bits: step.shared_bits,
            rtt_ms: step.rtt_ms,
            answered,
            end,
        }
    }

    fn line(&self, session: &Session) -> String {
        let meaning = match self.end {
            End::Answered => Meaning::Plain,
            End::Found => Meaning::Good,
            End::Failed => Meaning::Doubtful,
        };
        let rtt = self.rtt_ms.map_or_else(|| "failed".to_owned(), millis);
        let bits = self.shared_bits.to_string();
        let line = columns(&self.hop.to_string(), &self.peer, &bits, &rtt, &self.answered);
        session.out.paint(meaning, &line)
    }
}

const ROW: u32 = 34;
const TOP: u32 = 64;
const LEFT: u32 = 40;
const WIDTH: u32 = 960;

/// A ladder: one rung a question, from far (left) to near (right) by the bits shared with the target, so that
/// progress is a line going right.
pub(super) fn svg(target: &str, steps: &[Step], summary: &str) -> String {
    let rows = u32::try_from(steps.len()).unwrap_or(u32::MAX).min(1000);
    let height = TOP + rows * ROW + 48;
    let most = steps.iter().map(|step| step.shared_bits).max().unwrap_or_default().max(1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"ui-monospace,monospace\" font-size=\"13\">\n<title>Lookup of {title}</title>\n\
         <style>.bg{{fill:#fff}}.t{{fill:#222}}.f{{fill:#777}}.l{{stroke:#bbb}}\
         .answered{{fill:#2b7de9}}.found{{fill:#1a9e55}}.failed{{fill:#d9822b}}\
         @media(prefers-color-scheme:dark){{\
         .bg{{fill:#16181d}}.t{{fill:#eee}}.f{{fill:#999}}.l{{stroke:#444}}}}</style>\n\
         <rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"t\" x=\"{LEFT}\" y=\"28\" font-weight=\"bold\">looking for {title}</text>\n\
         <text class=\"f\" x=\"{LEFT}\" y=\"48\">far</text>\
         <text class=\"f\" x=\"500\" y=\"48\" text-anchor=\"end\">near</text>\n",
        title = escape(target),
    );
    let mut last: Option<(u32, u32)> = None;
    for (index, step) in (0_u32..).zip(steps.iter().take(1000)) {
        let y = TOP + index * ROW + ROW / 2;
        let x = LEFT + step.shared_bits * (500 - LEFT) / most;
        if let Some((from_x, from_y)) = last.filter(|_| step.end != End::Failed) {
            svg.push_str(&format!(
                "<line class=\"l\" x1=\"{from_x}\" y1=\"{from_y}\" x2=\"{x}\" y2=\"{y}\"/>\n"
            ));
        }
        let class = match step.end {
            End::Answered => "answered",
            End::Found => "found",
            End::Failed => "failed",
        };
        let text_y = y + 4;
        let rtt = step.rtt_ms.map(millis).unwrap_or_default();
        svg.push_str(&format!(
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"6\"/>\
             <text class=\"t\" x=\"524\" y=\"{text_y}\">{hop}  {peer}  {bits} bits  {rtt}</text>\
             <text class=\"f\" x=\"770\" y=\"{text_y}\">{answered}</text>\n",
            hop = step.hop,
            peer = escape(&step.peer),
            bits = step.shared_bits,
            answered = escape(&step.answered),
        ));
        if step.end != End::Failed {
            last = Some((x, y));
        }
    }
    let y = height - 20;
    svg.push_str(&format!("<text class=\"t\" x=\"{LEFT}\" y=\"{y}\">{}</text>\n</svg>\n", escape(summary)));
    svg
}

fn escape(text: &str) -> String {
    tame(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_holds_every_step_and_no_markup_of_a_peer() {
        let step = |hop, bits, end| Step {
            hop,
            peer: "<b>..Xs2fQm".to_owned(),
            shared_bits: bits,
            rtt_ms: Some(1.1),
            answered: "20 peers".to_owned(),
            end,
        };
        let steps = [step(1, 4, End::Answered), step(1, 3, End::Failed), step(2, 9, End::Found)];
        let drawing = svg("..aa71Zp & co", &steps, "found in 2 hops");
        assert_eq!(drawing.matches("<circle").count(), 3);
        assert_eq!(drawing.matches("<line").count(), 1, "a failed question leads nowhere");
        assert!(!drawing.contains("<b>"));
        assert!(drawing.contains("..aa71Zp &amp; co"));
    }
}
