//! Below the lock table: who and what is behind the chosen lock.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Theme, heat};
use crate::snapshot::Basis;
use crate::top::format;
use crate::top::state::{LockKey, State, Tab};
use crate::top::tables::{self, Share, Tone};
use crate::top::window::Window;

/// The lock and mode that is chosen in the lock table.
pub(super) fn chosen(state: &State) -> Option<LockKey> {
    let table = tables::table(state, Tab::Locks);
    let row = table.rows.get(table.position(state.list(Tab::Locks).selected.as_deref()))?;
    let (lock, mode) = row.id.split_once('\n')?;
    let modes = state.hosts.iter().filter_map(|host| host.shown(state.showing));
    let mut modes = modes.flat_map(|window| &window.window.locks);
    let row = modes.find(|row| row.lock == lock && row.mode.as_str() == mode)?;
    Some((row.lock.clone(), row.mode))
}

/// At most `height` lines of `width` terminal columns.
pub(super) fn lines(state: &State, theme: Theme, width: u16, height: u16) -> Vec<Line<'static>> {
    let Some(window) = state.shown() else { return Vec::new() };
    let Some(key) = chosen(state) else { return Vec::new() };
    if height < 3 {
        return Vec::new();
    }
    let (lock, mode) = &key;
    let mut host = String::new();
    if state.hosts.len() > 1 {
        host = format!(" on {}", state.current().name());
    }
    let mut lines = vec![rule(&format!("{lock} {mode}{host}"), theme, width)];
    let mut extra = Vec::new();
    extra.extend(through(window, lock, theme, width));
    extra.extend(holds(window, lock, theme, width));
    extra.extend(handoffs(window, lock, theme, width));
    extra.extend(cpu(window, theme, width));
    // Who comes first; the heat map has two lines, more where there are more.
    let left = height - 1;
    let nodes = u16::try_from(window.totals.host.numa_nodes.len().clamp(1, 16)).unwrap_or(1);
    let map = heat::lines(&window.window, &key, theme, width, (nodes + 1).min(left / 3).max(2));
    let left = usize::from(left).saturating_sub(map.len());
    extra.truncate(left.saturating_sub(4));
    let rows = left.saturating_sub(extra.len()).clamp(2, 9);
    lines.extend(people(window, lock, theme, width, rows));
    lines.extend(extra);
    lines.extend(map);
    let left = usize::from(height).saturating_sub(lines.len());
    lines.extend(findings(window, theme, width, left));
    let left = usize::from(height).saturating_sub(lines.len());
    lines.extend(slow_waits(window, lock, theme, width, left));
    lines.truncate(usize::from(height));
    lines
}

/// What the rules find, if there are lines left for it.
fn findings(window: &Window, theme: Theme, width: u16, height: usize) -> Vec<Line<'static>> {
    if height < 3 || window.findings.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![rule("findings", theme, width)];
    for finding in &window.findings {
        let text = format!("{}: {}", finding.title, finding.remedy);
        lines.extend(theme.wrap(&text, width).into_iter().map(Line::from));
    }
    lines.truncate(height);
    lines
}

/// The latest slow waits for the lock, if there are lines left for them.
fn slow_waits(
    window: &Window,
    lock: &str,
    theme: Theme,
    width: u16,
    height: usize,
) -> Vec<Line<'static>> {
    let Some(slow) = window.totals.slow_waits.as_ref().filter(|_| height >= 3) else {
        return Vec::new();
    };
    let waits = slow.recent.iter().filter(|wait| wait.lock == lock).map(|wait| {
        let by = match wait.blocker_basis {
            Basis::Owner | Basis::Unknown => "for",
            Basis::ReaderHint | Basis::Inferred => "likely for",
        };
        let who = |party, call: &Option<String>| {
            let call = call.as_ref().map(|call| format!("in {call}")).unwrap_or_default();
            format!("{} {call}", tables::name_and_place(party)).trim().to_owned()
        };
        let text = format!(
            "{} {:>6} {:<5} {} {by} {}",
            tables::clock(wait.ended_unix_ns),
            format::duration(wait.duration_ns),
            wait.mode,
            who(&wait.waiter, &wait.waiter_call),
            who(&wait.blocker, &wait.blocker_call),
        );
        let tone = theme.style(Tone::of_wait_ns(wait.duration_ns));
        Line::from(Span::styled(theme.fit(&text, width), tone))
    });
    let waits: Vec<_> = waits.take(height - 1).collect();
    if waits.is_empty() {
        return waits;
    }
    let longer = format::duration(slow.threshold_ns);
    let title = rule(&format!("latest waits of {longer} or longer"), theme, width);
    std::iter::once(title).chain(waits).collect()
}

/// A line across, with a title.
pub(super) fn rule(title: &str, theme: Theme, width: u16) -> Line<'static> {
    let rule = theme.rule();
    let title = theme.fit(title, width.saturating_sub(6));
    let mut line = Line::from(Span::styled(rule.repeat(2) + " ", theme.style(Tone::Dim)));
    line.push_span(Span::styled(title, theme.title().patch(theme.style(Tone::Accent))));
    let left = usize::from(width).saturating_sub(line.width() + 1);
    line.push_span(Span::styled(format!(" {}", rule.repeat(left)), theme.style(Tone::Dim)));
    line
}

/// Blockers beside waiters: at most `height` lines, the first a title.
fn people(
    window: &Window,
    lock: &str,
    theme: Theme,
    width: u16,
    height: usize,
) -> Vec<Line<'static>> {
    let blockers = tables::blocked_by(&window.window, lock);
    let waiters = tables::waited_by(&window.window, lock);
    let waits = window.window.locks.iter().any(|row| row.lock == lock && row.waits.count != 0);
    if blockers.is_empty() && waiters.is_empty() {
        let text = if waits {
            "who waits and who blocks is not observed there (`lockprof doctor` says why)"
        } else {
            "nobody waited for it in this window"
        };
        return vec![Line::from(Span::styled(theme.fit(text, width), theme.style(Tone::Dim)))];
    }
    let half = if width >= 60 { (width - 2) / 2 } else { width };
    let rows = height.saturating_sub(1);
    let block = |title: &str, shares: &[Share], tone: Tone| -> Vec<Vec<Span<'static>>> {
        let title = theme.pad(title, half, false);
        let mut lines = vec![vec![Span::styled(title, theme.title())]];
        let shown = shares.iter().take(rows);
        lines.extend(shown.map(|share| person(share, theme, half, tone)));
        lines
    };
    let mut left = block("BLOCKED BY  (~ likely)", &blockers, Tone::Warn);
    let mut right = block("WHO WAITS", &waiters, Tone::Plain);
    if half == width {
        // No room for two: who blocks is what one looks for.
        return left.into_iter().map(Line::from).collect();
    }
    let blank = || vec![Span::raw(" ".repeat(usize::from(half)))];
    let longest = left.len().max(right.len());
    left.resize_with(longest, blank);
    right.resize_with(longest, blank);
    left.into_iter()
        .zip(right)
        .map(|(mut left, right)| {
            left.push(Span::raw("  "));
            left.extend(right);
            Line::from(left)
        })
        .collect()
}

fn person(share: &Share, theme: Theme, width: u16, tone: Tone) -> Vec<Span<'static>> {
    // Room for `~mountinfo_read` wherever there is some.
    let how_width = if width >= 39 { (width * 2 / 5).clamp(15, 22) } else { width / 3 };
    let how = theme.pad(&share.how, how_width, false);
    let who_width = width.saturating_sub(6 + how_width + 1);
    vec![
        Span::styled(
            theme.pad(&format::percent(share.share), 5, true),
            theme.style(Tone::of_share(share.share)),
        ),
        Span::raw(" "),
        Span::styled(theme.pad(&share.who, who_width, false), theme.style(tone)),
        Span::raw(" "),
        Span::styled(how, Style::new()),
    ]
}

/// `through  mount 62%, umount2 12% of the time waited for it`.
fn through(window: &Window, lock: &str, theme: Theme, width: u16) -> Option<Line<'static>> {
    let rows = window.window.locks.iter().filter(|row| row.lock == lock);
    let all: u64 = rows.map(|row| row.waits.sum_ns).sum();
    let mut calls: Vec<(&str, u64)> = Vec::new();
    for row in &window.window.syscalls {
        let ns = row.lock_wait_ns.get(lock).copied().unwrap_or(0);
        match calls.iter_mut().find(|(name, _)| *name == row.syscall) {
            Some((_, sum)) => *sum += ns,
            None => calls.push((&row.syscall, ns)),
        }
    }
    calls.retain(|(_, ns)| *ns != 0);
    calls.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    if all == 0 || calls.is_empty() {
        return None;
    }
    let list: Vec<_> = calls
        .iter()
        .take(4)
        .map(|(name, ns)| format!("{name} {}", format::percent(*ns as f64 / all as f64)))
        .collect();
    Some(figure("through", &list.join(", "), theme, width))
}

fn holds(window: &Window, lock: &str, theme: Theme, width: u16) -> Option<Line<'static>> {
    let mut held: Vec<_> = Vec::new();
    for row in window.window.holds.iter().filter(|row| row.lock == lock && row.holds.count != 0) {
        let [p99] = row.holds.quantiles_ns([0.99]);
        held.push(format!(
            "{} p99 {} max {} on node {}",
            row.mode,
            format::duration(p99),
            format::duration(row.holds.max_ns),
            row.numa_node
        ));
    }
    (!held.is_empty()).then(|| figure("held", &held.join(", "), theme, width))
}

fn handoffs(window: &Window, lock: &str, theme: Theme, width: u16) -> Option<Line<'static>> {
    if window.totals.host.numa_nodes.len() < 2 {
        return None;
    }
    let rows = || window.window.handoffs.iter().filter(|row| row.lock == lock);
    let all: u64 = rows().map(|row| row.count).sum();
    let crossed: u64 = rows().filter(|row| row.from_node != row.to_node).map(|row| row.count).sum();
    (all != 0).then(|| {
        let share = format::percent(crossed as f64 / all as f64);
        figure(
            "handoffs",
            &format!("{share} of {} went to another node", format::count(all)),
            theme,
            width,
        )
    })
}

fn cpu(window: &Window, theme: Theme, width: u16) -> Option<Line<'static>> {
    let parts = tables::parts(window.window.samples.as_ref()?)?;
    let list: Vec<_> = parts
        .iter()
        .map(|(place, share)| format!("{} {}", tables::place_name(*place), format::percent(*share)))
        .collect();
    Some(figure("kernel CPU", &list.join(", "), theme, width))
}

fn figure(name: &str, text: &str, theme: Theme, width: u16) -> Line<'static> {
    let name = theme.pad(name, 11, false);
    let text = theme.fit(text, width.saturating_sub(11));
    Line::from(vec![Span::styled(name, theme.style(Tone::Dim)), Span::raw(text)])
}
