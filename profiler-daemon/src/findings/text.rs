//! How figures and names are written for people: in findings and in tables.

use crate::snapshot::Party;

/// Characters of a container's id that are shown: what `docker ps` and `crictl
/// ps` show is no longer.
const SHORT_ID: usize = 12;

/// A duration with three digits and a unit: `512ns`, `4.10us`, `12.3ms`, `1.50s`.
pub fn duration(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

/// `part` of `whole` in percent without digits after the point: `37%`; `-` of
/// nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let percent = part as f64 * 100.0 / whole as f64;
    format!("{percent:.0}%")
}

/// `n` things: `1 task`, `2 tasks`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `part` for each of `whole`, with one digit while it is below ten.
pub fn per(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let ratio = part as f64 / whole.max(1) as f64;
    let digits = usize::from(ratio < 9.95);
    format!("{ratio:.digits$}")
}

/// The first twelve characters of a container's id.
pub fn short_id(id: &str) -> &str {
    id.char_indices().nth(SHORT_ID).map_or(id, |(end, _)| &id[..end])
}

/// Where the tasks of `party` are: `container 0123456789ab`, else the path of
/// their cgroup; nothing where that is not known.
pub fn place(party: &Party) -> Option<String> {
    let cgroup = party.who()?.cgroup.as_ref()?;
    match &cgroup.container {
        Some(container) => Some(format!("container {}", short_id(container.id.as_str()))),
        None if cgroup.path.as_str().is_empty() => Some(format!("cgroup {} (gone)", cgroup.id)),
        None => Some(format!("cgroup {}", cgroup.path)),
    }
}

/// `party` in a sentence: `` `runc` in container 0123456789ab ``.
pub fn who(party: &Party) -> String {
    let name = match party {
        Party::Task(who) => format!("`{}`", who.task),
        Party::Other => "tasks beyond the table's room".to_owned(),
        Party::Evicted { .. } => "tasks of cgroups that are gone".to_owned(),
        Party::Unknown => "tasks that nothing names".to_owned(),
    };
    place(party).map_or(name.clone(), |place| format!("{name} in {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Cgroup, Container, Who};

    #[test]
    fn durations_keep_three_digits() {
        let shown: Vec<_> =
            [0, 999, 1_000, 9_994, 12_345, 123_456, 1_500_000, 2_000_000_000, 3_600_000_000_000]
                .map(duration)
                .into();
        assert_eq!(
            shown,
            ["0ns", "999ns", "1.00us", "9.99us", "12.3us", "123us", "1.50ms", "2.00s", "3600s"]
        );
    }

    #[test]
    fn ratios_are_short() {
        assert_eq!([per(19, 2), per(96, 1), per(1, 0)], ["9.5", "96", "1.0"]);
        assert_eq!([percent(1, 3), percent(1, 0)], ["33%", "-"]);
        assert_eq!([count(1, "task"), count(0, "task")], ["1 task", "0 tasks"]);
    }

    #[test]
    fn a_party_is_named_with_the_closest_place_that_is_known() {
        let of = |cgroup| Party::Task(Who { task: "runc".into(), cgroup, ..Who::default() });
        assert_eq!(who(&of(None)), "`runc`");
        let cgroup = Cgroup { id: 7, path: "/system.slice".into(), container: None };
        assert_eq!(who(&of(Some(cgroup.clone()))), "`runc` in cgroup /system.slice");
        let gone = Cgroup { path: "".into(), ..cgroup.clone() };
        assert_eq!(who(&of(Some(gone))), "`runc` in cgroup 7 (gone)");
        let container = Container {
            manager: "docker".into(),
            id: "0123456789abcdef".into(),
            pod_uid: None,
            qos: None,
        };
        let inside = Cgroup { container: Some(container), ..cgroup };
        assert_eq!(who(&of(Some(inside))), "`runc` in container 0123456789ab");
        assert_eq!(short_id("ééééééééééééé"), "éééééééééééé", "cut between characters");
    }
}
