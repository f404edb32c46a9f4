//! Running a guest to its end: starts QEMU, takes the frames, watches the
//! kernel's console, and says how it went.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::frames::{Decoder, Frame, Kind};
use super::image::{self, Contents};
use super::machine::{self, Accelerator, Files, Machine};
use super::plan::Plan;
use super::watch::{self, Complaint, Lines};
use crate::process::{Guarded, Interrupt, TICK};
use crate::shell;

/// How long a kernel that has complained may go on, to finish its complaint.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A guest to run.
pub(crate) struct Guest<'a> {
    /// Of the logs: `6.12-2x2`.
    pub(crate) name: &'a str,
    /// The kernel image.
    pub(crate) kernel: &'a Path,
    /// The machine.
    pub(crate) machine: Machine,
    /// What runs it.
    pub(crate) accelerator: Accelerator,
    /// What is in it.
    pub(crate) contents: &'a Contents,
    /// What it does.
    pub(crate) plan: &'a Plan,
    /// When it is stopped.
    pub(crate) timeout: Duration,
}

/// What a guest does, while it does it.
pub(crate) enum Event<'a> {
    /// A frame.
    Frame(&'a Frame),
    /// A line of the kernel's console.
    Console(&'a str),
}

/// A step that was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepResult {
    /// Of the plan.
    pub(crate) name: String,
    /// The exit status, 128 + the signal if killed; none if it did not end.
    pub(crate) status: Option<i32>,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// What it printed on standard error.
    pub(crate) stderr: Vec<u8>,
    /// The file that the plan collects.
    pub(crate) collected: Vec<u8>,
}

/// Why a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All steps were run; the status of the first that failed, or 0.
    Verdict(i32),
    /// It took too long.
    TimedOut(Duration),
    /// QEMU ended before a verdict; how, and what it said.
    Died(String),
    /// The kernel complained and then gave no verdict.
    Complained,
    /// The init could not do its work, or what came was not whole.
    Broken(String),
    /// The user asked to stop.
    Interrupted,
}

/// What became of a guest.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Why it ended.
    pub(crate) ended: Ended,
    /// What the kernel complained of.
    pub(crate) complaints: Vec<Complaint>,
    /// The kernel's release, once the init ran.
    pub(crate) release: Option<String>,
    /// Those that were begun, in order.
    pub(crate) steps: Vec<StepResult>,
    /// The kernel's console.
    pub(crate) console: PathBuf,
    /// What QEMU itself said.
    qemu: PathBuf,
    /// From the start of QEMU to its end.
    pub(crate) took: Duration,
}

impl Outcome {
    /// An outcome as a test wants it.
    #[cfg(test)]
    pub(crate) fn example(ended: Ended, steps: Vec<StepResult>) -> Self {
        Self {
            ended,
            complaints: Vec::new(),
            release: Some("6.12".into()),
            steps,
            console: PathBuf::new(),
            qemu: PathBuf::new(),
            took: Duration::ZERO,
        }
    }

    /// Removes the logs, of a run that went well.
    pub(crate) fn remove_logs(&self) {
        for file in [&self.console, &self.qemu] {
            // It does not matter if they are gone already.
            let _ = fs::remove_file(file);
        }
    }

    /// Why the run failed whatever its programs say; none if the kernel stayed
    /// well and all steps were run.
    pub(crate) fn failure(&self) -> Option<String> {
        let ended = match &self.ended {
            Ended::Verdict(_) => None,
            Ended::TimedOut(after) => {
                let step = self.steps.last().filter(|step| step.status.is_none());
                let at = step.map_or_else(String::new, |step| format!(", in `{}`", step.name));
                let when = if self.release.is_none() { ", before init ran" } else { "" };
                Some(format!("timed out after {} s{at}{when}", after.as_secs()))
            }
            Ended::Died(how) => Some(format!("ended without a verdict: {how}")),
            Ended::Complained => Some("gave no verdict after the kernel's complaint".into()),
            Ended::Broken(why) => Some(why.clone()),
            Ended::Interrupted => Some("interrupted".into()),
        };
        let kernel = self.complaints.first().map(|first| {
            let more = match self.complaints.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            format!("the kernel complained: {}{more}", first.line)
        });
        match (kernel, ended) {
            (Some(kernel), Some(ended)) => Some(format!("{kernel}; {ended}")),
            (one, other) => one.or(other),
        }
    }
}

/// Runs a guest.
///
/// # Errors
/// When it cannot be started. What goes wrong after that is in the outcome.
pub(crate) fn run(
    guest: &Guest<'_>,
    interrupt: &Interrupt,
    mut watcher: impl FnMut(Event<'_>),
) -> Result<Outcome> {
    let (console, file) = shell::log_file(&format!("vm-{}", guest.name))?;
    drop(file);
    let (errors, errors_file) = shell::log_file(&format!("vm-{}-qemu", guest.name))?;
    let image = shell::scratch().join(format!("vm-{}.cpio", guest.name));
    let mut initramfs = Some(Temporary(image.clone()));
    image::write(&image, guest.contents, guest.plan)?;

    let files = Files { kernel: guest.kernel, initramfs: &image, console: &console };
    let mut command = Command::new(qemu()?);
    command
        .args(machine::arguments(&guest.machine, guest.accelerator, &files))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors_file);
    // SAFETY: between fork and exec, one system call and nothing else.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let start = Instant::now();
    let mut qemu = Guarded::spawn(&mut command)?;
    let bytes = read_in_background(qemu.stdout().context("QEMU has no standard output")?);
    let mut console_tail = Tail::open(&console)?;

    let mut state = State::default();
    let mut deadline = start + guest.timeout;
    let ended = loop {
        let data = bytes.recv_timeout(TICK);
        let over = matches!(data, Err(RecvTimeoutError::Disconnected));
        if let Ok(data) = data
            && let Err(error) = state.take(&data, &mut watcher)
        {
            break Some(Ended::Broken(format!("{error:#}")));
        }
        if state.release.is_some() {
            // The guest has it all; what is killed now leaves nothing behind.
            initramfs = None;
        }
        for line in console_tail.lines()? {
            if state.listen(&line, &mut watcher) {
                deadline = deadline.min(Instant::now() + LAST_WORDS);
            }
        }
        if over {
            break None;
        }
        if interrupt.came() {
            break Some(Ended::Interrupted);
        }
        if Instant::now() >= deadline {
            break Some(match state.gave_up() {
                true => Ended::Complained,
                false => Ended::TimedOut(guest.timeout),
            });
        }
    };
    let status = match &ended {
        // Its output has ended, so it is about to.
        None => Some(qemu.wait()?),
        Some(_) => None,
    };
    drop(qemu);
    drop(initramfs);
    for line in console_tail.rest()? {
        state.listen(&line, &mut watcher);
    }
    let ended = ended.or_else(|| state.ended.take()).unwrap_or_else(|| {
        Ended::Died(how_it_died(status, &fs::read_to_string(&errors).unwrap_or_default()))
    });
    Ok(Outcome {
        ended,
        complaints: state.complaints,
        release: state.release,
        steps: state.steps,
        console,
        qemu: errors,
        took: start.elapsed(),
    })
}

fn how_it_died(status: Option<ExitStatus>, said: &str) -> String {
    let status = status.map_or_else(|| "stopped".into(), |status| status.to_string());
    match said.trim() {
        "" => format!("QEMU ended ({status}); the kernel may have rebooted"),
        // What follows the first line is a consequence.
        said => format!("QEMU ended ({status}): {}", said.lines().next().unwrap_or_default()),
    }
}

/// What is known of a guest so far.
#[derive(Default)]
struct State {
    decoder: Decoder,
    ended: Option<Ended>,
    complaints: Vec<Complaint>,
    release: Option<String>,
    steps: Vec<StepResult>,
}

impl State {
    fn take(&mut self, data: &[u8], watcher: &mut impl FnMut(Event<'_>)) -> Result<()> {
        for frame in self.decoder.push(data)? {
            watcher(Event::Frame(&frame));
            match frame.kind {
                Kind::Hello => self.release = Some(frame.text().trim().to_owned()),
                Kind::Begin => {
                    self.steps.push(StepResult { name: frame.text(), ..StepResult::default() });
                }
                Kind::Verdict => {
                    let status = frame.text();
                    let status = status.parse().with_context(|| format!("a verdict `{status}`"))?;
                    self.ended = Some(Ended::Verdict(status));
                }
                Kind::Broken => {
                    self.ended = Some(Ended::Broken(format!("vm-init: {}", frame.text())));
                }
                Kind::Stdout | Kind::Stderr | Kind::Collected | Kind::End => {
                    let step = self.steps.last_mut().context("output before the first step")?;
                    match frame.kind {
                        Kind::Stdout => step.stdout.extend(frame.payload),
                        Kind::Stderr => step.stderr.extend(frame.payload),
                        Kind::Collected => step.collected.extend(frame.payload),
                        _ => step.status = frame.text().parse().ok(),
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether this line means that the kernel cannot be expected to go on.
    fn listen(&mut self, line: &str, watcher: &mut impl FnMut(Event<'_>)) -> bool {
        watcher(Event::Console(line));
        let Some(complaint) = watch::complaint(line) else { return false };
        let stop = !complaint.goes_on;
        self.complaints.push(complaint);
        stop
    }

    fn gave_up(&self) -> bool {
        self.complaints.iter().any(|complaint| !complaint.goes_on)
    }
}

fn qemu() -> Result<PathBuf> {
    const NAME: &str = "qemu-system-x86_64";
    if !cfg!(target_arch = "x86_64") {
        anyhow::bail!(
            "virtual machines run the binary of this machine, which is for {}; so far they are \
             x86-64 only",
            std::env::consts::ARCH
        );
    }
    shell::find(NAME).with_context(|| format!("{NAME} is missing; `cargo xtask setup` installs it"))
}

fn read_in_background(mut stream: impl std::io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if send.send(buffer[..length].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receive
}

/// A file that grows, by lines.
struct Tail {
    file: File,
    lines: Lines,
}

impl Tail {
    fn open(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self { file, lines: Lines::default() })
    }

    fn lines(&mut self) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).context("failed to read the console")?;
        Ok(self.lines.push(&bytes))
    }

    fn rest(&mut self) -> Result<Vec<String>> {
        let mut lines = self.lines()?;
        lines.extend(self.lines.finish());
        Ok(lines)
    }
}

/// A file that is removed in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is not there when it could not be written.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::frames;

    fn outcome(state: State, ended: Ended) -> Outcome {
        let State { complaints, release, steps, .. } = state;
        Outcome { complaints, release, ..Outcome::example(ended, steps) }
    }

    fn fed(frames: &[(Kind, &str)]) -> State {
        let mut bytes = Vec::new();
        for (kind, payload) in frames {
            frames::write(&mut bytes, *kind, payload.as_bytes()).unwrap();
        }
        let mut state = State::default();
        state.take(&bytes, &mut |_| ()).unwrap();
        state
    }

    #[test]
    fn what_steps_print_is_kept_apart_and_whole() {
        let state = fed(&[
            (Kind::Hello, "6.12.1\n"),
            (Kind::Begin, "one"),
            (Kind::Stdout, "a"),
            (Kind::Stderr, "x"),
            (Kind::Stdout, "b"),
            (Kind::Collected, "SKIP y: z\n"),
            (Kind::End, "3"),
            (Kind::Begin, "two"),
            (Kind::End, "0"),
            (Kind::Verdict, "3"),
        ]);
        assert_eq!(state.release.as_deref(), Some("6.12.1"));
        assert_eq!(state.ended, Some(Ended::Verdict(3)));
        let [one, two] = &state.steps[..] else { panic!("{:?}", state.steps) };
        assert_eq!((&one.stdout[..], &one.stderr[..]), (&b"ab"[..], &b"x"[..]));
        assert_eq!((one.status, &one.collected[..]), (Some(3), &b"SKIP y: z\n"[..]));
        assert_eq!((two.status, two.stdout.len()), (Some(0), 0));
        // That a program fails is not the run's failure.
        assert_eq!(outcome(state, Ended::Verdict(3)).failure(), None);
    }

    #[test]
    fn a_complaint_fails_the_run_whatever_the_programs_say() {
        let mut state = fed(&[(Kind::Hello, "7.0\n"), (Kind::Verdict, "0")]);
        let stop =
            state.listen("[ 1.0] WARNING: kernel/x.c:1 at f+0x1/0x2, CPU#0: a/1", &mut |_| ());
        assert!(!stop);
        assert!(state.listen("[ 2.0] BUG: scheduling while atomic: a/1/0x2", &mut |_| ()));
        let why = outcome(state, Ended::Verdict(0)).failure().unwrap();
        assert!(why.contains("WARNING: kernel/x.c:1") && why.contains("and 1 more"), "{why}");
    }

    #[test]
    fn a_guest_without_a_verdict_failed_and_says_where() {
        let state = fed(&[(Kind::Hello, "7.0\n"), (Kind::Begin, "exact")]);
        let why = outcome(state, Ended::TimedOut(Duration::from_secs(90))).failure().unwrap();
        assert_eq!(why, "timed out after 90 s, in `exact`");
        let why = outcome(State::default(), Ended::TimedOut(Duration::from_secs(9))).failure();
        assert_eq!(why.unwrap(), "timed out after 9 s, before init ran");
        let why = outcome(State::default(), Ended::Died("QEMU ended".into())).failure().unwrap();
        assert!(why.contains("without a verdict"), "{why}");
    }

    #[test]
    fn output_that_belongs_to_no_step_is_refused() {
        let mut bytes = Vec::new();
        frames::write(&mut bytes, Kind::Stdout, b"x").unwrap();
        assert!(State::default().take(&bytes, &mut |_| ()).is_err());
    }
}
