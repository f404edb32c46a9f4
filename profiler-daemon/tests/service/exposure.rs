//! What `systemd-analyze` thinks of the units, and that `docs/service.md` explains
//! what remains.

use std::collections::BTreeMap;
use std::process::Command;

use crate::{common, unit};

/// The version whose figures the page has: each has checks of its own.
const VERSION: &str = "systemd 252";

/// The page, as far as the repository is there.
fn page() -> String {
    let path = unit::folder().join("../../docs/service.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Standard output of `systemd-analyze` with these arguments; else why there is
/// none.
fn analyze(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.map_err(|error| format!("systemd-analyze cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Rows of the page's table of what remains, by name: points.
fn explained(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?;
        let points = cells.next()?;
        points.parse::<f64>().ok()?;
        let why = cells.next()?;
        assert!(why.len() > 20, "{name} has no reason");
        Some((name.to_owned(), points.to_owned()))
    });
    rows.collect()
}

#[test]
fn every_point_that_remains_is_explained_and_the_figure_is_that_of_the_page() {
    const TEST: &str = "every_point_that_remains_is_explained_and_the_figure_is_that_of_the_page";
    match analyze(&["--version"]) {
        Ok(version) if version.starts_with(VERSION) => {}
        Ok(version) => {
            let version = version.lines().next().unwrap_or_default();
            return common::skip(TEST, &format!("this is {version}, the page is of {VERSION}"));
        }
        Err(why) => return common::skip(TEST, &why),
    }
    let unit = unit::folder().join("lockprof.service");
    let unit = unit.to_str().expect("a plain path");
    let security = ["security", "--offline=true", "--no-pager"];
    let json = analyze(&[&security[..], &["--json=short", unit]].concat()).expect("it runs");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    let remaining: BTreeMap<String, String> = checks
        .iter()
        .filter_map(|check| {
            let name = check["name"].as_str().expect("a name").replace('|', "/");
            Some((name, check["exposure"].as_str()?.to_owned()))
        })
        .collect();
    let page = page();
    assert_eq!(explained(&page), remaining, "the table in docs/service.md");
    let text = analyze(&[&security[..], &[unit]].concat()).expect("it runs");
    let (_, overall) = text.split_once("Overall exposure level for ").expect("a figure");
    let (_, overall) = overall.split_once(": ").expect("a figure");
    let figure = overall.split_whitespace().next().expect("a figure");
    assert!(page.contains(&format!("exposure is {figure} ")), "it is {figure}");
}

#[test]
fn the_units_have_no_key_that_systemd_does_not_know() {
    const TEST: &str = "the_units_have_no_key_that_systemd_does_not_know";
    if let Err(why) = analyze(&["--version"]) {
        return common::skip(TEST, &why);
    }
    // A copy that names a program which is there, and each drop-in behind it.
    let folder = tempfile::tempdir().expect("a folder");
    let drop_ins = folder.path().join("lockprof.service.d");
    std::fs::create_dir(&drop_ins).expect("a folder");
    let service = unit::SERVICE.replace("/usr/bin/lockprof", common::LOCKPROF);
    std::fs::write(folder.path().join("lockprof.service"), service).expect("it can be written");
    std::fs::write(folder.path().join("lockprof.socket"), unit::SOCKET).expect("as before");
    let all = std::fs::read_dir(unit::folder().join("drop-ins")).expect("drop-ins");
    let mut count = 0;
    for drop_in in all.map(|entry| entry.expect("a file").path()) {
        let name = drop_in.file_name().expect("a name");
        std::fs::copy(&drop_in, drop_ins.join(name)).expect("it can be copied");
        count += 1;
    }
    assert!(count >= 3, "{count} drop-ins");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(["lockprof.service", "lockprof.socket"].map(|unit| folder.path().join(unit)))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_drop_in_is_on_the_page() {
    let page = page();
    let all = std::fs::read_dir(unit::folder().join("drop-ins")).expect("drop-ins");
    for drop_in in all.map(|entry| entry.expect("a file").path()) {
        let name = drop_in.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn statuses_that_no_restart_changes_are_not_restarted() {
    let never: Vec<_> = unit::value("RestartPreventExitStatus").split_whitespace().collect();
    let codes = [lockprof::cli::ExitStatus::Usage, lockprof::cli::ExitStatus::Refused];
    assert_eq!(never, codes.map(|code| (code as u8).to_string()));
    let anew = (lockprof::cli::ExitStatus::StartAnew as u8).to_string();
    assert_eq!(unit::value("RestartForceExitStatus"), anew);
}
