//! Which labels the result of an expression has, from what is declared of the
//! metrics in it; and whether it asks for any that they do not have.

use std::collections::{BTreeMap, BTreeSet};

use lockprof::locks::catalogue;
use lockprof::serve::metrics::{Kind, METRICS};
use lockprof::snapshot::{Place, Runtime};
use profiler_common::syscalls::MOUNT_SYSCALLS;
use promql_parser::label::MatchOp;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

use crate::files;

type Labels = BTreeSet<String>;

/// Among the labels of series whose values are native histograms. Not a name that
/// a label can have.
const NATIVE: &str = "(native histograms)";

fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What an expression comes to.
enum Shape {
    /// A number or a text.
    Scalar,
    /// Series with these labels, but for the metric's name.
    Series(Labels),
}

/// Metrics with their labels: those of lockprof, what Prometheus adds, and what
/// the rules record.
pub(crate) struct Known(BTreeMap<String, Labels>);

impl Known {
    /// Metrics that a scrape brings.
    pub(crate) fn scraped() -> Self {
        let mut known = BTreeMap::from([("up".to_owned(), labels(&["instance", "job"]))]);
        for metric in METRICS {
            let mut own = labels(&["instance", "job"]);
            own.extend(metric.labels.iter().map(|label| label.name.to_owned()));
            if metric.kind == Kind::Histogram {
                let mut buckets = own.clone();
                buckets.insert("le".into());
                known.insert(format!("{}_bucket", metric.name), buckets);
                known.insert(format!("{}_sum", metric.name), own.clone());
                known.insert(format!("{}_count", metric.name), own.clone());
                own.insert(NATIVE.into());
                known.insert(metric.name.to_owned(), own);
            } else {
                known.insert(metric.name.to_owned(), own);
            }
        }
        Self(known)
    }

    /// Those and what the rules make of them.
    pub(crate) fn all() -> Self {
        let mut known = Self::scraped();
        // A rule may use what those above it record.
        for rule in files::recording() {
            let name = rule.name().to_owned();
            let mut of = known.of(&rule.expr).unwrap_or_else(|why| panic!("{name}: {why}"));
            of.extend(rule.labels.into_keys());
            // Several rules may record under one name: what all of its series have.
            if let Some(before) = known.0.get(&name) {
                of.retain(|label| before.contains(label));
            }
            known.0.insert(name, of);
        }
        let mut alerts = labels(&["alertname", "alertstate"]);
        for rule in files::alerts() {
            let of = known.of(&rule.expr).unwrap_or_else(|why| panic!("{}: {why}", rule.name()));
            alerts.extend(of);
            alerts.extend(rule.labels.into_keys());
        }
        known.0.insert("ALERTS".into(), alerts);
        known
    }

    /// Labels of the series that the expression gives; or what is wrong with it.
    pub(crate) fn of(&self, expression: &str) -> Result<Labels, String> {
        let parsed = promql_parser::parser::parse(expression)?;
        match self.shape(&parsed)? {
            Shape::Series(labels) => Ok(labels),
            Shape::Scalar => Err("gives a number, not series".into()),
        }
    }

    fn shape(&self, expression: &Expr) -> Result<Shape, String> {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Shape::Scalar),
            Expr::Paren(inner) => self.shape(&inner.expr),
            Expr::Unary(inner) => self.shape(&inner.expr),
            Expr::Subquery(inner) => self.shape(&inner.expr),
            Expr::VectorSelector(selector) => self.selected(selector).map(Shape::Series),
            Expr::MatrixSelector(range) => self.selected(&range.vs).map(Shape::Series),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate).map(Shape::Series),
            Expr::Call(call) => self.called(call),
            Expr::Binary(binary) => self.combined(binary),
            other => Err(format!("{other}: not known here")),
        }
    }

    fn series(&self, expression: &Expr) -> Result<Labels, String> {
        match self.shape(expression)? {
            Shape::Series(labels) => Ok(labels),
            Shape::Scalar => Err(format!("{expression}: a number where series are needed")),
        }
    }

    fn selected(&self, selector: &VectorSelector) -> Result<Labels, String> {
        let name = selector.name.as_ref().ok_or_else(|| format!("{selector}: no name"))?;
        let known = self.0.get(name).ok_or_else(|| format!("no such metric: {name}"))?;
        for matcher in &selector.matchers.matchers {
            has(known, &matcher.name, name)?;
            let values: Vec<&str> = match matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
                // Alternatives are names, where nothing else is in them.
                _ => matcher.value.split('|').collect(),
            };
            for value in values.into_iter().filter(|value| is_name(value)) {
                exists(&matcher.name, value)?;
            }
        }
        Ok(known.clone())
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let inner = self.series(&aggregate.expr)?;
        match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                let mut by: Labels = by.labels.iter().cloned().collect();
                for label in &by {
                    has(&inner, label, &aggregate.to_string())?;
                }
                by.extend(added_up(aggregate, &inner)?);
                Ok(by)
            }
            Some(LabelModifier::Exclude(_)) => Err(format!("{aggregate}: write `by`")),
            // It picks series, and leaves them as they are.
            None if aggregate.op.to_string() == "topk" => Ok(inner),
            None => added_up(aggregate, &inner),
        }
    }

    fn called(&self, call: &Call) -> Result<Shape, String> {
        let arguments = &call.args.args;
        let text = |at: usize| match arguments.get(at).map(|a| &**a) {
            Some(Expr::StringLiteral(literal)) => Ok(literal.val.clone()),
            _ => Err(format!("argument {at} of {} is no text", call.func.name)),
        };
        let labels = match call.func.name {
            "time" => return Ok(Shape::Scalar),
            "vector" => Labels::new(),
            "histogram_quantile" => {
                let mut inner = self.series(&arguments[1])?;
                if !inner.remove(NATIVE) && !inner.remove("le") {
                    return Err(format!("{}: no label le", arguments[1]));
                }
                inner
            }
            "histogram_sum" | "histogram_count" | "histogram_fraction" => {
                let of = arguments.last().ok_or_else(|| call.func.name.to_owned())?;
                let mut inner = self.series(of)?;
                if !inner.remove(NATIVE) {
                    return Err(format!("{of}: no native histograms"));
                }
                inner
            }
            "label_replace" => {
                let mut inner = self.series(&arguments[0])?;
                has(&inner, &text(3)?, "label_replace")?;
                inner.insert(text(1)?);
                inner
            }
            _ => {
                let first = arguments.first().ok_or_else(|| call.func.name.to_owned())?;
                self.series(first)?
            }
        };
        Ok(Shape::Series(labels))
    }

    fn combined(&self, binary: &BinaryExpr) -> Result<Shape, String> {
        let (left, right) = match (self.shape(&binary.lhs)?, self.shape(&binary.rhs)?) {
            (Shape::Series(left), Shape::Series(right)) => (left, right),
            (Shape::Series(one), Shape::Scalar) | (Shape::Scalar, Shape::Series(one)) => {
                return Ok(Shape::Series(one));
            }
            (Shape::Scalar, Shape::Scalar) => return Ok(Shape::Scalar),
        };
        let modifier = binary.modifier.as_ref();
        let on: Option<Labels> = match modifier.and_then(|m| m.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => Some(on.labels.iter().cloned().collect()),
            Some(LabelModifier::Exclude(_)) => return Err(format!("{binary}: write `on`")),
            None => None,
        };
        if let Some(on) = &on {
            for label in on {
                has(&left, label, &binary.lhs.to_string())?;
                has(&right, label, &binary.rhs.to_string())?;
            }
        } else if left != right {
            // Series with other labels never match.
            return Err(format!("{binary}: {left:?} on the left, {right:?} on the right"));
        }
        match binary.op.to_string().as_str() {
            // One or the other, but for `or on`, whose right side is there only
            // where the left is not: a legend then shows less.
            "or" if left != right && on.is_none() => {
                return Err(format!("{binary}: either {left:?} or {right:?}"));
            }
            "and" | "or" | "unless" => return Ok(Shape::Series(left)),
            _ if left.contains(NATIVE) || right.contains(NATIVE) => {
                return Err(format!("{binary}: Prometheus 2.42 does not compute with histograms"));
            }
            _ => {}
        }
        Ok(Shape::Series(match (modifier.map(|m| &m.card), on) {
            (Some(VectorMatchCardinality::ManyToOne(from_one)), _) => {
                for label in &from_one.labels {
                    has(&right, label, &binary.rhs.to_string())?;
                }
                left.into_iter().chain(from_one.labels.iter().cloned()).collect()
            }
            (Some(VectorMatchCardinality::OneToMany(_)), _) => {
                return Err(format!("{binary}: write `group_left`"));
            }
            (_, Some(on)) => on,
            (_, None) => left,
        }))
    }
}

/// Whether an aggregation of native histograms is one: Prometheus adds them up.
fn added_up(aggregate: &AggregateExpr, inner: &Labels) -> Result<Labels, String> {
    match aggregate.op.to_string().as_str() {
        _ if !inner.contains(NATIVE) => Ok(Labels::new()),
        "sum" => Ok(labels(&[NATIVE])),
        _ => Err(format!("{aggregate}: histograms can only be added up")),
    }
}

fn has(known: &Labels, label: &str, of: &str) -> Result<(), String> {
    if known.contains(label) { Ok(()) } else { Err(format!("{of} has no label {label}")) }
}

fn is_name(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Whether the label can have the value, where that is a fixed list.
fn exists(label: &str, value: &str) -> Result<(), String> {
    let is_call = || MOUNT_SYSCALLS.iter().any(|call| call.name == value);
    let exists = match label {
        "lock" => catalogue::ENTRIES.iter().any(|entry| entry.name == value),
        "syscall" => is_call(),
        "call" => is_call() || ["mountinfo_read", "none"].contains(&value),
        "runtime" => Runtime::ALL.iter().any(|runtime| runtime.as_str() == value),
        "place" => Place::ALL.iter().any(|place| place.as_str() == value),
        "mode" => ["read", "write", "spin", "mutex", "optimistic"].contains(&value),
        "reason" => lockprof::serve::metrics::REASONS.iter().any(|(reason, _)| *reason == value),
        "job" => value == "lockprof",
        _ => true,
    };
    if exists { Ok(()) } else { Err(format!("no {label} is called {value}")) }
}

#[test]
fn what_cannot_be_right_is_refused() {
    let known = Known::scraped();
    for (wrong, why) in [
        ("sum(lockprof_lock_wait)", "no such metric"),
        ("lockprof_lock_waiters{node=\"0\"}", "has no label node"),
        ("lockprof_lock_waiters{lock=\"namespace\"}", "no lock is called namespace"),
        ("sum by (mode) (lockprof_lock_waiters)", "has no label mode"),
        ("histogram_quantile(0.9, rate(lockprof_lock_wait_seconds_sum[5m]))", "no label le"),
        ("sum by (lock) (lockprof_lock_waiters) / sum(lockprof_lock_waiters)", "on the right"),
        ("up * on (instance) group_left (kernel) lockprof_build_info", "has no label kernel"),
        ("up + on (lock) lockprof_lock_waiters", "has no label lock"),
        ("max(lockprof_lock_wait_seconds)", "can only be added up"),
        ("histogram_sum(rate(lockprof_lock_wait_seconds_sum[5m]))", "no native histograms"),
        ("lockprof_lock_wait_seconds + lockprof_lock_wait_seconds", "does not compute"),
        (
            "sum by (lock) (lockprof_lock_wait_seconds_sum) or sum by (lock) (lockprof_lock_wait_seconds)",
            "on the right",
        ),
        ("sum(up", ""),
    ] {
        let said = known.of(wrong).expect_err(wrong);
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn the_labels_of_a_result_are_followed_through_joins() {
    let known = Known::scraped();
    let of = |expression: &str| known.of(expression).expect(expression);
    assert_eq!(
        of("sum by (kernel, lock) (lockprof_lock_waiters * on (instance) group_left (kernel) \
            lockprof_host_info)"),
        labels(&["kernel", "lock"])
    );
    assert_eq!(
        of(
            "histogram_quantile(0.9, sum by (lock, le) (rate(lockprof_lock_wait_seconds_bucket[5m])))"
        ),
        labels(&["lock"])
    );
    assert_eq!(
        of("sum by (lock) (rate(lockprof_lock_wait_seconds_sum[5m])) \
            or sum by (lock) (histogram_sum(rate(lockprof_lock_wait_seconds[5m])))"),
        labels(&["lock"])
    );
    assert_eq!(of("count(up == 0) or vector(0)"), Labels::new());
    assert_eq!(of("topk(3, up)"), labels(&["instance", "job"]));
}
