//! What this machine has, from its files. No package manager, no network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use bpf_toolchain::{Compiler, Facts, Missing, Toolchain, WISH_VARIABLE, Wish};

use super::linker;
use super::needs::{Need, Tool};
use crate::shell;

/// The LLVM that Debian's compiler for the BPF target uses; taken for granted
/// only while no compiler is there to ask.
const USUAL_LLVM: u32 = 22;

/// What was found.
pub(crate) struct Survey {
    /// The compiler, or what is missing.
    pub(crate) compiler: Result<Compiler, Missing>,
    /// Major version of the LLVM that bpf-linker has to be built with.
    pub(crate) llvm: u32,
    /// Prefix of that LLVM's development files.
    pub(crate) llvm_prefix: Option<PathBuf>,
    linker_usable: bool,
    clippy: bool,
    compression: bool,
    tools: Vec<Tool>,
}

/// The BPF target of this machine.
pub(crate) const TARGET: &str = bpf_toolchain::target(cfg!(target_endian = "big"));

/// The toolchain that the build will take.
///
/// # Errors
/// What is missing, and the command that installs it.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let facts = Facts::collect(shell::workspace(), TARGET);
    bpf_toolchain::choose(&facts, wish()?)
        .map_err(|missing| anyhow!("{missing}; run `cargo xtask setup`"))
}

fn wish() -> Result<Wish> {
    Wish::from_env().map_err(|message| anyhow!(message))
}

impl Survey {
    /// Looks; of the tools, for `tools`.
    ///
    /// # Errors
    /// When the compiler is there but does not tell its version, when
    /// bpf-linker knows no LLVM as new as the compiler's, and when the user
    /// asks for a compiler that no distribution packages.
    pub(crate) fn take(tools: &[Tool]) -> Result<Self> {
        let facts = Facts::collect(shell::workspace(), TARGET);
        let wish = wish()?;
        let compiler = bpf_toolchain::choose_compiler(&facts, wish);
        match (&compiler, wish) {
            (Err(missing @ Missing::Hidden), _) => bail!("{missing}; unset it"),
            (Err(_), Wish::Nightly) => bail!(
                "{WISH_VARIABLE} asks for rustup's nightly with rust-src, which is not there; \
                 run `rustup toolchain install nightly --component rust-src`, or unset it"
            ),
            _ => {}
        }
        let (mut llvm, mut linker_usable, mut clippy) = (USUAL_LLVM, false, true);
        if let Ok(compiler) = &compiler {
            // The build takes the first linker, so that one has to be usable.
            linker_usable = match facts.linkers.first() {
                Some(found) => linker::usable(found, compiler)?,
                None => false,
            };
            if !linker_usable {
                llvm = linker::llvm_for(llvm_of(compiler)?)?;
            }
            // Only Debian packages clippy for such a compiler; elsewhere the
            // tests make do with the compiler's own warnings.
            clippy = matches!(compiler, Compiler::Nightly { .. })
                || compiler.has_clippy()
                || !Path::new("/etc/debian_version").is_file();
        }
        Ok(Self {
            compiler,
            llvm,
            llvm_prefix: if linker_usable { None } else { llvm_prefix(llvm) },
            linker_usable,
            clippy,
            compression: ["zstd.h", "zlib.h"].iter().all(|header| has_header(header)),
            tools: tools.iter().copied().filter(|&tool| !has_tool(tool)).collect(),
        })
    }

    /// Whether nothing is missing.
    pub(crate) fn complete(&self) -> bool {
        self.linker_usable && self.packages().is_empty()
    }

    /// Whether the bpf-linker that the build takes understands the compiler.
    pub(crate) fn linker_usable(&self) -> bool {
        self.linker_usable
    }

    /// What packages have to bring.
    pub(crate) fn packages(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        if self.compiler.is_err() {
            needs.push(Need::Compiler);
        }
        if !self.clippy {
            needs.push(Need::Clippy);
        }
        if !self.linker_usable && self.llvm_prefix.is_none() {
            needs.push(Need::Llvm(self.llvm));
        }
        if !self.linker_usable && !self.compression {
            needs.push(Need::Compression);
        }
        needs.extend(self.tools.iter().copied().map(Need::Tool));
        needs
    }
}

/// Major version of the LLVM inside a compiler.
fn llvm_of(compiler: &Compiler) -> Result<u32> {
    let output = compiler.rustc().arg("-vV").output().context("failed to start the compiler")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_llvm(&text)
        .with_context(|| format!("failed to find the LLVM version in `rustc -vV`: {text}"))
}

fn parse_llvm(text: &str) -> Option<u32> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let own = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"));
    let candidates =
        [Some(own), shell::find(&format!("llvm-config-{major}")), shell::find("llvm-config")];
    candidates.into_iter().flatten().find_map(|config| {
        let ask = |what: &str| {
            let output = Command::new(&config).arg(what).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let version = ask("--version")?;
        if version.split('.').next()?.parse() != Ok(major) {
            return None;
        }
        let prefix = PathBuf::from(ask("--prefix")?);
        // llvm-config comes without the headers on some distributions.
        let header = Path::new(&ask("--includedir")?).join("llvm-c/Core.h");
        header.is_file().then_some(prefix)
    })
}

fn has_header(name: &str) -> bool {
    Path::new("/usr/include").join(name).is_file()
}

fn has_tool(tool: Tool) -> bool {
    // Virtual machines are x86-64 only.
    if tool == Tool::Qemu && !cfg!(target_arch = "x86_64") {
        return true;
    }
    if tool.debian_only() && !Path::new("/etc/debian_version").is_file() {
        return true;
    }
    let Some(file) = shell::find(tool.command()) else { return false };
    // The container has no dynamic loader.
    tool != Tool::Busybox || fs::read(file).is_ok_and(|elf| is_static(&elf))
}

/// Whether a 64-bit ELF file asks for no dynamic loader (`PT_INTERP`, elf(5)).
pub(crate) fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    const LITTLE: u8 = 1;
    let word = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        let fold = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
        Some(if elf.get(5) == Some(&LITTLE) {
            bytes.iter().rev().fold(0, fold)
        } else {
            bytes.iter().fold(0, fold)
        })
    };
    let interpreted = || -> Option<bool> {
        let (table, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
        for index in 0..count {
            if word(table.checked_add(index * size)?, 4)? == PT_INTERP as usize {
                return Some(true);
            }
        }
        Some(false)
    };
    elf.starts_with(b"\x7fELF\x02") && interpreted() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of this type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64] = kind;
        file
    }

    #[test]
    fn a_binary_with_an_interpreter_is_not_static() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
    }

    #[test]
    fn a_script_or_a_cut_file_is_not_static() {
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&elf(1)[..70][..66]));
        assert!(!is_static(b""));
    }

    #[test]
    fn the_llvm_of_a_compiler_is_its_major_version() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm(text), Some(22));
        assert_eq!(parse_llvm("release: 1.96.0\n"), None);
    }
}
