//! Certificates and keys in PEM.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::yaml::{At, FileError, beside, read_file};

/// PEM, and where it came from.
pub(crate) struct Pem {
    pub(crate) file: PathBuf,
    what: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// PEM by one of two keys: inline, or the path of a file. Empty is absent.
pub(crate) fn pem(
    of: &Path,
    what: &'static str,
    inline: Option<&At<String>>,
    file: Option<&At<String>>,
) -> Result<Option<Pem>, FileError> {
    let inline = inline.filter(|text| !text.value.is_empty());
    match (inline, file.filter(|path| !path.value.is_empty())) {
        (None, None) => Ok(None),
        (Some(text), Some(_)) => {
            let message = format!("`{what}` and `{what}_file` exclude each other; keep one");
            Err(FileError::at(of, text, message))
        }
        (Some(text), None) => {
            Ok(Some(Pem { file: of.to_owned(), what, bytes: text.value.clone().into_bytes() }))
        }
        (None, Some(path)) => {
            let file = beside(of, &path.value);
            Ok(Some(Pem { bytes: read_file(&file)?, file, what }))
        }
    }
}

/// The certificates in it, at least one.
pub(crate) fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => {
            let message = format!("`{}`: no certificate in it (BEGIN CERTIFICATE)", pem.what);
            Err(FileError::new(&pem.file, message))
        }
        Err(error) => {
            Err(FileError::new(&pem.file, format!("`{}`: not valid PEM: {error}", pem.what)))
        }
    }
}

/// The private key in it.
pub(crate) fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&pem.bytes).map_err(|_| {
        let encrypted = pem.bytes.windows(9).any(|word| word == b"ENCRYPTED");
        let message = if encrypted {
            "the key is encrypted, and nobody is there to enter its password; `openssl pkey -in \
             FILE -out KEY` decrypts it"
        } else {
            "no private key in it (BEGIN PRIVATE KEY)"
        };
        FileError::new(&pem.file, format!("`{}`: {message}", pem.what))
    })
}
