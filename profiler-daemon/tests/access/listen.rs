//! Where it listens, and where it refuses to.

use std::process::{Command, Output};

use crate::common::LOCKPROF;
use crate::daemon::{Daemon, free_address};
use crate::fixture::{Folder, TLS, users};
use crate::{common, needs_bpf};

fn refusal(arguments: &[&str]) -> String {
    let port = free_address().port();
    let Output { status, stderr, .. } = Command::new(LOCKPROF)
        .args(["daemon", "--log-format", "human", "--listen", &format!("0.0.0.0:{port}")])
        .args(arguments)
        .output()
        .expect("the daemon can be run");
    let said = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(!said.contains("attached"), "{said}");
    said.replace(&format!(":{port}"), ":PORT")
}

#[test]
fn it_does_not_listen_where_others_reach_it_without_asking_who_they_are() {
    let folder = Folder::new();
    let web = folder.path("web.yml");
    let web = web.to_str().expect("text");
    for text in [None, Some(""), Some(TLS)] {
        let arguments: &[&str] = match text {
            None => &[],
            Some(text) => {
                folder.write("web.yml", text);
                &["--web-config", web]
            }
        };
        let said = refusal(arguments);
        assert!(said.contains("refusing to listen on 0.0.0.0:PORT"), "{said}");
        for way in ["--listen 127.0.0.1:PORT", "--web-config", "--allow-unauthenticated"] {
            assert!(said.contains(way), "{said}");
        }
    }
}

#[test]
fn a_web_configuration_that_cannot_be_used_ends_it_with_file_and_line() {
    let folder = Folder::new();
    let web = folder.path("web.yml");
    let path = web.to_str().expect("text");
    folder.write("web.yml", "\nbasic_auth: {}\n");
    // By the name of the exporters as well.
    for flag in ["--web-config", "--web.config.file"] {
        let said = refusal(&[flag, path]);
        assert!(said.contains(&format!("{path}:2: unknown key `basic_auth`")), "{said}");
    }
    let config = folder.path("lockprof.toml");
    folder.write("lockprof.toml", &format!("web_config = {path:?}\n"));
    let check = Command::new(LOCKPROF).args(["config", "check"]).arg(config).output();
    let check = check.expect("it can be run");
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stderr).contains(":2: unknown key"));
}

#[test]
fn a_reload_that_would_let_anyone_in_is_refused() {
    needs_bpf!("a_reload_that_would_let_anyone_in_is_refused");
    let folder = Folder::new();
    folder.write("web.yml", &users());
    let daemon =
        Daemon::start("0.0.0.0", &["--web-config".as_ref(), folder.path("web.yml").as_os_str()]);
    assert!(daemon.log().contains("in clear"), "passwords are");
    let agent = folder.agent("ca.crt", None);
    let url = daemon.url("http", "/healthz");
    let status = || agent.get(&url).call().expect("an answer").status().as_u16();
    assert_eq!(status(), 401);
    folder.write("web.yml", "");
    daemon.hang_up();
    daemon.await_log("kept the running configuration: refusing to listen on 0.0.0.0");
    assert_eq!(status(), 401, "it asks as before");
    drop(daemon);

    let daemon = Daemon::start("0.0.0.0", &["--allow-unauthenticated"]);
    assert!(daemon.log().contains("may read everything"), "{}", daemon.log());
    let url = daemon.url("http", "/healthz");
    assert_eq!(agent.get(&url).call().expect("an answer").status(), 200, "nobody is asked");
}
