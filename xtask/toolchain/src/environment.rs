//! What the environment of a cargo inside a cargo must not inherit.

use std::env;
use std::process::Command;

/// Cargo's own settings that are about the user and the machine, not about
/// the build that is running: where the registry is, how to reach it, and the
/// shared job slots.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
];

/// Whether a variable would carry the outer build's compiler, wrapper (clippy),
/// flags, target or profile into the inner one.
pub fn leaks(name: &str) -> bool {
    if KEPT.iter().any(|kept| name == *kept || (kept.ends_with('_') && name.starts_with(kept))) {
        return false;
    }
    ["CARGO", "RUSTC", "RUSTDOC", "CLIPPY_"].iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "LD_LIBRARY_PATH")
}

/// Takes the variables that leak out of `command`'s environment, and turns off
/// the wrappers that a cargo configuration file may name.
///
/// `LD_LIBRARY_PATH` is among them: cargo and rustup point it at the libraries
/// of the compiler that runs the outer build.
pub fn scrub(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_compiler_and_its_flags_stay_outside() {
        for name in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "CARGO_CFG_TARGET_ARCH",
            "CARGO_INCREMENTAL",
            "CLIPPY_ARGS",
            "LD_LIBRARY_PATH",
        ] {
            assert!(leaks(name), "{name} would reach the inner build");
        }
    }

    #[test]
    fn the_users_registry_and_rustup_settings_stay() {
        for name in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS", "RUSTUP_HOME", "PATH", "HOME"]
        {
            assert!(!leaks(name), "{name} was taken away");
        }
        assert!(leaks("CARGO_HOMES"), "only the exact name is kept");
    }
}
