//! The notices of the software that is linked into the binary: what its licences
//! ask to go along with it.
//!
//! In: the crates that cargo links ([`crates`]), the Rust standard library and, for
//! the tarball, the C library ([`system`]); what licences are allowed and their
//! standard texts ([`licence`]). Out: the files [`NAME`] and [`RUST`], for
//! `/usr/share/doc/lockprof`. Nothing in them depends on the machine but the
//! versions of what its toolchain links.

mod crates;
mod licence;
mod system;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::VERSION;
use super::tree::put;

/// The file of notices, where `copyright` is too.
pub(crate) const NAME: &str = "THIRD-PARTY-NOTICES";

/// Beside it: the notices of the Rust standard library, as its project writes them.
pub(crate) const RUST: &str = "COPYRIGHT-rust-library.html";

/// Where both are, in the packages.
pub(crate) const FOLDER: &str = "usr/share/doc/lockprof";

/// Something that is linked.
#[derive(Clone, Debug, Default)]
struct Part {
    name: String,
    /// Empty, where it is not known.
    version: String,
    /// An SPDX expression.
    licence: String,
    /// People, or lines with their copyright.
    authors: Vec<String>,
    /// Address, or what it is found by.
    source: String,
    /// What else its licence wants to be said.
    remark: Option<String>,
    texts: Vec<Text>,
}

/// A licence or a notice.
#[derive(Clone, Debug)]
struct Text {
    /// A file's name, or that of a licence.
    title: String,
    text: String,
}

/// What goes together.
struct Section {
    title: &'static str,
    about: &'static str,
    parts: Vec<Part>,
}

const CRATES: &str = "\
Crates of lockprof and of the BPF object that it embeds. Macros that run in the
compiler alone are not among them.";

const LIBRARY: &str = "\
The standard library, which the compiler brings. Its project's own notices are in
COPYRIGHT-rust-library.html beside this file; what that leaves out is here.";

const C_LIBRARY: &str = "\
This binary is linked statically, so that it has parts of these in it.";

/// Writes both files into `folder`. `portable` is the static binary that they go
/// along with, if it is one.
///
/// # Errors
/// When a crate's licence is not allowed or has no text, and when the notices of
/// the standard library or of the C library are not found.
pub(super) fn write(folder: &Path, portable: Option<&Path>) -> Result<()> {
    let (library, notices) = system::rust()?;
    let mut sections = vec![
        Section { title: "Crates", about: CRATES, parts: crates::linked()? },
        Section { title: "The Rust standard library", about: LIBRARY, parts: library },
    ];
    if let Some(binary) = portable {
        let parts = system::c_library(binary)?;
        sections.push(Section { title: "The C library", about: C_LIBRARY, parts });
    }
    put(&folder.join(NAME), render(&sections).as_bytes())?;
    put(&folder.join(RUST), &notices)
}

/// Everything as one text: the parts with numbers of texts, then each text once.
fn render(sections: &[Section]) -> String {
    let mut out = format!(
        "Third-party software in lockprof {VERSION}\n\n\
         The lockprof binary has lockprof itself in it, whose licence is in the file\n\
         copyright beside this one, and what is listed here, by version, licence (an SPDX\n\
         expression; OR leaves you the choice), authors and source. The numbers are of the\n\
         texts that came with it, which follow below, each once.\n"
    );
    let mut texts = Texts::default();
    for section in sections {
        let _ = write!(out, "\n\n{}\n{}\n\n{}\n", section.title, line('='), section.about);
        for part in &section.parts {
            entry(&mut out, part, &mut texts);
        }
    }
    let _ = write!(out, "\n\nTexts\n{}\n", line('='));
    for (index, text) in texts.all.iter().enumerate() {
        let _ = write!(out, "\n[{}]\n{}\n{text}\n", index + 1, line('-'));
    }
    out
}

fn entry(out: &mut String, part: &Part, texts: &mut Texts) {
    let name = format!("{} {}", part.name, part.version);
    let _ = write!(out, "\n{}\n", name.trim_end());
    let _ = writeln!(out, "  Licence: {}", part.licence);
    if !part.authors.is_empty() {
        let _ = writeln!(out, "  Authors: {}", part.authors.join("; "));
    }
    let _ = writeln!(out, "  Source:  {}", part.source);
    let numbers: Vec<_> = part
        .texts
        .iter()
        .map(|text| format!("[{}] {}", texts.number(&text.text), text.title))
        .collect();
    let _ = writeln!(out, "  Texts:   {}", numbers.join(", "));
    if let Some(remark) = &part.remark {
        let _ = writeln!(out, "  Remark:  {remark}");
    }
}

fn line(of: char) -> String {
    of.to_string().repeat(80)
}

/// The texts, in the order of first use.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    /// By the words alone: many differ in how lines are broken.
    numbers: HashMap<String, usize>,
}

impl Texts {
    /// Of a text, from 1.
    fn number(&mut self, text: &str) -> usize {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        *self.numbers.entry(words).or_insert_with(|| {
            let lines: Vec<_> = text.lines().map(str::trim_end).collect();
            self.all.push(lines.join("\n").trim_matches('\n').to_owned());
            self.all.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, text: &str) -> Part {
        Part {
            name: name.into(),
            version: "1.0.0".into(),
            licence: "MIT".into(),
            authors: vec!["A <a@b.c>".into(), "B".into()],
            source: "https://example.org/a".into(),
            remark: None,
            texts: vec![Text { title: "LICENSE".into(), text: text.into() }],
        }
    }

    fn rendered(parts: Vec<Part>) -> String {
        render(&[Section { title: "Crates", about: "All of them.", parts }])
    }

    #[test]
    fn a_part_is_named_with_all_that_its_licence_asks_for() {
        let text = rendered(vec![part("one", "Copyright A\n")]);
        assert!(
            text.contains(
                "\none 1.0.0\n  Licence: MIT\n  Authors: A <a@b.c>; B\n  Source:  \
                 https://example.org/a\n  Texts:   [1] LICENSE\n"
            ),
            "{text}"
        );
        assert!(text.ends_with(&format!("\n[1]\n{}\nCopyright A\n", line('-'))), "{text}");
    }

    #[test]
    fn texts_that_differ_in_line_breaks_alone_are_printed_once() {
        let text = rendered(vec![
            part("one", "\nCopyright A\r\n  All rights\n"),
            part("two", "Copyright A All\nrights"),
            part("three", "Copyright B All\nrights"),
        ]);
        assert_eq!(text.matches("  Texts:   [1] LICENSE\n").count(), 2, "{text}");
        assert_eq!(text.matches("  Texts:   [2] LICENSE\n").count(), 1, "{text}");
        assert!(text.contains("Copyright A\n  All rights\n") && !text.contains('\r'), "{text}");
        assert!(!text.contains("\n[3]\n"), "{text}");
    }
}
