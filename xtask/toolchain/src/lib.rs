//! The compiler and the linker of the BPF programs: where they are on this
//! machine, which ones to take, and how to call them.
//!
//! In: the machine's files and PATH ([`Facts::collect`]) and what the user asks
//! for ([`Wish`]). Out: a [`Toolchain`], or what is [`Missing`]. The build
//! script of `profiler-daemon` and `cargo xtask` both use it, so that setup
//! and the build never disagree.

pub mod environment;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the environment variable that picks a toolchain; see [`Wish`].
pub const WISH_VARIABLE: &str = "LOCKPROF_BPF_TOOLCHAIN";

/// Where `cargo xtask setup` installs `bpf-linker`, from the workspace root.
pub const TOOLS: &str = "target/tools";

/// What the user asks for in `LOCKPROF_BPF_TOOLCHAIN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Unset or empty: the best that is there.
    #[default]
    Any,
    /// `nightly`: the rustup nightly, never a system rustc.
    Nightly,
    /// `system`: a system rustc, never the rustup nightly.
    System,
    /// `none`: pretend that there is none, for a check without the object.
    None,
}

impl Wish {
    /// The value of the environment variable.
    ///
    /// # Errors
    /// A message that lists the values, when it is something else.
    pub fn parse(value: &str) -> Result<Self, String> {
        match value {
            "" => Ok(Self::Any),
            "nightly" => Ok(Self::Nightly),
            "system" => Ok(Self::System),
            "none" => Ok(Self::None),
            other => Err(format!(
                "{WISH_VARIABLE} is \"{other}\"; set it to nightly, system or none, or unset it"
            )),
        }
    }

    /// Reads the environment.
    ///
    /// # Errors
    /// As [`Wish::parse`].
    pub fn from_env() -> Result<Self, String> {
        Self::parse(&env::var_os(WISH_VARIABLE).unwrap_or_default().to_string_lossy())
    }
}

/// A compiler that can produce BPF code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// rustup's nightly with `rust-src`: builds `core` itself.
    Nightly {
        /// The `rustup` command.
        rustup: PathBuf,
    },
    /// A rustc that came with `core` for the BPF target.
    System {
        /// The compiler.
        rustc: PathBuf,
        /// The cargo beside it, or else the one that is running.
        cargo: PathBuf,
    },
}

/// What this machine has, before any decision.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// rustup, when its nightly has `rust-src`.
    pub nightly: Option<PathBuf>,
    /// The first system rustc with `core` for the target, and its cargo.
    pub system: Option<(PathBuf, PathBuf)>,
    /// Every `bpf-linker`: the one that setup built, then those on PATH.
    pub linkers: Vec<PathBuf>,
}

/// What stands in the way of building the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No compiler for the BPF target.
    Compiler,
    /// A compiler, but no `bpf-linker`.
    Linker,
    /// Hidden by `LOCKPROF_BPF_TOOLCHAIN=none`.
    Hidden,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compiler => {
                "no compiler for the BPF target (neither rustup's nightly with rust-src nor a \
                 system rustc with core for bpfel-unknown-none)"
            }
            Self::Linker => "no bpf-linker in target/tools/bin or on PATH",
            Self::Hidden => "LOCKPROF_BPF_TOOLCHAIN=none hides the BPF toolchain",
        })
    }
}

/// A compiler and a linker that can build the BPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The `bpf-linker`.
    pub linker: PathBuf,
}

/// The compiler to take: a nightly goes before a system rustc, because a user
/// who added `rust-src` to it did so for this.
pub fn choose_compiler(facts: &Facts, wish: Wish) -> Result<Compiler, Missing> {
    let nightly = facts.nightly.clone().map(|rustup| Compiler::Nightly { rustup });
    let system = facts.system.clone().map(|(rustc, cargo)| Compiler::System { rustc, cargo });
    match wish {
        Wish::Any => nightly.or(system).ok_or(Missing::Compiler),
        Wish::Nightly => nightly.ok_or(Missing::Compiler),
        Wish::System => system.ok_or(Missing::Compiler),
        Wish::None => Err(Missing::Hidden),
    }
}

/// The toolchain to take.
///
/// # Errors
/// The first thing that is missing.
pub fn choose(facts: &Facts, wish: Wish) -> Result<Toolchain, Missing> {
    let compiler = choose_compiler(facts, wish)?;
    let linker = facts.linkers.first().cloned().ok_or(Missing::Linker)?;
    Ok(Toolchain { compiler, linker })
}

/// The BPF target with the byte order of the machine that will run the object:
/// the kernel takes no other.
pub const fn target(big_endian: bool) -> &'static str {
    if big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// The name that aya gives to a machine in `--cfg bpf_target_arch`: Rust's
/// `target_arch`, less the extensions of RISC-V (as `aya-build` does).
pub fn aya_arch(target_arch: &str) -> &str {
    if target_arch.starts_with("riscv64") { "riscv64" } else { target_arch }
}

impl Facts {
    /// Looks at the files and PATH of this machine, and asks rustup and each
    /// rustc on PATH. Installs nothing and asks no network.
    pub fn collect(workspace: &Path, target: &str) -> Self {
        let path: Vec<PathBuf> =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let mut linkers = vec![workspace.join(TOOLS).join("bin/bpf-linker")];
        linkers.extend(path.iter().map(|dir| dir.join("bpf-linker")));
        linkers.retain(|linker| linker.is_file());
        Self {
            nightly: find_in(&path, "rustup").filter(|rustup| nightly_has_source(rustup)),
            system: system_rustc(&path, target),
            linkers,
        }
    }
}

fn find_in(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Standard output of a command that succeeds, trimmed.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn nightly_has_source(rustup: &Path) -> bool {
    // Asking must not make rustup download a nightly.
    let rustc = answer(
        Command::new(rustup)
            .args(["which", "--toolchain", "nightly", "rustc"])
            .env("RUSTUP_AUTO_INSTALL", "0"),
    );
    rustc.is_some_and(|rustc| {
        Path::new(&rustc)
            .ancestors()
            .nth(2)
            .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
    })
}

fn system_rustc(path: &[PathBuf], target: &str) -> Option<(PathBuf, PathBuf)> {
    let mut seen = Vec::new();
    for dir in path.iter().map(PathBuf::as_path).chain([Path::new("/usr/bin")]) {
        let rustc = dir.join("rustc");
        if seen.contains(&rustc) || !rustc.is_file() {
            continue;
        }
        let mut ask = Command::new(&rustc);
        environment::scrub(&mut ask);
        let libraries = answer(ask.args(["--print", "target-libdir", "--target", target]));
        if libraries.is_some_and(|dir| has_core(Path::new(&dir))) {
            let beside = dir.join("cargo");
            let cargo = if beside.is_file() { beside } else { running_cargo() };
            return Some((rustc, cargo));
        }
        seen.push(rustc);
    }
    None
}

fn has_core(libraries: &Path) -> bool {
    let Ok(entries) = libraries.read_dir() else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// The cargo that runs the build script or xtask; cargo sets the variable.
fn running_cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

impl Compiler {
    /// The compiler itself, with a clean environment.
    pub fn rustc(&self) -> Command {
        let mut command = match self {
            Self::Nightly { rustup } => {
                let mut command = Command::new(rustup);
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Self::System { rustc, .. } => Command::new(rustc),
        };
        environment::scrub(&mut command);
        if let Self::System { .. } = self {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// Cargo with this compiler and a clean environment, the verb its first
    /// argument.
    fn cargo(&self, verb: Verb) -> Command {
        let mut command = match self {
            Self::Nightly { rustup } => {
                let mut command = Command::new(rustup);
                command.args(["run", "nightly", "cargo", verb.name(), "-Zbuild-std=core"]);
                command
            }
            Self::System { cargo, .. } => {
                let mut command = Command::new(cargo);
                // `cargo clippy` would look on PATH for its other half, and
                // find rustup's.
                command.arg(if verb == Verb::Clippy { Verb::Check } else { verb }.name());
                command
            }
        };
        environment::scrub(&mut command);
        if let Self::System { rustc, .. } = self {
            // The programs use unstable intrinsics, which a release compiler
            // takes only so.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            if verb == Verb::Clippy {
                command.env("RUSTC_WORKSPACE_WRAPPER", rustc.with_file_name(CLIPPY));
            }
        }
        command
    }

    /// Whether there is a clippy of this compiler's version.
    pub fn has_clippy(&self) -> bool {
        match self {
            Self::Nightly { rustup } => answer(
                Command::new(rustup)
                    .args(["which", "--toolchain", "nightly", CLIPPY])
                    .env("RUSTUP_AUTO_INSTALL", "0"),
            )
            .is_some(),
            Self::System { rustc, .. } => rustc.with_file_name(CLIPPY).is_file(),
        }
    }
}

/// The compiler that clippy wraps around a rustc.
const CLIPPY: &str = "clippy-driver";

/// What cargo is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make the object.
    Build,
    /// Tell of errors and the compiler's warnings.
    Check,
    /// Tell of clippy's warnings too.
    Clippy,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Check => "check",
            Self::Clippy => "clippy",
        }
    }
}

/// What to do with the BPF programs.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What cargo is to do.
    pub verb: Verb,
    /// The workspace root.
    pub workspace: &'a Path,
    /// The BPF target, from [`target`].
    pub target: &'a str,
    /// Rust's `target_arch` of the machine that will run the object.
    pub arch: &'a str,
    /// Where cargo puts its files: not the outer cargo's, which is locked.
    pub target_dir: &'a Path,
    /// Cargo features of the programs.
    pub features: &'a [&'a str],
    /// Turns compiler warnings of the workspace into errors.
    pub deny_warnings: bool,
}

impl Job<'_> {
    /// The object of `program` that a `build` leaves.
    pub fn object(&self, program: &str) -> PathBuf {
        self.target_dir.join(self.target).join("release").join(program)
    }

    /// The flags of the BPF compiler.
    fn flags(&self, linker: &Path) -> OsString {
        let mut flags =
            OsString::from(format!("--cfg=bpf_target_arch=\"{}\"", aya_arch(self.arch)));
        // BTF is made from debug information, and v3 is the first instruction
        // set with the compare-exchange that the in-flight table needs.
        for flag in ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"] {
            flags.push(SEPARATOR);
            flags.push(flag);
        }
        flags.push(SEPARATOR);
        flags.push("-Clinker=");
        flags.push(linker);
        if self.deny_warnings {
            flags.push(SEPARATOR);
            flags.push("-Dwarnings");
        }
        flags
    }
}

/// What stands between the flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

impl Toolchain {
    /// The command that does `job`, ready to run.
    pub fn command(&self, job: &Job<'_>) -> Command {
        let mut command = self.compiler.cargo(job.verb);
        command
            .current_dir(job.workspace)
            .args(["--quiet", "--locked", "--package", "profiler-ebpf", "--bins", "--release"])
            .args([OsStr::new("--target"), OsStr::new(job.target), OsStr::new("--target-dir")])
            .arg(job.target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", job.flags(&self.linker));
        if !job.features.is_empty() {
            command.arg("--features").arg(job.features.join(","));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Facts {
        Facts {
            nightly: Some("/r/rustup".into()),
            system: Some(("/usr/bin/rustc".into(), "/usr/bin/cargo".into())),
            linkers: vec!["/w/target/tools/bin/bpf-linker".into(), "/usr/bin/bpf-linker".into()],
        }
    }

    #[test]
    fn a_nightly_with_source_goes_before_a_system_rustc() {
        let got = choose(&both(), Wish::Any).unwrap();
        assert_eq!(got.compiler, Compiler::Nightly { rustup: "/r/rustup".into() });
        assert_eq!(got.linker, Path::new("/w/target/tools/bin/bpf-linker"));
    }

    #[test]
    fn a_system_rustc_is_taken_when_the_nightly_has_no_source() {
        let facts = Facts { nightly: None, ..both() };
        let got = choose(&facts, Wish::Any).unwrap();
        let want =
            Compiler::System { rustc: "/usr/bin/rustc".into(), cargo: "/usr/bin/cargo".into() };
        assert_eq!(got.compiler, want);
    }

    #[test]
    fn a_wish_is_not_overruled() {
        let only_nightly = Facts { system: None, ..both() };
        assert_eq!(choose(&only_nightly, Wish::System), Err(Missing::Compiler));
        let only_system = Facts { nightly: None, ..both() };
        assert_eq!(choose(&only_system, Wish::Nightly), Err(Missing::Compiler));
        assert_eq!(choose(&both(), Wish::None), Err(Missing::Hidden));
        assert!(matches!(choose(&both(), Wish::System).unwrap().compiler, Compiler::System { .. }));
    }

    #[test]
    fn a_missing_compiler_is_named_before_a_missing_linker() {
        assert_eq!(choose(&Facts::default(), Wish::Any), Err(Missing::Compiler));
        let no_linker = Facts { linkers: vec![], ..both() };
        assert_eq!(choose(&no_linker, Wish::Any), Err(Missing::Linker));
    }

    #[test]
    fn an_unknown_wish_names_the_values() {
        assert_eq!(Wish::parse("system"), Ok(Wish::System));
        assert_eq!(Wish::parse(""), Ok(Wish::Any));
        let message = Wish::parse("stable").unwrap_err();
        assert!(message.contains("\"stable\"") && message.contains("nightly, system or none"));
    }

    #[test]
    fn the_byte_order_of_the_machine_picks_the_target() {
        assert_eq!(target(false), "bpfel-unknown-none");
        assert_eq!(target(true), "bpfeb-unknown-none");
    }

    #[test]
    fn aya_knows_one_riscv64() {
        assert_eq!(aya_arch("riscv64gc"), "riscv64");
        assert_eq!(aya_arch("x86_64"), "x86_64");
    }

    fn job(verb: Verb) -> Job<'static> {
        Job {
            verb,
            workspace: Path::new("/w"),
            target: target(false),
            arch: "riscv64gc",
            target_dir: Path::new("/o"),
            features: &["log", "more"],
            deny_warnings: true,
        }
    }

    fn variable(command: &Command, name: &str) -> Option<String> {
        let (_, value) = command.get_envs().find(|(variable, _)| *variable == name)?;
        value.map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn each_flag_is_its_own_even_when_the_linker_has_a_space_in_its_path() {
        let toolchain = Toolchain {
            linker: "/my tools/bpf-linker".into(),
            ..choose(&both(), Wish::System).unwrap()
        };
        let command = toolchain.command(&job(Verb::Build));
        let flags = variable(&command, "CARGO_ENCODED_RUSTFLAGS").unwrap();
        let flags: Vec<&str> = flags.split(SEPARATOR).collect();
        assert_eq!(flags[0], "--cfg=bpf_target_arch=\"riscv64\"");
        assert!(flags.contains(&"-Clinker=/my tools/bpf-linker"));
        assert!(flags.contains(&"-Dwarnings"));
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args.first(), Some(&OsStr::new("build")));
        assert!(args.ends_with(&[OsStr::new("--features"), OsStr::new("log,more")]));
        let object = Path::new("/o/bpfel-unknown-none/release/profiler-ebpf");
        assert_eq!(job(Verb::Build).object("profiler-ebpf"), object);
    }

    #[test]
    fn clippy_of_a_system_rustc_is_the_one_beside_it() {
        let system = choose(&both(), Wish::System).unwrap().command(&job(Verb::Clippy));
        assert_eq!(system.get_args().next(), Some(OsStr::new("check")));
        let wrapper = variable(&system, "RUSTC_WORKSPACE_WRAPPER");
        assert_eq!(wrapper.as_deref(), Some("/usr/bin/clippy-driver"));
        let nightly = choose(&both(), Wish::Nightly).unwrap().command(&job(Verb::Clippy));
        let args: Vec<_> = nightly.get_args().take(5).collect();
        assert_eq!(args, ["run", "nightly", "cargo", "clippy", "-Zbuild-std=core"]);
    }

    #[test]
    fn only_a_release_compiler_is_told_to_take_unstable_code() {
        let system = choose(&both(), Wish::System).unwrap().command(&job(Verb::Build));
        assert_eq!(variable(&system, "RUSTC_BOOTSTRAP").as_deref(), Some("1"));
        assert_eq!(variable(&system, "RUSTC").as_deref(), Some("/usr/bin/rustc"));
        let nightly = choose(&both(), Wish::Nightly).unwrap().command(&job(Verb::Build));
        assert_eq!(variable(&nightly, "RUSTC_BOOTSTRAP"), None);
        assert_eq!(variable(&nightly, "RUSTC"), None);
    }
}
