//! Packages of a Debian suite that the machine does not use otherwise: the
//! mirror and the keyring of its own sources, lists of its own, no root.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use super::version::Package;
use crate::shell;

/// One suite, its package lists refreshed.
pub(super) struct Archive {
    folder: PathBuf,
    suite: String,
}

/// Where this machine takes Debian from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Of the archive, without the suite.
    pub(crate) uri: String,
    /// The suite that the machine takes from there.
    pub(crate) suite: String,
    /// As apt has it: a file, or nothing for the machine's trusted keys.
    signed_by: Option<String>,
}

impl Mirror {
    /// A line of sources.list(5) for the component main of `suite`; `options` as
    /// `arch=amd64`.
    pub(crate) fn source(&self, suite: &str, options: &str) -> String {
        let keys = self.signed_by.clone().or_else(debian_keyring);
        let keys = keys.map_or_else(String::new, |keys| format!("signed-by={keys}"));
        let options = format!("{options} {keys}");
        let options = match options.trim() {
            "" => String::new(),
            options => format!(" [{options}]"),
        };
        format!("deb{options} {} {suite} main", self.uri)
    }
}

/// Suites that a plain source of Debian may name.
const SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
    "duke",
];

impl Archive {
    /// Refreshes the lists of `suite`, kept below `root`.
    ///
    /// # Errors
    /// When this machine has no apt or no source of Debian, and when the lists
    /// cannot be had.
    pub(super) fn open(root: &Path, suite: &str) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            if shell::find(tool).is_none() {
                bail!("kernels come as Debian packages, and this machine has no {tool}");
            }
        }
        let mirror = mirror()?;
        let this = Self { folder: root.join(suite), suite: suite.to_owned() };
        for folder in ["lists/partial", "cache/archives/partial", "download"] {
            let folder = this.folder.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let source = mirror.source(suite, "target=Packages arch=amd64") + "\n";
        for (name, text) in [("sources.list", source), ("apt.conf", configuration(&this.folder))] {
            let file = this.folder.join(name);
            fs::write(&file, text)
                .with_context(|| format!("failed to write {}", file.display()))?;
        }
        let output = output(this.apt("apt-get").arg("update"))?;
        said(&output).with_context(|| format!("failed to get the package lists of {suite}"))?;
        Ok(this)
    }

    /// The kernel packages of a series, other flavours among them.
    pub(super) fn packages(&self, series: &str) -> Result<Vec<Package>> {
        let pattern = format!("^linux-(image|binary)-{}.*-amd64$", series.replace('.', r"\."));
        let names = output(self.apt("apt-cache").args(["search", "--names-only", &pattern]))?;
        said(&names).context("failed to search the package lists")?;
        let names = String::from_utf8_lossy(&names.stdout).into_owned();
        let names: Vec<_> = names.lines().filter_map(|line| line.split(" - ").next()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let shown = output(self.apt("apt-cache").arg("show").args(names))?;
        said(&shown).context("failed to read the package lists")?;
        Ok(parse_packages(&String::from_utf8_lossy(&shown.stdout)))
    }

    /// Downloads a package and puts files of it in place, told by how their names
    /// begin.
    pub(super) fn take(&self, package: &str, wanted: &[(&str, &Path)]) -> Result<()> {
        let download = self.folder.join("download");
        fs::create_dir_all(&download)
            .with_context(|| format!("failed to create {}", download.display()))?;
        let done =
            output(self.apt("apt-get").args(["download", "-qq", package]).current_dir(&download))?;
        said(&done).with_context(|| format!("failed to download {package} from {}", self.suite))?;
        let unpacked = download.join("unpacked");
        let outcome = (|| {
            let deb = find(&download, |name| name.ends_with(".deb"))?
                .with_context(|| format!("apt-get downloaded no {package}"))?;
            let _ = fs::remove_dir_all(&unpacked);
            fs::create_dir(&unpacked).context("failed to create a folder to unpack to")?;
            for (name, place) in wanted {
                unpack(&deb, name, &unpacked)?;
                let found = find(&unpacked, |found| found.starts_with(name))?
                    .with_context(|| format!("{package} has no {name}"))?;
                put(&found, place)?;
            }
            Ok(())
        })();
        // 100 MB that nobody needs any more.
        let _ = fs::remove_dir_all(&download);
        outcome
    }

    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("LC_ALL", "C.UTF-8").arg("-c").arg(self.folder.join("apt.conf"));
        command
    }
}

/// Everything that apt writes is below `folder`, so that it needs no root and
/// leaves the machine's own state alone.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    let mut text = String::new();
    for (key, value) in [
        ("Dir::Etc::sourcelist", format!("{folder}/sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::Lists", format!("{folder}/lists")),
        ("Dir::Cache", format!("{folder}/cache")),
        ("Debug::NoLocking", "1".into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "2".into()),
        // As root, apt would become a user that cannot write there.
        ("APT::Sandbox::User", "root".into()),
    ] {
        let _ = writeln!(text, "{key} \"{value}\";");
    }
    // What container images do after an update concerns the machine's own lists.
    for key in
        ["APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "APT::Update::Pre-Invoke"]
    {
        let _ = writeln!(text, "#clear {key};");
    }
    text
}

/// The machine's own source of Debian.
///
/// # Errors
/// When this machine has no apt or no source of Debian.
pub(crate) fn mirror() -> Result<Mirror> {
    let targets = output(Command::new("apt-get").args(["indextargets", "Created-By: Packages"]))?;
    said(&targets).context("failed to read this machine's apt sources")?;
    choose_mirror(&String::from_utf8_lossy(&targets.stdout)).ok_or_else(|| {
        anyhow!(
            "this machine's apt sources have no Debian suite; kernels and roots are taken from the \
             mirror that they name: add one of Debian (sources.list(5)), with the keys of the package \
             debian-archive-keyring"
        )
    })
}

/// The keys that every suite of Debian is signed with, from the package
/// debian-archive-keyring. `apt-get indextargets` need not
/// tell which keys a source names (2.6 does not), and the machine's trusted keys
/// need not have these.
fn debian_keyring() -> Option<String> {
    ["pgp", "gpg"]
        .map(|end| format!("/usr/share/keyrings/debian-archive-keyring.{end}"))
        .into_iter()
        .find(|file| Path::new(file).is_file())
}

/// The first target of a whole Debian suite: not security, not updates.
fn choose_mirror(targets: &str) -> Option<Mirror> {
    targets.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        // The origin is known only once lists were downloaded.
        let debian = field("Origin").is_none_or(|origin| origin == "Debian");
        let suite = field("Release")?;
        (debian && SUITES.contains(&suite) && field("Component") == Some("main")).then(|| Mirror {
            uri: field("Repo-URI").unwrap_or_default().to_owned(),
            suite: suite.to_owned(),
            signed_by: field("Signed-By").map(str::to_owned),
        })
    })
}

/// Names and versions of what `apt-cache show` prints.
fn parse_packages(text: &str) -> Vec<Package> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            Some(Package {
                name: field("Package: ")?.to_owned(),
                version: field("Version: ")?.to_owned(),
            })
        })
        .collect()
}

/// Copies a file, decompressed, into place in one step: a run that is cut off
/// leaves no half of it.
fn put(file: &Path, place: &Path) -> Result<()> {
    let beside = place.with_extension("new");
    if file.extension().is_some_and(|end| end == "xz") {
        let written = fs::File::create(&beside)
            .with_context(|| format!("failed to create {}", beside.display()))?;
        let status = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(file)
            .stdout(written)
            .status()
            .context("failed to start xz, which modules are compressed with")?;
        if !status.success() {
            bail!("failed to decompress {} ({status})", file.display());
        }
    } else {
        fs::copy(file, &beside).with_context(|| format!("failed to copy {}", file.display()))?;
    }
    fs::rename(&beside, place).with_context(|| format!("failed to write {}", place.display()))
}

/// Takes the files whose names begin with `name` out of a package.
fn unpack(deb: &Path, name: &str, to: &Path) -> Result<()> {
    let mut data = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start dpkg-deb")?;
    let stream = data.stdout.take().context("dpkg-deb has no standard output")?;
    let tar = Command::new("tar")
        .args(["--extract", "--wildcards", "--no-same-owner", "--directory"])
        .arg(to)
        .arg(format!("*/{name}*"))
        .stdin(stream)
        .output()
        .context("failed to start tar")?;
    let data = data.wait().context("failed to wait for dpkg-deb")?;
    if !data.success() {
        bail!("failed to unpack {} ({data})", deb.display());
    }
    said(&tar).with_context(|| format!("failed to find {name} in {}", deb.display()))
}

/// The first file below `folder` whose name is `wanted`.
fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("failed to read {}", folder.display()))?;
        for entry in entries {
            let path =
                entry.with_context(|| format!("failed to read {}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().and_then(OsStr::to_str).is_some_and(&wanted) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", command.get_program().display()))
}

/// What a command said when it failed.
fn said(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    bail!("{} ({})", lines.join("; "), output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
MetaKey: main/binary-amd64/Packages
Origin: Google
Component: main
Release: stable
Repo-URI: https://packages.example.com/apt/

MetaKey: main/binary-amd64/Packages
Origin: Debian
Component: main
Release: bookworm-security
Repo-URI: http://mirror.example.org/debian-security/

MetaKey: main/binary-amd64/Packages
Origin: Debian
Component: main
Release: bookworm
Repo-URI: http://mirror.example.org/debian/
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

    #[test]
    fn the_mirror_is_the_one_of_the_machines_own_suite() {
        let mirror = choose_mirror(TARGETS).unwrap();
        assert_eq!(mirror.uri, "http://mirror.example.org/debian/");
        assert_eq!(
            mirror.signed_by.as_deref(),
            Some("/usr/share/keyrings/debian-archive-keyring.gpg")
        );
    }

    #[test]
    fn before_the_first_update_the_suites_name_tells() {
        let targets = TARGETS.replace("Origin: Debian\n", "");
        assert_eq!(choose_mirror(&targets).unwrap().uri, "http://mirror.example.org/debian/");
    }

    #[test]
    fn another_distribution_has_no_mirror_of_debian() {
        let ubuntu = "Origin: Ubuntu\nComponent: main\nRelease: noble\nRepo-URI: http://u/\n";
        assert_eq!(choose_mirror(ubuntu), None);
        assert_eq!(choose_mirror(""), None);
    }

    #[test]
    fn packages_are_read_from_stanzas() {
        let text = "Package: a\nVersion: 1-1\nDescription: x\n\nPackage: b\nVersion: 2~rc1-1\n";
        let packages = parse_packages(text);
        assert_eq!(packages.len(), 2);
        assert_eq!((&packages[1].name[..], &packages[1].version[..]), ("b", "2~rc1-1"));
    }

    #[test]
    fn apt_writes_below_its_own_folder_only() {
        let text = configuration(Path::new("/cache/x"));
        assert!(text.contains("Dir::State::Lists \"/cache/x/lists\";"), "{text}");
        assert!(text.contains("Dir::Cache \"/cache/x/cache\";"), "{text}");
        assert!(text.contains("#clear APT::Update::Post-Invoke;"), "{text}");
    }
}
