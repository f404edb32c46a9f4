//! Man pages and completions, from the definitions in [`super::args`].

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::Cli;
use super::config;

/// Who the pages belong to, in their headers.
pub(super) const MANUAL: &str = "lockprof's manual";

/// In the footers of the pages.
pub(super) const SOURCE: &str = concat!("lockprof ", env!("CARGO_PKG_VERSION"));

/// Section of the commands: administration, man(1).
const COMMANDS: &str = "8";

/// Writes the completions for `shell`.
///
/// # Errors
///
/// As `out` has them.
pub fn completions(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lockprof", &mut script);
    out.write_all(&script)
}

/// Writes the man pages of `lockprof`, all its commands and its configuration,
/// one after the other, as roff.
///
/// # Errors
///
/// As `out` has them.
pub fn man(out: &mut dyn Write) -> io::Result<()> {
    pages().try_for_each(|(_, page)| out.write_all(page.as_bytes()))
}

/// Writes the same into files of `folder`, which is made if need be:
/// `lockprof.8`, `lockprof-stat.8`, ..., `lockprof.toml.5`.
///
/// # Errors
///
/// When a file cannot be written.
pub fn man_files(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for (name, page) in pages() {
        let file = folder.join(name);
        fs::write(&file, page).with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}

/// File name and text of each page.
fn pages() -> impl Iterator<Item = (String, String)> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut commands = Vec::new();
    collect(&root, &mut commands);
    commands
        .into_iter()
        .map(|command| page(&command))
        .chain(std::iter::once(("lockprof.toml.5".to_owned(), config::man_page())))
}

fn collect(command: &Command, all: &mut Vec<Command>) {
    all.push(command.clone());
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        collect(command, all);
    }
}

fn page(command: &Command) -> (String, String) {
    let man = Man::new(command.clone()).section(COMMANDS).source(SOURCE).manual(MANUAL);
    let mut text = Vec::new();
    let out = &mut text;
    let written = man
        .render_title(out)
        .and_then(|()| man.render_name_section(out))
        .and_then(|()| man.render_synopsis_section(out))
        .and_then(|()| man.render_description_section(out))
        .and_then(|()| man.render_options_section(out))
        .and_then(|()| {
            let shown = command.get_subcommands().any(|command| !command.is_hide_set());
            if shown { man.render_subcommands_section(out) } else { Ok(()) }
        })
        .and_then(|()| rest(command).to_writer(out));
    written.expect("writing to memory does not fail");
    let text = String::from_utf8(text).expect("what is written is text");
    (man.get_filename(), with_one_preamble(&text))
}

/// Every part begins with the definition of an apostrophe; one is enough.
fn with_one_preamble(text: &str) -> String {
    let mut seen = Vec::new();
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with(".ie ") || line.starts_with(".el ") {
            if seen.contains(&line) {
                continue;
            }
            seen.push(line);
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// What `--help` says below the options: lists (`Examples:` and indented lines)
/// as sections of their own, all else as notes; and where to read on.
fn rest(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (lists, notes): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").filter(|part| !part.trim().is_empty()).partition(|part| is_list(part));
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
    }
    for note in notes {
        roff.control("PP", []);
        roff.text([roman(note.trim().replace('\n', " "))]);
    }
    for list in lists {
        let (title, lines) = list.split_once('\n').unwrap_or((list, ""));
        roff.control("SH", [title.trim_end_matches(':').to_uppercase().as_str()]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    let see = if command.get_name() == "lockprof" { None } else { Some(reference("lockprof", 8)) };
    let see: Vec<_> = see.into_iter().chain([reference("lockprof.toml", 5)]).collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text(see.join(&roman(", ")));
    roff
}

fn is_list(part: &str) -> bool {
    let mut lines = part.trim_matches('\n').lines();
    lines.next().is_some_and(|title| title.ends_with(':'))
        && lines.all(|line| line.starts_with("  "))
}

/// `name(section)`, as man pages cite each other.
pub(super) fn reference(name: &str, section: u8) -> Vec<Inline> {
    vec![bold(name), roman(format!("({section})"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_configuration_have_a_man_page() {
        let mut roff = Vec::new();
        man(&mut roff).unwrap();
        let roff = String::from_utf8(roff).unwrap();
        for page in ["lockprof", "lockprof-daemon", "lockprof-stat", "lockprof-config-check"] {
            assert!(roff.contains(&format!(".TH {page} 8")), "{page}");
        }
        assert!(roff.contains(".TH lockprof.toml 5"));
        assert!(!roff.contains("assume"), "options for tests are hidden");
    }

    #[test]
    fn every_page_is_a_file_named_as_man_looks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("man");
        man_files(&below).unwrap();
        for (file, title) in [
            ("lockprof.8", ".TH lockprof 8"),
            ("lockprof-stat.8", ".TH lockprof-stat 8"),
            ("lockprof-config-default.8", ".TH lockprof-config-default 8"),
            ("lockprof.toml.5", ".TH lockprof.toml 5"),
        ] {
            let text = fs::read_to_string(below.join(file)).unwrap();
            assert_eq!(text.matches(".TH ").count(), 1, "{file}");
            assert!(text.contains(title), "{file}: {text}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = man_files(Path::new("/proc/self/none")).unwrap_err();
        assert!(format!("{error:#}").contains("/proc/self/none"), "{error:#}");
    }

    #[test]
    fn examples_stay_as_they_are_and_prose_flows() {
        let command = Command::new("x").after_help("Examples:\n  a -b\n  c\n\nOne\ntwo.");
        let text = rest(&command).to_roff();
        assert!(text.contains(".SH EXAMPLES\n.nf\na \\-b\nc\n.fi\n"), "{text}");
        assert!(text.contains(".SH NOTES\n.PP\nOne two.\n"), "{text}");
    }

    #[test]
    fn completions_know_the_commands_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            completions(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("host-mounts"), "{shell}");
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = completions(Shell::Bash, &mut Closed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(man(&mut Closed).is_err());
    }
}
