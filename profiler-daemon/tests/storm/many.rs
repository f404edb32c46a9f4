//! Many storms by one engine, in a process with threads: what a sequence of
//! them leaves, and what signals do to it.

use std::num::NonZeroU32;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lockprof::storm::{Engine, Options, Propagation, Stop, StormError, Strategy, Summary};
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::apart;
use super::permitted;
use super::processes::{assert_all_gone, descendants, ending_signals};
use super::world::World;

const HOUR: Duration = Duration::from_secs(3600);

fn options(concurrency: u32, stop: Stop) -> Options {
    Options {
        strategy: Strategy::default(),
        concurrency: NonZeroU32::new(concurrency).expect("some"),
        rate: None,
        stop,
        pollers: 1,
        cpus: None,
    }
}

/// Runs `body` with an engine, in a process that has another thread as well.
fn with_threads(body: impl FnOnce(&mut Engine)) {
    let mut engine = Engine::start().expect("this process has one thread");
    let (end, told) = mpsc::channel::<()>();
    let other = thread::spawn(move || told.recv());
    body(&mut engine);
    drop(end);
    other.join().expect("no panic").expect_err("the other end was dropped");
    drop(engine);
    let own = getpid().as_raw_pid().unsigned_abs();
    assert_eq!(descendants(own), [].into(), "the engine is gone with its value");
}

fn run(engine: &mut Engine, options: &Options) -> Summary {
    engine.run(options, &mut |_| {}).expect("a storm")
}

fn send_self(signal: Signal) {
    kill_process(getpid(), signal).expect("this process is there");
}

#[test]
fn one_engine_makes_storms_of_different_kinds_one_after_the_other() {
    if !permitted("one_engine_makes_storms_of_different_kinds_one_after_the_other") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            let host_like = Strategy { host_mounts: 50, binds: 3, ..Strategy::default() };
            let mut starts = 0;
            for round in 1..=4 {
                let plain = options(round, Stop::Starts(u64::from(round) * 11));
                let other = Options { strategy: host_like.clone(), pollers: 0, ..plain.clone() };
                for asked in [plain, other] {
                    let summary = run(engine, &asked);
                    assert_eq!(Stop::Starts(summary.starts), asked.stop, "{summary}");
                    assert_eq!(summary.strategy, asked.strategy);
                    assert_eq!(summary.concurrency, round);
                    assert!(!summary.has_errors() && !summary.interrupted, "{summary}");
                    starts += summary.starts;
                }
            }
            assert_eq!(starts, 2 * 11 * (1 + 2 + 3 + 4));
            assert!(!engine.interrupted());
        });
    });
}

#[test]
fn an_engine_goes_on_after_a_storm_that_was_refused() {
    if !permitted("an_engine_goes_on_after_a_storm_that_was_refused") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            let nowhere = Options { cpus: Some(vec![65_535]), ..options(1, Stop::Starts(1)) };
            let refused = engine.run(&nowhere, &mut |_| {}).expect_err("there is no such CPU");
            assert!(matches!(refused, StormError::CpuNotAllowed(_)), "{refused}");
            assert_eq!(run(engine, &options(1, Stop::Starts(1))).starts, 1);
        });
    });
}

#[test]
fn ten_thousand_starts_leave_nothing() {
    const NAME: &str = "many::ten_thousand_starts_leave_nothing";
    if !permitted(NAME) {
        return;
    }
    let (storms, starts) = if super::common::emulated() { (6, 50) } else { (10, 1000) };
    apart::alone(NAME, || {
        World::cover_directories();
        with_threads(|engine| {
            let before = World::look();
            for storm in 0..storms {
                let strategy = Strategy {
                    binds: 5,
                    masks: 2,
                    layers: storm % 3,
                    host_mounts: storm % 2 * 30,
                    propagation: Propagation::ALL[storm as usize % Propagation::ALL.len()],
                    ..Strategy::default()
                };
                let summary =
                    run(engine, &Options { strategy, ..options(8, Stop::Starts(starts)) });
                assert_eq!(summary.starts, starts, "{summary}");
                assert!(!summary.has_errors(), "{summary}");
            }
            World::look().assert_same_as(&before);
        });
    });
}

#[test]
fn progress_tells_of_a_storm_while_it_runs() {
    if !permitted("progress_tells_of_a_storm_while_it_runs") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            let mut told = Vec::new();
            let summary = engine
                .run(&options(2, Stop::After(HOUR)), &mut |progress| {
                    told.push(progress);
                    // Twice after the first start; signals that are the same
                    // merge, so one is enough.
                    if told.iter().filter(|p| p.starts > 0).count() == 2 {
                        send_self(Signal::INT);
                    }
                })
                .expect("a storm");
            assert!(told.len() >= 2, "{told:?}");
            assert!(told.is_sorted_by_key(|p| (p.starts, p.elapsed)), "{told:?}");
            let last = told[told.len() - 1];
            assert!(last.starts > 0 && last.starts <= summary.starts, "{last:?}, {summary}");
            assert!(summary.interrupted && engine.interrupted(), "{summary}");
        });
    });
}

#[test]
fn a_signal_wakes_workers_that_wait_for_their_turn() {
    if !permitted("a_signal_wakes_workers_that_wait_for_their_turn") {
        return;
    }
    for signal in ending_signals() {
        apart::forked(|| {
            with_threads(|engine| {
                // One start at once, the next ones in half an hour each.
                let slow = Options { rate: Some(1.0 / 1800.0), ..options(4, Stop::After(HOUR)) };
                let mut sent = false;
                let summary = engine
                    .run(&slow, &mut |progress| {
                        if progress.starts == 1 && !sent {
                            sent = true;
                            send_self(signal);
                        }
                    })
                    .expect("a storm");
                assert_eq!(summary.starts, 1, "{summary}");
                assert!(summary.interrupted && !summary.killed, "nobody overslept: {summary}");
                assert!(engine.interrupted());
            });
        });
    }
}

#[test]
fn a_second_signal_does_not_wait_for_the_starts_under_way() {
    if !permitted("a_second_signal_does_not_wait_for_the_starts_under_way") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            // Starts that take long, so that none ends between two signals.
            let strategy = Strategy { binds: 20_000, masks: 0, ..Strategy::default() };
            let long = Options { strategy, ..options(4, Stop::After(HOUR)) };
            let mut sent = false;
            let summary = engine
                .run(&long, &mut |progress| {
                    if !progress.elapsed.is_zero() && !sent {
                        sent = true;
                        send_self(Signal::INT);
                        send_self(Signal::TERM);
                    }
                })
                .expect("a storm");
            assert!(summary.interrupted && summary.killed, "{summary}");
            assert!(engine.interrupted());
        });
    });
}

#[test]
fn a_signal_between_storms_shows() {
    if !permitted("a_signal_between_storms_shows") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            assert!(!engine.interrupted());
            send_self(Signal::TERM);
            assert!(engine.interrupted());
            send_self(Signal::INT);
            let summary = run(engine, &options(2, Stop::After(HOUR)));
            assert!(summary.interrupted, "one that nobody asked for ends the next: {summary}");
        });
    });
}

#[test]
fn an_engine_that_is_killed_takes_all_with_it_and_is_named() {
    if !permitted("an_engine_that_is_killed_takes_all_with_it_and_is_named") {
        return;
    }
    apart::forked(|| {
        with_threads(|engine| {
            let own = getpid().as_raw_pid().unsigned_abs();
            let mut family = None;
            let ended = engine.run(&options(2, Stop::After(HOUR)), &mut |progress| {
                if progress.starts > 0 && family.is_none() {
                    let below = descendants(own);
                    let engine = below.iter().find(|p| p.name == "storm-engine").expect("it runs");
                    let pid = i32::try_from(engine.pid).ok().and_then(Pid::from_raw);
                    kill_process(pid.expect("a pid"), Signal::KILL).expect("it runs");
                    family = Some(below);
                }
            });
            let error = ended.expect_err("there is nobody to tell the figures");
            assert!(error.to_string().contains("signal 9 killed the engine"), "{error}");
            assert_all_gone(&family.expect("it was killed"));
            let again = engine.run(&options(1, Stop::Starts(1)), &mut |_| {}).expect_err("gone");
            assert!(matches!(again, StormError::EndedEarly(_)), "{again}");
        });
    });
}
