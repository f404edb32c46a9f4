//! How far the storms are, on a terminal.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::storm::{self, Stop};

/// Steps of a storm's bar: the bar is of time or of starts.
const STEPS: u64 = 1000;

/// A bar on standard error; nothing where that is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    storms: usize,
    begun: usize,
    stop: Stop,
}

impl Progress {
    /// For so many storms that end by `stop`.
    pub(super) fn new(storms: usize, stop: Stop) -> Self {
        let target = match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(5),
            false => ProgressDrawTarget::hidden(),
        };
        let steps = u64::try_from(storms).unwrap_or(u64::MAX).saturating_mul(STEPS);
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{bar:24} {percent:>3} %  {elapsed}  {wide_msg}");
        bar.set_style(style.expect("the template is a constant that parses"));
        Self { bar, storms, begun: 0, stop }
    }

    /// The next storm begins.
    pub(super) fn begin(&mut self, title: &str) {
        self.begun += 1;
        let (begun, storms) = (self.begun, self.storms);
        self.bar.set_message(match storms {
            1 => title.to_owned(),
            _ => format!("{begun} of {storms}: {title}"),
        });
        self.bar.set_position(self.steps_before());
    }

    /// What the running storm has done so far.
    pub(super) fn show(&self, done: storm::Progress) {
        let within = part(self.stop, done);
        let within = (within * STEPS as f64) as u64;
        self.bar.set_position(self.steps_before() + within.min(STEPS));
    }

    /// All storms have ended: the bar goes away.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }

    fn steps_before(&self) -> u64 {
        let before = u64::try_from(self.begun.saturating_sub(1)).unwrap_or(u64::MAX);
        before.saturating_mul(STEPS)
    }
}

/// How much of a storm is done, 0 to 1.
fn part(stop: Stop, done: storm::Progress) -> f64 {
    let part = match stop {
        Stop::After(Duration::ZERO) | Stop::Starts(0) => 1.0,
        Stop::After(all) => done.elapsed.as_secs_f64() / all.as_secs_f64(),
        Stop::Starts(all) => (done.starts + done.failed_starts) as f64 / all as f64,
    };
    part.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_done_by_its_time_or_by_its_starts() {
        let done =
            storm::Progress { starts: 25, failed_starts: 5, elapsed: Duration::from_secs(2) };
        assert!((part(Stop::After(Duration::from_secs(8)), done) - 0.25).abs() < 1e-9);
        assert!((part(Stop::Starts(40), done) - 0.75).abs() < 1e-9);
        assert!((part(Stop::Starts(3), done) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        let mut progress = Progress::new(2, Stop::Starts(5));
        progress.begin("legacy");
        progress.show(storm::Progress { starts: 5, ..storm::Progress::default() });
        assert_eq!(progress.bar.position(), STEPS);
        progress.begin("fd");
        assert_eq!(progress.bar.position(), STEPS);
        progress.end();
    }
}
