//! `lockprof storm`: makes storms one after the other, measures each with
//! lockprof's own programs, and prints what they say together.

mod progress;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use self::progress::Progress;
use super::session::Session;
use crate::cli::storm::Sweep;
use crate::cli::{ExitStatus, Settings};
use crate::kernel::topology::Topology;
use crate::storm::{
    Axis, Engine, Host, Measured, Options, Report, Step, StormError, Strategy, Trial, report, steps,
};

/// Columns that sentences take at most.
const WIDTH: usize = 100;

/// Which storms to make and how to show them.
#[derive(Clone, Debug)]
pub struct Request {
    /// The storm that the flags describe.
    pub options: Options,
    /// Strategies to compare, with the names that they were asked for by; none
    /// for that of the options alone.
    pub compare: Vec<(String, Strategy)>,
    /// What to vary.
    pub sweep: Option<Sweep>,
    /// How often each storm is made, when there are several.
    pub rounds: u32,
    /// Whether to load lockprof's programs.
    pub measure: bool,
    /// JSON in place of the table.
    pub json: bool,
    /// Where the page goes.
    pub html: Option<PathBuf>,
}

/// Makes the storms; what there is to print, and [`ExitStatus::Failure`] if
/// anything failed in one of them.
///
/// The `engine` was started before this process had threads.
///
/// # Errors
///
/// A storm cannot be made, or the report cannot be written.
pub fn run(
    mut engine: Engine,
    settings: &Settings,
    request: &Request,
) -> anyhow::Result<(String, ExitStatus)> {
    let strategies = match request.compare.as_slice() {
        [] => vec![(request.options.strategy.name(), request.options.strategy.clone())],
        several => several.to_vec(),
    };
    let axis = request.sweep.as_ref().map(axis);
    let values = axis.as_ref().map_or(1, |axis| axis.values.len());
    let storms = storms(request, &strategies, values)?;
    let single = strategies.len() * values == 1;
    // Before minutes of load, not after.
    let page = request.html.as_deref().map(Page::open).transpose()?;
    let mut notes = Vec::new();
    if engine.in_user_namespace() {
        notes.push(
            "Without CAP_SYS_ADMIN the mounts are made in a user namespace, with the checks that \
             the kernel has there on top."
                .to_owned(),
        );
    }
    let session = session(settings, request.measure, &mut notes)?;
    let mut progress = Progress::new(storms.len(), request.options.stop);
    let mut ran = Vec::with_capacity(storms.len());
    for storm in storms {
        progress.begin(&storm.title);
        let trial = trial(&mut engine, session.as_ref(), &storm.options, &mut progress)
            .with_context(|| format!("storm of {}", storm.title))?;
        // One that was cut short is no measurement beside others; alone it is
        // what there is.
        if !trial.summary.interrupted || single {
            ran.push((storm.step, trial));
        }
        if engine.interrupted() {
            break;
        }
    }
    progress.end();
    drop(session);
    let failed = ran.iter().any(|(_, trial)| trial.summary.has_errors());
    let names: Vec<_> = strategies.into_iter().map(|(name, _)| name).collect();
    let report = Report::new(host(), axis, &names, &ran, engine.interrupted(), notes);
    if let Some(page) = page {
        page.write(&report::page(&report))?;
    }
    let text = match (request.json, alone(&report).filter(|_| single)) {
        (true, Some(trial)) => json(&Alone { trial, notes: &report.notes })?,
        (true, None) => json(&report)?,
        (false, Some(trial)) => report::of_trial(trial) + &notes_as_text(&report.notes),
        (false, None) => report::text(&report),
    };
    Ok((text, if failed { ExitStatus::Failure } else { ExitStatus::Success }))
}

/// The file of the page. What it has stays in it until there is a report.
struct Page<'a> {
    file: File,
    path: &'a Path,
}

impl<'a> Page<'a> {
    fn open(path: &'a Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        Ok(Self { file: file.with_context(|| failed_to_write(path))?, path })
    }

    fn write(mut self, page: &str) -> anyhow::Result<()> {
        // A pipe or a terminal has no length.
        let empty = match self.file.metadata() {
            Ok(about) if about.is_file() => self.file.set_len(0),
            other => other.map(drop),
        };
        let written = empty.and_then(|()| self.file.write_all(page.as_bytes()));
        written.with_context(|| failed_to_write(self.path))
    }
}

fn failed_to_write(path: &Path) -> String {
    format!("failed to write {}", path.display())
}

/// One storm to make.
struct Storm {
    step: Step,
    title: String,
    options: Options,
}

/// All of them, in the order in which they are made.
///
/// # Errors
///
/// The flags contradict each other in one of them.
fn storms(
    request: &Request,
    strategies: &[(String, Strategy)],
    values: usize,
) -> Result<Vec<Storm>, StormError> {
    let rounds = if strategies.len() * values == 1 { 1 } else { request.rounds };
    let storm = |step: Step| {
        let (name, strategy) = &strategies[step.strategy];
        let mut options = request.options.clone();
        options.strategy = strategy.clone();
        let mut title = name.clone();
        if let Some(sweep) = &request.sweep {
            let value = sweep.values[step.value];
            sweep.knob.set(&mut options, value);
            title = format!("{title}, {} {value}", sweep.knob.as_str());
        }
        let sound = options.strategy.check();
        sound.map_err(|why| StormError::Contradiction(format!("{title}: {why}")))?;
        Ok(Storm { step, title, options })
    };
    steps(rounds, strategies.len(), values).map(storm).collect()
}

/// The trial of a report that has one.
fn alone(report: &Report) -> Option<&Trial> {
    report.curves.first()?.points.first()?.trials.first()
}

/// One storm as JSON.
#[derive(Serialize)]
struct Alone<'a> {
    #[serde(flatten)]
    trial: &'a Trial,
    notes: &'a [String],
}

fn json(document: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(document).context("failed to write the report")? + "\n")
}

fn notes_as_text(notes: &[String]) -> String {
    let wrap = |note: &String| format!("\n{}\n", textwrap::fill(note, WIDTH));
    notes.iter().map(wrap).collect()
}

/// lockprof's own programs, unless this kernel or these privileges do not allow
/// them: the load can be made all the same, and the report says so.
fn session(
    settings: &Settings,
    measure: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Session>> {
    if !measure {
        notes.push("Waits were not measured: --no-measure".to_owned());
        return Ok(None);
    }
    match Session::start(settings) {
        Ok(session) => {
            notes.extend(session.limits().iter().map(|limit| limit.what.to_string()));
            Ok(Some(session))
        }
        Err(error) if ExitStatus::of(&error) == ExitStatus::Refused => {
            notes.push(format!("Waits were not measured: {error:#}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn trial(
    engine: &mut Engine,
    session: Option<&Session>,
    options: &Options,
    progress: &mut Progress,
) -> anyhow::Result<Trial> {
    let before = session.map(Session::fresh_snapshot);
    let summary = engine.run(options, &mut |done| progress.show(done))?;
    let measured = session
        .zip(before)
        .map(|(session, before)| Measured::of(&session.fresh_snapshot().since(&before)));
    Ok(Trial { summary, measured })
}

fn axis(sweep: &Sweep) -> Axis {
    Axis {
        name: sweep.knob.as_str().to_owned(),
        values: sweep.values.iter().map(|value| u64::from(*value)).collect(),
    }
}

/// This machine.
fn host() -> Host {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let topology = Topology::read(Path::new("/sys")).ok();
    let nodes = topology.map_or_else(Vec::new, |topology| topology.cpus_of_node);
    let cpus = nodes.iter().map(|(_, cpus)| cpus.len()).sum::<usize>();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Host { kernel, cpus: number(cpus), numa_nodes: number(nodes.len()) }
}
