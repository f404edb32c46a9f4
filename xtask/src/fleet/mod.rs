//! `cargo xtask fleet`: scrapes 500 synthetic hosts with a real Prometheus, and
//! writes what that takes into `docs/fleet.md`.

use std::fs;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{setup, shell};

const PAGE: &str = "docs/fleet.md";

/// Around what is written; the text before and after is by hand.
const BEGIN: &str = "<!-- Between these lines: written by `cargo xtask fleet`. -->\n";
const END: &str = "<!-- End of what is written. -->\n";

/// Of `cargo xtask fleet`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    hosts: u32,
    /// How long each Prometheus scrapes before it is looked at; below 330 the
    /// rates of the rules are not over all of their five minutes
    #[arg(long, default_value_t = 330, value_parser = clap::value_parser!(u32).range(30..=86_400))]
    seconds: u32,
}

/// Runs it; with the defaults it takes about twelve minutes, and the build.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::require_toolchain()?;
    let path = shell::workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))?;
    // Before it takes minutes.
    with_tables(&page, "")?;
    let output = shell::cargo()
        .args(["bench", "--profile", "tests", "--locked", "--package", "profiler-daemon"])
        .args(["--bench", "fleet", "--", "--hosts", &arguments.hosts.to_string()])
        .args(["--seconds", &arguments.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo")?;
    if !output.status.success() {
        bail!("the simulation failed ({}); what it said is above", output.status);
    }
    let tables = String::from_utf8(output.stdout).context("the simulation printed no text")?;
    print!("{tables}");
    fs::write(&path, with_tables(&page, &tables)?)
        .with_context(|| format!("failed to write {PAGE}"))?;
    println!("written to {PAGE}");
    Ok(ExitCode::SUCCESS)
}

/// The page with these tables in place of those that it has.
///
/// # Errors
///
/// The page has not the two lines that they go between.
fn with_tables(page: &str, tables: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts
        .with_context(|| format!("{PAGE} lacks the line `{}` or `{}`", BEGIN.trim(), END.trim()))?;
    Ok(format!("{before}{BEGIN}\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before_and_the_text_stays() {
        let page = format!("# Fleet\n\n{BEGIN}\nold\n\n{END}\n## More\n");
        let once = with_tables(&page, "\nnew\n\n").unwrap();
        assert_eq!(once, format!("# Fleet\n\n{BEGIN}\nnew\n\n{END}\n## More\n"));
        assert_eq!(with_tables(&once, "new").unwrap(), once);
    }

    #[test]
    fn a_page_without_the_lines_is_refused() {
        for page in ["# Fleet\n".to_owned(), format!("{END}{BEGIN}"), BEGIN.to_owned()] {
            let error = with_tables(&page, "new").unwrap_err().to_string();
            assert!(error.contains("written by `cargo xtask fleet`"), "{error}");
        }
    }

    #[test]
    fn the_page_has_them() {
        let page = fs::read_to_string(shell::workspace().join(PAGE)).unwrap();
        assert!(with_tables(&page, "new").unwrap().contains("\nnew\n"));
    }
}
