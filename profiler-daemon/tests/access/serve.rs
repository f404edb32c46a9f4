//! What it serves to whom.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, Stream, version};

use crate::daemon::{Daemon, await_that};
use crate::fixture::{CLIENTS, Folder, PASSWORD, TLS, USER, users};
use crate::{common, needs_bpf};

pub(crate) fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

fn start(folder: &Folder, web: &str) -> Daemon {
    folder.write("web.yml", web);
    Daemon::start("127.0.0.1", &["--web-config".as_ref(), folder.path("web.yml").as_os_str()])
}

/// Asks over one version of TLS: that version, the certificate, and the answer.
fn over(
    folder: &Folder,
    daemon: &Daemon,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<(Option<ProtocolVersion>, Vec<u8>, String)> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(folder.path("ca.crt")).expect("PEM");
    roots.add(ca).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("it is spoken")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("valid");
    let mut socket = TcpStream::connect(daemon.address)?;
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let certificate = connection.peer_certificates().expect("it has one")[0].to_vec();
    Ok((connection.protocol_version(), certificate, answer))
}

#[test]
fn tls_is_spoken_in_both_versions_and_a_new_certificate_is_taken_up() {
    needs_bpf!("tls_is_spoken_in_both_versions_and_a_new_certificate_is_taken_up");
    let folder = Folder::new();
    let headers = "http_server_config:\n  headers:\n    \
                   Strict-Transport-Security: max-age=60\n";
    let daemon = start(&folder, &format!("{TLS}{headers}"));
    for (version, spoken) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let (negotiated, certificate, answer) =
            over(&folder, &daemon, version).expect("it is spoken");
        assert_eq!(negotiated, Some(spoken));
        assert_eq!(certificate, folder.certificate());
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("strict-transport-security: max-age=60\r\n"), "{answer}");
    }

    let wrong = folder.agent("other-ca.crt", None).get(daemon.url("https", "/healthz")).call();
    assert!(wrong.unwrap_err().to_string().contains("UnknownIssuer"));
    let clear = folder.agent("ca.crt", None).get(daemon.url("http", "/healthz")).call();
    let mut clear = clear.expect("an answer in clear");
    assert_eq!(clear.status(), 400);
    assert!(clear.body_mut().read_to_string().expect("text").contains("https://"));

    // Half a renewal, then the other half.
    let old = folder.certificate();
    let key = std::fs::read_to_string(folder.path("server.key")).expect("it is there");
    folder.renew();
    let new_key = std::fs::read_to_string(folder.path("server.key")).expect("it is there");
    folder.write("server.key", &key);
    daemon.await_log("kept the running web configuration");
    let (_, certificate, _) = over(&folder, &daemon, &version::TLS13).expect("as before");
    assert_eq!(certificate, old, "the last good one stays");
    folder.write("server.key", &new_key);
    await_that("the new certificate is served", || {
        let (_, certificate, _) = over(&folder, &daemon, &version::TLS13).expect("in between, too");
        (certificate == folder.certificate()).then_some(())
    });
    assert_eq!(daemon.log().matches("kept the running web configuration").count(), 1);

    folder.write("web.yml", &format!("{TLS}  min_version: TLS13\n"));
    daemon.hang_up();
    daemon.await_log("reloaded");
    over(&folder, &daemon, &version::TLS12).expect_err("no longer spoken");
    over(&folder, &daemon, &version::TLS13).expect("spoken");
}

#[test]
fn every_path_asks_for_the_password() {
    needs_bpf!("every_path_asks_for_the_password");
    let folder = Folder::new();
    let daemon = start(&folder, &format!("{TLS}{}", users()));
    let agent = folder.agent("ca.crt", None);
    let status = |path: &str, header: Option<String>| {
        let mut request = agent.get(daemon.url("https", path));
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let answer = request.call().expect("an answer");
        let challenge = answer.headers().get("www-authenticate").cloned();
        let status = answer.status().as_u16();
        assert_eq!(
            challenge.is_some_and(|c| c.to_str().unwrap().starts_with("Basic")),
            status == 401
        );
        status
    };
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/snapshot"] {
        assert_eq!(status(path, None), 401, "{path}");
        assert_eq!(status(path, Some(basic(USER, "wrong"))), 401, "{path}");
        assert_eq!(status(path, Some(basic("eve", PASSWORD))), 401, "{path}");
        assert_eq!(status(path, Some(basic(USER, PASSWORD))), 200, "{path}");
    }
    assert_eq!(status("/nothing", None), 401, "what there is is not told, either");
    daemon.await_log("wrong user or password");
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());

    // Another password, without a restart.
    let hash = bcrypt::hash("other", 4).expect("it can be hashed");
    folder.write("web.yml", &format!("{TLS}basic_auth_users: {{{USER}: {hash}}}\n"));
    await_that("the new password is taken", || {
        (status("/healthz", Some(basic(USER, "other"))) == 200).then_some(())
    });
    assert_eq!(status("/healthz", Some(basic(USER, PASSWORD))), 401);
}

#[test]
fn only_certificates_of_the_authority_with_an_allowed_name_are_let_in() {
    needs_bpf!("only_certificates_of_the_authority_with_an_allowed_name_are_let_in");
    let folder = Folder::new();
    let daemon = start(&folder, &format!("{TLS}{CLIENTS}"));
    let ask = |client| folder.agent("ca.crt", client).get(daemon.url("https", "/healthz")).call();
    assert_eq!(ask(Some("scraper")).expect("let in").status(), 200);
    for (client, alert) in
        [(None, "CertificateRequired"), (Some("stranger"), ""), (Some("forged"), "")]
    {
        let error = ask(client).expect_err("kept out").to_string();
        assert!(error.contains("fatal alert") && error.contains(alert), "{client:?}: {error}");
    }
}
