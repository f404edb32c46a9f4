//! Kernels to boot: those that Debian packages, by series, in a cache outside
//! the source tree.
//!
//! A series is looked up when it is needed and a week after that, since its
//! package is replaced by newer ones. The cache is `$LOCKPROF_KERNELS`, or
//! `kernels` in lockprof's cache ([`shell::cache`]); `SERIES/vmlinuz` in it may be put there
//! by hand as well.

pub(crate) mod apt;
mod version;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::shell;

/// A series of kernels and the suites of Debian that may have it, best first.
#[derive(Debug)]
pub(crate) struct Series {
    /// `6.12`.
    pub(crate) name: &'static str,
    suites: &'static [&'static str],
}

const BACKPORTS: &[&str] = &["trixie-backports", "sid", "experimental"];

/// All series that are known, oldest first.
pub(crate) const SERIES: [Series; 9] = [
    Series { name: "5.10", suites: &["bullseye"] },
    Series { name: "6.1", suites: &["bookworm"] },
    Series { name: "6.12", suites: &["trixie"] },
    Series { name: "6.16", suites: BACKPORTS },
    Series { name: "6.18", suites: BACKPORTS },
    Series { name: "6.19", suites: BACKPORTS },
    Series { name: "7.0", suites: BACKPORTS },
    Series { name: "7.2", suites: BACKPORTS },
    Series { name: "7.3", suites: BACKPORTS },
];

/// The series that `cargo xtask vm` boots by default: a stable release's.
pub(crate) const USUAL: &str = "6.12";

/// Modules that a guest loads: what Debian does not build in and tests need.
const MODULES: [&str; 1] = ["overlay"];

/// How long a cached kernel is taken without asking for a newer package.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// A kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The file.
    pub(crate) image: PathBuf,
    /// Its [`MODULES`], as far as they can be had.
    pub(crate) modules: Vec<PathBuf>,
    /// What it is: a package and its version, or the file.
    pub(crate) origin: String,
}

/// The kernel that a user names: a series, or the path of an image.
///
/// # Errors
/// When there is no such series or file, or it cannot be had; what to do
/// instead is said.
pub(crate) fn named(name: &str) -> Result<Kernel> {
    if name.contains('/') {
        let image = PathBuf::from(name);
        if !image.is_file() {
            return Err(anyhow!("{name}, which --kernel names, is no file"));
        }
        return Ok(Kernel { origin: name.to_owned(), image, modules: Vec::new() });
    }
    let series = SERIES.iter().find(|series| series.name == name).with_context(|| {
        let names: Vec<_> = SERIES.iter().map(|series| series.name).collect();
        format!(
            "no series {name} is known; there are {}, or give --kernel /path/to/vmlinuz",
            names.join(", ")
        )
    })?;
    series.kernel()
}

impl Series {
    /// Its kernel, from the cache or from a package.
    ///
    /// # Errors
    /// When it is not cached and cannot be had.
    pub(crate) fn kernel(&self) -> Result<Kernel> {
        let cache = cache();
        let folder = cache.join(self.name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let image = folder.join("vmlinuz");
        // Two runs must not unpack over each other.
        let lock = folder.join("lock");
        let lock =
            File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
        lock.lock().context("failed to lock the cache of kernels")?;

        let origin = folder.join("package");
        let modules = MODULES.map(|name| folder.join(format!("{name}.ko")));
        let cached = || Kernel {
            image: image.clone(),
            modules: modules.iter().filter(|file| file.is_file()).cloned().collect(),
            origin: fs::read_to_string(&origin)
                .map_or_else(|_| image.display().to_string(), |text| text.trim().to_owned()),
        };
        // Says that modules were looked for, in the newest package.
        let looked = folder.join("modules");
        // One that was put there by hand has no package, and stays.
        if image.is_file() && (!origin.is_file() || fresh(&origin) && looked.is_file()) {
            return Ok(cached());
        }
        match self.fetch(&cache, &image, &modules) {
            Ok(package) => {
                for (file, text) in [(&origin, format!("{package}\n")), (&looked, String::new())] {
                    fs::write(file, text)
                        .with_context(|| format!("failed to write {}", file.display()))?;
                }
                Ok(Kernel { origin: package, ..cached() })
            }
            Err(error) if image.is_file() => {
                eprintln!("vm: taking the cached kernel, for no newer one can be had: {error:#}");
                Ok(cached())
            }
            Err(error) => Err(error.context(format!(
                "no kernel of the series {}; --kernel /path/to/vmlinuz takes one of your own, \
                 and so does {}",
                self.name,
                image.display()
            ))),
        }
    }

    /// Downloads and unpacks the newest package; its name and version.
    fn fetch(&self, cache: &Path, image: &Path, modules: &[PathBuf]) -> Result<String> {
        let mut missing = Vec::new();
        for suite in self.suites {
            let archive = apt::Archive::open(&cache.join("apt"), suite)?;
            let lines = archive.packages(self.name)?;
            match version::newest(self.name, &lines) {
                Some(package) => {
                    println!("vm: downloading {} {} from {suite}", package.name, package.version);
                    take(&archive, &package.name, image, modules)?;
                    return Ok(format!("{} {}", package.name, package.version));
                }
                None => missing.push(*suite),
            }
        }
        Err(anyhow!("Debian's {} has no package of it", missing.join(" or ")))
    }
}

/// Takes the kernel and its modules from their packages.
///
/// Where the image is in `linux-binary-*`, the modules are in `linux-modules-*`
/// of the same name. Not all versions have that: then a guest goes without.
fn take(archive: &apt::Archive, package: &str, image: &Path, modules: &[PathBuf]) -> Result<()> {
    let apart = package.strip_prefix("linux-binary-").map(|rest| format!("linux-modules-{rest}"));
    let files: Vec<_> = MODULES.iter().map(|name| format!("{name}.ko")).collect();
    let modules: Vec<_> =
        files.iter().map(String::as_str).zip(modules.iter().map(PathBuf::as_path)).collect();
    for (_, place) in &modules {
        // Those of another version do not fit.
        let _ = fs::remove_file(place);
    }
    let kernel = [("vmlinuz", image)];
    match apart {
        None => archive.take(package, &[&kernel[..], &modules].concat()),
        Some(apart) => {
            archive.take(package, &kernel)?;
            if let Err(error) = archive.take(&apart, &modules) {
                eprintln!("vm: {package} goes without {}: {error:#}", files.join(" and "));
            }
            Ok(())
        }
    }
}

fn fresh(file: &Path) -> bool {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
}

/// The folder of the cache.
fn cache() -> PathBuf {
    let named = env::var_os("LOCKPROF_KERNELS").filter(|value| !value.is_empty());
    named.map_or_else(|| shell::cache().join("kernels"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_is_not_known_is_answered_with_those_that_are() {
        let error = named("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12") && error.contains("/path/to/vmlinuz"), "{error}");
    }

    #[test]
    fn an_image_is_taken_by_its_path() {
        let me = env::current_exe().unwrap();
        assert_eq!(named(me.to_str().unwrap()).unwrap().image, me);
        assert!(named("/nonexistent/vmlinuz").unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn the_usual_series_is_one_of_them() {
        assert!(SERIES.iter().any(|series| series.name == USUAL));
    }
}
