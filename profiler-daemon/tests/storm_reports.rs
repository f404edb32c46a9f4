//! `lockprof storm --compare` and `--sweep`: several storms, measured by
//! lockprof's own programs, and what is said of them.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

mod common;

use common::LOCKPROF;

/// Runs a storm; its standard output as JSON.
fn storm(args: &[&str]) -> (Output, Value) {
    let output = Command::new(LOCKPROF)
        .args(["storm", "--json"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("lockprof runs");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

/// Whether a storm can run here; if not, `test` is skipped.
fn permitted(test: &str) -> bool {
    let status = Command::new(LOCKPROF)
        .args(["storm", "--starts", "1", "--no-measure"])
        .output()
        .expect("lockprof runs")
        .status;
    if status.code() == Some(3) {
        common::skip(test, "storm is refused here");
        return false;
    }
    true
}

fn trials(point: &Value) -> Vec<&Value> {
    point["trials"].as_array().expect("a point has trials").iter().collect()
}

fn points(curve: &Value) -> Vec<&Value> {
    curve["points"].as_array().expect("a curve has points").iter().collect()
}

#[test]
fn a_comparison_runs_each_strategy_in_each_round_and_gives_the_ratio() {
    const TEST: &str = "a_comparison_runs_each_strategy_in_each_round_and_gives_the_ratio";
    if !permitted(TEST) {
        return;
    }
    let args = [
        "--compare",
        "legacy,masks=0+binds=0",
        "--rounds",
        "3",
        "--starts",
        "20",
        "--pollers",
        "1",
    ];
    let (output, report) = storm(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((&report["schema"], &report["axis"]), (&1.into(), &Value::Null));
    let curves = report["curves"].as_array().unwrap();
    let names: Vec<_> = curves.iter().map(|curve| &curve["strategy"]).collect();
    assert_eq!(names, ["legacy", "masks=0+binds=0"]);
    for curve in curves {
        let [point] = points(curve)[..] else { panic!("one point: {curve}") };
        let starts: Vec<_> = trials(point).iter().map(|trial| &trial["starts"]).collect();
        assert_eq!(starts, [20, 20, 20]);
        let spread = &point["starts_per_second"];
        let figure = |key: &str| spread[key].as_f64().unwrap();
        assert!(0.0 < figure("min") && figure("min") <= figure("median"), "{spread}");
        assert!(figure("median") <= figure("max"), "{spread}");
    }
    let strategy = |n: usize| &trials(points(&curves[n])[0])[0]["strategy"];
    assert_eq!((&strategy(0)["masks"], &strategy(1)["masks"]), (&8.into(), &0.into()));
    let mounts = |n: usize| trials(points(&curves[n])[0])[0]["mounts"].as_u64().unwrap();
    assert!(mounts(0) > mounts(1), "{} and {}", mounts(0), mounts(1));
    let [ratio] = &report["comparisons"].as_array().unwrap()[..] else { panic!("one: {report}") };
    assert_eq!((&ratio["baseline"], &ratio["strategy"]), (&names[0].clone(), &names[1].clone()));
    assert!(ratio["starts_ratio"]["median"].as_f64().unwrap() > 0.0, "{ratio}");
}

#[test]
fn what_the_storm_did_is_seen_by_the_programs_in_its_process() {
    const TEST: &str = "what_the_storm_did_is_seen_by_the_programs_in_its_process";
    needs_bpf!("what_the_storm_did_is_seen_by_the_programs_in_its_process");
    if !permitted(TEST) {
        return;
    }
    let (output, report) = storm(&["--starts", "40", "--concurrency", "8", "--pollers", "0"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let trial = report;
    let measured = &trial["measured"];
    // Others may have begun to wait before the programs were attached.
    let dropped = measured["dropped"].as_object().expect("losses by reason");
    assert!(dropped.keys().all(|reason| reason == "unmatched_end"), "{dropped:?}");
    let calls = |name: &str| measured["syscalls"][name]["count"].as_u64().unwrap_or(0);
    // Others may mount meanwhile, the storm's own processes do at least.
    let mounts = trial["mounts"].as_u64().unwrap();
    assert!(calls("mount") >= mounts, "{} of {mounts}", calls("mount"));
    assert!(calls("mount") < 2 * mounts, "{} of {mounts}", calls("mount"));
    assert!(measured["window_ns"].as_u64() >= trial["duration_ns"].as_u64(), "{trial}");
}

#[test]
fn a_sweep_has_a_point_for_each_value_and_a_page() {
    const TEST: &str = "a_sweep_has_a_point_for_each_value_and_a_page";
    if !permitted(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("cliff.html");
    let page_arg = page.to_str().unwrap();
    let args =
        ["--sweep", "concurrency=1..8", "--rounds", "2", "--starts", "16", "--html", page_arg];
    let (output, report) = storm(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(report["axis"], serde_json::json!({"name": "concurrency", "values": [1, 2, 4, 8]}));
    let curve = &report["curves"][0];
    for (point, value) in points(curve).into_iter().zip([1, 2, 4, 8]) {
        assert_eq!(point["value"], value);
        for trial in trials(point) {
            assert_eq!((&trial["concurrency"], &trial["starts"]), (&value.into(), &16.into()));
        }
    }
    let fit = &curve["scaling"];
    assert!(fit["per_worker"].as_f64().is_some_and(|figure| figure > 0.0), "{fit}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("concurrency"), "a page with plots");
    for outside in ["http://", "https://", "<script src", "@import"] {
        let namespaces = html.replace("http://www.w3.org/", "");
        assert!(!namespaces.contains(outside), "it needs {outside} from elsewhere");
    }
}

/// Whether a storm runs: the engine, a child of the command, has a child.
fn has_supervisor(pid: u32) -> bool {
    let children = |pid: &str| {
        let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        tasks.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    children(&pid.to_string()).iter().any(|engine| !children(engine).is_empty())
}

#[test]
fn a_signal_ends_the_sequence_with_what_there_is() {
    const TEST: &str = "a_signal_ends_the_sequence_with_what_there_is";
    if !permitted(TEST) {
        return;
    }
    let args = ["storm", "--compare", "legacy,masks=0", "--duration", "1h", "--json"];
    let child = Command::new(LOCKPROF)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !has_supervisor(child.id()) {
        assert!(Instant::now() < deadline, "the first storm does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
}

#[test]
fn a_page_that_cannot_be_written_is_named_before_any_load() {
    const TEST: &str = "a_page_that_cannot_be_written_is_named_before_any_load";
    if !permitted(TEST) {
        return;
    }
    let (output, _) = storm(&["--html", "/nowhere/cliff.html", "--duration", "1h"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("failed to write /nowhere/cliff.html"), "{said}");
}

#[test]
fn a_page_keeps_what_it_had_until_there_is_a_report() {
    const TEST: &str = "a_page_keeps_what_it_had_until_there_is_a_report";
    if !permitted(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("cliff.html");
    fs::write(&page, "of an earlier run, and longer than nothing").unwrap();
    let storm = |more: &[&str]| {
        Command::new(LOCKPROF)
            .args(["storm", "--no-measure", "--starts", "2", "--html"])
            .arg(&page)
            .args(more)
            // No runtime is found there.
            .env("PATH", folder.path())
            .output()
            .expect("lockprof runs")
    };
    let refused = storm(&["--runtime", "crun"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(fs::read_to_string(&page).unwrap().starts_with("of an earlier run"));
    let made = storm(&[]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("</html>") && !html.contains("of an earlier run"), "{html}");
}

#[test]
fn without_the_programs_the_load_is_made_and_the_report_says_so() {
    const TEST: &str = "without_the_programs_the_load_is_made_and_the_report_says_so";
    if !permitted(TEST) {
        return;
    }
    let (output, report) = storm(&["--no-measure", "--starts", "3"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let notes = report["notes"].as_array().unwrap();
    let said = |note: &Value| note.as_str().is_some_and(|note| note.contains("not measured"));
    assert!(notes.iter().any(said), "{notes:?}");
    assert_eq!((&report["starts"], &report["measured"]), (&3.into(), &Value::Null));
}
