//! `lockprof top` as the client.

use std::path::Path;
use std::process::Command;

use lockprof::snapshot::Snapshot;

use crate::common::LOCKPROF;
use crate::daemon::Daemon;
use crate::fixture::{CLIENTS, Folder, PASSWORD, TLS, USER, users};
use crate::{common, needs_bpf};

/// One frame as JSON, or what it said instead.
fn top(url: &str, config: Option<&Path>) -> Result<Snapshot, String> {
    let mut top = Command::new(LOCKPROF);
    top.args(["top", "--once", "--json", "--interval", "100ms", "--connect", url]);
    if let Some(config) = config {
        top.arg("--http-config").arg(config);
    }
    let output = top.output().expect("top can be run");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(!said.contains("s3cret"), "the password is shown: {said}");
    if !output.status.success() {
        return Err(said);
    }
    Ok(serde_json::from_slice(&output.stdout).expect("the documented JSON"))
}

#[test]
fn top_shows_password_and_certificate_and_says_what_is_missing() {
    needs_bpf!("top_shows_password_and_certificate_and_says_what_is_missing");
    let folder = Folder::new();
    folder.write("web.yml", &format!("{TLS}{CLIENTS}{}", users()));
    folder.write("password", &format!("{PASSWORD}\n"));
    let web = folder.path("web.yml");
    let daemon = Daemon::start("127.0.0.1", &["--web-config".as_ref(), web.as_os_str()]);
    let (url, config) = (daemon.url("https", ""), folder.path("client.yml"));
    let with = |url: &str, auth: &str, tls: &str| {
        folder.write("client.yml", &format!("{auth}tls_config:\n{tls}"));
        top(url, Some(&config))
    };
    let auth = format!("basic_auth:\n  username: {USER}\n  password_file: password\n");
    let wrong = format!("basic_auth:\n  username: {USER}\n  password: s3cret\n");
    let ca = "  ca_file: ca.crt\n";
    let cert = "  cert_file: scraper.crt\n  key_file: scraper.key\n";
    let good = format!("{ca}{cert}");

    with(&url, &auth, &good).expect("a snapshot");
    let at_ip = format!("https://{}", daemon.address);
    with(&at_ip, &auth, &format!("{good}  server_name: localhost\n")).expect("by another name");
    with(&at_ip, &auth, &format!("{cert}  insecure_skip_verify: true\n")).expect("unchecked");
    let in_url = format!("https://{USER}:s3cret%3A%C3%A4@localhost:{}", daemon.address.port());
    with(&in_url, "", &good).expect("with the password in the URL");

    let of = |host: &str, text: &str, next: &str, error: Result<Snapshot, String>| {
        let error = error.expect_err("kept out");
        assert!(error.contains(host) && error.contains(text) && error.contains(next), "{error}");
    };
    of("https://localhost", "UnknownIssuer", "ca_file", top(&url, None));
    of(
        "https://localhost",
        "UnknownIssuer",
        "ca_file",
        with(&url, &auth, "  ca_file: other-ca.crt\n"),
    );
    of("https://127.0.0.1", "not valid for name", "server_name", with(&at_ip, &auth, &good));
    of("https://localhost", "alert", "cert_file", with(&url, &auth, ca));
    of("https://localhost", "401", "basic_auth", with(&url, "", &good));
    of("https://localhost", "401", "password is wrong", with(&url, &wrong, &good));
    of("http://localhost", "400", "https://", top(&daemon.url("http", ""), None));
    let bad_url = format!("https://{USER}:s3cret@localhost:99999");
    of("(hidden)@localhost", "port", "", top(&bad_url, None));
    of("client.yml:1", "unknown key `basic_aut`", "", with(&url, "basic_aut: {}\n", &good));
}
