//! Integration tests in virtual machines: builds the test binaries once, runs
//! each guest of the matrix, and counts what its tests came to.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::count::Counts;
use super::kernels_page::{self, Facts, Kernel, Series};
use super::matrix::Guest;
use super::service::{self, Missing, Services};
use crate::process::Interrupt;
use crate::shell;
use crate::vm::accel::{self, Wish};
use crate::vm::image::Contents;
use crate::vm::kernels;
use crate::vm::machine::{Accelerator, Machine, Threads};
use crate::vm::plan::{Plan, Step};
use crate::vm::run::{self, Outcome, StepResult};

/// When a guest is stopped: twice what one takes beside another one.
const TIMEOUT: Duration = Duration::from_secs(2400);

/// In the guest, where tests that skip themselves say so.
const SKIPS: &str = "/run/lockprof-skips";

/// Tells tests that software emulates their machine.
const EMULATED: &str = "LOCKPROF_TEST_EMULATED";

/// Programs that tests call and that busybox does not have, or has too little of;
/// from the host, where it has them.
const PROGRAMS: [&str; 5] = ["setpriv", "unshare", "nohup", "runc", "crun"];

/// How the steps begin that are no tests.
const DOCTOR: [&str; 3] = ["lockprof", "doctor", "--json"];

/// The command of a run of `doctor`, and, in one line, the name of its step.
fn doctor(arguments: &str) -> Vec<String> {
    DOCTOR.into_iter().chain(arguments.split_whitespace()).map(str::to_owned).collect()
}

/// A machine to run.
enum Job<'a> {
    /// Integration tests.
    Tests(&'a Guest),
    /// Tests of the installed package, on this kernel.
    Service(&'static str),
}

impl Job<'_> {
    fn place(&self) -> String {
        match self {
            Self::Tests(guest) => guest.place(),
            Self::Service(kernel) => format!("{kernel} service"),
        }
    }
}

/// Runs the guests, and the package on `services`: those with all CPUs in one
/// thread in pairs, the others one at a time.
///
/// # Errors
/// When the tests do not build. What goes wrong with a guest is in the counts.
pub(super) fn run(guests: &[Guest], services: &Services) -> Result<Counts> {
    if !cfg!(target_arch = "x86_64") {
        println!("   skipped: virtual machines are x86-64 only so far");
        return Ok(Counts::of_skip("kernels: virtual machines are x86-64 only so far".into()));
    }
    let built = if guests.is_empty() { Ok(Built::default()) } else { Built::build(guests) };
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            println!("   {error:#}");
            return Ok(Counts::of_failure(format!("tests for virtual machines: {error:#}")));
        }
    };
    let interrupt = Interrupt::watch()?;
    let (alone, mut paired): (Vec<_>, Vec<_>) = guests
        .iter()
        .map(Job::Tests)
        .partition(|job| matches!(job, Job::Tests(guest) if guest.threads == Threads::Multi));
    // Last: it is the shortest, and fills what the longer ones leave.
    paired.extend(services.kernels.iter().map(|kernel| Job::Service(kernel)));
    let mut results = Vec::new();
    for (jobs, workers) in [(paired, 2), (alone, 1)] {
        results.extend(run_all(&built, services, jobs, workers, &interrupt));
    }
    let mut total = Counts::default();
    let mut facts = Facts::new();
    for result in results {
        total.add(result.counts);
        facts.extend(result.facts);
    }
    if !facts.is_empty() {
        total.add(check_page(&facts)?);
    }
    Ok(total)
}

struct GuestResult {
    counts: Counts,
    facts: Option<(Series, Kernel)>,
}

fn run_all(
    built: &Built,
    services: &Services,
    jobs: Vec<Job<'_>>,
    workers: usize,
    interrupt: &Interrupt,
) -> Vec<GuestResult> {
    let queue: Mutex<VecDeque<_>> = Mutex::new(jobs.into());
    let results = Mutex::new(Vec::new());
    let lock = |_| "no thread panics with it";
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map_err(lock).map(|mut queue| queue.pop_front());
                    let Ok(Some(job)) = next else { return };
                    let result = match &job {
                        Job::Tests(guest) => run_guest(built, guest, interrupt),
                        Job::Service(kernel) => run_service(services, kernel, interrupt),
                    };
                    let result = result.unwrap_or_else(|error| {
                        let what = format!("{}: {error:#}", job.place());
                        println!("   {what}");
                        GuestResult { counts: Counts::of_failure(what), facts: None }
                    });
                    if let Ok(mut results) = results.lock() {
                        results.push(result);
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_guest(built: &Built, guest: &Guest, interrupt: &Interrupt) -> Result<GuestResult> {
    let place = guest.place();
    let kernel = match kernels::named(guest.kernel) {
        Ok(kernel) => kernel,
        Err(error) => {
            let what = format!("{place}: {error:#}");
            println!("   {what}");
            return Ok(GuestResult { counts: Counts::of_skip(what), facts: None });
        }
    };
    let accelerator =
        accel::choose(Wish::Auto, guest.threads, &kernel.image, &built.lockprof, interrupt)?;
    let plan = plan(built, guest, accelerator);
    let contents = built.contents(guest, kernel.modules.clone());
    let (counts, outcome) =
        boot(&place, &kernel, guest.machine, accelerator, &contents, &plan, interrupt)?;
    let facts = if guest.doctor && outcome.failure().is_none() {
        let printed = |arguments: &str| {
            let name = doctor(arguments).join(" ");
            let step = outcome.steps.iter().find(|step| step.name == name)?;
            Some(String::from_utf8_lossy(&step.stdout).into_owned())
        };
        let kernel = Kernel::from_doctor(printed);
        let kernel = kernel.with_context(|| format!("failed to examine {place}"))?;
        Some((Series::parse(guest.kernel)?, kernel))
    } else {
        None
    };
    Ok(GuestResult { counts, facts })
}

/// Installs the package in a machine that systemd boots, and tries it there.
fn run_service(
    services: &Services,
    series: &'static str,
    interrupt: &Interrupt,
) -> Result<GuestResult> {
    let place = Job::Service(series).place();
    let skipped = |why: &str| {
        let what = format!("{place}: {why}");
        println!("   skipped: {what}");
        Ok(GuestResult { counts: Counts::of_skip(what), facts: None })
    };
    let package = match &services.package {
        Ok(package) => package,
        Err(Missing::Refused(why)) => return skipped(why),
        Err(Missing::Failed(why)) => bail!("there is no package to install: {why}"),
    };
    let kernel = match kernels::named(series) {
        Ok(kernel) => kernel,
        Err(error) => return skipped(&format!("{error:#}")),
    };
    let contents = service::contents(package, kernel.modules.clone())?;
    let init = env::current_exe().context("failed to find the running xtask")?;
    let accelerator = accel::choose(Wish::Auto, Threads::Single, &kernel.image, &init, interrupt)?;
    let plan = service::plan(&services.filters);
    let (counts, _) =
        boot(&place, &kernel, service::MACHINE, accelerator, &contents, &plan, interrupt)?;
    Ok(GuestResult { counts, facts: None })
}

/// Runs a machine, says what its tests came to, and shows what they printed if
/// one failed.
fn boot(
    place: &str,
    kernel: &kernels::Kernel,
    machine: Machine,
    accelerator: Accelerator,
    contents: &Contents,
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<(Counts, Outcome)> {
    let outcome = run::run(
        &run::Guest {
            name: &place.replace(' ', "-"),
            kernel: &kernel.image,
            machine,
            accelerator,
            contents,
            plan,
            timeout: TIMEOUT,
        },
        interrupt,
        |_| (),
    )?;
    let mut counts = count(plan, &outcome);
    counts.prefix(&format!("{place}: "));
    let log = log(place, &outcome)?;
    println!(
        "   {place}: {} passed, {} failed, {} skipped in {} s ({}; {})",
        counts.passed,
        counts.failed,
        counts.skips.len(),
        outcome.took.as_secs(),
        kernel.origin,
        log.strip_prefix(shell::workspace()).unwrap_or(&log).display()
    );
    if counts.failed > 0 {
        print!("{}", fs::read_to_string(&log).unwrap_or_default());
        crate::vm::show_console(&outcome);
    }
    Ok((counts, outcome))
}

/// What a guest does: `doctor` where the page wants it, then its test files.
fn plan(built: &Built, guest: &Guest, accelerator: Accelerator) -> Plan {
    let folder = shell::workspace().join("profiler-daemon").to_string_lossy().into_owned();
    let mut env = BTreeMap::from([(super::SKIP_LOG.to_owned(), SKIPS.to_owned())]);
    if accelerator != Accelerator::Kvm {
        env.insert(EMULATED.into(), "1".into());
    }
    let mut steps = Vec::new();
    if guest.doctor {
        steps.extend(kernels_page::runs().map(|arguments| {
            let command = doctor(&arguments);
            Step { name: command.join(" "), command, folder: folder.clone(), ..Step::default() }
        }));
    }
    for file in &guest.files {
        let binary = built.tests[file.name].to_string_lossy().into_owned();
        steps.push(Step {
            name: file.name.into(),
            command: vec![binary, "--test-threads=1".into()],
            env: env.clone(),
            folder: folder.clone(),
        });
    }
    Plan { steps, collect: Some(SKIPS.into()) }
}

/// What the tests of a guest came to, and the guest itself.
fn count(plan: &Plan, outcome: &Outcome) -> Counts {
    let mut total = Counts::default();
    let tests = || plan.steps.iter().filter(|step| !step.command.starts_with(&doctor("")));
    for step in tests() {
        let Some(StepResult { status: Some(status), stdout, collected, .. }) =
            outcome.steps.iter().find(|done| done.name == step.name)
        else {
            total.add(Counts::of_failure(format!("{}: was not run to its end", step.name)));
            continue;
        };
        let mut counts = Counts::of_tests(
            &String::from_utf8_lossy(stdout),
            &String::from_utf8_lossy(collected),
            *status == 0,
        );
        if counts == Counts::default() {
            counts = Counts::of_failure("no test ran".into());
        } else if counts.failed > 0 && counts.failures.is_empty() {
            counts.failures.push(format!("exit status {status}"));
        }
        counts.prefix(&format!("{}::", step.name));
        total.add(counts);
    }
    if let Some(why) = outcome.failure() {
        total.add(Counts::of_failure(why));
    }
    total
}

/// Writes what the steps printed where the console's log is.
fn log(place: &str, outcome: &Outcome) -> Result<PathBuf> {
    use std::io::Write as _;
    let (path, mut file) = shell::log_file(&format!("vm-{}-tests", place.replace(' ', "-")))?;
    for step in &outcome.steps {
        let status = step.status.map_or_else(|| "none".into(), |status| status.to_string());
        writeln!(file, "-- {place}: {} (exit status {status})", step.name)
            .and_then(|()| file.write_all(&step.stdout))
            .and_then(|()| file.write_all(&step.stderr))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(path)
}

/// Compares what was found with `docs/kernels.md`, or writes it.
fn check_page(facts: &Facts) -> Result<Counts> {
    const PAGE: &str = "docs/kernels.md";
    let path = shell::workspace().join(PAGE);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let page = kernels_page::parse(&text).with_context(|| {
        format!(
            "failed to read {PAGE}; once it is removed, LOCKPROF_BLESS=1 cargo xtask test --all \
             writes it"
        )
    })?;
    if env::var_os("LOCKPROF_BLESS").is_some() {
        let mut all = page;
        all.extend(facts.clone());
        fs::write(&path, kernels_page::render(&all))
            .with_context(|| format!("failed to write {PAGE}"))?;
        println!("   {PAGE} is written, for {} kernels of {}", facts.len(), all.len());
        return Ok(Counts::of_check(true));
    }
    let mut lines = kernels_page::differences(&page, facts);
    if kernels_page::render(&page) != text {
        lines.push("the page is not as it is generated".into());
    }
    if lines.is_empty() {
        return Ok(Counts::of_check(true));
    }
    for line in &lines {
        println!("   {PAGE}: {line}");
    }
    Ok(Counts::of_failure(format!(
        "{PAGE} is not what was found; LOCKPROF_BLESS=1 cargo xtask test --all writes it"
    )))
}

/// The binaries that go into the guests.
#[derive(Default)]
struct Built {
    lockprof: PathBuf,
    /// The independent counter's object.
    witness: PathBuf,
    /// By name of the test file.
    tests: BTreeMap<String, PathBuf>,
}

impl Built {
    fn build(guests: &[Guest]) -> Result<Self> {
        let mut cargo = shell::cargo();
        cargo
            .args(["test", "--profile", "tests", "--locked", "--package", "profiler-daemon"])
            .arg("--no-run")
            .arg("--message-format=json-render-diagnostics");
        for guest in guests {
            for file in &guest.files {
                cargo.args(["--test", file.name]);
            }
        }
        let output = cargo.output().context("failed to start cargo")?;
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            bail!("failed to build the tests ({}); the compiler's output is above", output.status);
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Finds them in cargo's messages.
    fn parse(messages: &str) -> Result<Self> {
        let (mut lockprof, mut witness, mut tests) = (None, None, BTreeMap::new());
        for line in messages.lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            for variable in message["env"].as_array().into_iter().flatten() {
                if variable[0] == "LOCKPROF_WITNESS" {
                    witness = variable[1].as_str().map(PathBuf::from);
                }
            }
            let Some(executable) = message["executable"].as_str().map(PathBuf::from) else {
                continue;
            };
            let target = &message["target"];
            let name = target["name"].as_str().unwrap_or_default();
            match target["kind"][0].as_str() {
                Some("bin") if name == "lockprof" => lockprof = Some(executable),
                Some("test") => {
                    tests.insert(name.to_owned(), executable);
                }
                _ => {}
            }
        }
        Ok(Self {
            lockprof: lockprof.context("cargo built no lockprof")?,
            witness: witness.context("the build tells of no LOCKPROF_WITNESS")?,
            tests,
        })
    }

    fn contents(&self, guest: &Guest, modules: Vec<PathBuf>) -> Contents {
        let mut files = vec![self.witness.clone()];
        files.extend(guest.files.iter().map(|file| self.tests[file.name].clone()));
        let package = shell::workspace().join("profiler-daemon");
        Contents {
            lockprof: self.lockprof.clone(),
            programs: PROGRAMS.into_iter().filter_map(shell::find).collect(),
            files,
            folders: vec![package],
            modules,
            root: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::vm::run::Ended;

    const PASSED: &str =
        "running 1 test\ntest counts ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored;\n";

    fn plan_of(names: &[&str]) -> Plan {
        let step = |name: &&str| Step {
            name: (*name).into(),
            command: name.split(' ').map(str::to_owned).collect(),
            ..Step::default()
        };
        Plan { steps: names.iter().map(step).collect(), collect: None }
    }

    fn step(name: &str, status: Option<i32>, stdout: &str, collected: &str) -> StepResult {
        StepResult {
            name: name.into(),
            status,
            stdout: stdout.into(),
            stderr: Vec::new(),
            collected: collected.into(),
        }
    }

    #[test]
    fn tests_and_skips_carry_the_name_of_their_file_and_doctor_is_no_test() {
        let done = Outcome::example(
            Ended::Verdict(3),
            vec![
                step("lockprof doctor --json --backend waits=kprobe", Some(3), "{}", ""),
                step("exact", Some(0), PASSED, ""),
                step("stat", Some(0), PASSED, "SKIP counts: no tracepoint\n"),
            ],
        );
        let counts = count(
            &plan_of(&["lockprof doctor --json --backend waits=kprobe", "exact", "stat"]),
            &done,
        );
        assert_eq!((counts.passed, counts.failed), (1, 0));
        assert_eq!(counts.skips, ["stat::counts: no tracepoint"]);
    }

    #[test]
    fn what_was_not_run_to_its_end_failed_and_so_did_the_guest() {
        let done = Outcome::example(
            Ended::TimedOut(Duration::from_secs(9)),
            vec![step("exact", None, "test counts ... ", "")],
        );
        let counts = count(&plan_of(&["exact", "stat"]), &done);
        assert_eq!((counts.passed, counts.failed), (0, 3));
        assert!(counts.failures[0].starts_with("exact: was not run"), "{:?}", counts.failures);
        assert!(counts.failures[2].contains("timed out after 9 s, in `exact`"));
    }

    #[test]
    fn a_file_without_a_test_failed() {
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored;\n";
        let done = Outcome::example(Ended::Verdict(0), vec![step("exact", Some(0), none, "")]);
        assert_eq!(count(&plan_of(&["exact"]), &done).failed, 1);
        let died = Outcome::example(Ended::Verdict(139), vec![step("exact", Some(139), "", "")]);
        let counts = count(&plan_of(&["exact"]), &died);
        assert_eq!(counts.failures, ["exact::exit status 139"]);
    }

    #[test]
    fn binaries_are_found_in_what_cargo_says() {
        let messages = [
            r#"{"reason":"build-script-executed","env":[["LOCKPROF_WITNESS","/t/witness"]]}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"lockprof"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"lockprof"},"executable":"/t/lockprof"}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"exact"},"executable":"/t/exact-1"}"#,
        ];
        let built = Built::parse(&messages.join("\n")).unwrap();
        assert_eq!(built.lockprof, Path::new("/t/lockprof"));
        assert_eq!(built.witness, Path::new("/t/witness"));
        assert_eq!(built.tests["exact"], Path::new("/t/exact-1"));
        assert!(Built::parse(messages[0]).is_err());
    }
}
