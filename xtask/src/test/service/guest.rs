//! `xtask service-tests`: the tests, inside the machine, in the words of libtest.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use super::cases;
use super::system::{Journal, SERVICE, System, start};

/// A test that cannot be run on this machine; why.
#[derive(Debug)]
pub(super) struct Skip(pub(super) String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// A test.
pub(super) struct Case {
    /// What holds, as a sentence.
    pub(super) name: &'static str,
    /// Fails when it does not.
    pub(super) run: fn(&mut System) -> Result<()>,
}

/// Of `xtask service-tests`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only those whose names contain one of these, after the installation
    filters: Vec<String>,
}

/// Runs the tests in order.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |name: &str| {
        arguments.filters.is_empty()
            || name == cases::FIRST
            || arguments.filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let cases: Vec<_> = cases::all().filter(|case| wanted(case.name)).collect();
    println!("\nrunning {} tests", cases.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let mut system = System::default();
    for case in cases {
        print!("test {} ... ", case.name);
        // Seen from outside when this one never ends.
        let _ = std::io::stdout().flush();
        let began = Journal::now();
        let start = Instant::now();
        match (case.run)(&mut system) {
            Ok(()) => {
                passed += 1;
                println!("ok");
            }
            Err(why) if why.is::<Skip>() => {
                ignored += 1;
                println!("ignored, {why}");
            }
            Err(why) => {
                failed += 1;
                println!("FAILED");
                println!("{why:#}");
                explain(began.and_then(|journal| journal.since()));
                system.touch();
            }
        }
        eprintln!("{}: {:.1} s", case.name, start.elapsed().as_secs_f64());
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is to say about the service when a test has failed.
fn explain(journal: Result<String>) {
    if let Ok(status) = start("systemctl", &["status", "--no-pager", "--lines=0", SERVICE]) {
        println!("{}", String::from_utf8_lossy(&status.stdout));
    }
    match journal {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{error:#}"),
    }
}
