//! Values as people type them: durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration such as `500ms`, `10s`, `5m`, `2h`, `7d`; `0` stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A thousand years: as good as never, and far from the end of any clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(1000 * 366 * 24 * 60 * 60);

/// Why a text is no duration. Caller error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a number and a unit: 500ms, 10s, 5m, 2h, 7d")]
pub(crate) struct InvalidSpan;

impl Span {
    /// The duration, or `None` for zero, which stands for "never" in `--timeout`.
    pub(crate) fn some(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let digits = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(InvalidSpan)?;
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.trim().parse().map_err(|_not_a_number| InvalidSpan)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(InvalidSpan),
        };
        // Negative, infinite and overlong numbers are all refused by the conversion.
        match Duration::try_from_secs_f64(number * seconds) {
            Ok(span) if span <= LONGEST => Ok(Self(span)),
            _ => Err(InvalidSpan),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(self.0))
    }
}

/// Whole milliseconds, as the API takes them.
pub(crate) fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The local time of day with milliseconds, as lines of a stream begin: `10:31:07.214`.
pub(crate) fn clock(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

/// A span in one short word, as the tables show it: `340 ms`, `12s`, `4m`, `2h10m`, `3d4h`.
pub(crate) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 if span.is_zero() => "0s".to_owned(),
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Milliseconds with as many digits as help: `0.4 ms`, `12.0 ms`, `138 ms`.
pub(crate) fn millis(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Milliseconds that were not measured but predicted: `~12.0 ms`.
pub(crate) fn guessed(ms: f64) -> String {
    format!("~{}", millis(ms))
}

/// Bytes in one short word: `812`, `12k`, `3.1M`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "k")];
    for (size, unit) in UNITS {
        if count >= size {
            let whole = count / size;
            return if whole < 10 {
                format!("{whole}.{}{unit}", count % size * 10 / size)
            } else {
                format!("{whole}{unit}")
            };
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_type_them() {
        let ms = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("1.5s"), Ok(1500));
        assert_eq!(ms("7d"), Ok(604_800_000));
        assert_eq!(ms("0"), Ok(0));
        for bad in ["", "10", "s", "-1s", "1y", "1e400s", "NaNs", "infs", "9999999999d", "1 0s"] {
            assert_eq!(ms(bad), Err(InvalidSpan), "{bad}");
        }
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!(short(Duration::from_secs(8040)), "2h14m");
        assert_eq!(short(Duration::from_millis(340)), "340 ms");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(12 * 1024), "12k");
        assert_eq!(bytes(3_250_586), "3.1M");
        assert_eq!(millis(0.43), "0.4 ms");
        assert_eq!(millis(138.2), "138 ms");
    }
}
