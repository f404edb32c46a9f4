//! Man pages and completions, from the definitions in [`super::args`].

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;

/// Writes the completions for `shell`.
///
/// # Errors
///
/// As `out` has them.
pub fn completions(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lockprof", &mut script);
    out.write_all(&script)
}

/// Writes the man pages of `lockprof` and all its commands, one after the
/// other, as roff.
///
/// # Errors
///
/// As `out` has them.
pub fn man(out: &mut dyn Write) -> io::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    pages(&root, out)
}

fn pages(command: &clap::Command, out: &mut dyn Write) -> io::Result<()> {
    Man::new(command.clone()).section("8").render(out)?;
    command.get_subcommands().filter(|c| !c.is_hide_set()).try_for_each(|c| pages(c, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_man_page() {
        let mut roff = Vec::new();
        man(&mut roff).unwrap();
        let roff = String::from_utf8(roff).unwrap();
        for page in ["lockprof", "lockprof-daemon", "lockprof-stat", "lockprof-config-check"] {
            assert!(roff.contains(&format!(".TH {page} 8")), "{page}");
        }
        assert!(!roff.contains("assume"), "options for tests are hidden");
    }

    #[test]
    fn completions_know_the_commands_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            completions(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("host-mounts"), "{shell}");
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = completions(Shell::Bash, &mut Closed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(man(&mut Closed).is_err());
    }
}
