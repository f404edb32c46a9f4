//! The `lockprof` command.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Context;
use lockprof::cli::Settings;
use lockprof::cli::args::{AssumeArgs, ConfigCommand, DaemonArgs, DoctorArgs, StatArgs, TopArgs};
use lockprof::cli::storm::StormArgs;
use lockprof::cli::{self, Command, ExitStatus, config, generate};
use lockprof::commands::{self, logging};
use lockprof::serve::access::AccessFile;
use lockprof::storm;

fn main() -> ExitCode {
    cli::parse().map_or_else(Into::into, run)
}

fn run(command: Command) -> ExitCode {
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do when standard error is gone.
            let _ = writeln!(io::stderr(), "lockprof: {error:#}");
            ExitStatus::of(&error).into()
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let status = match command {
        Command::Daemon(args) => daemon(&args),
        Command::Top(args) => top(args),
        Command::Stat(args) => return stat(args),
        Command::Doctor(args) => doctor(&args),
        Command::Config(args) => config(args.command),
        Command::Storm(args) => storm(&args),
        Command::Completions { shell } => print(|out| generate::completions(shell, out)),
        Command::Man => print(|out| generate::man(out)),
    };
    Ok(status?.into())
}

fn daemon(args: &DaemonArgs) -> anyhow::Result<ExitStatus> {
    let load = || Ok(Settings::load(args)?);
    let settings = load()?;
    logging::init(settings.log);
    commands::daemon::run(settings, load)?;
    Ok(ExitStatus::Success)
}

/// The exit code is that of the measured command, if there is one.
fn stat(args: StatArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::of_measurement(&args.locks, &args.hooks, &args.assume)?;
    logging::init(settings.log);
    let StatArgs { duration, json, by, command, .. } = args;
    let request = commands::stat::Request { duration, json, by, command };
    Ok(commands::stat::run(&settings, &request)?.into())
}

fn top(args: TopArgs) -> anyhow::Result<ExitStatus> {
    let settings = Settings::of_measurement(&args.locks, &args.hooks, &AssumeArgs::default())?;
    commands::top::run(
        &settings,
        &commands::top::Request {
            connect: args.connect,
            http_config: args.http_config,
            replay: args.replay,
            record: args.record,
            interval: args.interval,
            once: args.once,
            json: args.json,
            ascii: args.ascii,
            no_color: args.no_color,
            lock_memory: args.lock_memory,
        },
    )?;
    Ok(ExitStatus::Success)
}

fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitStatus> {
    let settings = Settings::of_measurement(&args.locks, &args.hooks, &AssumeArgs::default())?;
    let request =
        commands::doctor::Request { json: args.json, use_data_symbols: !args.without_data_symbols };
    let measures = commands::doctor::run(&settings, request)?;
    Ok(if measures { ExitStatus::Success } else { ExitStatus::Refused })
}

fn config(command: ConfigCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Default => print(|out| out.write_all(config::default_text().as_bytes())),
        ConfigCommand::Check { file } => {
            let file = file.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
            let settings = config::read(file)?;
            AccessFile::read(settings.web_config.as_deref())?;
            print(|out| writeln!(out, "{}: ok", file.display()))
        }
    }
}

fn storm(args: &StormArgs) -> anyhow::Result<ExitStatus> {
    // First, while this process has one thread.
    let engine = storm::Engine::start()?;
    let cpus = available_parallelism().context("failed to count the CPUs")?;
    let cpus = NonZeroU32::try_from(cpus).unwrap_or(NonZeroU32::MAX);
    let pinned_to = args.pin.as_ref().map_or(Ok(None), storm::Place::cpus)?;
    let settings = Settings::of_measurement(&args.locks, &args.hooks, &AssumeArgs::default())?;
    logging::init(settings.log);
    let request = commands::storm::Request {
        options: args.options(cpus, pinned_to),
        compare: args.strategies(),
        sweep: args.sweep.clone(),
        rounds: args.rounds,
        measure: !args.no_measure,
        json: args.json,
        html: args.html.clone(),
    };
    let (text, status) = commands::storm::run(engine, &settings, &request)?;
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(status)
}

/// Writes to standard output; a reader that has gone away is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<ExitStatus> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to standard output")
        }
        _ => Ok(ExitStatus::Success),
    }
}
