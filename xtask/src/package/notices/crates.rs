//! The crates that are linked: which they are, from `cargo tree`, which resolves
//! features as a build does; and what they say of themselves, from `cargo metadata`
//! and their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};

use super::{Part, Text, licence, system};
use crate::package::printed;
use crate::shell;

/// How names of files with licences and notices begin, in lower case.
const NOTICES: [&str; 7] =
    ["license", "licence", "unlicense", "unlicence", "copying", "copyright", "notice"];

/// Ends of names of files that are about something else, whatever their beginning.
const OTHERS: [&str; 8] = ["c", "h", "html", "json", "py", "rs", "sh", "toml"];

/// Name and version.
type Id = (String, String);

/// All that are linked into the binary and the BPF object in it, but lockprof's own,
/// by name and version.
///
/// # Errors
/// When cargo fails; or with all crates whose licence is not allowed or has no text.
pub(super) fn linked() -> Result<Vec<Part>> {
    let bpf = bpf_toolchain::target(cfg!(target_endian = "big"));
    let mut ids = tree("profiler-daemon", &[])?;
    ids.extend(tree("profiler-ebpf", &["--target", bpf])?);
    let metadata = metadata()?;
    let known: BTreeMap<Id, &Package> = metadata
        .packages
        .iter()
        .map(|package| ((package.name.to_string(), package.version.to_string()), package))
        .collect();
    let (mut parts, mut refused) = (Vec::new(), Vec::new());
    for id in &ids {
        let package = known
            .get(id)
            .with_context(|| format!("cargo links {} {}, and has no facts of it", id.0, id.1))?;
        // lockprof's own have no registry.
        if package.source.is_none() {
            continue;
        }
        match part(package) {
            Ok(part) => parts.push(part),
            Err(error) => refused.push(format!("{} {}: {error:#}", id.0, id.1)),
        }
    }
    if !refused.is_empty() {
        bail!("crates cannot be given to users as they are linked:\n  {}", refused.join("\n  "));
    }
    Ok(parts)
}

/// The normal dependencies of a package as it is built, with itself.
fn tree(package: &str, options: &[&str]) -> Result<BTreeSet<Id>> {
    let text = printed(
        shell::cargo()
            .args(["tree", "--locked", "--package", package, "--edges", "normal,no-proc-macro"])
            .args(["--prefix", "none", "--format", "{p}"])
            .args(options),
    )?;
    Ok(listed(&String::from_utf8_lossy(&text)))
}

/// `NAME vVERSION` of each line.
fn listed(text: &str) -> BTreeSet<Id> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            Some((name.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
        })
        .collect()
}

fn metadata() -> Result<Metadata> {
    let text = printed(
        shell::cargo()
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform"])
            .arg(system::compiler("host")?),
    )?;
    MetadataCommand::parse(String::from_utf8_lossy(&text)).context("failed to read cargo metadata")
}

fn part(package: &Package) -> Result<Part> {
    let name = package.name.to_string();
    let licence = package.license.as_ref().context(
        "it names no licence; ask its authors for a `license` in its Cargo.toml, or take another \
         crate",
    )?;
    licence::check(licence)?;
    let folder = package.manifest_path.parent().context("a manifest is in a folder")?;
    let folder = folder.as_std_path();
    let mut authors = package.authors.clone();
    let mut texts = notices(folder, package.license_file.as_ref().map(|file| file.as_std_path()))?;
    if texts.is_empty() {
        texts = licence::standard_texts(licence)
            .context("it brings no text of its licence; take another crate")?;
        authors.extend(copyrights(folder)?);
    }
    Ok(Part {
        source: package
            .repository
            .clone()
            .or_else(|| package.homepage.clone())
            .unwrap_or_else(|| format!("the crate {name} {}", package.version)),
        name,
        version: package.version.to_string(),
        licence: licence.clone(),
        authors,
        remark: None,
        texts,
    })
}

/// The files with licences and notices below a folder, by path, and `named`, which the
/// manifest names.
fn notices(folder: &Path, named: Option<&Path>) -> Result<Vec<Text>> {
    let mut files: BTreeSet<PathBuf> = files(folder)?.into_iter().filter(|f| notice(f)).collect();
    files.extend(named.map(|file| folder.join(file)));
    files.iter().map(|file| text(folder, file)).collect()
}

fn notice(file: &Path) -> bool {
    let lower =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().to_lowercase();
    let name = lower(file.file_name());
    let end = lower(file.extension());
    NOTICES.iter().any(|begin| name.starts_with(begin)) && !OTHERS.contains(&end.as_str())
}

fn text(folder: &Path, file: &Path) -> Result<Text> {
    let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    let title = file.strip_prefix(folder).unwrap_or(file);
    Ok(Text {
        title: title.display().to_string(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// What comments in the source of a crate without a notice say of its copyright.
fn copyrights(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for file in files(folder)? {
        if file.extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let source = text(folder, &file)?.text;
        let comments = source.lines().filter_map(|line| line.trim().strip_prefix("//"));
        found.extend(
            comments
                .map(|comment| comment.trim_start_matches(['/', '!']).trim())
                .filter(|comment| comment.starts_with("Copyright "))
                .map(str::to_owned),
        );
    }
    Ok(found)
}

/// All below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.context("failed to read a folder")?;
        let kind = entry.file_type().context("failed to read a folder")?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate in a folder of its own, which is gone with it.
    struct Crate(PathBuf);

    impl Crate {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder =
                std::env::temp_dir().join(format!("lockprof-{name}-{}", std::process::id()));
            for (file, text) in files {
                crate::package::tree::put(&folder.join(file), text.as_bytes()).unwrap();
            }
            Self(folder)
        }

        fn part(&self, licence: &str) -> Result<Part> {
            let manifest = serde_json::json!({
                "name": "one", "version": "1.2.3+x", "id": "one", "dependencies": [], "targets": [],
                "features": {}, "manifest_path": self.0.join("Cargo.toml"), "license": licence,
                "authors": ["A"],
            });
            part(&serde_json::from_value(manifest).unwrap())
        }
    }

    impl Drop for Crate {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn lines_of_cargo_tree_are_names_and_versions() {
        let text =
            "lockprof v0.1.0 (/a b/c)\ntoml v1.2.1+spec-1.1.0 (*)\nlog v0.4.35\n\nlog v0.4.35\n";
        let ids: Vec<_> = listed(text).into_iter().collect();
        let want = [("lockprof", "0.1.0"), ("log", "0.4.35"), ("toml", "1.2.1+spec-1.1.0")];
        assert_eq!(ids, want.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    #[test]
    fn licences_of_a_crate_are_found_in_its_folders_too() {
        let made = Crate::new(
            "found",
            &[
                ("LICENSE-MIT", "mit"),
                ("Licence.md", "md"),
                ("third_party/fiat/LICENSE", "fiat"),
                ("COPYING.txt", "copying"),
                ("src/license.rs", "code"),
                ("README.md", "read me"),
            ],
        );
        let part = made.part("MIT").unwrap();
        let titles: Vec<_> = part.texts.iter().map(|text| text.title.as_str()).collect();
        assert_eq!(
            titles,
            ["COPYING.txt", "LICENSE-MIT", "Licence.md", "third_party/fiat/LICENSE"]
        );
        assert_eq!(part.texts[3].text, "fiat");
        assert_eq!(part.source, "the crate one 1.2.3+x");
        assert_eq!(part.authors, ["A"]);
    }

    #[test]
    fn a_crate_without_texts_gets_the_standard_ones_and_the_copyright_of_its_source() {
        let source = "//! Copyright (C) 2018 B\n// Copyright (C) 2018 B\nlet copyright = 1;\n";
        let made = Crate::new("none", &[("src/lib.rs", source)]);
        let part = made.part("MIT OR Apache-2.0").unwrap();
        assert_eq!(part.authors, ["A", "Copyright (C) 2018 B"]);
        let titles: Vec<_> = part.texts.iter().map(|text| text.title.as_str()).collect();
        assert_eq!(titles, ["Apache-2.0 (standard text)", "MIT (standard text)"]);
    }

    #[test]
    fn a_crate_with_no_licence_or_one_that_is_not_allowed_is_refused() {
        let made = Crate::new("refused", &[("LICENSE", "text")]);
        let error = made.part("AGPL-3.0-only").err().unwrap().to_string();
        assert!(error.contains("AGPL-3.0-only, is not allowed"), "{error}");
        let manifest = serde_json::json!({
            "name": "one", "version": "1.0.0", "id": "one", "dependencies": [], "targets": [],
            "features": {}, "manifest_path": made.0.join("Cargo.toml"),
        });
        let error = part(&serde_json::from_value(manifest).unwrap()).err().unwrap().to_string();
        assert!(error.contains("names no licence"), "{error}");
    }
}
