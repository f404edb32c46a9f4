//! One frame, without a terminal.

use std::time::{Duration, Instant};

use super::source::Recorder;
use super::state::{State, Update};
use super::view;
use super::window::{Window, Windows};
use super::{Options, Source, TopError};

/// What one frame is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Text of this many columns.
    Text(u16),
    /// The window as JSON, a line for each source.
    Json,
}

/// What the screen would show after one interval.
///
/// A recording gives the window between its first two snapshots, or its one
/// snapshot as it is.
///
/// # Errors
///
/// A source cannot be read.
pub fn once(
    mut sources: Vec<Box<dyn Source>>,
    mut recorder: Option<Recorder>,
    options: Options,
    output: Output,
) -> Result<String, TopError> {
    let mut windows: Vec<Windows> = sources.iter().map(|_| Windows::default()).collect();
    let mut latest: Vec<Option<Window>> = sources.iter().map(|_| None).collect();
    for round in 0..2 {
        if round == 1 && sources.iter().any(|source| !source.is_replay()) {
            std::thread::sleep(options.interval.max(Duration::from_millis(1)));
        }
        for (at, source) in sources.iter_mut().enumerate() {
            let Some(totals) = source.read().map_err(TopError::NoSnapshot)? else { continue };
            if let Some(recorder) = &mut recorder {
                recorder.record(&totals)?;
            }
            latest[at] = windows[at].next(totals).or(latest[at].take());
        }
    }
    if output == Output::Json {
        let lines = latest.iter().flatten().map(|window| serde_json::to_string(&window.window));
        let lines: Result<Vec<_>, _> = lines.collect();
        return Ok(lines.map_err(std::io::Error::from)?.join("\n") + "\n");
    }
    let names = sources.iter().map(|source| source.name().to_owned());
    let mut state = State::new(names, options.interval, Instant::now());
    for (host, window) in latest.into_iter().enumerate() {
        if let Some(window) = window {
            state.receive(host, Update::Window(Box::new(window)));
        }
    }
    let Output::Text(width) = output else { return Ok(String::new()) };
    let mut text = String::new();
    for host in 0..state.hosts.len() {
        state.host = host;
        if host != 0 {
            text.push('\n');
        }
        text += &view::print(&state, options.theme, width);
    }
    Ok(text)
}
