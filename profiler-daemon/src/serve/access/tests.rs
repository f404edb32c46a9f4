//! The web configuration file, from what is written to what is served by.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// A folder with `web.yml`, `tls.crt` and `tls.key`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.renew();
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Writes another certificate and its key.
    fn renew(&self) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        self.write("tls.crt", &params.self_signed(&key).unwrap().pem());
        self.write("tls.key", &key.serialize_pem());
    }

    fn web(&self) -> PathBuf {
        self.0.path().join("web.yml")
    }

    fn read(&self, text: &str) -> Result<AccessFile, String> {
        self.write("web.yml", text);
        let folder = format!("{}/", self.0.path().display());
        AccessFile::read(Some(&self.web())).map_err(|error| error.to_string().replace(&folder, ""))
    }

    fn error(&self, text: &str) -> String {
        self.read(text).err().unwrap_or_else(|| panic!("taken:\n{text}"))
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n";
const USERS: &str =
    "basic_auth_users:\n  ann: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\n";
const CLIENTS: &str = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls.crt\n";

fn open() -> SocketAddr {
    "192.0.2.1:9723".parse().unwrap()
}

#[test]
fn what_the_form_has_is_taken() {
    let folder = Folder::new();
    for (text, who, encrypted) in [
        (String::new(), false, false),
        ("tls_server_config: {}\nbasic_auth_users: {}\n".to_owned(), false, false),
        ("http_server_config: {http2: false}\n".to_owned(), false, false),
        (TLS.to_owned(), false, true),
        (USERS.to_owned(), true, false),
        (format!("{TLS}{CLIENTS}{USERS}"), true, true),
        (format!("{TLS}{CLIENTS}  client_allowed_sans: [a, 192.0.2.7]\n"), true, true),
        (format!("{TLS}  client_auth_type: RequireAnyClientCert\n"), false, true),
        (format!("{TLS}  client_auth_type: NoClientCert\n"), false, true),
        (
            format!(
                "{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: tls.crt\n"
            ),
            false,
            true,
        ),
        (
            format!(
                "{TLS}  min_version: TLS12\n  max_version: TLS13\n  \
                 prefer_server_cipher_suites: false\n  \
                 cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n  \
                 curve_preferences: [CurveP256, CurveP384, X25519]\n"
            ),
            false,
            true,
        ),
    ] {
        let file = folder.read(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(file.config.asks(), Asked { who, encrypted }, "{text}");
        assert_eq!(file.check(open(), false).is_ok(), who, "{text}");
    }
}

#[test]
fn the_order_and_choice_of_suites_and_curves_is_that_of_the_file() {
    let folder = Folder::new();
    let file = folder
        .read(&format!(
            "{TLS}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n  \
             curve_preferences: [CurveP384, X25519]\n"
        ))
        .unwrap();
    let config = file.config.tls.unwrap().config;
    let provider = config.crypto_provider();
    let tls12: Vec<_> = provider.cipher_suites.iter().filter(|s| s.tls13().is_none()).collect();
    assert_eq!(tls12.len(), 1);
    assert_eq!(tls12[0].suite(), rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384);
    assert_eq!(provider.cipher_suites.len(), 4, "all of TLS 1.3");
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    assert!(config.ignore_client_order, "the default of the form");
}

#[test]
fn nothing_is_ignored_and_the_line_is_named() {
    let folder = Folder::new();
    folder.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    folder.write("sealed.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let tls = |more: &str| format!("{TLS}  {more}\n");
    for (text, error) in [
        ("\nbasic_auth_user: {}".into(), "web.yml:2: unknown key `basic_auth_user`; did you mean"),
        (
            tls("cert_fil: x"),
            "web.yml:4: unknown key `cert_fil`; did you mean `cert_file`; known here: cert, key",
        ),
        ("rate_limit: {burst: 1}".into(), "web.yml:1: `rate_limit` is not supported"),
        ("http_server_config:\n  http2: true".into(), "web.yml:2: `http2`: only HTTP/1.1"),
        (
            "http_server_config: {headers: {X-Frame-Options: maybe}}".into(),
            "`X-Frame-Options` must be one of deny, sameorigin",
        ),
        ("http_server_config: {headers: {Server: x}}".into(), "`Server` cannot be set; these can"),
        (
            "basic_auth_users:\n  ann: hunter2".into(),
            "web.yml:2: `basic_auth_users`: user `ann`: not a bcrypt",
        ),
        ("basic_auth_users:\n  'a:b': x".into(), "a name with a colon"),
        ("tls_server_config: {cert_file: tls.crt}".into(), "`key_file` is missing"),
        ("tls_server_config: {key_file: tls.key}".into(), "`cert_file` is missing"),
        ("tls_server_config: {min_version: TLS13}".into(), "`cert_file` is missing"),
        (
            "tls_server_config: {cert_file: no.crt, key_file: tls.key}".into(),
            "no.crt: failed to read",
        ),
        (
            "tls_server_config: {cert_file: tls.key, key_file: tls.key}".into(),
            "tls.key: `cert`: no certificate",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.crt}".into(),
            "tls.crt: `key`: no private key",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: other.key}".into(),
            "other.key: is not the key of the certificate in tls.crt",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: sealed.key}".into(),
            "the key is encrypted",
        ),
        (tls("cert: x"), "`cert` and `cert_file` exclude each other"),
        (tls("min_version: TLS10"), "web.yml:4: `min_version`: TLS10 is no longer spoken"),
        (tls("max_version: TLS11"), "web.yml:4: `max_version`: TLS11 is no longer spoken"),
        (tls("min_version: SSL3"), "expected TLS12 or TLS13"),
        (tls("min_version: TLS13\n  max_version: TLS12"), "`min_version` is above `max_version`"),
        (
            tls("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"),
            "rustls has no `TLS_RSA_WITH_AES_128_CBC_SHA`; it has TLS_AES_256_GCM_SHA384",
        ),
        (tls("curve_preferences: [CurveP521]"), "`CurveP521` is not offered"),
        (tls("client_auth_type: Maybe"), "expected one of NoClientCert, RequestClientCert"),
        (tls("client_auth_type: RequireAndVerifyClientCert"), "`client_ca_file` is missing"),
        (tls("client_ca_file: tls.crt"), "of no use without `client_auth_type"),
        (tls("client_allowed_sans: [a]"), "`client_allowed_sans` needs"),
    ] as [(String, &str); 27]
    {
        let said = folder.error(&text);
        assert!(said.contains(error), "{said}\ninstead of {error}\nfor\n{text}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn certificates_can_stand_in_the_file_itself() {
    let folder = Folder::new();
    let indented = |name: &str| {
        let text = std::fs::read_to_string(folder.0.path().join(name)).unwrap();
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let text = format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}",
        indented("tls.crt"),
        indented("tls.key")
    );
    assert!(folder.read(&text).unwrap().config.tls.is_some());
}

#[test]
fn a_file_that_lets_anyone_in_does_not_replace_one_that_asks() {
    let folder = Folder::new();
    let access = Access::new(folder.read(USERS).unwrap(), open(), false).unwrap();
    let file = folder.read("").unwrap();
    assert_eq!(access.replace(file, open(), false), Err(Exposed(open())));
    access.look();
    assert!(access.config.borrow().users.is_some());
    access.replace(folder.read("").unwrap(), open(), true).unwrap();
    assert!(access.config.borrow().users.is_none());
}

#[test]
fn what_changes_on_the_disk_is_taken_over_unless_it_is_broken() {
    let folder = Folder::new();
    let file = folder.read(&format!("{TLS}{USERS}")).unwrap();
    let access = Access::new(file, open(), false).unwrap();
    let current = || access.config.borrow().clone();
    let first = current();
    access.look();
    assert!(Arc::ptr_eq(&current(), &first), "nothing changed");

    // A key without its certificate, as between the two steps of a renewal.
    let key = KeyPair::generate().unwrap();
    folder.write("tls.key", &key.serialize_pem());
    access.look();
    assert!(Arc::ptr_eq(&current(), &first), "broken");
    let stamps = access.source().stamps.clone();
    assert!(stamps.are_current(), "not read again, so not logged again");
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    folder.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    access.look();
    let second = current();
    assert!(!Arc::ptr_eq(&second, &first), "mended");

    // Nobody would be asked; then no YAML.
    for broken in [TLS, "basic_auth_users: ["] {
        folder.write("web.yml", broken);
        access.look();
        assert!(Arc::ptr_eq(&current(), &second), "{broken}");
    }
    folder.write("web.yml", USERS);
    access.look();
    assert!(current().tls.is_none() && current().users.is_some());
}
