//! Durations as people write them: `500ms`, `10s`, `1m`.

use std::time::Duration;

/// Longest duration taken: a longer one is a slip of the hand.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a duration is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    /// Not a number and a unit.
    #[error("write a number and a unit (ms, s, m or h), for example 500ms, 10s or 1m")]
    Form,
    /// Nothing can be measured in no time.
    #[error("must be more than zero, for example 10s")]
    Zero,
    /// Beyond [`LONGEST`].
    #[error("must be at most 168h (a week)")]
    TooLong,
}

/// Reads a duration; a decimal fraction (`1.5s`) is fine, a sign is not.
pub(super) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(DurationError::Form),
    };
    let number: f64 = number.parse().map_err(|_| DurationError::Form)?;
    let duration =
        Duration::try_from_secs_f64(number * seconds).map_err(|_| DurationError::TooLong)?;
    match duration {
        Duration::ZERO => Err(DurationError::Zero),
        long if long > LONGEST => Err(DurationError::TooLong),
        fine => Ok(fine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_duration() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("1.5s", 1500), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_told_how_to_write_one() {
        for text in ["", "10", "s", "-1s", "1 s", "1d", "10S", "1.2.3s", "1s2", ".", ".s", "∞s"] {
            assert_eq!(parse_duration(text), Err(DurationError::Form), "{text}");
        }
        assert!(DurationError::Form.to_string().contains("500ms, 10s or 1m"));
    }

    #[test]
    fn no_time_and_ages_are_refused() {
        assert_eq!(parse_duration("0s"), Err(DurationError::Zero));
        assert_eq!(parse_duration("169h"), Err(DurationError::TooLong));
        let digits = "9".repeat(400) + "h";
        assert_eq!(parse_duration(&digits), Err(DurationError::TooLong));
    }
}
