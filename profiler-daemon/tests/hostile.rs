//! Names of tasks and cgroups are chosen inside containers: whatever they are,
//! they show harmless on the terminal, in labels and in JSON.

mod common;
#[path = "attribution/mounts.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod mounts;
#[path = "attribution/tasks.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod tasks;

use std::ffi::{CStr, OsStr};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::LOCKPROF;
use lockprof::snapshot::{Party, Snapshot};
use lockprof::who::Hierarchy;
use tasks::Task;

/// Names as tasks give them to themselves, and as they are shown.
const NAMES: [(&CStr, &str); 10] = [
    (c"\x1b[31m\x1b[2Jx", "\\x1b[31m\\x1b[2Jx"),
    (c"\x1b]0;t\x07", "\\x1b]0;t\\x07"),
    (c"a\"b'c\\", "a\"b'c\\"),
    (c"l1\nl2\r\tx\x7f", "l1\\nl2\\r\\tx\\x7f"),
    (c"\xff\xfe\x80 bad", "\\xff\\xfe\\x80 bad"),
    // The kernel keeps 15 bytes: one of the emoji's four is cut off.
    (c"twelve-bytes\xf0\x9f\x98\x80", "twelve-bytes\\xf0\\x9f\\x98"),
    (c"\xe2\x80\xaegnp.exe", "\\u{202e}gnp.exe"),
    // A control character of C1, by itself and as UTF-8.
    (c"\x9b31m\xc2\x9b31m", "\\x9b31m\\u{9b}31m"),
    (c"x{y=\"z\"} 1 # {", "x{y=\"z\"} 1 # {"),
    (c"</b>$(x)`x`%s%n", "</b>$(x)`x`%s%n"),
];

/// The name of a cgroup that some of them are in.
const CGROUP: &[u8] = b"lockprof-\x1b[2J\"{}\\ \xf0\x9f\t\xe2\x80\xae";
/// As it is shown.
const CGROUP_SHOWN: &str = "lockprof-\\x1b[2J\"{}\\ \\xf0\\x9f\\t\\u{202e}";

/// The load of one test is enough.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks of all these names that wait for one another.
struct Hostile {
    tasks: Vec<Task>,
    cgroup: Option<PathBuf>,
}

impl Hostile {
    fn start(test: &str) -> Self {
        let cgroup = make_cgroup();
        if let Err(why) = &cgroup {
            common::skip(&format!("{test} (name of a cgroup)"), why);
        }
        let cgroup = cgroup.ok();
        // It waits for nobody and makes the others wait.
        let reader = Task::start(c"reader", None, |ready| mounts::keep_reading(ready, 500));
        let mut tasks = vec![reader];
        for (index, (name, _)) in NAMES.iter().enumerate() {
            let cgroup = cgroup.as_deref().filter(|_| index % 2 == 0);
            let pause = Duration::from_millis(1);
            tasks.push(Task::start(name, cgroup, |ready| mounts::keep_mounting(ready, pause)));
        }
        tasks.iter().for_each(Task::await_ready);
        Self { tasks, cgroup }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.tasks.clear();
        let Some(cgroup) = &self.cgroup else { return };
        for _ in 0..100 {
            if std::fs::remove_dir(cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("warning: failed to remove {}", cgroup.display());
    }
}

fn make_cgroup() -> Result<PathBuf, String> {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup")).map_err(|e| e.to_string())?;
    let path = hierarchy.root.join(OsStr::from_bytes(CGROUP));
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("no cgroup can be made: {}: {error}", path.display()))
        }
        _ => Ok(path),
    }
}

/// Nothing that a terminal obeys or that reorders text, and text at all.
fn harmless<'a>(bytes: &'a [u8], what: &str) -> &'a str {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (line, text) in text.split('\n').enumerate() {
        let bad = text.chars().find(|c| {
            c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(bad, None, "{what}, line {}: {text:?}", line + 1);
    }
    text
}

/// Which of the names are among those who waited or blocked.
fn names_in(snapshot: &Snapshot) -> Vec<&'static str> {
    let parties = || {
        let waiting = snapshot.waiters.iter().map(|row| &row.party);
        waiting.chain(snapshot.blockers.iter().map(|row| &row.party))
    };
    let is_there = |name: &str| parties().any(|party| party.task() == name);
    NAMES.iter().map(|(_, shown)| *shown).filter(|name| is_there(name)).collect()
}

fn has_cgroup(snapshot: &Snapshot) -> bool {
    let named = |party: &Party| {
        let cgroup = party.who().and_then(|who| who.cgroup.as_ref());
        cgroup.is_some_and(|cgroup| cgroup.path.as_str().ends_with(CGROUP_SHOWN))
    };
    snapshot.waiters.iter().any(|row| named(&row.party))
}

#[test]
fn stat_shows_hostile_names_harmless_in_every_form() {
    const TEST: &str = "stat_shows_hostile_names_harmless_in_every_form";
    needs_bpf!("stat_shows_hostile_names_harmless_in_every_form");
    let _alone = alone();
    let hostile = Hostile::start(TEST);
    let stat = |arguments: &[&str]| {
        let mut stat = Command::new(LOCKPROF);
        stat.args(["stat", "--duration", "3s"]).args(arguments);
        let output = stat.output().expect("stat can be run");
        let said = harmless(&output.stderr, "standard error").to_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        output.stdout
    };

    let json = stat(&["--json"]);
    let text = harmless(&json, "stat --json");
    assert_eq!(text.matches('\n').count(), 1, "one document in one line");
    let snapshot: Snapshot = serde_json::from_str(text).expect("stat prints JSON");
    let known = names_in(&snapshot);
    assert!(known.len() > NAMES.len() / 2, "only {known:?}");
    assert!(hostile.cgroup.is_none() || has_cgroup(&snapshot), "{text}");

    for by in ["waiter", "blocker"] {
        let table = stat(&["--by", by]);
        let text = harmless(&table, &format!("stat --by {by}"));
        let shown = NAMES.iter().filter(|(_, name)| text.contains(name)).count();
        assert!(shown > 0, "stat --by {by}: {text}");
    }
    harmless(&stat(&[]), "stat");
}

#[test]
fn the_daemon_shows_hostile_names_harmless() {
    const TEST: &str = "the_daemon_shows_hostile_names_harmless";
    needs_bpf!("the_daemon_shows_hostile_names_harmless");
    let _alone = alone();
    let daemon = Daemon::start();
    let hostile = Hostile::start(TEST);
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let body = daemon.get("/api/v1/snapshot");
        let text = harmless(&body, "/api/v1/snapshot");
        let snapshot: Snapshot = serde_json::from_str(text).expect("the documented JSON");
        let known = names_in(&snapshot);
        if known.len() == NAMES.len() && (hostile.cgroup.is_none() || has_cgroup(&snapshot)) {
            break;
        }
        assert!(Instant::now() < deadline, "only {known:?}: {text}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let body = daemon.get("/metrics");
    let metrics = harmless(&body, "/metrics");
    for line in metrics.lines() {
        if let Err(why) = is_exposition(line) {
            panic!("/metrics: {why}: {line}");
        }
    }
    // There is no bound to names, so none is a label.
    for (_, name) in NAMES {
        assert!(!metrics.contains(name), "{name} is in /metrics");
    }
    assert!(!metrics.contains("lockprof-\\\\x1b"), "the cgroup is in /metrics");
    promtool(TEST, &body);
    drop(hostile);
    harmless(daemon.end().as_bytes(), "the daemon's log");
}

/// Whether a line is as the text format has it: a comment, or a name, labels in
/// quotes with nothing but the three escapes, and a number.
fn is_exposition(line: &str) -> Result<(), String> {
    if line.is_empty() || line.starts_with("# ") {
        return Ok(());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = line.trim_start_matches(is_name);
    if let Some(labels) = rest.strip_prefix('{') {
        rest = labels;
        while !rest.starts_with('}') {
            let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!("`{name}` is no label"));
            }
            rest = after_value(value)?;
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let number = rest.strip_prefix(' ').ok_or("no space before the number")?;
    match number.trim_end().parse::<f64>() {
        Ok(_) => Ok(()),
        Err(_) if number.trim_end() == "+Inf" => Ok(()),
        Err(error) => Err(format!("`{number}`: {error}")),
    }
}

/// What follows the quote that ends a label's value.
fn after_value(value: &str) -> Result<&str, String> {
    let mut chars = value.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(&value[at + 1..]),
            '\\' => match chars.next() {
                Some((_, '\\' | '"' | 'n')) => {}
                other => return Err(format!("the escape {other:?}")),
            },
            _ => {}
        }
    }
    Err("a value without an end".into())
}

/// Asks promtool as well, where it is installed.
fn promtool(test: &str, metrics: &[u8]) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        let why = "promtool is not installed; `cargo xtask setup` installs it";
        return common::skip(&format!("{test} (promtool)"), why);
    };
    promtool.stdin.take().expect("piped").write_all(metrics).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A running daemon, killed when dropped.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.expect("loopback has a free port");
        let child = Command::new(LOCKPROF)
            .args(["daemon", "--listen", &address.to_string()])
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon can be run");
        let mut daemon = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = daemon.child.try_wait().expect("it can be awaited") {
                panic!("the daemon ended with {status}: {}", daemon.log());
            }
            if daemon.try_get("/readyz").is_some_and(|(status, _)| status == 200) {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon was not ready after 60 s");
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = self.try_get(path).expect("the daemon answers");
        assert_eq!(status, 200, "{path}");
        body
    }

    fn try_get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = BufReader::new(stream);
        let mut status = String::new();
        answer.read_line(&mut status).ok()?;
        let mut line = String::new();
        while answer.read_line(&mut line).ok()? > 2 {
            assert!(!line.to_ascii_lowercase().starts_with("transfer-encoding"), "{line}");
            line.clear();
        }
        let mut body = Vec::new();
        answer.read_to_end(&mut body).ok()?;
        Some((status.split_whitespace().nth(1)?.parse().ok()?, body))
    }

    /// Tells it to end; what it logged.
    fn end(mut self) -> String {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: signals our own child, which is not yet awaited.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        assert!(self.child.wait().expect("it ends").success());
        self.log()
    }

    fn log(&mut self) -> String {
        let mut said = Vec::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        stderr.read_to_end(&mut said).expect("a pipe can be read");
        String::from_utf8(said).expect("the log is text")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
