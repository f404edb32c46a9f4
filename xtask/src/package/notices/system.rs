//! What is linked and is no crate: the Rust standard library, and in the tarball's
//! binary the C library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Part, Text, licence};
use crate::package::printed;
use crate::shell;

/// Parts of the standard library that its page of notices leaves out, in Rust 1.95:
/// what backtraces are made with (library/std/Cargo.toml, feature `backtrace`), and
/// the arithmetic that the compiler calls (library/compiler-builtins/LICENSE.txt).
/// Name, licence, copyright as their licence files have it, and source.
const LEFT_OUT: [(&str, &str, &str, &str); 6] = [
    (
        "addr2line",
        "Apache-2.0 OR MIT",
        "Copyright (c) 2016-2018 The gimli Developers",
        "https://github.com/gimli-rs/addr2line",
    ),
    (
        "adler2",
        "0BSD OR MIT OR Apache-2.0",
        "Copyright (C) Jonas Schievink <jonasschievink@gmail.com>",
        "https://github.com/oyvindln/adler2",
    ),
    (
        "compiler_builtins",
        "MIT AND Apache-2.0 WITH LLVM-exception AND (MIT OR Apache-2.0)",
        "The Rust Project Developers",
        "https://github.com/rust-lang/compiler-builtins",
    ),
    (
        "memchr",
        "Unlicense OR MIT",
        "Copyright (c) 2015 Andrew Gallant",
        "https://github.com/BurntSushi/memchr",
    ),
    (
        "miniz_oxide",
        "MIT OR Zlib OR Apache-2.0",
        "Copyright (c) 2017 Frommi; Copyright (c) 2017-2024 oyvindln",
        "https://github.com/Frommi/miniz_oxide",
    ),
    (
        "object",
        "Apache-2.0 OR MIT",
        "Copyright (c) 2015 The Gimli Developers",
        "https://github.com/gimli-rs/object",
    ),
];

/// Where distributions put glibc's own notices, with its archive or with it.
const GLIBC_NOTICES: [&str; 3] = [
    "/usr/share/doc/libc6-dev/copyright",
    "/usr/share/licenses/glibc/LICENSES",
    "/usr/share/licenses/glibc-devel/LICENSES",
];

/// Of every static program with glibc: a variable that its startup reads.
const GLIBC_MARK: &[u8] = b"GLIBC_TUNABLES";

/// A fact of the compiler that cargo calls, from `rustc --version --verbose`.
///
/// # Errors
/// When it does not tell.
pub(super) fn compiler(key: &str) -> Result<String> {
    let said = printed(rustc().args(["--version", "--verbose"]))?;
    let said = String::from_utf8_lossy(&said);
    let mut facts = said.lines().filter_map(|line| line.split_once(": "));
    let found = facts.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
    found.with_context(|| format!("rustc tells no {key}: {}", said.trim()))
}

fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(shell::workspace());
    command
}

/// The parts of the standard library, and its project's own notices, a page of HTML.
///
/// # Errors
/// When the toolchain does not bring them.
pub(super) fn rust() -> Result<(Vec<Part>, Vec<u8>)> {
    let sysroot = printed(rustc().args(["--print", "sysroot"]))?;
    let file = PathBuf::from(String::from_utf8_lossy(&sysroot).trim())
        .join("share/doc/rust/COPYRIGHT-library.html");
    let page = fs::read(&file).with_context(|| {
        format!(
            "failed to read the notices of the Rust standard library, {}; make packages with a \
             toolchain of rustup, which brings them",
            file.display()
        )
    })?;
    let release = compiler("release")?;
    let library = Part {
        name: "std, alloc, core".into(),
        version: release,
        licence: "MIT OR Apache-2.0".into(),
        authors: vec!["The Rust Project Developers (https://thanks.rust-lang.org)".into()],
        source: "https://github.com/rust-lang/rust".into(),
        remark: Some("core is in the BPF object too, as the compiler of that brings it".into()),
        texts: licence::standard_texts("MIT OR Apache-2.0")?,
    };
    let mut parts = vec![library];
    let entries = String::from_utf8_lossy(&page);
    for (name, expression, copyright, source) in LEFT_OUT {
        if has_entry(&entries, name) {
            continue;
        }
        parts.push(Part {
            name: name.into(),
            licence: expression.into(),
            authors: vec![copyright.into()],
            source: source.into(),
            texts: licence::standard_texts(expression)?,
            ..Part::default()
        });
    }
    Ok((parts, page))
}

/// Whether the page lists a crate.
fn has_entry(page: &str, name: &str) -> bool {
    page.contains(&format!("<h3>\u{1f4e6} {name}-"))
}

/// The parts of a static binary that come from the system.
///
/// # Errors
/// When it has no glibc in it, or this machine's has no notices.
pub(super) fn c_library(binary: &Path) -> Result<Vec<Part>> {
    let bytes = fs::read(binary).with_context(|| format!("failed to read {}", binary.display()))?;
    if !has_glibc(&bytes) {
        bail!(
            "{} has a C library in it that is not glibc, and whose notices are not known here; `cargo \
             xtask package` without --static-binary builds one",
            binary.display()
        );
    }
    let notices =
        GLIBC_NOTICES.iter().map(Path::new).find(|file| file.is_file()).with_context(|| {
            format!(
                "found no notices of glibc ({}); install what brings them: libc6-dev on Debian, \
                 unless dpkg is told to leave documentation out (path-exclude)",
                GLIBC_NOTICES.join(", ")
            )
        })?;
    let notices = fs::read_to_string(notices)
        .with_context(|| format!("failed to read {}", notices.display()))?;
    let mut texts = vec![Text { title: "notices of glibc".into(), text: notices }];
    texts.extend(licence::standard_texts("LGPL-2.1-or-later")?);
    let glibc = Part {
        name: "glibc".into(),
        version: glibc_version()?,
        licence: "LGPL-2.1-or-later".into(),
        authors: vec!["Copyright (C) Free Software Foundation, Inc.".into()],
        source: "https://sourceware.org/git/glibc.git".into(),
        remark: Some(
            "to link lockprof with a glibc that you changed, run `cargo xtask package` in lockprof's \
             source where that glibc is installed"
                .into(),
        ),
        texts,
    };
    let expression = "GPL-3.0-or-later WITH GCC-exception-3.1";
    let gcc = Part {
        name: "libgcc, libgcc_eh".into(),
        licence: expression.into(),
        authors: vec!["Copyright (C) Free Software Foundation, Inc.".into()],
        source: "https://gcc.gnu.org/git/gcc.git".into(),
        texts: licence::standard_texts(expression)?,
        ..Part::default()
    };
    Ok(vec![glibc, gcc])
}

/// Its version, and on Debian that of the package, by which its source is found.
fn glibc_version() -> Result<String> {
    let said = printed(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let said = String::from_utf8_lossy(&said);
    let version = said.trim().trim_start_matches("glibc ");
    let package = printed(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${source:Package} ${source:Version}",
        "libc6-dev",
    ]));
    // Elsewhere dpkg-query is not there, or knows of no package.
    Ok(package.map_or_else(
        |_| version.to_owned(),
        |package| format!("{version} ({})", String::from_utf8_lossy(&package).trim()),
    ))
}

fn has_glibc(binary: &[u8]) -> bool {
    binary.windows(GLIBC_MARK.len()).any(|part| part == GLIBC_MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_tells_its_host_and_its_release() {
        assert!(compiler("host").unwrap().contains("-linux-"));
        assert!(compiler("release").unwrap().starts_with("1."));
        assert!(compiler("colour").unwrap_err().to_string().contains("tells no colour"));
    }

    #[test]
    fn the_standard_library_has_notices_that_are_of_no_machine() {
        let (parts, page) = rust().unwrap();
        assert!(parts.iter().all(|part| !part.texts.is_empty()));
        let page = String::from_utf8_lossy(&page);
        assert!(page.contains("Rust Standard Library"));
        for (name, ..) in LEFT_OUT {
            let listed = parts.iter().any(|part| part.name == name);
            assert!(listed != has_entry(&page, name), "{name} is to be in one of both");
        }
        let home = env::var("HOME").unwrap();
        assert!(!page.contains(&format!("{home}/")), "the page names {home}");
    }

    #[test]
    fn a_binary_of_another_c_library_is_refused() {
        assert!(has_glibc(b"\x7fELF..GLIBC_TUNABLES\0"));
        let file = env::temp_dir().join(format!("lockprof-musl-{}", std::process::id()));
        fs::write(&file, b"\x7fELF, and nothing known").unwrap();
        let error = c_library(&file).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.contains("that is not glibc"), "{error}");
    }

    #[test]
    fn glibc_has_a_version() {
        let version = glibc_version().unwrap();
        assert!(version.starts_with("2."), "{version}");
    }

    #[test]
    fn licences_of_the_system_have_texts() {
        for expression in ["LGPL-2.1-or-later", "GPL-3.0-or-later WITH GCC-exception-3.1"] {
            let texts = licence::standard_texts(expression).unwrap();
            assert!(texts.iter().all(|text| text.text.len() > 1000), "{expression}");
        }
    }
}
