//! The command line, as written.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;

use super::backend::Choice;
use super::duration::parse_duration;
use super::settings::{LogFormat, LogLevel};

const EXIT_CODES: &str = "\
Exit status:
  0  fine
  1  failed
  2  wrong arguments or configuration
  3  this kernel or these privileges do not allow it; the message says what is missing";

/// Which kernel lock makes mounts wait, how long, on which NUMA node, and
/// through which call
#[derive(Debug, Parser)]
#[command(
    name = "lockprof",
    version,
    after_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: attach, aggregate, serve metrics
    #[command(after_help = "\
Examples:
  lockprof daemon
  lockprof daemon --listen 127.0.0.1:9800 --log-format json
  lockprof daemon --config ./lockprof.toml --lock sb_lock
  lockprof daemon --listen '[::]:9723' --web-config /etc/lockprof/web.yml

SIGHUP reads the configuration again; SIGTERM and SIGINT detach everything and end it.")]
    Daemon(DaemonArgs),
    /// Show live which lock, who waits, and who makes them wait
    #[command(after_help = "\
Examples:
  lockprof top
  lockprof top --connect http://web-17:9723 --connect http://web-18:9723
  lockprof top --connect https://web-17:9723 --http-config client.yml
  lockprof top --record incident.jsonl
  lockprof top --replay incident.jsonl
  lockprof top --once --json | jq .inflight

Without --connect it attaches itself, which takes root. `?` shows the keys.")]
    Top(TopArgs),
    /// Measure for a while, or while a command runs, and print a table
    #[command(after_help = "\
Examples:
  lockprof stat --duration 30s
  lockprof stat --json > waits.json
  lockprof stat --by blocker -- runc run demo

Below the table stand findings: what the figures say is wrong, why, and what to do. With --json
they are under the key findings.

With a command, the exit status is the command's. With --json as well, what the command prints goes
to standard error, so that standard output is the JSON alone.")]
    Stat(StatArgs),
    /// Say what this kernel allows, which locks resolve, and which hooks attach
    #[command(after_help = "\
Examples:
  lockprof doctor
  lockprof doctor --json | jq .locks
  lockprof doctor --without-data-symbols")]
    Doctor(DoctorArgs),
    /// Validate the configuration file, or print the default one
    #[command(after_help = "\
Examples:
  lockprof config default > /etc/lockprof/lockprof.toml
  lockprof config check")]
    Config(ConfigArgs),
    /// Start containers by a choice of strategies, and measure what that takes on this host
    #[command(after_help = "\
Examples:
  lockprof storm --layers 50 --idmap per-layer --concurrency 16
  lockprof storm --compare legacy,open-tree-namespace --host-mounts 1000
  lockprof storm --compare runc,crun --rounds 5
  lockprof storm --sweep concurrency=1..64 --html cliff.html
  lockprof stat -- lockprof storm --no-measure --pin node:1

Needs root, or for what a user namespace allows none. All mounts are made in namespaces of the
storm's own, and nothing is left behind, however it ends; but the whole machine waits for the same
locks. The exit status is 1 if anything failed in a start.")]
    Storm(Box<super::storm::StormArgs>),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  lockprof completions bash > /usr/share/bash-completion/completions/lockprof
  lockprof completions zsh > \"${fpath[1]}/_lockprof\"")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man pages of all commands as roff
    #[command(after_help = "\
Examples:
  lockprof man | man -l -")]
    Man,
}

/// Arguments of `daemon`.
#[derive(Args, Debug, Default)]
pub struct DaemonArgs {
    /// Address to serve on [default: 127.0.0.1:9723]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// TLS, users and passwords for the port, in the web configuration form of Prometheus' exporters
    #[arg(long, value_name = "FILE", visible_alias = "web.config.file")]
    pub web_config: Option<PathBuf>,
    /// Listen also where others can reach the port and are not asked who they are
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// Form of log lines [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Least severe log lines to write [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Which locks.
    #[command(flatten)]
    pub locks: LockArgs,
    /// How to hook the kernel.
    #[command(flatten)]
    pub hooks: HookArgs,
    /// Sizes to assume.
    #[command(flatten)]
    pub assume: AssumeArgs,
}

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Show the daemon at this URL (repeatable: a column for each host)
    #[arg(long, value_name = "URL", conflicts_with_all = ["LockArgs", "HookArgs"])]
    pub connect: Vec<String>,
    /// Password, certificates and authority for --connect, in the form of Prometheus' HTTP client
    #[arg(long, value_name = "FILE", visible_alias = "http.config.file", requires = "connect")]
    pub http_config: Option<PathBuf>,
    /// Time between two reads, for example 500ms, 1s or 10s; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Print one frame as text after one interval, and end
    #[arg(long)]
    pub once: bool,
    /// Print that frame as JSON, in the form of `stat --json`
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Play a recording, a snapshot each interval
    #[arg(long, value_name = "FILE", conflicts_with_all = ["connect", "record", "LockArgs", "HookArgs"])]
    pub replay: Option<PathBuf>,
    /// Append every snapshot that is read to this file, for --replay
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Draw with ASCII alone
    #[arg(long)]
    pub ascii: bool,
    /// Draw without colours, as with NO_COLOR in the environment
    #[arg(long)]
    pub no_color: bool,
    /// Keep all memory of this process from being paged out
    #[arg(long)]
    pub lock_memory: bool,
    /// Which locks.
    #[command(flatten)]
    pub locks: LockArgs,
    /// How to hook the kernel.
    #[command(flatten)]
    pub hooks: HookArgs,
}

/// A [`parse_duration`] that leaves the machine time for other things.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("must be at least 100ms, or reading becomes the load".to_owned());
    }
    Ok(interval)
}

/// Arguments of `stat`.
#[derive(Args, Debug)]
pub struct StatArgs {
    /// How long to measure, for example 500ms, 10s or 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    #[arg(conflicts_with = "command")]
    pub duration: Duration,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Break the waits down by this, instead of printing the overview [possible values: lock, node,
    /// waiter, blocker, runtime, syscall, stack]
    #[arg(long, value_name = "WHAT", conflicts_with = "json", hide_possible_values = true)]
    pub by: Option<By>,
    /// Which locks.
    #[command(flatten)]
    pub locks: LockArgs,
    /// How to hook the kernel.
    #[command(flatten)]
    pub hooks: HookArgs,
    /// Sizes to assume.
    #[command(flatten)]
    pub assume: AssumeArgs,
    /// Measure while this command runs, instead of for a time
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What `stat` breaks waits down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Lock and mode
    Lock,
    /// NUMA node on which the waits ended
    Node,
    /// Task and container that waited
    Waiter,
    /// Task and container that held the lock
    Blocker,
    /// Container runtime, of those that waited and of those that held
    Runtime,
    /// Mount system call
    Syscall,
    /// Kernel stack, of slow waits
    Stack,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Act as if kallsyms had no data symbols: shows what kernel text tells
    #[arg(long)]
    pub without_data_symbols: bool,
    /// Which locks.
    #[command(flatten)]
    pub locks: LockArgs,
    /// How to hook the kernel.
    #[command(flatten)]
    pub hooks: HookArgs,
}

/// Which locks to watch and how to find them.
#[derive(Args, Clone, Debug, Default)]
pub struct LockArgs {
    /// Configuration file [default: /etc/lockprof/lockprof.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Watch this lock of the catalogue as well (repeatable)
    #[arg(long = "lock", value_name = "NAME")]
    pub lock: Vec<String>,
    /// Do not watch this lock (repeatable)
    #[arg(long = "no-lock", value_name = "NAME")]
    pub no_lock: Vec<String>,
    /// System.map of the running kernel, for locks that kallsyms does not list
    #[arg(long, value_name = "FILE")]
    pub system_map: Option<PathBuf>,
}

/// How to hook the kernel.
#[derive(Args, Clone, Debug, Default)]
pub struct HookArgs {
    /// Hook the kernel in this way alone: waits=NAME, calls=NAME, or NAME for both (repeatable)
    /// [waits: auto, tp_btf, raw_tp, fentry, kprobe; calls: auto, fentry, kprobe, tracepoint]
    #[arg(long, value_name = "NAME")]
    pub backend: Vec<Choice>,
}

/// Sizes of the kernel's arrays on another machine, for tests.
#[derive(Args, Clone, Debug, Default)]
pub struct AssumeArgs {
    /// Size the kernel's arrays for this many CPUs
    #[arg(long, value_name = "N", hide = true, value_parser = value_parser!(u32).range(1..=8192))]
    pub assume_cpus: Option<u32>,
    /// Size the kernel's arrays for this many NUMA nodes
    #[arg(long, value_name = "N", hide = true, value_parser = value_parser!(u32).range(1..=1024))]
    pub assume_nodes: Option<u32>,
}

/// Arguments of `config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate a configuration file; exit with 2 if anything in it is wrong
    #[command(after_help = "\
Examples:
  lockprof config check
  lockprof config check ./lockprof.toml")]
    Check {
        /// The file [default: /etc/lockprof/lockprof.toml]
        file: Option<PathBuf>,
    },
    /// Print the default configuration, with comments
    #[command(after_help = "\
Examples:
  lockprof config default > /etc/lockprof/lockprof.toml")]
    Default,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_contradict_each_other_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_command_to_measure() {
        let Command::Stat(stat) = parse("lockprof stat --json -- runc run --json x").unwrap()
        else {
            panic!("another command")
        };
        assert!(stat.json);
        assert_eq!(stat.command, ["runc", "run", "--json", "x"]);
    }

    #[test]
    fn a_time_and_a_command_exclude_each_other() {
        assert!(parse("lockprof stat --duration 5s -- true").is_err());
        assert!(parse("lockprof stat --duration 5s").is_ok());
    }

    #[test]
    fn a_breakdown_is_for_people_as_json_has_everything() {
        let Ok(Command::Stat(stat)) = parse("lockprof stat --by blocker") else {
            panic!("it parses")
        };
        assert_eq!(stat.by, Some(By::Blocker));
        assert!(parse("lockprof stat --by blocker --json").is_err());
        let error = parse("lockprof stat --by colour").unwrap_err().to_string();
        let values = By::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let values: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
        let listed = format!("[possible values: {}]", values.join(", "));
        assert!(error.contains(&listed), "{error}");
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("stat").unwrap().render_help().to_string();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&help).contains(&listed), "{help}");
    }

    #[test]
    fn a_bad_duration_is_answered_with_examples() {
        let error = parse("lockprof storm --duration 10").unwrap_err().to_string();
        assert!(error.contains("for example 500ms, 10s or 1m"), "{error}");
    }
}
