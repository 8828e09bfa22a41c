//! `dht trace`: the walk of a lookup, as a table and as a drawing.

use std::fmt::Write as _;

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

const ROW: u32 = 34;
const TOP: u32 = 64;
const LEFT: u32 = 40;
const WIDTH: u32 = 960;

/// A ladder: one rung a question, from far (left) to near (right) by the bits shared with the target, so that progress is a
/// line going right.
pub(super) fn svg(target: &str, steps: &[Step], summary: &str) -> String {
    let rows = u32::try_from(steps.len()).unwrap_or(u32::MAX).min(1000);
    let height = TOP + rows * ROW + 48;
    let most = steps.iter().map(|step| step.shared_bits).max().unwrap_or_default().max(1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"ui-monospace,monospace\" font-size=\"13\">\n<title>Lookup of {title}</title>\n\
         <style>.bg{{fill:#fff}}.t{{fill:#222}}.f{{fill:#777}}.l{{stroke:#bbb}}\
         .answered{{fill:#2b7de9}}.found{{fill:#1a9e55}}.failed{{fill:#d9822b}}\
         @media(prefers-color-scheme:dark){{.bg{{fill:#16181d}}.t{{fill:#eee}}.f{{fill:#999}}.l{{stroke:#444}}}}</style>\n\
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
        if let Some((from_x, from_y)) = last {
            // Ignored because writing to a String cannot fail.
            drop(writeln!(svg, "<line class=\"l\" x1=\"{from_x}\" y1=\"{from_y}\" x2=\"{x}\" y2=\"{y}\"/>"));
        }
        let class = match step.end {
            End::Answered => "answered",
            End::Found => "found",
            End::Failed => "failed",
        };
        let text_y = y + 4;
        let rtt = step.rtt_ms.map(super::values::millis).unwrap_or_default();
        drop(writeln!(
            svg,
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"6\"/>\
             <text class=\"t\" x=\"524\" y=\"{text_y}\">{hop}  {peer}  {bits} bits  {rtt}</text>\
             <text class=\"f\" x=\"770\" y=\"{text_y}\">{answered}</text>",
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
    drop(writeln!(svg, "<text class=\"t\" x=\"{LEFT}\" y=\"{y}\">{}</text>\n</svg>", escape(summary)));
    svg
}

fn escape(text: &str) -> String {
    super::table::tame(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
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
