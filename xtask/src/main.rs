//! Developer verbs, one module each: `cargo xtask setup`, `build`, `package`, `test`,
//! `vm`, `demo`, `bench`, `storm`, `fleet`.
//!
//! Compiles in seconds and needs no BPF toolchain: it is what installs one.
#![expect(clippy::print_stdout, reason = "a developer tool talks on standard output")]

mod bench;
mod build;
mod debian_root;
mod demo;
mod fleet;
mod package;
mod process;
mod setup;
mod shell;
mod storm;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Developer verbs of lockprof.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Install what building, testing and the demo need
    Setup,
    /// Build the one binary for release, and say where it is
    Build,
    /// Make the Debian package, the tarball and their checksums in target/package
    Package(package::Arguments),
    /// Format, lints, unit, property, loom and integration tests, on this kernel
    /// and in virtual machines on others, in one count
    Test(test::Arguments),
    /// Boot a real kernel in a virtual machine and run a command in it
    Vm(vm::Arguments),
    /// Set up, build, load this machine's mount path, and show what lockprof saw
    Demo,
    /// Measure what lockprof costs, and write docs/benchmarks.md
    Bench(bench::Arguments),
    /// Compare storms on all kernels, and write the tables of docs/storm.md
    Storm(storm::Arguments),
    /// Scrape a fleet of synthetic hosts with a real Prometheus, and write the
    /// tables of docs/fleet.md
    Fleet(fleet::Arguments),
    /// Load for the demo, as `lockprof stat` runs it
    #[command(hide = true)]
    DemoLoad(demo::load::Arguments),
    /// First process of a virtual machine
    #[command(hide = true)]
    VmInit,
    /// Runs the steps of a virtual machine that systemd has booted
    #[command(hide = true)]
    VmSteps,
    /// Tests of the installed package, in a virtual machine
    #[command(hide = true)]
    ServiceTests(test::service::guest::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Verb::parse() {
        Verb::Setup => setup::run(),
        Verb::Build => build::run(),
        Verb::Package(arguments) => package::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Storm(arguments) => storm::run(&arguments),
        Verb::Fleet(arguments) => fleet::run(&arguments),
        Verb::DemoLoad(arguments) => demo::load::run(&arguments),
        Verb::VmInit => vm::init::run(),
        Verb::VmSteps => vm::init::steps(),
        Verb::ServiceTests(arguments) => test::service::guest::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
