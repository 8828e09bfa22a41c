//! The report as one page that needs nothing else.

use super::verdict;
use crate::cli::documents::{TestnetCheck, TestnetReportDocument};
use crate::cli::testnet::links::{groups, shape_text};
use crate::cli::testnet::show::standing;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.3rem .6rem;\
border-bottom:1px solid #8884;vertical-align:top}.PASS{color:#18794e}.FAIL{color:#c62a2f;font-weight:bold}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}@media(prefers-color-scheme:dark){\
body{background:#111;color:#ddd}.PASS{color:#4cc38a}.FAIL{color:#ff9592}}";

/// What people wrote, as text of a page.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
    format!("<tr>{cells}</tr>\n")
}

fn check(check: &TestnetCheck) -> String {
    let (word, _) = verdict(check);
    let class = if check.pass.is_some() { word } else { "" };
    let held = check.held_after_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
    let evidence = serde_json::to_string_pretty(&check.evidence).unwrap_or_default();
    format!(
        "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{}<details><summary>evidence</summary><pre>{}</pre>\
         </details></td><td>{held}</td></tr>\n",
        escape(&check.name),
        escape(&check.summary),
        escape(&evidence),
    )
}

/// The page.
pub(super) fn page(document: &TestnetReportDocument) -> String {
    let name = escape(&document.name);
    let (word, class) =
        if document.pass { ("everything holds", "PASS") } else { ("something broke", "FAIL") };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>testnet {name}</title>\n\
         <style>{STYLE}</style>\n<h1>testnet {name}</h1>\n\
         <p class=\"{class}\">{word}</p><p>{}, seed {}</p>\n",
        document.at, document.seed
    );
    page.push_str("<h2>What must hold</h2>\n<table><tr><th>what<th><th>seen<th>held after</tr>\n");
    page.extend(document.checks.iter().map(check));
    page.push_str(
        "</table>\n<h2>Nodes</h2>\n<table><tr><th>index<th>name<th>state<th>alive for it<th>id</tr>\n",
    );
    for node in &document.nodes {
        let alive = node.alive.map(|alive| alive.to_string()).unwrap_or_default();
        page.push_str(&row(&[
            &node.index.to_string(),
            &node.name,
            standing(node),
            &alive,
            &node.id.to_string(),
        ]));
    }
    page.push_str("</table>\n<h2>What was done</h2>\n<table><tr><th>when<th>what</tr>\n");
    for event in &document.events {
        page.push_str(&row(&[&event.at.to_string(), &event.what]));
    }
    page.push_str("</table>\n");
    if let Some(partition) = &document.partition {
        page.push_str(&format!("<p>Split now: {}</p>\n", escape(&groups(partition))));
    }
    for shape in &document.links {
        page.push_str(&format!("<p>{}</p>\n", escape(&shape_text(shape))));
    }
    page.push_str("</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_text_and_never_a_part_of_the_page() {
        assert_eq!(escape("<script>\"a\" & b"), "&lt;script&gt;&quot;a&quot; &amp; b");
        assert_eq!(row(&["<b>", "c"]), "<tr><td>&lt;b&gt;</td><td>c</td></tr>\n");
    }
}
