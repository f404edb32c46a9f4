//! Figures as text, in six characters or fewer where they stand in columns.

/// A duration: `999ns`, `41.5us`, `1.20s`, `9m`, `3h`, `12d`.
pub(crate) fn duration(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let value = ns as f64;
    match ns {
        0 => "0".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..999_500 => three_digits(value / 1e3, "us"),
        999_500..999_500_000 => three_digits(value / 1e6, "ms"),
        _ if ns < 600 * SECOND => three_digits(value / 1e9, "s"),
        _ if ns < 3 * 3600 * SECOND => format!("{}m", ns / SECOND / 60),
        _ if ns < 72 * 3600 * SECOND => format!("{}h", ns / SECOND / 3600),
        _ => format!("{}d", ns / SECOND / 86_400),
    }
}

/// Something per second: `0.25`, `3.4`, `340`, `12.3k`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        "0".to_owned()
    } else if per_second < 0.01 {
        "<0.01".to_owned()
    } else if per_second < 0.995 {
        format!("{per_second:.2}")
    } else if per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        large(per_second)
    }
}

/// A number of things: `999`, `12.3k`, `4.56M`.
pub(crate) fn count(count: u64) -> String {
    if count < 1000 { count.to_string() } else { large(count as f64) }
}

fn large(value: f64) -> String {
    if value < 999.5 {
        format!("{value:.0}")
    } else if value < 999_500.0 {
        three_digits(value / 1e3, "k")
    } else if value < 999_500_000.0 {
        three_digits(value / 1e6, "M")
    } else if value < 999.5e9 {
        three_digits(value / 1e9, "G")
    } else {
        format!("{value:.0e}")
    }
}

/// A share: `3.4%`, `312%`; beyond 9999 % as a multiple, `x123`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 {
        "0".to_owned()
    } else if percent < 0.1 {
        "<0.1%".to_owned()
    } else if percent < 9.95 {
        format!("{percent:.1}%")
    } else if percent < 9999.5 {
        format!("{percent:.0}%")
    } else {
        format!("x{}", large(share))
    }
}

/// Bytes: `512B`, `34.1M`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 999.5 {
            return if unit == "B" { format!("{bytes}B") } else { three_digits(value, unit) };
        }
        value /= 1024.0;
    }
    three_digits(value, "T")
}

/// How long a machine has been up: `3d 4h`, `4h 12m`, `12m`, `45s`.
pub(crate) fn uptime(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m")
    } else {
        format!("{seconds}s")
    }
}

fn three_digits(value: f64, unit: &str) -> String {
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [0, 999, 1_000, 999_499, 999_500, 12_345_678, 1_200_000_000, 599_000_000_000]
                .map(duration),
            ["0", "999ns", "1.00us", "999us", "1.00ms", "12.3ms", "1.20s", "599s"]
        );
        assert_eq!(duration(3600 * 1_000_000_000), "60m");
        assert_eq!(duration(86_400 * 1_000_000_000), "24h");
        assert_eq!(
            [0.0, 0.001, 0.25, 3.41, 340.2, 12_345.0].map(rate),
            ["0", "<0.01", "0.25", "3.4", "340", "12.3k"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.034, 0.12, 3.12, 99.9, 123.4].map(percent),
            ["0", "<0.1%", "3.4%", "12%", "312%", "9990%", "x123"]
        );
        assert_eq!([0, 1023, 34 << 20].map(bytes), ["0B", "1.00K", "34.0M"]);
        assert_eq!(
            [45, 720, 15_120, 273_600].map(|s| uptime(s * 1_000_000_000)),
            ["45s", "12m", "4h 12m", "3d 4h"]
        );
    }

    proptest! {
        #[test]
        fn every_figure_fits_its_column(value in any::<u64>(), per_second in 0.0..1e15f64) {
            prop_assert!(duration(value).len() <= 7, "{}", duration(value));
            prop_assert!(value > 1 << 60 || duration(value).len() <= 6);
            prop_assert!(rate(per_second).len() <= 6, "{}", rate(per_second));
            prop_assert!(percent(per_second).len() <= 6, "{}", percent(per_second));
        }
    }
}
