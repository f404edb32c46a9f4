//! The web configuration file: the form that Prometheus' exporters share.
//!
//! See `docs/web-configuration.md` of `prometheus/exporter-toolkit` for it, and
//! `docs/access.md` for where lockprof differs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::basic_auth::{Users, cost_of};
use super::tls::{self, Tls};
use super::yaml::{self, At, FileError};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Form {
    tls_server_config: Option<tls::Form>,
    http_server_config: Option<Http>,
    basic_auth_users: Option<BTreeMap<String, At<String>>>,
    rate_limit: Option<At<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    http2: Option<At<bool>>,
    headers: Option<BTreeMap<String, At<String>>>,
}

/// Headers that may be added, with the values that they may have if not any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// What a web configuration file comes to. The default is that of no file:
/// anyone may come, in clear.
#[derive(Default)]
pub(super) struct WebConfig {
    /// How TLS is spoken, if it is.
    pub(super) tls: Option<Tls>,
    /// Who may come, if they are asked for a password.
    pub(super) users: Option<Users>,
    /// Added to every response.
    pub(super) headers: HeaderMap,
}

/// The file at `path` and those that it names.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    if let Ok(Form { tls_server_config: Some(tls), .. }) = yaml::read(path) {
        files.extend(tls.files(path));
    }
    files
}

/// Reads the file at `path` and those that it names.
///
/// # Errors
///
/// What is wrong with one of them.
pub(super) fn read(path: &Path) -> Result<WebConfig, FileError> {
    yaml::read::<Form>(path)?.build(path)
}

impl Form {
    fn build(self, of: &Path) -> Result<WebConfig, FileError> {
        if let Some(limit) = &self.rate_limit {
            let message = "`rate_limit` is not supported: connections and checks of passwords are \
                           bounded in any case; remove it";
            return Err(FileError::at(of, limit, message));
        }
        let http = self.http_server_config.unwrap_or_default();
        if let Some(http2) = http.http2.filter(|http2| http2.value) {
            let message = "`http2`: only HTTP/1.1 is spoken, which every client falls back to; \
                           remove it or write false";
            return Err(FileError::at(of, &http2, message));
        }
        let headers = headers(of, http.headers.unwrap_or_default())?;
        let mut hashes = HashMap::new();
        for (user, hash) in self.basic_auth_users.unwrap_or_default() {
            let wrong = |why: &str| {
                let user = user.escape_debug();
                FileError::at(of, &hash, format!("`basic_auth_users`: user `{user}`: {why}"))
            };
            if user.contains(':') {
                return Err(wrong("a name with a colon cannot be sent; choose another"));
            }
            cost_of(&hash.value).map_err(|why| wrong(&why))?;
            hashes.insert(user, hash.value);
        }
        let tls = match &self.tls_server_config {
            Some(tls) => tls.build(of)?,
            None => None,
        };
        Ok(WebConfig { tls, users: Users::new(hashes), headers })
    }
}

fn headers(of: &Path, written: BTreeMap<String, At<String>>) -> Result<HeaderMap, FileError> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(known, _)| known).join(", ");
            let name = name.escape_debug();
            let message = format!("`headers`: `{name}` cannot be set; these can: {known}");
            return Err(FileError::at(of, &value, message));
        };
        if value.value.is_empty() {
            continue;
        }
        if !allowed.is_empty() && !allowed.contains(&value.value.as_str()) {
            let message = format!("`headers`: `{name}` must be one of {}", allowed.join(", "));
            return Err(FileError::at(of, &value, message));
        }
        let sent = (HeaderName::try_from(&name), HeaderValue::try_from(&value.value));
        let (Ok(name), Ok(sent)) = sent else {
            let message = format!("`headers`: the value of `{name}` cannot be sent");
            return Err(FileError::at(of, &value, message));
        };
        headers.insert(name, sent);
    }
    Ok(headers)
}
