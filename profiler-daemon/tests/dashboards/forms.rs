//! The same figures of one host, stored as classic histograms, as native ones and
//! as both at once, give the rules and the panels the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockprof::serve::{Format, render};
use serde_json::Value;

use crate::common;
use crate::files::{self, Choice};
use crate::hosts::{Recording, fleet};
use crate::prometheus::Prometheus;
use crate::proof::wait_until;
use crate::remote_write::{Histograms, Written};

/// The hosts by what they store, and their kernels: one has hosts of both sorts.
const HOSTS: [(&str, Histograms, &str); 3] = [
    ("classic", Histograms::Classic, "mixed"),
    ("native", Histograms::Native, "mixed"),
    ("both", Histograms::Both, "both"),
];

/// As long as the rules look back, and two scrapes more.
const SECONDS: i64 = 330;

const INTERVAL: i64 = 15;

/// Of a native bucket's bounds over a duration in it, and under it: see
/// docs/metrics.md.
const NATIVE_ERROR: (f64, f64) = (1.227, 1.0 / 1.091);

/// The rules that make buckets of native histograms: what they record, and what
/// the first two of them do.
const BUCKETS: &str = "kernel_lock_le:lockprof_lock_wait_seconds_bucket:rate5m";
const ADDED_UP: &str = "instance_lock:lockprof_lock_wait_seconds:sum";
const COUNTED: &str = "instance_kernel_lock:lockprof_lock_wait_seconds_count:rate5m";

/// How long the hosts have been at it before: a counter that begins within the
/// time looked at is extrapolated in another way.
const BEFORE: Duration = Duration::from_secs(7200);

/// What an expression gave: values by their labels, without `instance`.
type Answer = BTreeMap<String, f64>;

/// A Prometheus that has five minutes of the same load from each host, and the
/// time of the last scrape, in seconds.
fn filled() -> (Prometheus, String) {
    let rules = files::repository().join("dashboards/rules/recording.yml");
    let rules = rules.canonicalize().expect("the rules are there");
    let prometheus = Prometheus::with(
        &format!("global: {{evaluation_interval: 1s}}\nrule_files: [{}]\n", rules.display()),
        &["--enable-feature=native-histograms", "--web.enable-remote-write-receiver"],
    );
    // The recorded one with holds of locks: it has every histogram.
    let recordings = Recording::all();
    let number = recordings.iter().position(|r| !r.totals.holds.is_empty());
    let number = number.expect("one of them has");
    let host = fleet(recordings.len(), number, 6).swap_remove(number);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
    let now_ms = i64::try_from(now.as_millis()).expect("it fits");
    let mut written = HOSTS.map(|_| Written::default());
    for after in (0..=SECONDS / INTERVAL).map(|scrape| scrape * INTERVAL) {
        let totals = Arc::new(host.totals(BEFORE + Duration::from_secs(after.unsigned_abs())));
        let body = render(totals, Arc::default(), host.since(), host.process(), Format::Protobuf);
        let body = body.expect("it renders");
        for ((instance, histograms, kernel), written) in HOSTS.into_iter().zip(&mut written) {
            let labels = [("job", "lockprof"), ("instance", instance), ("kernel", kernel)];
            written.scrape(&body, &labels, now_ms - (SECONDS - after) * 1000, histograms);
        }
    }
    written.into_iter().for_each(|written| written.into_prometheus(&prometheus));
    (prometheus, (now_ms as f64 / 1000.0).to_string())
}

/// The values at `time`; native histograms count as how many they hold.
fn answer(prometheus: &Prometheus, expression: &str, time: &str) -> Vec<(Value, f64)> {
    let parameters = [("query", expression), ("time", time)];
    let data = prometheus.ask("query", &parameters).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let value = |series: &Value| {
        let text = series["value"][1].as_str().or_else(|| series["histogram"][1]["count"].as_str());
        let value = text.and_then(|t| t.trim_start_matches('+').parse().ok());
        (series["metric"].clone(), value.unwrap_or_else(|| panic!("no value: {series}")))
    };
    files::list(&data["result"]).iter().map(value).collect()
}

/// The part of an answer that has this label, without it.
fn part(all: &[(Value, f64)], label: &str, value: &str) -> Answer {
    let own = all.iter().filter(|(labels, _)| labels[label] == value);
    own.map(|(labels, value)| {
        let mut labels = labels.as_object().expect("labels").clone();
        labels.remove(label);
        (Value::Object(labels).to_string(), *value)
    })
    .collect()
}

fn is_equal(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Ends of the classic bucket that a quantile is in, in seconds.
fn classic_bucket(quantile: f64) -> (f64, f64) {
    let bounds: Vec<f64> = (0..15).map(|i| 256e-9 * 4_f64.powi(i)).collect();
    // Of what is beyond the last bound, a quantile is that bound.
    let at = bounds.iter().take(14).position(|upper| quantile <= upper * (1.0 + 1e-9));
    match at {
        Some(0) => (0.0, bounds[0]),
        Some(at) => (bounds[at - 1], bounds[at]),
        None => (bounds[13], f64::INFINITY),
    }
}

/// What asks for a little less and a little more than the 99th percentiles of an
/// expression: where a rank is at the very end of a bucket, rounding says which
/// one it is in. Nothing for an expression without them.
fn around(expression: &str) -> Option<[String; 2]> {
    let of = |quantile: &str| expression.replace("0.99,", quantile);
    expression.contains("histogram_quantile(").then(|| [of("0.9899,"), of("0.9901,")])
}

/// Asserts that the values are the same; of quantiles, that they are in the
/// classic buckets between those `around`, or as far beyond them as a native
/// bucket can be.
fn assert_same(place: &str, is: &Answer, than: &Answer, around: Option<&[Answer; 2]>) {
    let names = |answer: &Answer| answer.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(is), names(than), "{place}");
    for (series, value) in is {
        let other = than[series];
        if is_equal(*value, other) {
            continue;
        }
        let Some([low, high]) = around else {
            panic!("{place}: {series}: {value}, and {other}");
        };
        let (from, to) = (classic_bucket(low[series]).0, classic_bucket(high[series]).1);
        let (over, under) = NATIVE_ERROR;
        assert!(
            from * under <= *value && *value <= to * over,
            "{place}: {series}: {value}, and {other} between {from} and {to}"
        );
    }
}

#[test]
fn classic_native_and_both_histograms_give_rules_and_panels_the_same_answers() {
    let name = "classic_native_and_both_histograms_give_rules_and_panels_the_same_answers";
    if let Some(reason) = Prometheus::missing() {
        return common::skip(name, &reason);
    }
    let (prometheus, end) = filled();
    // The last rules of the groups that take what others record.
    wait_until("the rules are evaluated", || {
        ["kernel:lockprof_container_starts:rate5m", ADDED_UP].iter().all(|rule| {
            let before = prometheus.query(&format!("{rule} offset 2s"));
            before.is_ok_and(|series| !series.is_empty())
        })
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
    let time = now.as_secs_f64().to_string();
    let ask = |expression: &str| answer(&prometheus, expression, &time);
    rules_say_the_same(&ask);
    panels_show_the_same(&ask);
    stored_histograms_are_all_there(&ask);
    // What is recorded only from now on is not asked for: subqueries, which do not
    // look at the moments of scrapes, then differ least.
    let ask = |expression: &str| answer(&prometheus, expression, &end);
    buckets_of_a_kernel_are_those_of_all_its_hosts(&ask);
}

fn rules_say_the_same(ask: &dyn Fn(&str) -> Vec<(Value, f64)>) {
    let (mut hosts, mut kernels) = (0, 0);
    let alerts = files::alerts().into_iter().filter(|alert| alert.expr.contains("histogram_"));
    let rules = files::recording().into_iter().filter(|rule| !rule.is_of_native_histograms());
    for rule in rules.chain(alerts) {
        let (place, all) = (rule.name(), ask(&rule.expr));
        let near = around(&rule.expr)
            .map(|both| both.map(|expression| part(&ask(&expression), "instance", "classic")));
        if place.starts_with("kernel_lock_le:") {
            // Of the classic histograms alone; the others are looked at below.
            continue;
        } else if place.starts_with("kernel") {
            let double: Answer =
                part(&all, "kernel", "both").into_iter().map(|(of, v)| (of, 2.0 * v)).collect();
            let mixed = part(&all, "kernel", "mixed");
            assert!(!mixed.is_empty(), "{place}");
            assert_same(place, &mixed, &double, None);
            kernels += 1;
        } else {
            let classic = part(&all, "instance", "classic");
            assert!(!classic.is_empty(), "{place}");
            assert_same(place, &part(&all, "instance", "both"), &classic, None);
            assert_same(place, &part(&all, "instance", "native"), &classic, near.as_ref());
            hosts += 1;
        }
    }
    assert!(hosts >= 10 && kernels >= 3, "only {hosts} and {kernels} rules");
}

fn panels_show_the_same(ask: &dyn Fn(&str) -> Vec<(Value, f64)>) {
    let queries = |host| {
        let choice = Choice { host, range: "5m", compare: "1s" };
        files::queries("host.json", &choice).into_iter()
    };
    let (mut compared, mut maps) = (0, 0);
    for ((classic, native), both) in queries("classic").zip(queries("native")).zip(queries("both"))
    {
        let place = &classic.place;
        let of = |host: &str, expression: &str| -> Answer {
            let all = ask(expression).into_iter().map(|(mut labels, value)| {
                let labels_of = labels.as_object_mut().expect("labels");
                labels_of.retain(|name, at| name != "instance" || *at != host);
                (labels.to_string(), value)
            });
            all.filter(|(labels, _)| !labels.contains("\"kernel\"")).collect()
        };
        let near = around(&classic.expression)
            .map(|both| both.map(|expression| of("classic", &expression)));
        let (native, both) = (of("native", &native.expression), of("both", &both.expression));
        let classic = of("classic", &classic.expression);
        assert_same(place, &both, &classic, None);
        if classic.keys().any(|labels| labels.contains("\"le\"")) {
            let all = &classic[r#"{"le":"+Inf"}"#];
            assert!(is_equal(native["{}"], *all), "{place}: {native:?}, and {all}");
            maps += 1;
        } else {
            assert_same(place, &native, &classic, near.as_ref());
            compared += usize::from(!classic.is_empty());
        }
    }
    assert!(compared >= 20 && maps > 0, "only {compared} panels and {maps} heat maps");
}

/// With the recorded series that a chain of rules passes on in place of their
/// names: what they recorded before this Prometheus began is not there.
fn written_out(expression: &str) -> String {
    let rules = files::recording();
    let of = |name: &str| {
        let rule = rules.iter().find(|rule| rule.name() == name);
        rule.unwrap_or_else(|| panic!("no rule {name}")).expr.clone()
    };
    expression
        .replace(COUNTED, &format!("({})", of(COUNTED)))
        .replace(&format!("{ADDED_UP}[5m]"), &format!("({})[5m:{INTERVAL}s]", of(ADDED_UP)))
}

/// A Prometheus may refuse to store a histogram that a rule made.
fn stored_histograms_are_all_there(ask: &dyn Fn(&str) -> Vec<(Value, f64)>) {
    let raw = "sum by (instance, lock) (lockprof_lock_wait_seconds{instance=\"native\"})";
    let raw = ask(&format!("histogram_count({raw})"));
    let stored = ask(&format!("sum by (instance, lock) (histogram_count({ADDED_UP}))"));
    assert!(raw.len() > 1 && raw == stored, "{raw:?} and {stored:?}");
}

/// One of the two hosts of the kernel `mixed` has native histograms alone.
fn buckets_of_a_kernel_are_those_of_all_its_hosts(ask: &dyn Fn(&str) -> Vec<(Value, f64)>) {
    let (classic, native): (Vec<_>, Vec<_>) = files::recording()
        .into_iter()
        .filter(|rule| rule.name() == BUCKETS)
        .partition(|rule| !rule.is_of_native_histograms());
    let [classic] = &classic[..] else { panic!("{} rules", classic.len()) };
    let native: Vec<(String, String)> = native
        .into_iter()
        .map(|rule| (rule.labels["le"].clone(), written_out(&rule.expr)))
        .collect();
    let counts = |le: &str| -> Answer {
        let all = ask(&classic.expr).into_iter().filter(|(labels, _)| {
            let bound: f64 = labels["le"].as_str().and_then(|le| le.parse().ok()).expect("le");
            is_equal(bound, le.parse().expect("a bound")) || labels["le"] == le
        });
        let all = all.map(|(mut labels, value)| {
            labels.as_object_mut().expect("labels").remove("le");
            (labels, value)
        });
        part(&all.collect::<Vec<_>>(), "kernel", "both")
    };
    for (at, (le, expression)) in native.iter().enumerate() {
        let made = ask(expression);
        let (made, twice) = (part(&made, "kernel", "mixed"), part(&made, "kernel", "both"));
        assert!(twice.is_empty(), "a host with both counts twice: {twice:?}");
        let next = native.get(at + 1).map_or(le, |(le, _)| le);
        let lower = at.checked_sub(1).map(|before| counts(&native[before].0));
        let upper = counts(next);
        assert!(!made.is_empty() && made.keys().eq(upper.keys()), "{le}: {made:?}");
        for (lock, count) in made {
            // Subqueries look at other moments than scrapes: rates differ by some
            // waits in five minutes, or by as much as a scrape is of them.
            let waits = 5.0 / 300.0;
            let to = upper[&lock];
            let from = match &lower {
                _ if le == "+Inf" => to,
                Some(lower) => lower[&lock],
                None => 0.0,
            };
            assert!(
                from * 0.95 - waits <= count && count <= to * 1.05 + waits,
                "{lock}, {le}: {count} between {from} and {to}"
            );
        }
    }

    // The panels of a fleet, with all buckets in place of the name.
    let all = native.iter().fold(format!("({})", classic.expr), |all, (le, expression)| {
        let bucket = format!("label_replace({expression}, \"le\", \"{le}\", \"\", \"\")");
        format!("{all} or label_replace({bucket}, \"histogram\", \"native\", \"\", \"\")")
    });
    let selected = format!("{BUCKETS}{{kernel=~\".+\",lock=~\".+\"}}");
    let mut asked = 0;
    for query in files::queries("fleet.json", &Choice::ANY) {
        if !query.expression.contains(BUCKETS) || query.expression.contains("offset") {
            continue;
        }
        let of_both =
            classic.expr.replace("lockprof_host_info{", "lockprof_host_info{kernel=\"both\", ");
        // For the same reason further around it.
        let near = around(&query.expression).expect("a quantile");
        let near = [near[0].replace("0.9899,", "0.985,"), near[1].replace("0.9901,", "0.995,")];
        let near =
            near.map(|expression| ask(&expression.replace(&selected, &format!("({of_both})"))));
        let shown = ask(&query.expression.replace(&selected, &format!("({all})")));
        assert!(query.expression.contains(&selected) && !shown.is_empty(), "{}", query.place);
        for (labels, value) in shown {
            let key = |value| BTreeMap::from([(labels.to_string(), value)]);
            assert_same(
                &query.place,
                &key(value),
                &key(near[0][0].1),
                Some(&[key(near[0][0].1), key(near[1][0].1)]),
            );
            asked += 1;
        }
    }
    assert!(asked >= 3, "only {asked} values");
}
