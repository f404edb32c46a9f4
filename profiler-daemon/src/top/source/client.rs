//! How to connect to daemons: the file of `--http-config`.
//!
//! Its form is that of Prometheus' HTTP client (`<http_config>` of its
//! configuration, and promtool's `--http.config.file`), of which lockprof takes
//! `basic_auth` and `tls_config`.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig as Rustls, RootCertStore};
use serde::Deserialize;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::serve::access::FileError;
use crate::serve::access::pem::{certificates, pem, private_key};
use crate::serve::access::yaml::{self, At, beside, read_file};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Form {
    basic_auth: Option<At<BasicAuth>>,
    tls_config: Option<Tls>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BasicAuth {
    username: Option<String>,
    password: Option<String>,
    password_file: Option<At<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    ca: Option<At<String>>,
    cert: Option<At<String>>,
    key: Option<At<String>>,
    ca_file: Option<At<String>>,
    cert_file: Option<At<String>>,
    key_file: Option<At<String>>,
    server_name: Option<At<String>>,
    insecure_skip_verify: Option<bool>,
}

/// How to connect to daemons. The default: without a password, and by the
/// certificates that this machine trusts.
#[derive(Default)]
pub struct ClientConfig {
    authorization: Option<String>,
    roots: Option<Vec<CertificateDer<'static>>>,
    identity: Option<ClientCert>,
    server_name: Option<String>,
    insecure: bool,
}

/// What makes requests to one daemon.
pub(super) struct Connection {
    pub(super) agent: ureq::Agent,
    /// Host and port to ask for.
    pub(super) authority: String,
}

impl ClientConfig {
    /// Reads the file at `path` and those that it names.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let form: Form = yaml::read(path)?;
        let authorization = match &form.basic_auth {
            Some(auth) => Some(auth.value.header(path, auth)?),
            None => None,
        };
        let tls = form.tls_config.unwrap_or_default();
        let roots = match pem(path, "ca", tls.ca.as_ref(), tls.ca_file.as_ref())? {
            Some(pem) => {
                let roots = certificates(&pem)?;
                let mut store = RootCertStore::empty();
                for root in &roots {
                    let bad = |error| format!("a certificate in it: {error}");
                    store.add(root.clone()).map_err(|e| FileError::new(&pem.file, bad(e)))?;
                }
                Some(roots)
            }
            None => None,
        };
        let server_name = tls.server_name.as_ref().filter(|name| !name.value.is_empty());
        if let Some(name) = &server_name
            && ServerName::try_from(name.value.as_str()).is_err()
        {
            return Err(FileError::at(path, name, "`server_name` is no name of a host"));
        }
        Ok(Self {
            authorization,
            roots,
            identity: tls.identity(path)?,
            server_name: server_name.map(|name| name.value.clone()),
            insecure: tls.insecure_skip_verify.unwrap_or(false),
        })
    }

    /// The header that says who asks.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// What connects to `host`, with its port, by `scheme`.
    ///
    /// # Errors
    ///
    /// There is nothing to check certificates by.
    pub(super) fn connect(
        &self,
        agent: ConfigBuilder<AgentScope>,
        scheme: &str,
        host: &str,
    ) -> Result<Connection, String> {
        if scheme != "https" {
            return Ok(Connection { agent: agent.build().into(), authority: host.to_owned() });
        }
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None if self.insecure => Vec::new(),
            None => trusted_here()?,
        };
        let roots: Vec<_> =
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(self.identity.clone())
            .disable_verification(self.insecure)
            .build();
        let config = agent.tls_config(tls).build();
        let Some(name) = &self.server_name else {
            return Ok(Connection { agent: config.into(), authority: host.to_owned() });
        };
        // The library takes the name from the URL, so that has the other name, and
        // the connection still goes to the host.
        let real: Uri = format!("https://{host}/").parse().map_err(|e| format!("{e}"))?;
        let port = real.port_u16().ok_or("it has no port")?;
        let resolver = Elsewhere { real, resolver: DefaultResolver::default() };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Ok(Connection { agent, authority: format!("{name}:{port}") })
    }
}

impl BasicAuth {
    fn header(&self, of: &Path, whole: &At<Self>) -> Result<String, FileError> {
        let bad = |message: &str| FileError::at(of, whole, format!("`basic_auth`: {message}"));
        let user = self.username.as_ref().ok_or_else(|| bad("`username` is missing"))?;
        if user.contains(':') {
            return Err(bad("a `username` with a colon cannot be sent"));
        }
        let password = match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => {
                return Err(bad("`password` and `password_file` exclude each other; keep one"));
            }
            (Some(password), None) => password.clone().into_bytes(),
            (None, Some(file)) => read_file(&beside(of, &file.value))?.trim_ascii().to_vec(),
            (None, None) => Vec::new(),
        };
        Ok(basic(user.as_bytes(), &password))
    }
}

/// The header of basic authentication (RFC 7617).
pub(super) fn basic(user: &[u8], password: &[u8]) -> String {
    format!("Basic {}", BASE64.encode([user, b":", password].concat()))
}

impl Tls {
    /// Certificate and key to show, which fit each other.
    fn identity(&self, of: &Path) -> Result<Option<ClientCert>, FileError> {
        let cert = pem(of, "cert", self.cert.as_ref(), self.cert_file.as_ref())?;
        let key = pem(of, "key", self.key.as_ref(), self.key_file.as_ref())?;
        let (cert, key) = match (cert, key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            _ => {
                let message = "`tls_config`: `cert_file` and `key_file` go together";
                return Err(FileError::new(of, message));
            }
        };
        let (chain, private) = (certificates(&cert)?, private_key(&key)?);
        Rustls::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_root_certificates(RootCertStore::empty());
                builder.with_client_auth_cert(chain.clone(), private)
            })
            .map_err(|error| {
                let cert = cert.file.display();
                FileError::new(&key.file, format!("cannot be used with {cert}: {error}"))
            })?;
        let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
        let key = PrivateKey::from_pem(&key.bytes)
            .map_err(|error| FileError::new(&key.file, error.to_string()))?;
        Ok(Some(ClientCert::new_with_certs(&chain, key)))
    }
}

/// The authorities that this machine trusts.
fn trusted_here() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("this machine has no list of authorities to check certificates by; install \
                    ca-certificates, or name one under tls_config: ca_file in the file of \
                    --http-config"
            .to_owned());
    }
    Ok(found.certs)
}

/// Connects to one host, whatever the URL says.
#[derive(Debug)]
struct Elsewhere {
    real: Uri,
    resolver: DefaultResolver,
}

impl Resolver for Elsewhere {
    fn resolve(
        &self,
        _uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.resolver.resolve(&self.real, config, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClientConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), " secret\n").unwrap();
        let path = dir.path().join("client.yml");
        std::fs::write(&path, text).unwrap();
        let shown = |error: FileError| error.to_string().replace(&path.display().to_string(), "f");
        ClientConfig::read(&path).map_err(shown)
    }

    #[test]
    fn a_password_comes_from_the_file_or_from_beside_it() {
        for text in ["password: secret", "password_file: password"] {
            let config = read(&format!("basic_auth:\n  username: ann\n  {text}\n")).unwrap();
            assert_eq!(config.authorization(), Some(basic(b"ann", b"secret").as_str()));
        }
        assert!(read("").unwrap().authorization().is_none());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_line() {
        for (text, why) in [
            ("basic_auth: {password: x}", "f:1: `basic_auth`: `username` is missing"),
            ("\nbearer_token: x\n", "f:2: unknown key `bearer_token`; known here: basic_auth"),
            ("basic_auth: {username: a, password: x, password_file: y}", "exclude each other"),
            ("tls_config: {cert_file: password}", "no certificate in it"),
            ("tls_config: {server_name: 'a b'}", "f:1: `server_name`"),
        ] {
            let error = read(text).err().expect(text);
            assert!(error.contains(why) || text.contains("cert_file"), "{error}");
        }
    }
}
