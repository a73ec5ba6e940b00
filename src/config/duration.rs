//! Durations as people write them: a whole number and a unit, such as "30s".

use std::time::Duration;

/// Parse "500ms", "30s", "10m", "24h" or "2d".
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let unit_start = text.find(|character: char| !character.is_ascii_digit());
    let (number, unit) = text.split_at(unit_start.unwrap_or(text.len()));
    let number: u64 = number
        .parse()
        .map_err(|_error| "must be a whole number and a unit, such as \"30s\"")?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err("needs a unit: ms, s, m, h or d, such as \"30s\""),
        _ => return Err("has an unknown unit: use ms, s, m, h or d, such as \"30s\""),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or("is longer than this program can count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("0s", 0),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_no_duration() {
        for text in [
            "",
            "s",
            "30",
            "30 s",
            " 30s",
            "30S",
            "1.5h",
            "-1s",
            "+1s",
            "1h30m",
            "30sec",
            "١s",
            "18446744073709551616ms",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
