//! Compiles the BPF programs and leaves the object at `$OUT_DIR/lockprof-bpf.o`,
//! and beside it, as `lockprof-bpf-older.o`, the same programs for kernels whose
//! BPF has no compare-exchange.
//!
//! Sets `cfg(bpf_object)` when the object is there. Without a BPF toolchain it
//! warns and leaves the cfg off: `cargo check` works, and a real build stops in
//! `hooks::object`. With a toolchain, a program that does not compile stops the
//! build here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use bpf_toolchain::{Compiler, Facts, Job, Missing, TOOLS, Toolchain, Verb, WISH_VARIABLE, Wish};

fn main() -> ExitCode {
    println!("cargo::rustc-check-cfg=cfg(bpf_object)");
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace =
        package.parent().ok_or_else(|| format!("{} is not in the workspace", package.display()))?;
    watch(workspace);

    let target = bpf_toolchain::target(variable("CARGO_CFG_TARGET_ENDIAN")? == "big");
    let facts = Facts::collect(workspace, target);
    let toolchain = match bpf_toolchain::choose(&facts, Wish::from_env()?) {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            warn_of(missing, workspace);
            return Ok(());
        }
    };
    // PATH is not watched: editors and shells differ in it, and each change
    // would build everything again. A tool that changes is seen here, and a
    // toolchain that was missing is looked for each time.
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    if let Compiler::System { rustc, .. } = &toolchain.compiler {
        println!("cargo::rerun-if-changed={}", rustc.display());
    }

    let out = PathBuf::from(variable("OUT_DIR")?);
    let mut features = Vec::new();
    if env::var_os("CARGO_FEATURE_KERNEL_LOG").is_some() {
        features.push("log");
    }
    let job = Job {
        verb: Verb::Build,
        workspace,
        target,
        arch: &variable("CARGO_CFG_TARGET_ARCH")?,
        target_dir: &out.join("bpf"),
        features: &features,
        deny_warnings: false,
    };
    compile(&toolchain, &job, &out.join("lockprof-bpf.o"))?;
    // For the integration tests and benchmarks; the product never loads it.
    println!("cargo::rustc-env=LOCKPROF_WITNESS={}", job.object("witness").display());

    let older: Vec<_> = features.iter().copied().chain(["no-compare-exchange"]).collect();
    let job = Job { target_dir: &out.join("bpf-older"), features: &older, ..job };
    compile(&toolchain, &job, &out.join("lockprof-bpf-older.o"))?;
    println!("cargo::rustc-cfg=bpf_object");
    Ok(())
}

/// Names all that the object is made from.
fn watch(workspace: &Path) {
    println!("cargo::rerun-if-env-changed={WISH_VARIABLE}");
    for input in ["profiler-ebpf", "profiler-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
}

fn warn_of(missing: Missing, workspace: &Path) {
    println!("cargo::warning=the BPF programs are not built: {missing}");
    println!(
        "cargo::warning=run `cargo xtask setup` before a real build; `cargo check` works without"
    );
    if missing != Missing::Hidden {
        // A path that does not exist makes cargo run this script every time,
        // so that a toolchain is noticed as soon as it is installed.
        let never = workspace.join(TOOLS).join("not-installed");
        println!("cargo::rerun-if-changed={}", never.display());
    }
}

fn compile(toolchain: &Toolchain, job: &Job<'_>, object: &Path) -> Result<(), String> {
    let mut command = toolchain.command(job);
    // The environment, which the debug form of a command has, is no news here.
    let called = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let output = command
        .output()
        .map_err(|error| format!("failed to start the BPF compiler, `{called}`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "failed to compile the BPF programs ({}), with `{called}`:\n{}{said}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
        ));
    }
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    let built = job.object("profiler-ebpf");
    fs::copy(&built, object).map(|_| ()).map_err(|error| {
        format!("failed to copy {} to {}: {error}", built.display(), object.display())
    })
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("failed to read {name}, which cargo sets: {error}"))
}
