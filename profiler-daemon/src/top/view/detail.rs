//! Below the other lists: everything about the chosen row.

use ratatui::text::{Line, Span};

use super::overview::rule;
use super::{Theme, list};
use crate::findings::Finding;
use crate::snapshot::{Party, SlowWait};
use crate::top::format;
use crate::top::state::{State, Tab};
use crate::top::tables::{self, Table, Tone};
use crate::top::window::Window;

/// The lines; more than fit are cut.
pub(super) fn lines(
    state: &State,
    table: &Table,
    chosen: usize,
    theme: Theme,
    width: u16,
) -> Vec<Line<'static>> {
    let Some(window) = state.shown() else { return Vec::new() };
    let row = table.rows.get(chosen).map(|row| row.index);
    let page = Page { theme, width };
    match state.tab {
        Tab::Locks | Tab::Hooks => Vec::new(),
        Tab::Waiters => {
            let row = row.and_then(|row| window.window.waiters.get(row));
            row.map(|row| page.party("this waiter", &row.party)).unwrap_or_default()
        }
        Tab::Blockers => {
            let row = row.and_then(|row| window.window.blockers.get(row));
            row.map(|row| page.party("this blocker", &row.party)).unwrap_or_default()
        }
        Tab::Calls => {
            let call = table.rows.get(chosen).map(|row| row.id.as_str());
            call.map(|call| page.call(window, call)).unwrap_or_default()
        }
        Tab::Mounts => page.mounts(window),
        Tab::Slow => {
            let slow = window.totals.slow_waits.as_ref();
            let wait = row.and_then(|row| slow?.recent.get(row));
            wait.map(|wait| page.slow_wait(wait)).unwrap_or_default()
        }
        Tab::Cpu => page.samples(window),
        Tab::Findings => {
            let finding = row.and_then(|row| window.findings.get(row));
            finding.map(|finding| page.finding(finding)).unwrap_or_default()
        }
    }
}

/// All findings of the window, for paper.
pub(super) fn findings(state: &State, theme: Theme, width: u16) -> Vec<Line<'static>> {
    let page = Page { theme, width };
    let Some(window) = state.shown() else { return Vec::new() };
    let each = window.findings.iter();
    each.flat_map(|finding| [vec![Line::default()], page.finding(finding)].concat()).collect()
}

struct Page {
    theme: Theme,
    width: u16,
}

impl Page {
    /// `name  text`, wrapped.
    fn say(&self, name: &str, text: &str) -> Vec<Line<'static>> {
        let label = 11;
        let lines = self.theme.wrap(text, self.width.saturating_sub(label));
        lines
            .into_iter()
            .enumerate()
            .map(|(at, line)| {
                let name = if at == 0 { name } else { "" };
                let name = self.theme.pad(name, label, false);
                Line::from(vec![Span::styled(name, self.theme.style(Tone::Dim)), Span::raw(line)])
            })
            .collect()
    }

    fn rule(&self, title: &str) -> Line<'static> {
        rule(title, self.theme, self.width)
    }

    fn party(&self, title: &str, party: &Party) -> Vec<Line<'static>> {
        let mut lines = vec![self.rule(&format!("{title}: {}", party.task()))];
        let Some(who) = party.who() else {
            let text = match party {
                Party::Other => "parties that the kernel's table had no room for",
                _ => "the lock named nobody, or its owner was gone",
            };
            lines.extend(self.say("", text));
            return lines;
        };
        lines.extend(self.say("runtime", who.runtime.as_str()));
        if let Some(cgroup) = &who.cgroup {
            let path = cgroup.path.as_str();
            let path = if path.is_empty() { "gone before it was looked up" } else { path };
            lines.extend(self.say("cgroup", &format!("{path} (id {})", cgroup.id)));
        }
        if let Some(container) = who.container() {
            lines.extend(self.say("container", &format!("{} {}", container.manager, container.id)));
            let pod = container.pod_uid.as_ref().map(|uid| {
                let qos = container.qos.as_ref().map_or("", |qos| qos.as_str());
                format!("{uid} {qos}")
            });
            lines.extend(pod.map(|pod| self.say("pod", &pod)).unwrap_or_default());
        }
        lines
    }

    fn call(&self, window: &Window, call: &str) -> Vec<Line<'static>> {
        let Some(row) = window.calls.get(call) else { return Vec::new() };
        let total = row.calls.sum_ns;
        let mut lines = vec![self.rule(&format!("{call}: where its time goes"))];
        let all = row.waited_total_ns();
        let rest = total.saturating_sub(all);
        let shares = row.waited_ns.iter().map(|(lock, ns)| (lock.as_str(), *ns, Tone::Bad));
        for (name, ns, tone) in shares.chain([("the rest", rest, Tone::Dim)]) {
            let share = ns as f64 / total.max(all).max(1) as f64;
            let mut line = Line::from(self.theme.pad(name, 16, false));
            line.push_span(self.theme.pad(&format::percent(share), 6, true));
            line.push_span(self.theme.pad(&format::duration(ns), 8, true));
            line.push_span("  ");
            let width = self.width.saturating_sub(34).min(50);
            line.spans.extend(list::bar(&[(share, tone)], width, self.theme));
            lines.push(line);
        }
        let errors: Vec<_> = window
            .window
            .syscall_errors
            .iter()
            .filter(|error| error.syscall == call)
            .map(|error| format!("{} {}", error.errno, format::count(error.count)))
            .collect();
        if !errors.is_empty() {
            lines.extend(self.say("errors", &errors.join(", ")));
        }
        lines
    }

    /// Sizes of mount tables, and new superblocks: figures of the host.
    fn mounts(&self, window: &Window) -> Vec<Line<'static>> {
        let mut lines = vec![self.rule("superblocks and mount tables of this host")];
        let superblocks = match &window.window.superblocks {
            None => "not seen there: the kernel refuses the hooks".to_owned(),
            Some(rows) if rows.is_empty() => "none were made in this window".to_owned(),
            Some(rows) => {
                let mut rows: Vec<_> = rows.iter().collect();
                rows.sort_by_key(|row| std::cmp::Reverse(row.count));
                let rate = |count: u64| format::rate(count as f64 / window.seconds());
                let list =
                    rows.iter().map(|row| format!("{} {}/s", row.filesystem, rate(row.count)));
                list.collect::<Vec<_>>().join(", ")
            }
        };
        lines.extend(self.say("new", &superblocks));
        let Some(tables) = &window.totals.mount_tables else {
            lines.extend(self.say("tables", "not counted yet, or the kernel refuses it"));
            return lines;
        };
        let text = format!(
            "{} mounts in {} namespaces, counted {} ago; the largest:",
            format::count(tables.mounts),
            format::count(tables.namespaces),
            format::duration(tables.age_ns)
        );
        lines.extend(self.say("tables", &text));
        for table in &tables.largest {
            let text = format!(
                "{:>7} mounts  {:>5} tasks  mnt:[{}]  {} {}",
                format::count(table.mounts),
                format::count(table.tasks),
                table.namespace,
                table.owner.task(),
                tables::place(&table.owner)
            );
            lines.push(Line::from(self.theme.fit(&text, self.width)));
        }
        lines
    }

    fn slow_wait(&self, wait: &SlowWait) -> Vec<Line<'static>> {
        let title = format!(
            "wait {} of {}: {} for {} {} on node {} CPU {}",
            wait.number,
            wait.waiter.task(),
            format::duration(wait.duration_ns),
            wait.lock,
            wait.mode,
            wait.numa_node,
            wait.cpu
        );
        let mut lines = vec![self.rule(&title)];
        let party = |party: &Party, call: &Option<String>| {
            let call = call.as_ref().map(|call| format!("in {call}")).unwrap_or_default();
            format!("{} {} {call}", party.task(), tables::place(party))
        };
        let waiter = format!("{} (tid {})", party(&wait.waiter, &wait.waiter_call), wait.tid);
        lines.extend(self.say("waiter", &waiter));
        let basis = wait.blocker_basis.as_str().replace('_', " ");
        let blocker = format!("{} (by {basis})", party(&wait.blocker, &wait.blocker_call));
        lines.extend(self.say("blocker", &blocker));
        if wait.stack.is_empty() {
            lines.extend(self.say("stack", "none was taken"));
        }
        for (depth, function) in wait.stack.iter().enumerate() {
            let name = if depth == 0 { "stack" } else { "" };
            lines.extend(self.say(name, function.as_str()));
        }
        lines
    }

    fn samples(&self, window: &Window) -> Vec<Line<'static>> {
        let Some(samples) = &window.window.samples else { return Vec::new() };
        let mut lines = vec![self.rule("all nodes")];
        for (place, share) in tables::parts(samples).into_iter().flatten() {
            let tone = tables::place_tone(place);
            let mut line = Line::from(self.theme.pad(tables::place_name(place), 16, false));
            line.push_span(self.theme.pad(&format::percent(share), 6, true));
            line.push_span("  ");
            let width = self.width.saturating_sub(26).min(60);
            line.spans.extend(list::bar(&[(share, tone)], width, self.theme));
            lines.push(line);
        }
        let how = format!("{} Hz per busy CPU, paced by {}", samples.frequency_hz, samples.source);
        lines.extend(self.say("sampled", &how));
        lines.extend(self.say(
            "seqcount",
            "functions that walk the mount hash and begin again while mounts change; no lock \
             wait shows them:",
        ));
        let functions: Vec<_> = samples.functions.iter().map(|name| name.as_str()).collect();
        let functions = match functions.as_slice() {
            [] => "none of them was found on this kernel".to_owned(),
            found => found.join(" "),
        };
        lines.extend(self.say("", &functions));
        lines
    }

    fn finding(&self, finding: &Finding) -> Vec<Line<'static>> {
        let mut lines = vec![self.rule(finding.rule)];
        lines.extend(self.say("finding", &finding.title));
        lines.extend(self.say("what to do", &finding.remedy));
        lines.extend(self.say("why", finding.cause));
        for (at, (name, value)) in finding.figures.iter().enumerate() {
            lines.extend(
                self.say(if at == 0 { "figures" } else { "" }, &format!("{name}: {value}")),
            );
        }
        lines
    }
}
