//! Why a daemon gave no snapshot, in words for the user, with what to do.

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use ureq::http::StatusCode;

/// Of a request that got no answer.
pub(super) fn of(error: &ureq::Error) -> String {
    if let Some(error) = tls(error) {
        return of_tls(error);
    }
    let plain = match error {
        // Without the library's own prefix.
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    format!("{plain}; is the daemon running there?")
}

/// Of an answer that is none. `secure`: over TLS; `named`: with a password.
pub(super) fn of_status(status: StatusCode, secure: bool, named: bool) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED if named => {
            "user or password is wrong; see basic_auth in the file of --http-config"
        }
        StatusCode::UNAUTHORIZED => {
            "it asks for user and password: name them under basic_auth in the file of --http-config"
        }
        StatusCode::BAD_REQUEST if !secure => "does it speak TLS? try https:// instead",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            "it is busy, and is asked again"
        }
        _ => "is that a lockprof daemon?",
    }
}

/// The error of TLS in it.
fn tls(error: &ureq::Error) -> Option<&TlsError> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn of_tls(error: &TlsError) -> String {
    use CertificateError as Certificate;
    let next = match error {
        TlsError::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is of an authority that is not known here; name that under \
             tls_config: ca_file in the file of --http-config"
        }
        TlsError::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => {
            "its certificate is for another name; connect by that, or set tls_config: server_name \
             in the file of --http-config"
        }
        TlsError::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired: renew it there, or set this machine's clock"
        }
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
            | AlertDescription::DecryptError,
        ) => {
            "it did not take our certificate: set tls_config: cert_file and key_file in the file of \
             --http-config to one that it accepts"
        }
        TlsError::InvalidMessage(_) => "does it speak TLS? try http:// instead",
        _ => "see what the daemon's log says",
    };
    format!("{error}; {next}")
}
