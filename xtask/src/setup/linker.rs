//! bpf-linker: whether one is usable, and building it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use bpf_toolchain::{Compiler, TOOLS};

use super::survey::{Survey, TARGET};
use crate::shell;

/// The version that setup builds, and the oldest that it takes.
const VERSION: (u32, u32, u32) = (0, 13, 0);

/// The LLVMs that this version of bpf-linker can be built with.
const LLVMS: [u32; 3] = [21, 22, 23];

/// The LLVM to build bpf-linker with: an older one cannot read the compiler's
/// bitcode, a newer one can.
///
/// # Errors
/// When the compiler is newer than every LLVM that bpf-linker knows.
pub(crate) fn llvm_for(compiler: u32) -> Result<u32> {
    LLVMS.into_iter().find(|&llvm| llvm >= compiler).with_context(|| {
        let (major, minor, patch) = VERSION;
        format!(
            "the compiler for the BPF target uses LLVM {compiler}, newer than bpf-linker \
             {major}.{minor}.{patch} can link (up to {}); put a newer bpf-linker on PATH or an \
             older nightly into rustup",
            LLVMS[LLVMS.len() - 1]
        )
    })
}

/// Whether `linker` is new enough and links what `compiler` emits.
///
/// # Errors
/// When the folder for the trial cannot be written.
pub(crate) fn usable(linker: &Path, compiler: &Compiler) -> Result<bool> {
    let Ok(output) = Command::new(linker).arg("--version").output() else { return Ok(false) };
    if parse_version(&String::from_utf8_lossy(&output.stdout)).is_none_or(|got| got < VERSION) {
        return Ok(false);
    }
    let folder = shell::scratch().join("probe");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let source = folder.join("probe.rs");
    // rustup's nightly has no compiled `core` for the target, so it gets a
    // crate without one: the format of the bitcode is tried, if not much more.
    let text = match compiler {
        Compiler::Nightly { .. } => "#![feature(no_core)]\n#![no_core]\n",
        Compiler::System { .. } => {
            "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe(x: &mut [u64; 4]) -> u64 \
             {\n    for i in x.iter_mut() { *i = i.wrapping_mul(3); }\n    x.iter().sum()\n}\n"
        }
    };
    fs::write(&source, text).with_context(|| format!("failed to write {}", source.display()))?;
    let bitcode = folder.join("probe.bc");
    let mut compile = compiler.rustc();
    compile
        .args(["--edition", "2024", "--crate-type", "lib", "-O", "--emit", "llvm-bc"])
        .args(["--target", TARGET, "-o"])
        .args([&bitcode, &source]);
    let mut link = Command::new(linker);
    link.args(["--export", "probe", "-o"]).args([&folder.join("probe.o"), &bitcode]);
    Ok(succeeds(&mut compile) && succeeds(&mut link))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let version = text.trim().strip_prefix("bpf-linker ")?;
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Builds bpf-linker into `target/tools`, cargo's progress shown.
///
/// # Errors
/// When LLVM is not there, or the build fails.
pub(crate) fn build(survey: &Survey) -> Result<()> {
    let (major, minor, patch) = VERSION;
    let version = format!("bpf-linker@{major}.{minor}.{patch}");
    let llvm = survey.llvm;
    let prefix = survey
        .llvm_prefix
        .as_ref()
        .with_context(|| format!("failed to find the headers of LLVM {llvm}"))?;
    println!("setup: building {version} with LLVM {llvm} into {TOOLS} (a few minutes)");
    let mut command = shell::cargo();
    bpf_toolchain::environment::scrub(&mut command);
    // The compiler that the user chose, which scrubbing took away.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let status = command
        .args(["install", &version, "--locked", "--force", "--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"))
        .arg("--root")
        .arg(shell::workspace().join(TOOLS))
        .env("LLVM_PREFIX", prefix)
        .status()
        .context("failed to start cargo install")?;
    if !status.success() {
        bail!(
            "failed to build {version} with LLVM {llvm} in {} ({status}); cargo's output is above",
            prefix.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_gets_an_llvm_no_older_than_the_compilers() {
        assert_eq!(llvm_for(22).unwrap(), 22);
        assert_eq!(llvm_for(20).unwrap(), 21);
        let message = llvm_for(24).unwrap_err().to_string();
        assert!(message.contains("LLVM 24") && message.contains("up to 23"), "{message}");
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("bpf-linker 0.13.0\n"), Some((0, 13, 0)));
        assert_eq!(parse_version("bpf-linker 1.2.3-rc1\n"), Some((1, 2, 3)));
        assert!(parse_version("bpf-linker 0.9.15").is_some_and(|got| got < VERSION));
        assert_eq!(parse_version("LLVM 22"), None);
    }
}
