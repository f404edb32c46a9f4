//! `tls_server_config` -> what rustls serves by.
//!
//! Names are those of the exporter toolkit, that is of Go's `crypto/tls`. What
//! rustls does not do is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{NamedGroup, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use serde::Deserialize;
use x509_parser::parse_x509_certificate;

use super::client_cert::{Policy, Verifier};
use super::pem::{Pem, certificates, pem, private_key};
use super::yaml::{At, FileError, beside};

/// `tls_server_config` as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Form {
    cert: Option<At<String>>,
    key: Option<At<String>>,
    client_ca: Option<At<String>>,
    cert_file: Option<At<String>>,
    key_file: Option<At<String>>,
    client_auth_type: Option<At<String>>,
    client_ca_file: Option<At<String>>,
    client_allowed_sans: Option<At<Vec<String>>>,
    min_version: Option<At<String>>,
    max_version: Option<At<String>>,
    cipher_suites: Option<Vec<At<String>>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<At<String>>>,
}

/// How TLS is spoken.
pub(super) struct Tls {
    /// For rustls.
    pub(super) config: Arc<ServerConfig>,
    /// Whether every client has shown a certificate of a known authority.
    pub(super) knows_clients: bool,
}

impl Form {
    /// Files beside the configuration file `of` that it takes.
    pub(super) fn files(&self, of: &Path) -> Vec<PathBuf> {
        let named = [&self.cert_file, &self.key_file, &self.client_ca_file];
        let written = named.into_iter().flatten().filter(|path| !path.value.is_empty());
        written.map(|path| beside(of, &path.value)).collect()
    }

    /// What it comes to. `None` if nothing is in it.
    ///
    /// # Errors
    ///
    /// A file cannot be read or holds something else, a name is not known, or
    /// rustls does not do it.
    pub(super) fn build(&self, of: &Path) -> Result<Option<Tls>, FileError> {
        if self.is_empty() {
            return Ok(None);
        }
        let cert = pem(of, "cert", self.cert.as_ref(), self.cert_file.as_ref())?;
        let key = pem(of, "key", self.key.as_ref(), self.key_file.as_ref())?;
        let missing = |keys: &str| {
            FileError::new(
                of,
                format!("`tls_server_config`: {keys} is missing, without which there is no TLS"),
            )
        };
        let cert = cert.ok_or_else(|| missing("`cert_file`"))?;
        let key = key.ok_or_else(|| missing("`key_file`"))?;

        let provider = Arc::new(self.provider(of)?);
        let policy = self.policy(of)?;
        let versions = self.versions(of)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| FileError::new(of, format!("`tls_server_config`: {error}")))?;
        let builder = match self.verifier(of, policy, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let chain = certificates(&cert)?;
        warn_of_expiry(&cert, &chain);
        let mut config = builder.with_single_cert(chain, private_key(&key)?).map_err(|error| {
            let why = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("is not the key of the certificate in {}", cert.file.display())
                }
                error => format!("rustls cannot use it with the certificate: {error}"),
            };
            FileError::new(&key.file, why)
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.prefer_server_cipher_suites.unwrap_or(true);
        let knows_clients = policy == Policy::RequireAndVerifyClientCert;
        Ok(Some(Tls { config: Arc::new(config), knows_clients }))
    }

    fn is_empty(&self) -> bool {
        let Self {
            cert,
            key,
            client_ca,
            cert_file,
            key_file,
            client_auth_type,
            client_ca_file,
            client_allowed_sans,
            min_version,
            max_version,
            cipher_suites,
            prefer_server_cipher_suites,
            curve_preferences,
        } = self;
        [
            cert,
            key,
            client_ca,
            cert_file,
            key_file,
            client_auth_type,
            client_ca_file,
            min_version,
            max_version,
        ]
        .iter()
        .all(|text| text.is_none())
            && client_allowed_sans.is_none()
            && cipher_suites.is_none()
            && curve_preferences.is_none()
            && prefer_server_cipher_suites.is_none()
    }

    fn versions(&self, of: &Path) -> Result<Vec<&'static SupportedProtocolVersion>, FileError> {
        let read = |key: &str, value: &Option<At<String>>, default: usize| {
            let Some(value) = value else { return Ok(default) };
            match value.value.as_str() {
                "TLS12" => Ok(0),
                "TLS13" => Ok(1),
                "TLS10" | "TLS11" => {
                    let old = "is no longer spoken (RFC 8996); write TLS12 or TLS13";
                    Err(FileError::at(of, value, format!("`{key}`: {} {old}", value.value)))
                }
                _ => Err(FileError::at(of, value, format!("`{key}`: expected TLS12 or TLS13"))),
            }
        };
        let least = read("min_version", &self.min_version, 0)?;
        let most = read("max_version", &self.max_version, 1)?;
        if least > most {
            let message = "`tls_server_config`: `min_version` is above `max_version`";
            return Err(FileError::new(of, message));
        }
        Ok([&version::TLS12, &version::TLS13][least..=most].to_vec())
    }

    /// What is encrypted with. As with Go, `cipher_suites` is about TLS 1.2: all
    /// of the three suites of TLS 1.3 are offered in any case.
    fn provider(&self, of: &Path) -> Result<CryptoProvider, FileError> {
        let mut provider = ring::default_provider();
        if let Some(names) = self.cipher_suites.as_ref().filter(|names| !names.is_empty()) {
            let go_name = |suite: &rustls::SupportedCipherSuite| {
                format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
            };
            let all = std::mem::take(&mut provider.cipher_suites);
            for name in names {
                let Some(suite) = all.iter().find(|suite| go_name(suite) == name.value) else {
                    let known: Vec<_> = all.iter().map(go_name).collect();
                    let message = format!(
                        "`cipher_suites`: rustls has no `{}`; it has {}",
                        name.value.escape_debug(),
                        known.join(", ")
                    );
                    return Err(FileError::at(of, name, message));
                };
                if suite.tls13().is_none() {
                    provider.cipher_suites.push(*suite);
                }
            }
            provider.cipher_suites.extend(all.iter().filter(|suite| suite.tls13().is_some()));
        }
        if let Some(names) = self.curve_preferences.as_ref().filter(|names| !names.is_empty()) {
            let all = std::mem::take(&mut provider.kx_groups);
            for name in names {
                let group = match name.value.as_str() {
                    "X25519" => NamedGroup::X25519,
                    "CurveP256" => NamedGroup::secp256r1,
                    "CurveP384" => NamedGroup::secp384r1,
                    other => {
                        let message = format!(
                            "`curve_preferences`: `{}` is not offered; there are X25519, \
                             CurveP256 and CurveP384",
                            other.escape_debug()
                        );
                        return Err(FileError::at(of, name, message));
                    }
                };
                provider.kx_groups.extend(all.iter().find(|known| known.name() == group));
            }
        }
        Ok(provider)
    }

    fn policy(&self, of: &Path) -> Result<Policy, FileError> {
        let policy = match self.client_auth_type.as_ref().filter(|name| !name.value.is_empty()) {
            None => Policy::default(),
            Some(name) => Policy::by_name(&name.value).ok_or_else(|| {
                let names = Policy::names();
                FileError::at(of, name, format!("`client_auth_type`: expected one of {names}"))
            })?,
        };
        let has_ca = self.client_ca.is_some() || self.client_ca_file.is_some();
        if policy.verifies() && !has_ca {
            let message = "`client_ca_file` is missing: whose certificates are taken";
            return Err(FileError::new(of, format!("`tls_server_config`: {message}")));
        }
        if has_ca && !policy.verifies() {
            let message = "`client_ca_file` is of no use without `client_auth_type: \
                           RequireAndVerifyClientCert`";
            return Err(FileError::new(of, format!("`tls_server_config`: {message}")));
        }
        if let Some(sans) = &self.client_allowed_sans
            && !policy.requires_one()
        {
            let message = "`client_allowed_sans` needs `client_auth_type: \
                           RequireAndVerifyClientCert`: other clients may come without a name";
            return Err(FileError::at(of, sans, message));
        }
        Ok(policy)
    }

    fn verifier(
        &self,
        of: &Path,
        policy: Policy,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<Verifier>>, FileError> {
        if policy == Policy::NoClientCert {
            return Ok(None);
        }
        let authority =
            pem(of, "client_ca", self.client_ca.as_ref(), self.client_ca_file.as_ref())?;
        let chain = match authority {
            None => None,
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&authority)? {
                    roots.add(certificate).map_err(|error| {
                        FileError::new(&authority.file, format!("a certificate in it: {error}"))
                    })?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
                let built = verifier.build();
                Some(built.map_err(|e| FileError::new(&authority.file, e.to_string()))?)
            }
        };
        let allowed_sans =
            self.client_allowed_sans.as_ref().map(|sans| sans.value.clone()).unwrap_or_default();
        let mandatory = policy.requires_one();
        Ok(Some(Arc::new(Verifier { chain, mandatory, allowed_sans, provider })))
    }
}

/// Clients refuse it, so the log should say why.
fn warn_of_expiry(pem: &Pem, chain: &[CertificateDer<'_>]) {
    let Some(Ok((_, leaf))) = chain.first().map(|leaf| parse_x509_certificate(leaf)) else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let validity = leaf.validity();
    if u64::try_from(validity.not_after.timestamp()).is_ok_and(|end| end < now) {
        let file = pem.file.display();
        tracing::warn!("the certificate in {file} has expired on {}", validity.not_after);
    }
}
