//! Configuration files in YAML: the forms that the Prometheus ecosystem shares.
//!
//! Strict: what is not known is refused by name, with its line, and nothing
//! that stands in the file is repeated in a message but names of keys, as
//! values may be secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

/// A value with where it stands in the file.
pub(crate) type At<T> = serde_saphyr::Spanned<T>;

/// What is wrong with a configuration file, or with a file that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    file: PathBuf,
    line: Option<u64>,
    message: String,
}

impl FileError {
    /// Something wrong with `file` as a whole.
    pub(crate) fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, message: message.into() }
    }

    /// Something wrong with a value of `file`.
    pub(crate) fn at<T>(file: &Path, value: &At<T>, message: impl Into<String>) -> Self {
        let line = value.referenced.line();
        Self { line: (line > 0).then_some(line), ..Self::new(file, message) }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for FileError {}

/// The contents of a file.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; the user that lockprof runs as must be able to read it, and no other: for the \
                 service, owner root, group lockprof and mode 0640"
            }
            _ => "",
        };
        FileError::new(path, format!("failed to read: {error}{hint}"))
    })
}

/// The form `T` from the YAML in the file at `path`. An empty file is an empty
/// form.
///
/// # Errors
///
/// It cannot be read, is no YAML, or has what the form has not.
pub(crate) fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, FileError> {
    let bytes = read_file(path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| FileError::new(path, "is not UTF-8 text"))?;
    // A snippet in the message would show secrets.
    let options = serde_saphyr::options! { with_snippet: false };
    let form: Option<T> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| explain(path, error.without_snippet()))?;
    Ok(form.unwrap_or_default())
}

fn explain(path: &Path, error: &Error) -> FileError {
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let field: String = field.chars().take(64).collect();
            let near =
                expected.iter().map(|known| (strsim::damerau_levenshtein(&field, known), known));
            let nearest = near.min().filter(|(edits, _)| *edits <= 2);
            let meant = nearest.map(|(_, known)| format!("; did you mean `{known}`"));
            format!(
                "unknown key `{}`{}; known here: {}",
                field.escape_debug(),
                meant.unwrap_or_default(),
                expected.join(", ")
            )
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected}")
        }
        Error::DuplicateMappingKey { .. } => "a key that is there twice".to_owned(),
        Error::Message { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    FileError { line, ..FileError::new(path, message) }
}

/// `path` as it is meant in the configuration file `file`: from its folder.
pub(crate) fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Form {
        user: Option<String>,
        number: Option<At<u32>>,
    }

    fn error(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = read::<Form>(file.path()).expect_err(text).to_string();
        error.strip_prefix(&file.path().display().to_string()).expect("names the file").to_owned()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_is_known() {
        assert_eq!(
            error("number: 1\n\nuserr: x\n"),
            ":3: unknown key `userr`; did you mean `user`; known here: user, number"
        );
    }

    #[test]
    fn messages_repeat_no_value() {
        for text in ["number: hunter2\n", "hunter2\n", "user: [hunter2]\n", "user: {hunter2: x}\n"]
        {
            let error = error(text);
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.starts_with(":1: "), "{error}");
        }
        assert!(error("user: \"hunter2\nnumber: 1\n").contains(':'));
    }

    #[test]
    fn an_empty_file_is_an_empty_form() {
        for text in ["", "# nothing\n", "{}"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let form: Form = read(file.path()).unwrap();
            assert!(form.user.is_none() && form.number.is_none());
        }
    }

    #[test]
    fn paths_are_from_the_folder_of_the_file() {
        assert_eq!(beside(Path::new("/etc/x/web.yml"), "tls.key"), Path::new("/etc/x/tls.key"));
        assert_eq!(beside(Path::new("/etc/x/web.yml"), "/k"), Path::new("/k"));
        assert_eq!(beside(Path::new("web.yml"), "k"), Path::new("k"));
    }
}
