//! Who may ask, with files that the user of the service alone can read.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use anyhow::{Context as _, Result, ensure};

use super::super::guest::Case;
use super::super::system::{
    Journal, SERVICE, System, URL, get, main_pid, run, systemctl, wait, write,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "the_service_asks_for_a_password_and_follows_its_file", run: passwords },
    Case { name: "a_reload_does_not_open_the_port_to_others_unasked", run: exposed },
];

/// Where docs/access.md has it.
const FILE: &str = "/etc/lockprof/web.yml";

/// A user, the password, and its bcrypt hash at a cost that an emulated machine can
/// afford.
const ANN: [&str; 3] =
    ["ann", "correct horse", "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"];
const BOB: [&str; 3] =
    ["bob", "battery staple", "$2b$05$zyxwvutsrqponmlkjihgfev78mPCPU0UcbJ.xSUE4622rJ7WPkwUK"];

/// Lets `user` in, and nobody else.
fn allow([user, _, hash]: [&str; 3]) -> Result<()> {
    write(FILE, &format!("basic_auth_users:\n  {user}: {hash}\n"))?;
    let group = run("id", &["-g", "lockprof"])?;
    let group: u32 = group.trim().parse().context("the group has no number")?;
    chown(FILE, Some(0), Some(group)).with_context(|| format!("failed to give away {FILE}"))?;
    fs::set_permissions(FILE, fs::Permissions::from_mode(0o640))
        .with_context(|| format!("failed to close {FILE}"))
}

/// The status that a scrape gets.
fn status(credentials: Option<[&str; 3]>) -> Result<String> {
    let url = format!("{URL}/metrics");
    let mut arguments =
        vec!["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"];
    let pair = credentials.map(|[user, password, _]| format!("{user}:{password}"));
    if let Some(pair) = &pair {
        arguments.extend(["--user", pair]);
    }
    arguments.push(&url);
    run("curl", &arguments)
}

fn passwords(system: &mut System) -> Result<()> {
    system.running()?;
    let outcome = follow(system);
    // Without the file the default configuration has nobody to ask for.
    fs::remove_file(FILE).with_context(|| format!("failed to remove {FILE}"))?;
    outcome
}

fn follow(system: &mut System) -> Result<()> {
    let pid = main_pid()?;
    allow(ANN)?;
    system.configure(&[("web_config = \"\"", &format!("web_config = \"{FILE}\""))])?;
    let journal = Journal::now()?;
    systemctl(&["reload", SERVICE])?;
    journal.has("reloaded")?;
    let found = [status(None)?, status(Some(BOB))?, status(Some(ANN))?];
    ensure!(found == ["401", "401", "200"], "nobody, bob and ann get {found:?}");
    allow(BOB)?;
    wait("the changed file to count", || {
        Ok((status(Some(BOB))? == "200" && status(Some(ANN))? == "401").then_some(()))
    })?;
    let journal = Journal::now()?;
    write(FILE, "basic_auth_users: nobody\n")?;
    journal.has(FILE)?;
    ensure!(status(Some(BOB))? == "200", "a broken file locks everybody out");
    ensure!(status(None)? == "401", "a broken file lets everybody in");
    ensure!(main_pid()? == pid, "the service was started anew");
    Ok(())
}

fn exposed(system: &mut System) -> Result<()> {
    system.running()?;
    system.configure(&[("listen = \"127.0.0.1:9723\"", "listen = \"0.0.0.0:9724\"")])?;
    let journal = Journal::now()?;
    systemctl(&["reload", SERVICE])?;
    journal.has("kept the running configuration")?;
    let text = journal.since()?;
    ensure!(text.contains("0.0.0.0:9724") && text.contains("--web-config"), "why: {text}");
    get("/readyz")?;
    let other = std::net::TcpStream::connect(("127.0.0.1", 9724));
    ensure!(other.is_err(), "the port is open");
    Ok(())
}
