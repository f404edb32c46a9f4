//! The machine, the state of the screen, the tabs, and what is most urgent.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Theme, put};
use crate::top::format;
use crate::top::state::{HostState, Showing, State, Tab};
use crate::top::tables::Tone;
use crate::top::window::Since;

/// Draws the header at the top of `area` and cuts it off.
pub(super) fn draw(state: &State, theme: Theme, buffer: &mut Buffer, area: &mut Rect) {
    let height = area.height;
    let width = area.width;
    put(buffer, area, &machine(state, theme, width));
    if height >= 10 {
        put(buffer, area, &figures(state, theme, width));
    }
    if height >= 6 {
        put(buffer, area, &tabs(state, theme, width));
    }
    if height >= 8
        && let Some((tone, text)) = urgent(state)
    {
        let text = theme.fit(&format!(" {text}"), width);
        put(buffer, area, &Line::from(Span::styled(text, theme.style(tone))));
    }
}

/// The same for paper.
pub(super) fn print(state: &State, theme: Theme, buffer: &mut Buffer, area: &mut Rect) {
    let width = area.width;
    put(buffer, area, &machine(state, theme, width));
    put(buffer, area, &figures(state, theme, width));
    if let Some((_, text)) = urgent(state) {
        for line in theme.wrap(&text, width) {
            put(buffer, area, &Line::from(line));
        }
    }
}

/// Left and right parts; where both do not fit the left one is cut.
fn sides(
    left: Vec<Span<'static>>,
    right: Span<'static>,
    width: u16,
    theme: Theme,
) -> Line<'static> {
    let width = usize::from(width);
    let room = width.saturating_sub(right.width() + 1);
    let mut line = Line::default();
    for span in left {
        let left = room.saturating_sub(line.width());
        let left = u16::try_from(left).unwrap_or(u16::MAX);
        let text = theme.fit(&span.content, left);
        line.push_span(Span::styled(text, span.style));
    }
    line.push_span(" ".repeat(width.saturating_sub(line.width() + right.width())));
    line.push_span(right);
    line
}

/// Host, kernel, CPUs, nodes, uptime; and whether the figures are of now.
fn machine(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let host = state.current();
    let mut left = Vec::new();
    if width >= 60 {
        left.push(Span::styled("lockprof ", theme.title()));
    }
    let of = match state.hosts.len() {
        1 => String::new(),
        all => format!(" [{}/{all}]", state.host + 1),
    };
    left.push(Span::styled(
        format!("{}{of}", theme.clean(host.name())),
        theme.title().patch(theme.style(Tone::Accent)),
    ));
    if let Some(window) = state.shown() {
        let machine = &window.totals.host;
        let nodes = machine.numa_nodes.len().max(1);
        let s = |n: usize| if n == 1 { "" } else { "s" };
        let mut rest = format!(
            "  {}  {} CPU{}, {nodes} node{}",
            machine.kernel,
            machine.cpus,
            s(machine.cpus as usize),
            s(nodes)
        );
        if machine.uptime_ns != 0 {
            rest += &format!("  up {}", format::uptime(machine.uptime_ns));
        }
        left.push(Span::raw(rest));
    }
    sides(left, badge(state, host, theme), width, theme)
}

/// LIVE, or why not.
fn badge(state: &State, host: &HostState, theme: Theme) -> Span<'static> {
    let every = format!("{:?}", state.interval);
    let (tone, text) = match state.showing {
        Showing::Paused => (Tone::Warn, " PAUSED ".to_owned()),
        Showing::Worst => (Tone::Warn, " WORST MOMENT ".to_owned()),
        Showing::Live if host.error.is_some() => (Tone::Bad, " NO ANSWER ".to_owned()),
        Showing::Live if host.ended => (Tone::Warn, " END OF RECORDING ".to_owned()),
        Showing::Live => match state.shown().map(|window| window.since) {
            Some(Since::Before) => (Tone::Good, format!(" LIVE {every} ")),
            Some(Since::Attach) => (Tone::Warn, " SINCE ATTACH ".to_owned()),
            Some(Since::Restart) => (Tone::Warn, " SINCE RESTART ".to_owned()),
            None => (Tone::Warn, " NO FIGURES YET ".to_owned()),
        },
    };
    Span::styled(text, theme.style(tone).patch(theme.chosen()))
}

/// How bad it is, what was lost, what lockprof takes, how old this is; the most
/// important first, as narrow terminals cut the end.
fn figures(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let Some(window) = state.shown() else { return Line::default() };
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut add = |name: &'static str, text: String, tone| {
        // What does not fit is left out; half a figure would be another figure.
        let used: usize = spans.iter().map(Span::width).sum();
        if used + name.len() + text.len() <= usize::from(width) {
            spans.push(Span::styled(name, theme.style(Tone::Dim)));
            spans.push(Span::styled(text + "  ", theme.style(tone)));
        }
    };
    let waited = window.waited();
    add("waited ", format::percent(waited), Tone::of(waited, 1.0, 10.0));
    let waiters: u64 = window.window.inflight.iter().map(|row| row.waiters).sum();
    let oldest = window.window.inflight.iter().map(|row| row.oldest_ns).max().unwrap_or(0);
    let text = match waiters {
        0 => "0".to_owned(),
        _ => format!("{} (oldest {})", format::count(waiters), format::duration(oldest)),
    };
    add("waiting ", text, Tone::of_wait_ns(oldest));
    let lost = window.window.dropped_total();
    add("lost ", format::count(lost), if lost == 0 { Tone::Good } else { Tone::Bad });
    let own = match &window.window.own {
        Some(own) => {
            let cpu = own.cpu_ns as f64 / 1e9 / window.seconds();
            format!(
                "{} CPU {}",
                format::percent(cpu),
                format::bytes(own.resident_bytes.saturating_add(own.arrays_bytes))
            )
        }
        None => "not told".to_owned(),
    };
    add("own ", own, Tone::Plain);
    let age = state.current().age(state.now).unwrap_or_default();
    let old = age > state.interval * 3 && age.as_secs() >= 3;
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    // Tenths: finer ones flicker.
    let age = age / 100_000_000 * 100_000_000;
    let text = format!("{} ago", format::duration(age));
    add("", text, if old { Tone::Bad } else { Tone::Plain });
    add("window ", format::duration(window.window.duration_ns), Tone::Plain);
    Line::from(spans)
}

/// The tabs, each with its key; short where there is no room.
fn tabs(state: &State, theme: Theme, width: u16) -> Line<'static> {
    // With the digit apart, close to it, and cut ever shorter.
    let titles = |(gap, cut): (&str, usize)| -> Vec<(Tab, String)> {
        let numbered = Tab::ALL.into_iter().enumerate();
        numbered
            .map(|(at, tab)| {
                let title: String = tab.title().chars().take(cut).collect();
                (tab, format!(" {}{gap}{title} ", at + 1))
            })
            .collect()
    };
    let fits = |form: &(&str, usize)| {
        let width = usize::from(width);
        titles(*form).iter().map(|(_, title)| title.len()).sum::<usize>() <= width
    };
    let forms = [(" ", 9), ("", 9), ("", 5), ("", 3), ("", 1)];
    let form = forms.into_iter().find(fits).unwrap_or(("", 0));
    let mut line = Line::default();
    for (tab, title) in titles(form) {
        let style = if tab == state.tab {
            theme.title().patch(theme.chosen())
        } else {
            theme.style(Tone::Plain)
        };
        line.push_span(Span::styled(title, style));
    }
    line
}

/// The one thing to know first.
fn urgent(state: &State) -> Option<(Tone, String)> {
    let host = state.current();
    if let Some(error) = &host.error {
        return Some((Tone::Bad, error.clone()));
    }
    if let Some(why) = &host.not_recorded {
        return Some((Tone::Bad, format!("recording stopped: {why}")));
    }
    let window = state.shown()?;
    if window.since == Since::Restart {
        return Some((Tone::Warn, "the daemon was restarted: counters began anew".to_owned()));
    }
    let hang = window.window.inflight.iter().max_by_key(|row| row.oldest_ns)?;
    if hang.oldest_ns >= 1_000_000_000 {
        let (s, wait) = if hang.waiters == 1 { ("", "waits") } else { ("s", "wait") };
        let text = format!(
            "{} task{s} {wait} for {} now, the oldest for {}: the lock is stuck or starved",
            format::count(hang.waiters),
            hang.lock,
            format::duration(hang.oldest_ns)
        );
        return Some((Tone::Bad, text));
    }
    let finding = window.findings.first()?;
    Some((
        Tone::of_share(finding.weight).max(Tone::Warn),
        format!("{}: {}", finding.title, finding.remedy),
    ))
}
