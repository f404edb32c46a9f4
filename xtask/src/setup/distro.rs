//! Which family of distributions this is, from `/etc/os-release`.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};

/// Distributions that share package names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Debian, Ubuntu and theirs.
    Debian,
    /// Fedora, RHEL and theirs.
    Fedora,
    /// Arch and its.
    Arch,
    /// Any other, by its `ID`.
    Other(String),
}

/// The family of the running system.
///
/// # Errors
/// When `/etc/os-release` is there but cannot be read.
pub(crate) fn this() -> Result<Family> {
    match fs::read_to_string("/etc/os-release") {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Family::Other("unknown".into())),
        Err(error) => Err(error).context("failed to read /etc/os-release"),
    }
}

/// Reads the os-release format, os-release(5): `ID` first, then `ID_LIKE` in
/// order.
fn parse(text: &str) -> Family {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value.trim_matches(['"', '\'']))
    };
    let id = value("ID");
    for name in std::iter::once(id).chain(value("ID_LIKE").split_whitespace()) {
        match name {
            "debian" | "ubuntu" => return Family::Debian,
            "fedora" | "rhel" | "centos" => return Family::Fedora,
            "arch" | "archlinux" => return Family::Arch,
            _ => {}
        }
    }
    Family::Other(if id.is_empty() { "unknown".into() } else { id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_names_the_family() {
        assert_eq!(parse("NAME=\"Debian GNU/Linux\"\nID=debian\n"), Family::Debian);
        assert_eq!(parse("ID=fedora\nVERSION_ID=44\n"), Family::Fedora);
        assert_eq!(parse("ID=arch\n"), Family::Arch);
    }

    #[test]
    fn a_derived_distribution_counts_as_what_it_is_like() {
        assert_eq!(parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Family::Debian);
        assert_eq!(parse("ID='rocky'\nID_LIKE='rhel centos fedora'\n"), Family::Fedora);
        assert_eq!(parse("ID=manjaro\nID_LIKE=arch\n"), Family::Arch);
    }

    #[test]
    fn another_distribution_keeps_its_name() {
        assert_eq!(parse("ID=alpine\nPRETTY_NAME=x\n"), Family::Other("alpine".into()));
        assert_eq!(parse("VERSION_ID=debian\n"), Family::Other("unknown".into()));
    }
}
