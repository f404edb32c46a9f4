//! Metrics of the containers that wait and block most, where the configuration
//! asks for them. Their number is bounded, and so is how fast their names change:
//! see [`snapshot::containers`](crate::snapshot::containers).

use super::definitions::LOCK;
use super::{Figure, Kind, Label, Metric, Row, Rows, Scrape, Unit, Value, seconds};
use crate::snapshot::containers::ContainerTime;

const SELECTED: Label = Label {
    name: "container",
    about: "Id of the container, in full, as the path of its cgroup tells it",
    bound: "as many as `metrics.containers` in the configuration",
};
const CONTAINER: Label = Label {
    about: "Id of the container, in full, as the path of its cgroup tells it; `none` for tasks in no container, \
            `other` for all other containers and for whoever could not be told",
    bound: "as many as `metrics.containers` in the configuration, `none`, `other`",
    ..SELECTED
};
const MANAGER: Label = Label {
    name: "manager",
    about: "Who made the container",
    bound: "`docker`, `containerd`, `crio`, `podman`, `buildkit`, `lxc`, `unknown`",
};
const POD_UID: Label = Label {
    name: "pod_uid",
    about: "UID of the container's Kubernetes pod; empty without one",
    bound: "one for each container",
};

pub(super) const CONTAINER_WAITER_SECONDS: Metric = Metric {
    name: "lockprof_container_lock_waiter_seconds_total",
    help: "Time that tasks waited for the lock, by container.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK, CONTAINER],
    note: "Only where `metrics.containers` in the configuration is not 0. Over all values of `container`, the sum \
           of `lockprof_lock_waiter_seconds_total` over all runtimes. A container that is selected starts at 0 for \
           every lock; what it had before stays in `other`. One that is selected no more gives what it had to \
           `other`, whose rate then shows a step: for the rate of a lock as a whole, take \
           `lockprof_lock_waiter_seconds_total`. Selected are those that waited and blocked longest, the past \
           counting half every ten minutes. One that is selected remains so for five minutes at least, and leaves \
           for one that has twice as much, or after an hour in which it neither waited nor blocked. `other` has \
           besides what the table of charges had no room for, and those whose cgroup was gone before it was \
           looked up.",
    rows: |s| by_container(s, |row| row.waited_ns),
};

pub(super) const CONTAINER_BLOCKER_SECONDS: Metric = Metric {
    name: "lockprof_container_lock_blocker_seconds_total",
    help: "Time that others waited for the lock, by the container of the task that held it when they began.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK, CONTAINER],
    note: "As `lockprof_container_lock_waiter_seconds_total`; the sum is that of \
           `lockprof_lock_blocker_seconds_total`. Blockers that nobody named are in `other`.",
    rows: |s| by_container(s, |row| row.blocked_ns),
};

pub(super) const CONTAINER_INFO: Metric = Metric {
    name: "lockprof_container_info",
    help: "Containers that are selected, with what is known of them; always 1.",
    kind: Kind::Info,
    unit: None,
    labels: &[SELECTED, MANAGER, POD_UID],
    note: "Joins with the two metrics above on `container`, and with kube-state-metrics on the UID of the pod.",
    rows: |s| {
        Box::new(s.containers.selected.iter().map(|container| {
            let pod_uid = container.pod_uid.as_ref().map_or("", |uid| uid.as_str());
            let values = [container.id.as_str(), container.manager.as_str(), pod_uid];
            Row::new(values.map(Value::Text), Figure::Count(1))
        }))
    },
};

fn by_container<'a>(scrape: &'a Scrape<'a>, ns: fn(&ContainerTime) -> u64) -> Rows<'a> {
    Box::new(scrape.containers.rows.iter().map(move |row| {
        let values = [Value::Text(&row.lock), Value::Text(row.container.as_str())];
        Row::new(values, Figure::Number(seconds(ns(row))))
    }))
}
