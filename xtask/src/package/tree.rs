//! The files of a package as they are on the user's machine, but for the binary.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{notices, printed, remove, staged};
use crate::shell;

/// A file of the repository, or those of a folder with one ending (`folder/*.md`),
/// and where it goes; a folder, if that ends with `/`.
const FILES: [(&str, &str); 14] = [
    ("packaging/systemd/lockprof.service", "usr/lib/systemd/system/"),
    ("packaging/systemd/lockprof.socket", "usr/lib/systemd/system/"),
    ("packaging/systemd/lockprof.sysusers", "usr/lib/sysusers.d/lockprof.conf"),
    ("packaging/systemd/drop-ins/*.conf", "usr/share/lockprof/systemd/"),
    ("packaging/*.yml", "usr/share/lockprof/"),
    (
        "packaging/grafana/provisioning/dashboards/*.yml",
        "usr/share/lockprof/grafana/provisioning/dashboards/",
    ),
    (
        "packaging/grafana/provisioning/datasources/*.yml",
        "usr/share/lockprof/grafana/provisioning/datasources/",
    ),
    ("packaging/kubernetes/*.yaml", "usr/share/lockprof/kubernetes/"),
    ("dashboards/*.json", "usr/share/lockprof/dashboards/"),
    ("dashboards/rules/*.yml", "usr/share/lockprof/rules/"),
    ("docs/*.md", "usr/share/doc/lockprof/"),
    ("README.md", "usr/share/doc/lockprof/"),
    ("packaging/debian/copyright", "usr/share/doc/lockprof/"),
    ("packaging/debian/lintian-overrides", "usr/share/lintian/overrides/lockprof"),
];

/// The end of the names of what checks the rules and is of no use without the
/// repository.
const TESTS: &str = "_test.yml";

/// Shells, and where their completions go on Debian.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/lockprof"),
    ("zsh", "usr/share/zsh/vendor-completions/_lockprof"),
    ("fish", "usr/share/fish/vendor_completions.d/lockprof.fish"),
];

/// The configuration, which an upgrade leaves as the user has it.
pub(crate) const CONFIG: &str = "etc/lockprof/lockprof.toml";

/// Lays the tree out anew and returns its folder. `binary` is asked for its
/// configuration, man pages and completions.
///
/// # Errors
/// When a file is missing, the binary cannot be run, or what is linked into it may not
/// be given to users.
pub(crate) fn stage(binary: &Path) -> Result<PathBuf> {
    let tree = staged();
    remove(&tree)?;
    for (source, place) in FILES {
        for file in sources(source)? {
            let name = file.file_name().context("a file has a name")?;
            let mut to = tree.join(place);
            if place.ends_with('/') {
                to.push(name);
            }
            put(&to, &contents(&file)?)?;
        }
    }
    let ask = |arguments: &[&str]| printed(Command::new(binary).args(arguments));
    put(&tree.join(CONFIG), &ask(&["config", "default"])?)?;
    for (shell, place) in COMPLETIONS {
        put(&tree.join(place), &ask(&["completions", shell])?)?;
    }
    man_pages(binary, &tree.join("usr/share/man"))?;
    let changelog = tree.join("usr/share/doc/lockprof/changelog");
    put(&changelog, &contents(&shell::workspace().join("CHANGELOG.md"))?)?;
    compress(&changelog)?;
    notices::write(&tree.join(notices::FOLDER), None)?;
    Ok(tree)
}

/// The files that an entry of [`FILES`] means; at least one.
fn sources(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = shell::workspace().join(pattern);
    let Some((folder, end)) = pattern.split_once('*') else { return Ok(vec![path]) };
    let folder = shell::workspace().join(folder);
    let mut found = Vec::new();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("failed to read a folder")?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.ends_with(end) && !name.ends_with(TESTS) {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("there is no {pattern} to package");
    }
    found.sort();
    Ok(found)
}

/// Of a file, with links between pages as they are once all of them are in one
/// folder.
fn contents(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    if file.extension() != Some(OsStr::new("md")) {
        return Ok(bytes);
    }
    Ok(beside(&String::from_utf8_lossy(&bytes)).into_bytes())
}

fn beside(text: &str) -> String {
    text.replace("](docs/", "](").replace("](../README.md", "](README.md")
}

/// Section 8 in `man8`, and so on, compressed as Debian wants it.
fn man_pages(binary: &Path, man: &Path) -> Result<()> {
    let flat = man.join("flat");
    printed(Command::new(binary).arg("man").arg("--dir").arg(&flat))?;
    let pages =
        fs::read_dir(&flat).with_context(|| format!("failed to read {}", flat.display()))?;
    for page in pages {
        let page = page.context("failed to read a folder")?.path();
        let name = page.file_name().context("a page has a name")?;
        let section = page.extension().and_then(OsStr::to_str).unwrap_or_default();
        let place = man.join(format!("man{section}")).join(name);
        put(&place, &contents(&page)?)?;
        compress(&place)?;
    }
    fs::remove_dir_all(&flat).with_context(|| format!("failed to remove {}", flat.display()))
}

/// Replaces `file` by `file.gz`, without its name and time in it.
pub(super) fn compress(file: &Path) -> Result<()> {
    printed(Command::new("gzip").args(["-9", "--no-name"]).arg(file)).map(drop)
}

/// Writes a file, and makes the folders that it is in.
pub(super) fn put(file: &Path, text: &[u8]) -> Result<()> {
    let folder = file.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, text))
        .with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_packaged_is_in_the_repository() {
        for (source, _) in FILES {
            for file in sources(source).unwrap() {
                assert!(file.is_file(), "{}", file.display());
            }
        }
    }

    #[test]
    fn tests_of_the_rules_stay_behind() {
        let rules = sources("dashboards/rules/*.yml").unwrap();
        let names: Vec<_> = rules.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!(names, ["alerts.yml", "recording.yml"]);
    }

    #[test]
    fn links_between_pages_hold_where_they_are_all_in_one_folder() {
        assert_eq!(
            beside("[a](docs/a.md#b) [r](../README.md) [c](c.md)"),
            "[a](a.md#b) [r](README.md) [c](c.md)"
        );
    }
}
