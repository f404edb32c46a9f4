//! The `lockprof` command.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::{Context, bail};
use lockprof::cli::args::{ConfigCommand, StormArgs};
use lockprof::cli::{self, Command, ExitStatus, config, generate};
use lockprof::storm;

fn main() -> ExitCode {
    cli::parse().map_or_else(|status| status, run).into()
}

fn run(command: Command) -> ExitStatus {
    match dispatch(command) {
        Ok(status) => status,
        Err(error) => {
            // Nothing is left to do when standard error is gone.
            let _ = writeln!(io::stderr(), "lockprof: {error:#}");
            ExitStatus::of(&error)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitStatus> {
    match command {
        Command::Config(args) => config(args.command),
        Command::Storm(args) => storm(&args),
        Command::Completions { shell } => print(|out| generate::completions(shell, out)),
        Command::Man => print(|out| generate::man(out)),
        Command::Daemon(_) | Command::Stat(_) | Command::Doctor(_) => bail!("not composed here"),
    }
}

fn config(command: ConfigCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Default => print(|out| out.write_all(config::default_text().as_bytes())),
        ConfigCommand::Check { file } => {
            let file = file.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
            config::read(file)?;
            print(|out| writeln!(out, "{}: ok", file.display()))
        }
    }
}

fn storm(args: &StormArgs) -> anyhow::Result<ExitStatus> {
    let cpus = available_parallelism().context("failed to count the CPUs")?;
    let cpus = NonZeroU32::try_from(cpus).unwrap_or(NonZeroU32::MAX);
    let summary = storm::run(&args.options(cpus))?;
    let text = if args.json {
        let json = serde_json::to_string(&summary).context("failed to write JSON")?;
        json + "\n"
    } else {
        summary.to_string()
    };
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(if summary.has_errors() { ExitStatus::Failure } else { ExitStatus::Success })
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
