//! Which package of a suite is the newest kernel of a series. Pure.

use std::cmp::Ordering;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// `linux-image-6.1.0-50-amd64`.
    pub(crate) name: String,
    /// Debian's version, `6.1.170-1`.
    pub(crate) version: String,
}

/// The newest package with a kernel of `series` for plain PCs.
///
/// Since Debian's 6.19 the image is in `linux-binary-*`, and `linux-image-*`
/// only depends on it; both have the same version.
pub(crate) fn newest(series: &str, packages: &[Package]) -> Option<Package> {
    let mut best: Option<(&Package, bool)> = None;
    for package in packages {
        let Some(binary) = holds_kernel(series, &package.name) else { continue };
        let better = best.is_none_or(|(other, other_binary)| {
            compare(&package.version, &other.version).then(binary.cmp(&other_binary)).is_gt()
        });
        if better {
            best = Some((package, binary));
        }
    }
    best.map(|(package, _)| package.clone())
}

/// Whether it is a kernel of the series, and if so whether by its own package
/// for the image.
fn holds_kernel(series: &str, name: &str) -> Option<bool> {
    let (binary, abi) = match name.strip_prefix("linux-binary-") {
        Some(abi) => (true, abi),
        None => (false, name.strip_prefix("linux-image-")?),
    };
    let rest = abi.strip_suffix("-amd64")?.strip_prefix(series)?;
    // 6.1 is no 6.12, and other flavours (rt, cloud) end in their name.
    let plain = rest.is_empty() || rest.starts_with(['.', '-', '+']);
    let flavour = rest.split(['-', '+']).any(|part| part == "rt" || part == "cloud");
    (plain && !flavour).then_some(binary)
}

/// Orders two versions as dpkg does (deb-version(7)).
fn compare(a: &str, b: &str) -> Ordering {
    let split = |version: &str| -> (u64, String, String) {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(&a.1, &b.1)).then_with(|| compare_part(&a.2, &b.2))
}

/// Compares runs of other characters and numbers in turn.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (a_text, b_text);
        (a_text, a) = split_at_end(a, |byte| !byte.is_ascii_digit());
        (b_text, b) = split_at_end(b, |byte| !byte.is_ascii_digit());
        let text = compare_text(a_text, b_text);
        if text.is_ne() {
            return text;
        }
        let (a_number, b_number);
        (a_number, a) = split_at_end(a, |byte| byte.is_ascii_digit());
        (b_number, b) = split_at_end(b, |byte| byte.is_ascii_digit());
        let (a_number, b_number) =
            (a_number.trim_start_matches('0'), b_number.trim_start_matches('0'));
        let number = a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number));
        if number.is_ne() {
            return number;
        }
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
    }
}

fn split_at_end(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// `~` comes before the end, the end before letters, letters before the rest.
fn compare_text(a: &str, b: &str) -> Ordering {
    let rank = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|at| rank(a.as_bytes().get(at).copied()).cmp(&rank(b.as_bytes().get(at).copied())))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(series: &str, packages: &[(&str, &str)]) -> Option<String> {
        let packages: Vec<_> = packages
            .iter()
            .map(|&(name, version)| Package { name: name.into(), version: version.into() })
            .collect();
        newest(series, &packages).map(|package| package.name)
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_by_version_and_not_by_spelling() {
        let packages = [
            ("linux-image-6.18.9+deb13-amd64", "6.18.9-1~bpo13+1"),
            ("linux-image-6.18.15+deb13-amd64", "6.18.15-1~bpo13+1"),
            ("linux-image-6.18.5+deb13-amd64", "6.18.5-1~bpo13+1"),
            ("linux-image-6.19.14+deb13-amd64", "6.19.14-1~bpo13+1"),
        ];
        assert_eq!(pick("6.18", &packages).unwrap(), "linux-image-6.18.15+deb13-amd64");
        assert_eq!(pick("6.1", &packages), None, "6.1 is no 6.18");
        assert_eq!(pick("6.17", &packages), None);
    }

    #[test]
    fn the_package_with_the_image_goes_before_the_one_that_depends_on_it() {
        let mut packages = [
            ("linux-image-7.2.12+deb13-amd64", "7.2.12-1~bpo13+1"),
            ("linux-binary-7.2.12+deb13-amd64", "7.2.12-1~bpo13+1"),
            ("linux-binary-7.2.9+deb13-amd64", "7.2.9-1~bpo13+1"),
        ];
        assert_eq!(pick("7.2", &packages).unwrap(), "linux-binary-7.2.12+deb13-amd64");
        packages.reverse();
        assert_eq!(pick("7.2", &packages).unwrap(), "linux-binary-7.2.12+deb13-amd64");
    }

    #[test]
    fn other_flavours_and_debugging_symbols_are_left_alone() {
        let packages = [
            ("linux-image-6.1.0-50-amd64", "6.1.170-1"),
            ("linux-image-6.1.0-50-amd64-dbg", "6.1.180-1"),
            ("linux-image-6.1.0-50-cloud-amd64", "6.1.180-1"),
            ("linux-image-6.1.0-50-rt-amd64", "6.1.180-1"),
            ("linux-image-6.1.0-50-amd64-unsigned", "6.1.180-1"),
            ("linux-image-amd64", "6.1.180-1"),
            ("linux-image-6.1.0-47-amd64", "6.1.158-1"),
        ];
        assert_eq!(pick("6.1", &packages).unwrap(), "linux-image-6.1.0-50-amd64");
    }

    #[test]
    fn a_release_candidate_counts_as_its_series() {
        let packages = [("linux-binary-7.3-amd64", "7.3~rc7-1~exp1")];
        assert_eq!(pick("7.3", &packages).unwrap(), "linux-binary-7.3-amd64");
    }

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ordered = [
            "7.3~rc7-1~exp1",
            "7.3~rc10-1",
            "7.3-1~bpo13+1",
            "7.3-1",
            "7.3-1+b1",
            "7.3.1-1",
            "7.10-1",
            "1:0.1-1",
        ];
        for (index, small) in ordered.iter().enumerate() {
            assert_eq!(compare(small, small), Ordering::Equal, "{small}");
            for large in &ordered[index + 1..] {
                assert_eq!(compare(small, large), Ordering::Less, "{small} {large}");
                assert_eq!(compare(large, small), Ordering::Greater, "{large} {small}");
            }
        }
        assert_eq!(compare("1.02", "1.2"), Ordering::Equal);
    }
}
