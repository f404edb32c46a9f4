//! `cargo xtask storm`: makes the experiments of `docs/storm.md` on the kernels
//! of the matrix and on this machine, and writes their tables into the page.

mod experiments;
mod page;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::experiments::{EXPERIMENTS, Experiment, Place};
use self::page::{Answers, HERE, Place as Where, Report};
use crate::process::Interrupt;
use crate::vm::accel::{self, Wish};
use crate::vm::image::Contents;
use crate::vm::kernels;
use crate::vm::machine::{Machine, Threads};
use crate::vm::plan::{Plan, Step};
use crate::vm::run as guest;
use crate::{build, setup, shell};

const PAGE: &str = "docs/storm.md";

/// What a virtual machine has: two nodes with two CPUs each.
const MACHINE: Machine = Machine { nodes: 2, cpus: 4, memory: 2048 };

/// When a virtual machine is stopped: several times what all experiments take.
const TIMEOUT: Duration = Duration::from_secs(2400);

/// Of `cargo xtask storm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only in virtual machines with kernels of this series (repeatable), or
    /// `here`; the page keeps what it has of the others
    #[arg(long, value_name = "SERIES")]
    only: Vec<String>,
}

/// Runs them; it takes about half an hour on two CPUs.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::require_toolchain()?;
    let wanted =
        |place: &str| arguments.only.is_empty() || arguments.only.iter().any(|o| o == place);
    let path = shell::workspace().join(PAGE);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))?;
    let mut answers = page::parse(&text)?;
    let interrupt = Interrupt::watch()?;
    let lockprof = build::release()?;
    let mut by_place: BTreeMap<&str, Vec<&Experiment>> = BTreeMap::new();
    for experiment in EXPERIMENTS {
        for place in experiment.places {
            match place {
                Place::Here => by_place.entry(HERE).or_default().push(experiment),
                Place::Series(all) => {
                    for series in *all {
                        by_place.entry(series).or_default().push(experiment);
                    }
                }
            }
        }
    }
    if let Some(unknown) = arguments.only.iter().find(|o| !by_place.contains_key(o.as_str())) {
        let all: Vec<_> = by_place.keys().copied().collect();
        bail!("no experiment is made on `{unknown}`; there are {}", all.join(", "));
    }
    for (place, experiments) in by_place {
        if !wanted(place) {
            continue;
        }
        let found = match place {
            HERE => here(&lockprof, &experiments)?,
            series => in_a_machine(series, &lockprof, &experiments, &interrupt)?,
        };
        add(&mut answers, place, found);
        // What is there stays there when a later machine fails.
        fs::write(&path, page::render(&text, &answers)?)
            .with_context(|| format!("failed to write {PAGE}"))?;
    }
    println!("written to {PAGE}");
    Ok(ExitCode::SUCCESS)
}

/// An experiment with the rows that it gave.
type Found<'a> = (&'a Experiment, Vec<String>);

fn add(answers: &mut Answers, place: &str, found: Vec<Found<'_>>) {
    for (experiment, rows) in found {
        for row in &rows {
            println!("{place}: {}: {row}", experiment.title);
        }
        let places = answers.entry(experiment.title.to_owned()).or_default();
        places.insert(Where::new(place), rows);
    }
}

/// The rows of what `storm` printed; none, after a word about it, where it
/// refused.
fn rows(of: &Experiment, stdout: &[u8], stderr: &[u8]) -> Result<Vec<String>> {
    if stdout.is_empty() {
        eprintln!("{}: {}", of.title, String::from_utf8_lossy(stderr).trim());
        return Ok(Vec::new());
    }
    let report: Report =
        serde_json::from_slice(stdout).context("what storm printed is no report")?;
    Ok(report.rows(of.lock))
}

fn here<'a>(lockprof: &Path, experiments: &[&'a Experiment]) -> Result<Vec<Found<'a>>> {
    let run = |experiment: &&'a Experiment| {
        eprintln!("here: lockprof {}", experiment.command());
        let output = std::process::Command::new(lockprof)
            .args(experiment.command().split_whitespace())
            .arg("--json")
            .output()
            .context("failed to run lockprof")?;
        Ok((*experiment, rows(experiment, &output.stdout, &output.stderr)?))
    };
    experiments.iter().map(run).collect()
}

fn in_a_machine<'a>(
    series: &str,
    lockprof: &Path,
    experiments: &[&'a Experiment],
    interrupt: &Interrupt,
) -> Result<Vec<Found<'a>>> {
    let kernel = kernels::named(series)?;
    let steps = experiments.iter().map(|experiment| Step {
        name: experiment.title.into(),
        command: ["lockprof".to_owned()]
            .into_iter()
            .chain(experiment.command().split_whitespace().map(str::to_owned))
            .chain(["--json".to_owned()])
            .collect(),
        folder: "/root".into(),
        ..Step::default()
    });
    let plan = Plan { steps: steps.collect(), collect: None };
    // The programs are attached before each load and detached after it.
    let threads = Threads::Multi;
    let accelerator = accel::choose(Wish::Auto, threads, &kernel.image, lockprof, interrupt)?;
    let contents = Contents {
        lockprof: lockprof.to_owned(),
        programs: ["runc", "crun"].into_iter().filter_map(shell::find).collect(),
        modules: kernel.modules.clone(),
        ..Contents::default()
    };
    eprintln!("{series}: {}, {}", kernel.origin, MACHINE.describe());
    let outcome = guest::run(
        &guest::Guest {
            name: &format!("storm-{series}"),
            kernel: &kernel.image,
            machine: MACHINE,
            accelerator,
            contents: &contents,
            plan: &plan,
            timeout: TIMEOUT,
        },
        interrupt,
        |_| (),
    )?;
    if let Some(why) = outcome.failure() {
        crate::vm::show_console(&outcome);
        bail!("the virtual machine of {series}: {why}");
    }
    let found = experiments.iter().zip(&outcome.steps);
    let found: Result<Vec<_>> =
        found.map(|(e, step)| Ok((*e, rows(e, &step.stdout, &step.stderr)?))).collect();
    outcome.remove_logs();
    found
}
