//! A folder with certificates, and what a client trusts and shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "s3cret:ä";
/// Of [`PASSWORD`], at the least cost that there is.
pub(crate) fn users() -> String {
    let hash = bcrypt::hash(PASSWORD, 4).expect("it can be hashed");
    format!("basic_auth_users:\n  {USER}: {hash}\n")
}
pub(crate) const TLS: &str =
    "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
pub(crate) const CLIENTS: &str = "  client_auth_type: RequireAndVerifyClientCert\n  \
    client_ca_file: ca.crt\n  client_allowed_sans: [scraper.example]\n";

/// `ca.crt`, `server.{crt,key}` for localhost, and of clients `scraper`, which
/// is allowed, `stranger`, which has another name, and `forged`, which another
/// authority named so. `other-ca.crt` is that authority.
pub(crate) struct Folder {
    folder: TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = authority(folder.path(), "ca");
        let other = authority_of_others(folder.path());
        let this = Self { folder, authority };
        this.renew();
        this.issue(&this.authority, "scraper", "scraper.example");
        this.issue(&this.authority, "stranger", "stranger.example");
        this.issue(&other, "forged", "scraper.example");
        this
    }

    /// Another certificate of the server.
    pub(crate) fn renew(&self) {
        self.issue(&self.authority, "server", "localhost");
    }

    fn issue(&self, by: &Issuer<'static, KeyPair>, file: &str, name: &str) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, by).expect("it can be signed");
        self.write(&format!("{file}.crt"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    /// Writes a file by another name first, as those do who renew certificates.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let (new, file) = (self.path("new"), self.path(name));
        std::fs::write(&new, text).expect("it is writable");
        std::fs::rename(new, file).expect("it can be renamed");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it is there")
    }

    /// Of the server, as it is on the disk.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        Certificate::from_pem(&self.read("server.crt")).expect("PEM").der().to_vec()
    }

    /// What trusts the authority in the file `ca`, and shows the certificate of
    /// `client`, if any.
    pub(crate) fn agent(&self, ca: &str, client: Option<&str>) -> ureq::Agent {
        let ca = Certificate::from_pem(&self.read(ca)).expect("PEM");
        let client = client.map(|client| {
            let chain = Certificate::from_pem(&self.read(&format!("{client}.crt"))).expect("PEM");
            let key = PrivateKey::from_pem(&self.read(&format!("{client}.key"))).expect("PEM");
            ClientCert::new_with_certs(&[chain], key)
        });
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .client_cert(client)
            .build();
        let config = ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls);
        // Each request is to have its own connection.
        config.max_idle_connections(0).build().into()
    }
}

fn authority(folder: &Path, name: &str) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("it can be signed");
    std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).expect("writable");
    Issuer::new(params, key)
}

fn authority_of_others(folder: &Path) -> Issuer<'static, KeyPair> {
    authority(folder, "other-ca")
}
