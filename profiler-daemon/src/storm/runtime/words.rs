//! What a runtime said, for a person.

use std::process::ExitStatus;

use crate::snapshot::Name;

/// Lines that are told.
const LINES: usize = 2;
/// Characters of each.
const LENGTH: usize = 500;

/// How a runtime failed and what it said, in one line that is safe for a
/// terminal.
pub(super) fn failed(status: ExitStatus, stderr: &[u8]) -> String {
    match said(stderr) {
        Some(words) => words,
        None => format!("{status}, without a word"),
    }
}

/// The first lines. Warnings go behind everything else: runtimes print them
/// before the error.
fn said(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_warning = |line: &&str| line.contains("level=warning") || line.contains("[warning]");
    let errors = lines().filter(|line| !is_warning(line));
    let warnings = lines().filter(is_warning);
    let words: Vec<_> = errors
        .chain(warnings)
        .take(LINES)
        .map(|line| {
            let line: String = line.chars().take(LENGTH).collect();
            Name::from(line).to_string()
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_error_goes_before_warnings() {
        let stderr =
            b"\ntime=\"x\" level=warning msg=\"old\"\ntime=\"x\" level=error msg=\"no root\"\n";
        let said = said(stderr).unwrap();
        assert!(said.starts_with("time=\"x\" level=error msg=\"no root\"; "), "{said}");
        assert!(said.ends_with("msg=\"old\""), "{said}");
    }

    #[test]
    fn words_cannot_steer_a_terminal_and_are_bounded() {
        let mut stderr = b"\x1b[2J\x07evil \xff\n".to_vec();
        assert_eq!(said(&stderr).unwrap(), "\\x1b[2J\\x07evil \u{fffd}");
        stderr.extend([b'a'; 100_000]);
        stderr.extend(b"\nthird\n");
        let said = said(&stderr).unwrap();
        assert!(said.len() < 2 * LENGTH && !said.contains("third"), "{said}");
    }

    #[test]
    fn silence_gives_the_status() {
        assert_eq!(failed(ExitStatus::from_raw(0x100), b" \n"), "exit status: 1, without a word");
        assert_eq!(failed(ExitStatus::from_raw(0x100), b"no\n"), "no");
    }
}
