//! Counts from what libtest prints.

/// What one step, or all of them, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Checks and tests that passed.
    pub(super) passed: usize,
    /// Those that failed.
    pub(super) failed: usize,
    /// The names of those that failed and have one.
    pub(super) failures: Vec<String>,
    /// Those that did not run: `test: reason`.
    pub(super) skips: Vec<String>,
}

impl Counts {
    /// A step that is one check.
    pub(super) fn of_check(success: bool) -> Self {
        Self { passed: usize::from(success), failed: usize::from(!success), ..Self::default() }
    }

    /// A failure that is no test's: `what: why`.
    pub(super) fn of_failure(what: String) -> Self {
        Self { failed: 1, failures: vec![what], ..Self::default() }
    }

    /// Something that could not be run at all: `what: why`.
    pub(super) fn of_skip(what: String) -> Self {
        Self { skips: vec![what], ..Self::default() }
    }

    /// A step that runs tests: its output, the skip log that its tests wrote,
    /// and whether the command succeeded.
    ///
    /// A test that skips itself returns, which libtest counts as passed; it is
    /// taken out there. A command that failed without a failed test (it did not
    /// compile, or a test binary died) counts as one failure.
    pub(super) fn of_tests(output: &str, skip_log: &str, success: bool) -> Self {
        let mut counts = Self::default();
        for line in output.lines() {
            if let Some((passed, failed)) = result_line(line) {
                counts.passed += passed;
                counts.failed += failed;
            } else if let Some(ignored) = ignored_line(line) {
                counts.skips.push(ignored);
            } else if let Some(failed) = failed_line(line) {
                counts.failures.push(failed);
            }
        }
        for skip in skip_log.lines().filter_map(|line| line.strip_prefix("SKIP ")) {
            counts.passed = counts.passed.saturating_sub(1);
            counts.skips.push(skip.trim().to_owned());
        }
        if !success && counts.failed == 0 {
            counts.failed = 1;
        }
        counts
    }

    /// Adds another step's.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// Says where all of it was: `6.12 2x2: exact::`.
    pub(super) fn prefix(&mut self, place: &str) {
        for name in self.failures.iter_mut().chain(&mut self.skips) {
            name.insert_str(0, place);
        }
    }
}

/// Passed and failed of `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn result_line(line: &str) -> Option<(usize, usize)> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let (_, figures) = rest.split_once(". ")?;
    let figure = |name: &str| {
        figures.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok())
    };
    Some((figure(" passed")?, figure(" failed")?))
}

/// `name` of `test name ... FAILED`; what the test printed itself may be between.
fn failed_line(line: &str) -> Option<String> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    verdict.ends_with("FAILED").then(|| name.to_owned())
}

/// `name: reason` of `test name ... ignored, reason`.
fn ignored_line(line: &str) -> Option<String> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = verdict.strip_prefix("ignored")?;
    Some(match reason.strip_prefix(", ") {
        Some(reason) => format!("{name}: {reason}"),
        None => format!("{name}: marked #[ignore]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running tests/attach.rs (target/release/deps/attach-1)

running 3 tests
test attaches ... ok
test counts_exactly ... ok
test soak ... ignored, takes an hour

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.02s

running 2 tests
test bad ... FAILED
test good ... ok

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_of_all_test_binaries_add_up() {
        let counts = Counts::of_tests(OUTPUT, "", false);
        assert_eq!((counts.passed, counts.failed), (3, 1));
        assert_eq!(counts.failures, ["bad"]);
        assert_eq!(counts.skips, ["soak: takes an hour"]);
    }

    #[test]
    fn a_test_that_skipped_itself_did_not_pass() {
        let counts =
            Counts::of_tests(OUTPUT, "SKIP attaches: BPF is not permitted (EPERM)\n", false);
        assert_eq!((counts.passed, counts.failed, counts.skips.len()), (2, 1, 2));
        assert_eq!(counts.skips[1], "attaches: BPF is not permitted (EPERM)");
    }

    #[test]
    fn a_command_that_failed_without_a_failed_test_is_a_failure() {
        let counts = Counts::of_tests("error: could not compile `x`\n", "", false);
        assert_eq!((counts.passed, counts.failed), (0, 1));
        assert_eq!(Counts::of_tests(OUTPUT, "", false).failed, 1, "counted once");
    }

    #[test]
    fn names_say_where_they_were_run() {
        let mut counts = Counts::of_tests(OUTPUT, "", false);
        counts.prefix("6.12 2x2: attach::");
        assert_eq!(counts.failures, ["6.12 2x2: attach::bad"]);
        assert_eq!(counts.skips, ["6.12 2x2: attach::soak: takes an hour"]);
    }

    #[test]
    fn a_check_counts_as_one() {
        let mut total = Counts::of_check(true);
        total.add(Counts::of_check(false));
        assert_eq!((total.passed, total.failed), (1, 1));
    }

    #[test]
    fn a_line_that_only_looks_like_a_result_is_not_counted() {
        let counts =
            Counts::of_tests("test result: unknown\nlog: test result: 9 passed\n", "", true);
        assert_eq!(counts, Counts::default());
    }
}
