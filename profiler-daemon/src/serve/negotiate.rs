//! Which format a client gets, by its `Accept` header (RFC 9110, 12.5.1).
//!
//! In: the header's text. Out: a [`Format`], or none that the client takes.

use super::exposition::Format;

/// The format for an `Accept` header; `None` when the client takes none of
/// those offered. Without a header, or with an empty one, it is text.
///
/// A media range may narrow a format by the parameters in its content type
/// (`version`, `proto`, `encoding`); one with another value does not match.
/// Parameters beyond these (`charset`, `escaping`) are ignored. The most
/// specific range that matches a format decides its weight; the heaviest format
/// wins, of equals the one that the client names first.
pub(super) fn negotiate(accept: Option<&str>) -> Option<Format> {
    let accept = accept.map(str::trim).filter(|accept| !accept.is_empty());
    let Some(accept) = accept else { return Some(Format::Text) };
    let ranges: Vec<Range<'_>> = accept.split(',').filter_map(Range::parse).collect();
    let mut best: Option<(u16, usize, Format)> = None;
    for format in Format::ALL {
        let matching = ranges
            .iter()
            .enumerate()
            .filter_map(|(at, range)| Some((range.specificity(format)?, at, range.weight)));
        // Of equally specific ranges the first one counts.
        let Some((_, at, weight)) =
            matching.min_by_key(|(specificity, at, _)| (std::cmp::Reverse(*specificity), *at))
        else {
            continue;
        };
        let better = best.is_none_or(|(w, a, _)| weight > w || (weight == w && at < a));
        if weight > 0 && better {
            best = Some((weight, at, format));
        }
    }
    best.map(|(_, _, format)| format)
}

/// One element of the header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no media range or has a weight that is none.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, parameters: Vec::new(), weight: 1000 };
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            match name.trim() {
                q if q.eq_ignore_ascii_case("q") => range.weight = parse_weight(value)?,
                name => range.parameters.push((name, value)),
            }
        }
        Some(range)
    }

    /// How closely the range names `format`; `None` when it does not match.
    fn specificity(&self, format: Format) -> Option<usize> {
        let (media, offered) = format.content_type().split_once("; ")?;
        let (kind, subtype) = media.split_once('/')?;
        if self.kind == "*" && self.subtype == "*" {
            return Some(0);
        }
        if !self.kind.eq_ignore_ascii_case(kind) {
            return None;
        }
        if self.subtype == "*" {
            return Some(1);
        }
        if !self.subtype.eq_ignore_ascii_case(subtype) {
            return None;
        }
        let mut narrowed = 0;
        for (name, value) in offered.split("; ").filter_map(|p| p.split_once('=')) {
            if name == "charset" {
                continue;
            }
            if let Some((_, asked)) =
                self.parameters.iter().find(|(asked, _)| asked.eq_ignore_ascii_case(name))
            {
                if !asked.eq_ignore_ascii_case(value) {
                    return None;
                }
                narrowed += 1;
            }
        }
        Some(2 + narrowed)
    }
}

/// A weight in thousandths: `0` to `1` with up to three digits after the point.
fn parse_weight(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{digits:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::Format::{OpenMetrics, Protobuf, Text};
    use super::*;

    #[test]
    fn the_accept_header_chooses_the_format() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_2_42_native = "application/vnd.google.protobuf;\
            proto=io.prometheus.client.MetricFamily;encoding=delimited,\
            application/openmetrics-text;version=1.0.0;q=0.8,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, expected) in [
            (None, Some(Text)),
            (Some(""), Some(Text)),
            (Some("*/*"), Some(Text)),
            (Some("text/*"), Some(Text)),
            (Some("text/plain"), Some(Text)),
            (Some("TEXT/Plain; charset=utf-8"), Some(Text)),
            (Some("text/plain;version=0.0.4"), Some(Text)),
            (Some("application/*"), Some(OpenMetrics)),
            (Some("application/openmetrics-text"), Some(OpenMetrics)),
            (Some("application/openmetrics-text; version=\"1.0.0\""), Some(OpenMetrics)),
            (Some("application/openmetrics-text, text/plain"), Some(OpenMetrics)),
            (Some("text/plain, application/openmetrics-text"), Some(Text)),
            (Some("application/openmetrics-text;q=0.3, text/plain;q=0.4"), Some(Text)),
            (Some("application/vnd.google.protobuf"), Some(Protobuf)),
            (
                Some(
                    "application/vnd.google.protobuf;encoding=text, application/openmetrics-text;q=0.1",
                ),
                Some(OpenMetrics),
            ),
            (Some("application/vnd.google.protobuf;proto=some.Other, */*;q=0.1"), Some(Text)),
            // The exact range says no, whatever the wildcard says.
            (Some("text/plain;q=0, */*;q=0.5"), Some(OpenMetrics)),
            (Some("text/plain;q=0, application/*;q=0, */*"), None),
            (Some("*/*;q=0"), None),
            (Some(prometheus_2_42), Some(OpenMetrics)),
            (Some(prometheus_2_42_native), Some(Protobuf)),
            (Some(prometheus_3), Some(OpenMetrics)),
            (Some(browser), Some(Text)),
            (Some("application/json"), None),
            (Some("text/html"), None),
            (Some("application/openmetrics-text;version=2.0.0"), None),
            (Some("nonsense"), None),
            (Some("text/plain;q=2"), None),
            (Some("text/plain;q=0.1234"), None),
            (Some("text/plain;q=-1, */*;q=0.001"), Some(Text)),
            (Some(",,;=,"), None),
        ] {
            assert_eq!(negotiate(accept), expected, "{accept:?}");
        }
    }

    /// `Accept` as thousandths say it.
    fn weight(thousandths: u16) -> String {
        format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
    }

    proptest::proptest! {
        #[test]
        fn no_header_breaks_it(accept in "\\PC{0,60}([a-z*]{0,9}/[a-z*]{0,9}(;[a-z]{0,3}=\\PC{0,6}){0,3},){0,6}") {
            let chosen = negotiate(Some(&accept));
            // Who takes anything if all else fails always gets something, unless what
            // comes before is quoted or says otherwise.
            if chosen.is_none() && !accept.contains("q=") {
                proptest::prop_assert!(!accept.split(',').any(|range| range.trim() == "*/*"));
            }
        }

        #[test]
        fn the_heaviest_format_wins_and_of_equals_the_first(
            order in proptest::sample::subsequence(Format::ALL.to_vec(), 0..=3).prop_shuffle(),
            weights in [0..=1000u16, 0..=1000u16, 0..=1000u16],
            few in proptest::bool::ANY,
        ) {
            let weights = weights.map(|weight| if few { weight % 2 } else { weight });
            let ranges: Vec<_> = order.iter().zip(weights).collect();
            let accept: Vec<_> = ranges
                .iter()
                .map(|(format, q)| format!("{}; q={}", format.content_type(), weight(*q)))
                .collect();
            let mut heaviest: Option<(Format, u16)> = None;
            for (format, weight) in ranges {
                if weight > heaviest.map_or(0, |(_, weight)| weight) {
                    heaviest = Some((*format, weight));
                }
            }
            // An empty header is none.
            let expected = if order.is_empty() { Some(Text) } else { heaviest.map(|(f, _)| f) };
            proptest::prop_assert_eq!(negotiate(Some(&accept.join(", "))), expected);
        }
    }
}
