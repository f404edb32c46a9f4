//! The daemon through a day of scrapes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lockprof::serve::Format;
use lockprof::who::Hierarchy;

use super::common::cgroups::Folder;
use super::common::{self, LOCKPROF};
use super::daemon::Daemon;
use super::exposition::Exposition;
use super::growth::{median, per_round};
use super::tasks::Task;
use super::wire::Client;
use super::{SCRAPES, mounts};
use crate::needs_bpf;

const HOURS: usize = 24;
const SCRAPES_AN_HOUR: usize = SCRAPES / HOURS;
/// Hours before anything is compared: in them the programs are attached anew, and
/// the tables of tasks and containers, which are bounded, get full.
const WARM: usize = 12;
/// Hours that begin with a reload which attaches anew.
const ATTACHES_ANEW: [usize; 4] = [1, 2, 3, 4];
/// Hours that begin with another reload.
const RELOADS: [usize; 4] = [10, 13, 17, 21];
/// Containers that come and go in an hour, and in one of those before anything is
/// compared.
const CONTAINERS: usize = 4;
const WARM_CONTAINERS: usize = 12;
/// With series of their own.
const SELECTED: usize = 8;
/// Left after a scrape, so that most of them have figures of their own.
const PAUSE: Duration = Duration::from_millis(5);
/// What is measured are pages, which take up small leaks for a while: one of 300 bytes
/// in each scrape was seen as 176, and one of 100 as 40, as much as an ordinary day may
/// have. `reads` counts what is allocated, to the byte.
const BYTES_A_SCRAPE: f64 = 50.0;

/// The settings of an hour: the mounts are counted as often as can be.
fn config(hour: usize) -> String {
    let rows = if hour.is_multiple_of(2) || hour > WARM { 64 } else { 128 };
    format!(
        "[attribution]\nrows = {rows}\nslow_waits = 16\n[mounts]\ninterval = \"1s\"\n\
         [metrics]\ncontainers = {SELECTED}\n"
    )
}

/// A storm of a few starts.
fn storm() -> Child {
    Command::new(LOCKPROF)
        .args(["storm", "--no-measure", "--starts", "20", "--concurrency", "2", "--pollers", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("storm runs")
}

/// A container of its own name in which tasks wait for one another, and which is
/// gone again.
fn container(parent: &Folder, number: usize) {
    let (_, path) = parent.add(format!("docker-{number:064x}.scope"));
    let task = |_| {
        Task::start(c"in-container", Some(&path), |_| {
            mounts::own_namespace()?;
            mounts::mount_and_unmount(20)
        })
    };
    let tasks: Vec<_> = (0..2).map(task).collect();
    for task in tasks {
        assert!(task.join(), "a task did what it should");
    }
    // The kernel may need a moment to see that they have ended.
    while fs::remove_dir(&path).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Somebody who scrapes in one format.
struct Scraper {
    format: Format,
    client: Client,
    before: Exposition,
}

impl Scraper {
    fn new(daemon: &Daemon, format: Format) -> Self {
        let client = Client::connect(daemon.address).expect("it listens");
        Self { format, client, before: Exposition::default() }
    }

    /// Looks that no counter went back, and returns how many series there are.
    fn scrape(&mut self, daemon: &Daemon) -> usize {
        let accept = self.format.content_type();
        let answer = self.client.get("/metrics", accept).or_else(|_| {
            // Closed for its age, before another request came.
            self.client = Client::connect(daemon.address).expect("it listens");
            self.client.get("/metrics", accept)
        });
        let now = Exposition::read(&answer.expect("it answers"), self.format);
        let now = now.expect("whole metrics");
        let back = now.went_back(&self.before);
        assert!(back.is_empty(), "{:?}: {back:#?}", self.format);
        self.before = now;
        self.before.samples.len()
    }
}

#[test]
fn a_day_of_scrapes_takes_no_more_memory_descriptors_or_series() {
    const TEST: &str = "a_day_of_scrapes_takes_no_more_memory_descriptors_or_series";
    needs_bpf!("a_day_of_scrapes_takes_no_more_memory_descriptors_or_series");
    let parent = Hierarchy::find(Path::new("/sys/fs/cgroup")).map_err(|why| why.to_string());
    let parent = parent.and_then(|hierarchy| {
        Folder::at(hierarchy.root.join("lockprof-day")).map_err(|why| why.to_string())
    });
    let parent = match parent {
        Ok(parent) => parent,
        Err(why) => return common::skip(TEST, &format!("no cgroup can be made: {why}")),
    };
    let mut daemon = Daemon::start(&config(0));
    let mut scrapers = Format::ALL.map(|format| Scraper::new(&daemon, format));
    let mut memory = Vec::new();
    // In text, by hour.
    let mut series = Vec::new();
    let (mut descriptors, mut threads, mut logged) = (0, 0, 0);
    for hour in 0..HOURS {
        if ATTACHES_ANEW.contains(&hour) || RELOADS.contains(&hour) {
            let from = daemon.logged();
            daemon.configure(&config(hour));
            daemon.reload();
            if ATTACHES_ANEW.contains(&hour) {
                daemon.await_logged(from, "counters start again from zero", 1);
                scrapers.iter_mut().for_each(|scraper| scraper.before = Exposition::default());
            }
        }
        if hour == WARM {
            (descriptors, threads, logged) =
                (daemon.descriptors(), daemon.threads(), daemon.logged());
        }
        let mut storm = storm();
        let containers = if hour < WARM { WARM_CONTAINERS } else { CONTAINERS };
        let mut most = 0;
        for number in 0..SCRAPES_AN_HOUR {
            if number % (SCRAPES_AN_HOUR / containers) == 0 {
                container(&parent, hour * SCRAPES_AN_HOUR + number);
            }
            let scraper = &mut scrapers[number % Format::ALL.len()];
            let found = scraper.scrape(&daemon);
            if scraper.format == Format::Text {
                most = most.max(found);
            }
            if hour >= WARM {
                memory.push(daemon.memory());
            }
            std::thread::sleep(PAUSE);
        }
        series.push(most);
        assert!(storm.wait().expect("it ends").success(), "the storm of hour {hour} failed");
    }
    daemon.await_descriptors(descriptors);

    let grown = per_round(&memory);
    let lines = daemon.logged() - logged;
    let range = |values: &[u64]| {
        let kib = |bytes: Option<&u64>| bytes.expect("some") >> 10;
        kib(values.iter().min())..kib(values.iter().max()) + 1
    };
    let third = memory.len() / 3;
    let (early, late) = (range(&memory[..third]), range(&memory[memory.len() - third..]));
    eprintln!(
        "{grown:.1} bytes a scrape; median {} KiB, {early:?} KiB early, {late:?} late; \
         {descriptors} descriptors, {lines} lines in the log; series by hour {series:?}",
        median(&memory) >> 10,
    );
    assert!(grown <= BYTES_A_SCRAPE, "{grown} bytes a scrape");
    daemon.await_threads(threads);
    // A reload says so in a few lines; a scrape, a storm and a container in none.
    assert!(lines <= 5 * RELOADS.len(), "{lines} lines in the log");
    check_series(&scrapers[0].before, series[WARM], *series.last().expect("some"));
    daemon.check_unharmed();
}

/// What came after the warm-up are series of a lock, a call, a runtime or an error
/// that was not met before, of which a machine with other work has some; those of
/// containers that are gone would be many times as many.
fn check_series(last: &Exposition, early: usize, late: usize) {
    let begin = |prefix: &str| last.samples.keys().filter(|s| s.starts_with(prefix)).count();
    let locks = begin("lockprof_lock_resolved{");
    let containers = begin("lockprof_container_info{");
    assert!(locks > 0 && containers > 0, "{locks} locks, {containers} containers");
    assert!(containers <= SELECTED, "{containers} containers");
    assert!(late <= 2 * early, "{early} series, then {late}");
}
