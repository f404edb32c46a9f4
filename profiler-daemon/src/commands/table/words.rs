//! Findings in words.

use std::fmt::Write as _;

use textwrap::Options;

use crate::findings::Finding;

/// Title, figures, cause and remedy of each, the weightiest first.
pub(super) fn write(out: &mut String, findings: &[Finding], width: usize) {
    if findings.is_empty() {
        out.push_str("\nno findings\n");
        return;
    }
    let _ = writeln!(out, "\nFINDINGS");
    for (number, finding) in findings.iter().enumerate() {
        let number = format!("{:>2}. ", number + 1);
        let _ = writeln!(out, "\n{}", fill(&finding.title, &number, "    ", width));
        let widest = finding.figures.iter().map(|(name, _)| name.chars().count()).max();
        let widest = widest.unwrap_or(0);
        for (name, value) in &finding.figures {
            let name = format!("      {name:<widest$}  ");
            let indent = " ".repeat(name.chars().count());
            let _ = writeln!(out, "{}", fill(value, &name, &indent, width));
        }
        let rule = format!("docs/patterns.md#{}", finding.rule);
        for (heading, text) in [("why ", finding.cause), ("do  ", &finding.remedy), ("more", &rule)]
        {
            let heading = format!("    {heading}  ");
            let _ = writeln!(out, "{}", fill(text, &heading, "          ", width));
        }
    }
}

fn fill(text: &str, first: &str, then: &str, width: usize) -> String {
    // A word that is wider than the terminal is cut by the terminal.
    let options = Options::new(width).initial_indent(first).subsequent_indent(then);
    textwrap::fill(
        text,
        options.break_words(false).word_splitter(textwrap::WordSplitter::NoHyphenation),
    )
}
