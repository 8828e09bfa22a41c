//! QR codes in a terminal: two modules a character, dark on light whatever the colours of the terminal.

use fast_qr::{ECL, QRBuilder};

/// Empty modules around the code: without them a camera does not see its edge (ISO/IEC 18004, 9.1).
const QUIET_ZONE: usize = 2;

/// The code of `text`, or nothing when it is too long for one.
pub(super) fn render(text: &str) -> String {
    let Ok(code) = QRBuilder::new(text).ecl(ECL::L).build() else { return String::new() };
    let dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(QUIET_ZONE).filter(|at| *at < code.size);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => code[y][x].value(),
            _ => false,
        }
    };
    let side = code.size + 2 * QUIET_ZONE;
    let mut drawn = String::new();
    for y in (0..side).step_by(2) {
        for x in 0..side {
            // Light modules are drawn and dark ones left empty: most terminals are dark.
            drawn.push(match (dark(x, y), y + 1 < side && !dark(x, y + 1)) {
                (false, true) => '█',
                (false, false) => '▀',
                (true, true) => '▄',
                (true, false) => ' ',
            });
        }
        drawn.push('\n');
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_square_with_a_light_border() {
        let drawn = render("WATTLE:1ABC");
        let lines: Vec<&str> = drawn.lines().collect();
        let columns = lines[0].chars().count();
        assert_eq!(lines.len(), columns.div_ceil(2));
        assert!(lines.iter().all(|line| line.chars().count() == columns));
        assert!(lines[0].chars().all(|c| c == '█'), "the quiet zone");
        assert_eq!(render(&"x".repeat(10_000)), "");
    }
}
