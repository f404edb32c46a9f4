//! `xtask readme-commands`: the commands of README.md that are for a host, run in
//! a virtual machine that systemd has booted, in the words of libtest; and whether
//! there is a graph in the end, as the page promises.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{PAGE, Place, Written, blocks, script};

/// Where the page is in the machine, and the commands are run.
pub(crate) const FOLDER: &str = "/srv/lockprof";

/// How the link to the first graph begins; what it shows is between this and the
/// next parameter.
const GRAPH: &str = "<http://127.0.0.1:9090/graph?g0.expr=";

/// How long Prometheus may take to have scraped twice on an emulated machine: ends
/// a run that fails, and measures nothing.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs all of them in order.
pub(crate) fn run() -> Result<ExitCode> {
    let page = Path::new(FOLDER).join(PAGE);
    let text = std::fs::read_to_string(&page)
        .with_context(|| format!("failed to read {}", page.display()))?;
    let commands: Vec<Written> =
        blocks::parse(&text)?.into_iter().filter(|it| it.place == Place::Service).collect();
    let mut failed = 0;
    let mut test = |name: &str, outcome: &dyn Fn() -> Result<()>| {
        print!("test {name} ... ");
        // Seen from outside when this one never ends.
        let _ = std::io::stdout().flush();
        match outcome() {
            Ok(()) => println!("ok"),
            Err(why) => {
                failed += 1;
                println!("FAILED\n{why:#}");
            }
        }
    };
    println!("\nrunning {} tests", commands.len() + 1);
    for command in &commands {
        test(&format!("line {}: {}", command.line, command.text), &|| execute(command));
    }
    test("the first graph shows waits", &|| graph(&text));
    let passed = commands.len() + 1 - failed;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    leave()?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn execute(command: &Written) -> Result<()> {
    output(Command::new("bash").arg("-c").arg(script(command)).current_dir(FOLDER)).map(drop)
}

/// What Prometheus answers to the link's own expression, once it has something to
/// show.
fn graph(page: &str) -> Result<()> {
    let (_, rest) = page.split_once(GRAPH).with_context(|| format!("no link {GRAPH}"))?;
    let expression = rest.split(['&', '>']).next().unwrap_or(rest);
    let url = format!("http://127.0.0.1:9090/api/v1/query?query={expression}");
    let start = Instant::now();
    loop {
        let answer = output(Command::new("curl").args(["-sS", "--globoff", &url]));
        let found = answer.as_deref().ok().and_then(|text| serde_json::from_str(text).ok());
        let found: Option<Value> = found;
        let shown = found.as_ref().and_then(|it| it["data"]["result"].as_array());
        if let Some(series) = shown.filter(|series| !series.is_empty()) {
            let locks = series.iter().filter(|series| series["metric"]["lock"].is_string()).count();
            ensure!(locks == series.len(), "series without a lock: {series:?}");
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("nothing at {url} after {PATIENCE:?}; the last answer was {answer:?}");
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Leaves the machine as it was, for what is tried after this.
fn leave() -> Result<()> {
    output(Command::new("systemctl").args(["stop", "prometheus.service"]))?;
    output(Command::new("dpkg").args(["--purge", "lockprof"])).map(drop)
}

/// What a command prints, on both streams if it fails.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}:\n{text}{errors}", output.status);
    Ok(text)
}
