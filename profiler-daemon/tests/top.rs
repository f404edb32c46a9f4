//! `top` as users run it: on a terminal with keys, and for scripts.

mod common;

#[path = "../src/top/fixture.rs"]
#[allow(dead_code, reason = "the room's own tests use the rest")]
mod fixture;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::LOCKPROF;
use fixture::{Fixture, totals_of};
use lockprof::snapshot::Snapshot;
// Where the fixture looks for them.
use lockprof::{findings, locks, snapshot};

/// A terminal of its own tmux server, which ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `script` with `sh` in 80x24, or skips `test`.
    fn run(test: &str, script: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            common::skip(test, "tmux is not installed (`cargo xtask setup` names the package)");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { socket: format!("lockprof-test-{}-{count}", std::process::id()) };
        terminal.tmux(&[
            "new-session",
            "-d",
            "-s",
            "t",
            "-x",
            "80",
            "-y",
            "24",
            "sh",
            "-c",
            script,
        ]);
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(args)
            // UTF-8 whatever the machine's own locale is.
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .output()
            .expect("tmux runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "t"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    /// The screen once `there` says so.
    fn await_screen(&self, what: &str, there: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let screen = self.screen();
            if there(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {what} on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn await_text(&self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut kill = Command::new("tmux");
        kill.args(["-L", &self.socket, "kill-server"]).stderr(Stdio::null());
        let _ = kill.status();
    }
}

/// A recording of the fixture's incident.
fn recording(folder: &Path) -> String {
    let path = folder.join("incident.jsonl");
    let mut file = std::fs::File::create(&path).expect("the folder is writable");
    for totals in [totals_of(Fixture::Before), totals_of(Fixture::Rich)] {
        writeln!(file, "{}", serde_json::to_string(&totals).expect("JSON")).expect("written");
    }
    path.to_str().expect("UTF-8").to_owned()
}

/// Runs `command`, says how it ended, and shows the settings of the terminal
/// before and after.
fn framed(folder: &Path, command: &str) -> String {
    let pid = folder.join("pid");
    format!(
        "echo first: $(stty -g); sh -c 'echo $$ > {}; exec {command}'; \
         echo EXIT $?; echo after: $(stty -g); sleep 600",
        pid.display()
    )
}

/// The settings of the terminal are what they were.
fn assert_restored(screen: &str) {
    let of = |name: &str| {
        let line = screen.lines().find_map(|line| line.strip_prefix(name));
        // It wraps at the edge of the screen, in both at the same place.
        line.unwrap_or_else(|| panic!("no {name}in\n{screen}")).to_owned()
    };
    assert_eq!(of("first: "), of("after: "), "{screen}");
}

#[test]
fn keys_go_through_a_recording_and_leave_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let replay = recording(folder.path());
    let script =
        framed(folder.path(), &format!("{LOCKPROF} top --interval 100ms --replay {replay}"));
    let test = "keys_go_through_a_recording_and_leave_the_terminal_as_it_was";
    let Some(terminal) = Terminal::run(test, &script) else { return };

    let locks = terminal.await_text("END OF RECORDING");
    assert!(locks.starts_with("lockprof web-17"), "{locks}");
    let first = locks.lines().find(|line| line.starts_with("namespace_sem")).expect("its row");
    assert!(first.contains("write") && first.contains("371%"), "{first}");
    assert!(locks.contains("69% systemd"), "who blocks is on the first screen:\n{locks}");

    terminal.keys(&["Down", "Down", "Enter"]);
    let blockers = terminal.await_text("of mount_lock alone");
    assert!(blockers.contains("inferred") && !blockers.contains("systemd"), "{blockers}");
    terminal.keys(&["l", "2"]);
    let waiters = terminal.await_text("umount2");
    // What a task called itself clears no screen and ends no line.
    assert!(waiters.contains(r"\x1b[2J\u{202e"), "{waiters}");
    terminal.keys(&["/", "r", "u", "n", "c", "Enter"]);
    terminal.await_screen("filter", |s| s.contains("rows with \"runc\"") && !s.contains("systemd"));
    terminal.keys(&["Escape"]);
    terminal.await_screen("end of the filter", |s| s.contains("systemd"));
    terminal.keys(&["6"]);
    terminal.await_text("entry_SYSCALL_64_after_hwframe+0x76");
    terminal.keys(&["?"]);
    terminal.await_text("this help");
    terminal.keys(&["q"]);
    assert_restored(&terminal.await_text("after: "));
    assert!(terminal.screen().contains("EXIT 0"));
}

#[test]
fn signals_end_it_and_leave_the_terminal_as_it_was() {
    for signal in ["TERM", "INT", "HUP"] {
        let folder = tempfile::tempdir().expect("a folder");
        let replay = recording(folder.path());
        let script = framed(folder.path(), &format!("{LOCKPROF} top --replay {replay}"));
        let test = "signals_end_it_and_leave_the_terminal_as_it_was";
        let Some(terminal) = Terminal::run(test, &script) else { return };
        terminal.await_text("namespace_sem");
        let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it runs");
        let kill = Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status();
        assert!(kill.expect("kill runs").success());
        let screen = terminal.await_text("after: ");
        assert_restored(&screen);
        assert!(screen.contains("EXIT 0"), "{signal}: {screen}");
    }
}

#[test]
fn a_shell_suspends_and_resumes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let replay = recording(folder.path());
    let test = "a_shell_suspends_and_resumes_it";
    let Some(terminal) = Terminal::run(test, "PS1='ready> ' sh -i") else { return };
    terminal.await_text("ready>");
    terminal.keys(&[&format!("{LOCKPROF} top --replay {replay}"), "Enter"]);
    terminal.await_text("1Locks");
    terminal.keys(&["C-z"]);
    let shell = terminal.await_text("Stopped");
    assert!(!shell.contains("1Locks"), "{shell}");
    terminal.keys(&["fg", "Enter"]);
    terminal.await_text("1Locks");
    terminal.keys(&["4"]);
    terminal.await_text("CALLS/S");
    terminal.keys(&["q"]);
    terminal.await_screen("shell", |screen| !screen.contains("1Locks"));
}

#[test]
fn a_window_can_be_made_tiny_and_large_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let replay = recording(folder.path());
    let script =
        framed(folder.path(), &format!("{LOCKPROF} top --ascii --no-color --replay {replay}"));
    let test = "a_window_can_be_made_tiny_and_large_again";
    let Some(terminal) = Terminal::run(test, &script) else { return };
    terminal.await_text("1Locks");
    for (width, height) in [("20", "5"), ("1", "1"), ("120", "40")] {
        terminal.tmux(&["resize-window", "-t", "t", "-x", width, "-y", height]);
        terminal.keys(&["Tab"]);
        if width == "20" {
            let tiny = terminal.await_screen("frame", |s| {
                s.lines().next().is_some_and(|l| l.starts_with("web-17"))
            });
            assert!(tiny.is_ascii(), "{tiny}");
        }
    }
    terminal.await_text("9 Findings");
    terminal.keys(&["q"]);
    assert!(terminal.await_text("after: ").contains("EXIT 0"));
}

#[test]
fn it_attaches_itself_and_shows_a_storm() {
    needs_bpf!("it_attaches_itself_and_shows_a_storm");
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("r.jsonl");
    let command = format!("{LOCKPROF} top --interval 500ms --record {}", record.display());
    let test = "it_attaches_itself_and_shows_a_storm";
    let Some(terminal) = Terminal::run(test, &framed(folder.path(), &command)) else { return };
    terminal.await_text("LIVE 500ms");
    let mut storm = common::storm(10).spawn().expect("the storm runs");
    let waits = |screen: &str| {
        let mut rows = screen.lines().filter(|line| line.starts_with("namespace_sem"));
        rows.any(|row| !row.contains("<0.1%") && row.contains('%'))
    };
    terminal.await_screen("waits", waits);
    storm.wait().expect("it ends");
    terminal.await_screen("quiet", |screen| !waits(screen));
    terminal.keys(&["w"]);
    let worst = terminal.await_text("WORST MOMENT");
    assert!(waits(&worst), "the worst moment stays to be seen:\n{worst}");
    terminal.keys(&["q"]);
    assert_restored(&terminal.await_text("after: "));

    // What was recorded plays.
    let output = once(&["--replay", record.to_str().expect("UTF-8"), "--json"]);
    let window: Snapshot = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(!window.locks.is_empty() && window.duration_ns > 0);
}

#[test]
fn two_hosts_stand_side_by_side_and_one_may_be_down() {
    needs_bpf!("two_hosts_stand_side_by_side_and_one_may_be_down");
    let folder = tempfile::tempdir().expect("a folder");
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").to_string()
    };
    let (up, down) = (free(), free());
    let mut daemon = Command::new(LOCKPROF)
        .args(["daemon", "--listen", &up])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let command = format!("{LOCKPROF} top --connect http://{up} --connect {down}");
    let test = "two_hosts_stand_side_by_side_and_one_may_be_down";
    let terminal = Terminal::run(test, &framed(folder.path(), &command));
    if let Some(terminal) = &terminal {
        // It is asked again until it has attached.
        let both =
            terminal.await_screen("both", |s| s.contains("LIVE 1s") && s.contains("no data"));
        assert!(both.contains("[1/2]"), "{both}");
        terminal.keys(&["]"]);
        let other = terminal.await_text("[2/2]");
        assert!(other.contains("NO ANSWER") && other.contains("refused"), "{other}");
        terminal.keys(&["q"]);
        terminal.await_text("EXIT 0");
    }
    daemon.kill().expect("it runs");
    daemon.wait().expect("it ends");
}

fn once(args: &[&str]) -> Output {
    Command::new(LOCKPROF)
        .args(["top", "--once"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("top runs")
}

#[test]
fn one_frame_goes_to_scripts_as_text_and_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let replay = recording(folder.path());
    let text = once(&["--replay", &replay]);
    assert!(text.status.success(), "{text:?}");
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.starts_with("lockprof web-17") && text.contains("BLOCKED BY"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    let ascii = once(&["--replay", &replay, "--ascii"]);
    assert!(ascii.stdout.is_ascii());
    let json = once(&["--replay", &replay, "--json"]);
    let window: Snapshot = serde_json::from_slice(&json.stdout).expect("JSON");
    let expected = totals_of(Fixture::Rich).since(&totals_of(Fixture::Before));
    assert_eq!(window, expected);
}

#[test]
fn what_cannot_be_shown_is_named_with_the_next_step() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let nobody = nobody.to_string();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--once", "--connect", "ftp://a"], 2, &["ftp://a", "only http and https"]),
        (&["--once", "--connect", &nobody], 1, &[&nobody, "refused", "is the daemon running"]),
        (&["--once", "--replay", "/no/such"], 2, &["/no/such", "--record FILE"]),
        (&["--once", "--record", "/no/such/x"], 2, &["/no/such/x", "can be appended to"]),
        (&["--connect", "a", "--connect", "b", "--record", "x"], 2, &["once for each --connect"]),
        (&["--interval", "5ms"], 2, &["--interval", "at least 100ms"]),
        (&["--interval", "1"], 2, &["--interval", "500ms, 10s or 1m"]),
        (&["--json"], 2, &["--once"]),
        (&["--connect", "a", "--lock", "sb_lock"], 2, &["--connect", "--lock"]),
        (&["--connect", "a"], 2, &["no terminal", "--once"]),
    ];
    for (args, code, said) in cases {
        let output = Command::new(LOCKPROF)
            .arg("top")
            .args(*args)
            .stdin(Stdio::null())
            .output()
            .expect("top runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {error}");
        for text in *said {
            assert!(error.contains(text), "{args:?}: no `{text}` in {error}");
        }
    }
}
