//! The blocks of commands in a page of Markdown.

use anyhow::{Result, bail};

/// Where a command of the page is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Here,
    /// In a virtual machine with the package to install.
    Service,
    /// By CI, before all else.
    Ci,
}

/// A command of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Where it is run.
    pub(crate) place: Place,
    /// Without the prompt and the remark behind it.
    pub(crate) text: String,
}

/// What begins a block of commands, and what begins one without.
const COMMANDS: &str = "console";
const OTHERS: [&str; 3] = ["text", "yaml", "json"];

/// Takes the commands out of a page.
///
/// # Errors
/// With the line, for a block that may hold commands and does not say where they
/// are run, and for one without any.
pub(crate) fn parse(page: &str) -> Result<Vec<Written>> {
    let mut commands = Vec::new();
    let mut before = "";
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            before = if line.trim().is_empty() { before } else { line.trim() };
            continue;
        };
        let begin = index + 1;
        let place = match info {
            COMMANDS => Some(place(before).ok_or_else(|| {
                anyhow::anyhow!(
                    "line {begin}: above this block must be one of `<!-- run: here -->`, \
                     `<!-- run: service -->` and `<!-- run: ci -->`"
                )
            })?),
            other if OTHERS.contains(&other) => None,
            other => bail!(
                "line {begin}: a block of `{other}`; commands are in blocks of `{COMMANDS}`, and \
                 others may be of {}",
                OTHERS.join(", ")
            ),
        };
        before = "";
        let found = commands.len();
        loop {
            let Some((index, line)) = lines.next() else {
                bail!("line {begin}: this block has no end")
            };
            if line.starts_with("```") {
                break;
            }
            if let (Some(place), Some(text)) = (place, line.strip_prefix("$ ")) {
                let text = text.split(" # ").next().unwrap_or(text).trim().to_owned();
                commands.push(Written { line: index + 1, place, text });
            }
        }
        if place.is_some() && commands.len() == found {
            bail!("line {begin}: this block has no command; they begin with `$ `");
        }
    }
    Ok(commands)
}

fn place(comment: &str) -> Option<Place> {
    match comment.strip_prefix("<!-- run: ")?.strip_suffix(" -->")? {
        "here" => Some(Place::Here),
        "service" => Some(Place::Service),
        "ci" => Some(Place::Ci),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_a_prompt_and_what_they_print_has_none() {
        let page = "# x\n\n<!-- run: here -->\n```console\n$ a --b   # why\nout # put\n$ c\n```\n";
        let here = |line, text: &str| Written { line, place: Place::Here, text: text.into() };
        assert_eq!(parse(page).unwrap(), [here(5, "a --b"), here(7, "c")]);
    }

    #[test]
    fn no_command_escapes() {
        let error = |page: &str| parse(page).unwrap_err().to_string();
        assert!(error("x\n```console\n$ a\n```\n").starts_with("line 2: above this block"));
        assert!(error("<!-- run: there -->\n```console\n$ a\n```\n").contains("run: ci"));
        assert!(error("```\n$ a\n```\n").contains("a block of ``"));
        assert!(error("```sh\na\n```\n").contains("a block of `sh`"));
        assert!(error("<!-- run: ci -->\n```console\na\n```\n").contains("no command"));
        assert!(error("<!-- run: ci -->\n```console\n$ a\n").contains("no end"));
        assert_eq!(parse("```text\n$ a\n```\n").unwrap(), []);
    }

    #[test]
    fn the_place_is_of_one_block_alone() {
        let page = "<!-- run: ci -->\n```console\n$ a\n```\n```console\n$ b\n```\n";
        assert!(parse(page).is_err());
    }
}
