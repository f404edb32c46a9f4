//! What can be missing, and which packages bring it, as data.

use super::distro::Family;

/// One thing that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler for the BPF target.
    Compiler,
    /// clippy beside the system rustc with the BPF target.
    Clippy,
    /// Headers and `llvm-config` of this major version of LLVM, for bpf-linker.
    Llvm(u32),
    /// zstd and zlib for the linker of bpf-linker.
    Compression,
    /// A command that tests or the demo run.
    Tool(Tool),
}

/// A command of the tests and the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Starts real containers.
    Runc,
    /// Starts them as well, in another way.
    Crun,
    /// Their root file system: one static binary.
    Busybox,
    /// Checks the metrics and the rules; its package brings the Prometheus that the
    /// dashboards are tried with.
    Promtool,
    /// Counts system calls independently.
    Strace,
    /// Looks for programs that were left attached.
    Bpftool,
    /// Boots other kernels.
    Qemu,
    /// A terminal with real keys.
    Tmux,
    /// Makes the Debian roots that the package is tried in.
    Mmdebstrap,
    /// Checks the package.
    Lintian,
    /// Gets what knows the schema of Kubernetes' API.
    Pip,
}

impl Tool {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Runc,
        Self::Crun,
        Self::Busybox,
        Self::Promtool,
        Self::Strace,
        Self::Bpftool,
        Self::Qemu,
        Self::Tmux,
        Self::Mmdebstrap,
        Self::Lintian,
        Self::Pip,
    ];

    /// Whether it is of use only on Debian and its kin.
    pub(crate) const fn debian_only(self) -> bool {
        matches!(self, Self::Mmdebstrap | Self::Lintian)
    }

    /// The command.
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Busybox => "busybox",
            Self::Promtool => "promtool",
            Self::Strace => "strace",
            Self::Bpftool => "bpftool",
            Self::Qemu => "qemu-system-x86_64",
            Self::Tmux => "tmux",
            Self::Mmdebstrap => "mmdebstrap",
            Self::Lintian => "lintian",
            Self::Pip => "pip3",
        }
    }
}

impl Need {
    fn name(&self) -> String {
        match self {
            Self::Compiler => "a Rust compiler for the BPF target".into(),
            Self::Clippy => "clippy for the BPF target".into(),
            Self::Llvm(major) => format!("LLVM {major} headers"),
            Self::Compression => "zstd and zlib headers".into(),
            Self::Tool(Tool::Busybox) => "busybox (static)".into(),
            Self::Tool(tool) => tool.command().into(),
        }
    }

    /// Packages in this family. Empty where rustup brings it, or where the
    /// names are not known.
    fn packages(&self, family: &Family) -> Vec<String> {
        let names: &[&str] = match (self, family) {
            (Self::Llvm(major), Family::Debian) => return vec![format!("llvm-{major}-dev")],
            (Self::Compiler, Family::Debian) => {
                &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"]
            }
            (Self::Clippy, Family::Debian) => &["rust-web-clippy"],
            (Self::Compression, Family::Debian) => &["libzstd-dev", "zlib1g-dev"],
            (Self::Tool(Tool::Busybox), Family::Debian) => &["busybox-static"],
            (Self::Tool(Tool::Promtool), Family::Debian | Family::Arch) => &["prometheus"],
            (Self::Llvm(_), Family::Fedora) => &["llvm-devel"],
            (Self::Compression, Family::Fedora) => &["libzstd-devel", "zlib-devel"],
            (Self::Tool(Tool::Promtool), Family::Fedora) => &["golang-github-prometheus"],
            (Self::Llvm(_), Family::Arch) => &["llvm"],
            (Self::Compression, Family::Arch) => &["zstd", "zlib"],
            (Self::Tool(Tool::Bpftool), Family::Arch) => &["bpf"],
            (Self::Tool(Tool::Qemu), Family::Debian | Family::Arch) => &["qemu-system-x86"],
            (Self::Tool(Tool::Pip), Family::Debian | Family::Fedora) => &["python3-pip"],
            (Self::Tool(Tool::Pip), Family::Arch) => &["python-pip"],
            (Self::Tool(Tool::Qemu), Family::Fedora) => &["qemu-system-x86-core"],
            (Self::Compiler | Self::Clippy, _) | (_, Family::Other(_)) => &[],
            (Self::Tool(tool), _) => return vec![tool.command().into()],
        };
        names.iter().map(|&name| name.into()).collect()
    }
}

/// The packages of all needs.
pub(crate) fn packages(needs: &[Need], family: &Family) -> Vec<String> {
    needs.iter().flat_map(|need| need.packages(family)).collect()
}

/// The needs in words, in one line.
pub(crate) fn list(needs: &[Need]) -> String {
    needs.iter().map(Need::name).collect::<Vec<_>>().join(", ")
}

/// The one message that tells a user who must install by hand what to run.
pub(crate) fn request(needs: &[Need], family: &Family) -> String {
    let mut lines = vec![format!("setup: missing: {}", list(needs)), "Install them with:".into()];
    let packages = packages(needs, family).join(" ");
    if !packages.is_empty() {
        let install = match family {
            Family::Debian => "sudo apt-get update && sudo apt-get install --no-install-recommends",
            Family::Fedora => "sudo dnf install",
            Family::Arch => "sudo pacman -S --needed",
            // No names are known there, so there are no packages.
            Family::Other(_) => "",
        };
        lines.push(format!("    {install} {packages}"));
    }
    if let Family::Other(name) = family {
        lines.push(format!("    (the package names of {name} are not known here)"));
    }
    if needs.contains(&Need::Compiler) {
        let or =
            if *family == Family::Debian { "or, in place of rustc-web and its kind: " } else { "" };
        lines.push(format!("    {or}rustup toolchain install nightly --component rust-src"));
    }
    lines.push("then run `cargo xtask setup` again.".into());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Vec<Need> {
        let mut needs = vec![Need::Compiler, Need::Llvm(22), Need::Compression];
        needs.extend(Tool::ALL.map(Need::Tool));
        needs
    }

    fn everything_elsewhere() -> Vec<Need> {
        let mut needs = everything();
        needs.retain(|need| !matches!(need, Need::Tool(tool) if tool.debian_only()));
        needs
    }

    #[test]
    fn debian_gets_the_exact_package_names() {
        assert_eq!(
            packages(&everything(), &Family::Debian).join(" "),
            "rustc-web cargo-web libstd-rust-web-dev-bpf rust-web-clippy llvm-22-dev libzstd-dev \
             zlib1g-dev runc crun busybox-static prometheus strace bpftool qemu-system-x86 tmux \
             mmdebstrap lintian python3-pip"
        );
        assert_eq!(packages(&[Need::Clippy], &Family::Debian), ["rust-web-clippy"]);
    }

    #[test]
    fn fedora_and_arch_take_the_compiler_from_rustup() {
        let fedora = request(&everything_elsewhere(), &Family::Fedora);
        assert!(fedora.contains(
            "sudo dnf install llvm-devel libzstd-devel zlib-devel runc crun busybox \
             golang-github-prometheus strace bpftool qemu-system-x86-core tmux \
             python3-pip\n"
        ));
        assert!(fedora.contains("\n    rustup toolchain install nightly --component rust-src\n"));
        let arch = request(&everything_elsewhere(), &Family::Arch);
        assert!(arch.contains(
            "sudo pacman -S --needed llvm zstd zlib runc crun busybox prometheus strace bpf \
             qemu-system-x86 tmux python-pip\n"
        ));
        assert!(arch.contains("rustup toolchain install nightly"));
    }

    #[test]
    fn what_is_there_is_not_asked_for() {
        let text = request(&[Need::Tool(Tool::Strace)], &Family::Debian);
        assert!(text.contains("--no-install-recommends strace\n"), "{text}");
        assert!(!text.contains("rustup"), "{text}");
    }

    #[test]
    fn an_unknown_distribution_gets_the_needs_and_no_invented_command() {
        let text = request(&everything(), &Family::Other("alpine".into()));
        assert!(text.contains("LLVM 22 headers") && text.contains("alpine"), "{text}");
        assert!(!text.contains("sudo"), "{text}");
    }
}
