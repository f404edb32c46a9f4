//! SIGHUP again and again while the daemon is scraped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockprof::serve::Format;
use rustix::process::Signal;

use super::common;
use super::daemon::Daemon;
use super::exposition::Exposition;
use super::wire::Client;
use crate::needs_bpf;

/// Signals.
const SIGNALS: usize = 500;

/// Scrapes in one format on a connection of its own until told to stop; each time
/// `check` gets what was before and what is now.
fn scrape(
    daemon: &Daemon,
    format: Format,
    stop: &AtomicBool,
    check: impl Fn(&Exposition, &Exposition),
) -> u64 {
    let mut scrapes = 0;
    let mut before = Exposition::default();
    let mut client = Client::connect(daemon.address).expect("it listens");
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("/metrics", format.content_type()).or_else(|_| {
            // Closed for its age, before another request came.
            client = Client::connect(daemon.address).expect("it listens");
            client.get("/metrics", format.content_type())
        });
        let answer = answer.expect("it answers");
        let now = Exposition::read(&answer, format).expect("whole metrics");
        check(&before, &now);
        before = now;
        scrapes += 1;
    }
    scrapes
}

/// Stops the others also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn counters_go_on_through_a_storm_of_reloads_that_change_nothing() {
    needs_bpf!("counters_go_on_through_a_storm_of_reloads_that_change_nothing");
    let mut daemon = Daemon::start("");
    daemon.reload();
    let (descriptors, threads) = (daemon.descriptors(), daemon.threads());
    let stop = AtomicBool::new(false);
    let scrapes = AtomicU64::new(0);
    let before = daemon.memory();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for format in Format::ALL {
            let (daemon, stop, scrapes) = (&daemon, &stop, &scrapes);
            scope.spawn(move || {
                let _stop = Stop(stop);
                let many = scrape(daemon, format, stop, |before, now| {
                    let back = now.went_back(before);
                    assert!(back.is_empty(), "{format:?}: {back:#?}");
                });
                scrapes.fetch_add(many, Ordering::Relaxed);
            });
        }
        for number in 0..SIGNALS {
            daemon.signal(Signal::HUP);
            // Some come while the one before is at work, others find it done.
            if number % 50 == 0 {
                daemon.reload();
            }
            assert!(!stop.load(Ordering::Relaxed), "a scrape failed");
        }
    });
    daemon.reload();
    daemon.await_descriptors(descriptors);
    let after = daemon.memory();
    eprintln!(
        "{} scrapes during {SIGNALS} signals; KiB: {} before, {} after",
        scrapes.into_inner(),
        before >> 10,
        after >> 10
    );
    daemon.await_threads(threads);
    assert!(after <= before + (1 << 20), "{before} bytes before, {after} after");
    daemon.check_unharmed();
}

#[test]
fn reloads_that_attach_anew_leave_nothing_of_what_was_before() {
    needs_bpf!("reloads_that_attach_anew_leave_nothing_of_what_was_before");
    const ONE: &str = "[attribution]\nrows = 256\n";
    const OTHER: &str = "[attribution]\nrows = 512\n";
    const ANNOUNCED: &str = "counters start again from zero";
    let mut daemon = Daemon::start(ONE);
    let (descriptors, threads) = (daemon.descriptors(), daemon.threads());
    let stop = AtomicBool::new(false);
    let resets = AtomicU64::new(0);
    let (before, from) = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for format in Format::ALL {
            let (daemon, stop, resets) = (&daemon, &stop, &resets);
            scope.spawn(move || {
                let _stop = Stop(stop);
                scrape(daemon, format, stop, |before, now| {
                    if !now.went_back(before).is_empty() {
                        resets.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        // What one attach and the scrapes meanwhile spread over the allocator's
        // pages, the next ones use.
        for config in [OTHER, ONE].repeat(4) {
            daemon.configure(config);
            daemon.reload();
        }
        let (before, from) = (daemon.memory(), daemon.logged());
        for _ in 0..5 {
            for (config, also) in [(OTHER, "nonsense = 1\n"), (ONE, "")] {
                daemon.configure(&format!("{also}{config}"));
                let refused = daemon.logged();
                daemon.signal(Signal::HUP);
                if !also.is_empty() {
                    // Nothing of a configuration with an error is applied.
                    daemon.await_logged(refused, "kept the running configuration", 1);
                    daemon.configure(config);
                    daemon.signal(Signal::HUP);
                }
                daemon.await_logged(refused, ANNOUNCED, 1);
                daemon.await_logged(refused, "\"reloaded\"", 1);
                assert!(!stop.load(Ordering::Relaxed), "a scrape failed");
            }
        }
        (before, from)
    });
    daemon.await_descriptors(descriptors);
    let after = daemon.memory();
    let resets = resets.into_inner();
    eprintln!("{resets} resets seen; KiB: {} before, {} after", before >> 10, after >> 10);
    daemon.await_logged(from, ANNOUNCED, 10);
    // Each of three scrapers may see each of the 18.
    assert!(resets <= 54, "{resets} resets for 18 announced ones");
    daemon.await_threads(threads);
    // Less than 100 KiB each; the kernel's types alone take tens of megabytes.
    assert!(after <= before + (1 << 20), "{before} bytes before, {after} after");
    daemon.check_unharmed();
}

#[test]
fn scrapes_are_answered_while_a_reload_attaches() {
    needs_bpf!("scrapes_are_answered_while_a_reload_attaches");
    const LOOKING: &str = "\"resolved\"";
    let config = |rows| format!("[attribution]\nrows = {rows}\n[log]\nlevel = \"debug\"\n");
    let mut daemon = Daemon::start(&config(256));
    let began = || -> String {
        let mut client = Client::connect(daemon.address).expect("it listens");
        let answer = client.get("/metrics", Format::Text.content_type()).expect("it answers");
        let text = answer.text();
        let line = text.lines().find(|line| line.starts_with("lockprof_start_time_seconds "));
        line.expect("every session has begun").to_owned()
    };
    let mut answered = 0;
    for rows in [512, 256, 512, 256] {
        let before = began();
        let from = daemon.logged();
        daemon.configure(&config(rows));
        daemon.signal(Signal::HUP);
        daemon.await_logged(from, LOOKING, 1);
        // It has yet to load and attach: whoever waits for that sees the new session.
        answered += usize::from(began() == before);
        daemon.await_logged(from, "\"reloaded\"", 1);
        assert_ne!(began(), before);
    }
    assert!(answered > 0, "every scrape waited for the reload");
    daemon.check_unharmed();
}
