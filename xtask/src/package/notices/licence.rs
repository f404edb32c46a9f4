//! Which licences linked software may have, and their standard texts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use spdx::{Expression, ParseMode};

use super::Text;

/// What may be linked into a binary that is given to users under the MIT licence or
/// the Apache License 2.0: they ask for no more than their notices.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn parse(expression: &str) -> Result<Expression> {
    // Old crates have `MIT/Apache-2.0`.
    Expression::parse_mode(expression, ParseMode::LAX)
        .map_err(|error| anyhow::anyhow!("`{expression}` is no SPDX expression: {}", error.reason))
}

/// Whether an SPDX expression can be met with allowed licences alone.
///
/// # Errors
/// When it cannot: says which licence is in the way, and what to do.
pub(super) fn check(expression: &str) -> Result<()> {
    let allowed = |wanted: &spdx::LicenseReq| ALLOWED.contains(&wanted.to_string().as_str());
    let parsed = parse(expression)?;
    let Err(failed) = parsed.evaluate_with_failures(allowed) else { return Ok(()) };
    let failed: Vec<_> = failed.iter().map(|failure| failure.req.to_string()).collect();
    bail!(
        "its licence, {expression}, is not allowed, for {}; take another crate, or, if that licence \
         asks for no more than a notice, add it to ALLOWED in xtask/src/package/notices/licence.rs",
        failed.join(" and ")
    )
}

/// The standard texts of all licences and exceptions in an expression.
///
/// # Errors
/// When one is not on SPDX's list.
pub(super) fn standard_texts(expression: &str) -> Result<Vec<Text>> {
    let mut texts = BTreeMap::new();
    for requirement in parse(expression)?.requirements() {
        let wanted = &requirement.req;
        let id = wanted
            .license
            .id()
            .with_context(|| format!("SPDX has no text of the licence {wanted}"))?;
        texts.insert(id.name, id.text());
        if let Some(addition) = &wanted.addition {
            let id = addition
                .id()
                .with_context(|| format!("SPDX has no text of the exception in {wanted}"))?;
            texts.insert(id.name, id.text());
        }
    }
    Ok(texts
        .into_iter()
        .map(|(name, text)| Text {
            title: format!("{name} (standard text)"),
            text: text.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_allowed_when_one_licence_is_and_a_sum_when_all_are() {
        check("GPL-3.0-only OR MIT").unwrap();
        check("MIT/Apache-2.0").unwrap();
        check("(Apache-2.0 OR MIT) AND BSD-3-Clause").unwrap();
        check("Apache-2.0 WITH LLVM-exception").unwrap();
        let error = check("MIT AND GPL-3.0-only").unwrap_err().to_string();
        assert!(error.contains("for GPL-3.0-only;") && error.contains("ALLOWED"), "{error}");
        assert!(check("GPL-2.0-only WITH Classpath-exception-2.0").is_err());
        assert!(check("MPL-2.0").is_err());
        let error = check("as is").unwrap_err().to_string();
        assert!(error.contains("`as is` is no SPDX expression"), "{error}");
    }

    #[test]
    fn every_allowed_licence_has_a_standard_text() {
        for licence in ALLOWED {
            check(licence).unwrap();
            let texts = standard_texts(licence).unwrap();
            assert!(!texts.is_empty() && texts.iter().all(|text| text.text.len() > 200));
        }
        let texts = standard_texts("MIT OR Apache-2.0 WITH LLVM-exception").unwrap();
        let titles: Vec<_> = texts.iter().map(|text| text.title.as_str()).collect();
        assert_eq!(
            titles,
            ["Apache-2.0", "LLVM-exception", "MIT"].map(|name| format!("{name} (standard text)"))
        );
    }

    #[test]
    fn a_licence_of_ones_own_has_no_standard_text() {
        let error = standard_texts("LicenseRef-Mine").err().unwrap().to_string();
        assert!(error.contains("LicenseRef-Mine"), "{error}");
    }
}
