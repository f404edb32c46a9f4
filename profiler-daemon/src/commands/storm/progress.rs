//! How far the storms are, on a terminal.

use std::io::{IsTerminal as _, stderr};

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
        let within = thousandths(self.stop, done);
        self.bar.set_position(self.steps_before() + within);
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

/// How much of a storm is done, in [`STEPS`].
fn thousandths(stop: Stop, done: storm::Progress) -> u64 {
    let (done, all) = match stop {
        Stop::After(all) => (done.elapsed.as_millis(), all.as_millis()),
        Stop::Starts(all) => (u128::from(done.starts + done.failed_starts), u128::from(all)),
    };
    let steps = done.saturating_mul(u128::from(STEPS)) / all.max(1);
    u64::try_from(steps).unwrap_or(STEPS).min(STEPS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_storm_is_done_by_its_time_or_by_its_starts() {
        let done =
            storm::Progress { starts: 25, failed_starts: 5, elapsed: Duration::from_secs(2) };
        assert_eq!(thousandths(Stop::After(Duration::from_secs(8)), done), 250);
        assert_eq!(thousandths(Stop::Starts(40), done), 750);
        assert_eq!(thousandths(Stop::Starts(3), done), STEPS);
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
