//! lockprof.toml(5), from the declarations of the keys.

use clap_mangen::roff::{Roff, bold, roman};

use super::DEFAULT_PATH;
use super::keys::{KEYS, LOCK_KEYS};
use crate::cli::generate::{MANUAL, SOURCE, reference};
use crate::locks::catalogue::ENTRIES;

/// The man page of the configuration file, as roff.
pub fn man_page() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["lockprof.toml", "5", "", SOURCE, MANUAL]);
    section(&mut roff, "NAME", "lockprof.toml - configuration of lockprof");
    section(&mut roff, "SYNOPSIS", DEFAULT_PATH);
    section(
        &mut roff,
        "DESCRIPTION",
        "The daemon and the commands that measure read this file, in TOML, if it is there. \
         Command line options come before it. A key that is not in it has its default; one that \
         is not known, and a value that does not fit, are errors that name the line.",
    );
    paragraph(
        &mut roff,
        "`lockprof config check` validates the file, `lockprof config default` prints one with \
         every key, and SIGHUP makes the daemon read it again.",
    );
    let mut table = None;
    for key in KEYS {
        if table != Some(key.table) {
            table = Some(key.table);
            let title = match key.table {
                "" => "TOP LEVEL".to_owned(),
                table => format!("TABLE [{table}]"),
            };
            roff.control("SH", [title.as_str()]);
        }
        let value = if key.is_default { key.value } else { "depends on the machine" };
        let note = if key.is_default { "default " } else { "" };
        item(&mut roff, key.name, &format!("{note}{value}"), key.about);
    }
    section(
        &mut roff,
        "TABLES [[lock]]",
        "Locks beside the catalogue, each with a table of its own and all of these keys.",
    );
    for key in LOCK_KEYS {
        item(&mut roff, key.name, &format!("for instance {}", key.value), key.about);
    }
    section(&mut roff, "CATALOGUE", "The locks that have a name without [[lock]]:");
    for entry in ENTRIES {
        let on = if entry.on_by_default { "on by default" } else { "off by default" };
        item(&mut roff, entry.name, on, entry.about);
    }
    roff.control("SH", ["SEE ALSO"]);
    let see = [reference("lockprof", 8), reference("lockprof-daemon", 8)];
    roff.text(see.join(&roman(", ")));
    roff.render()
}

fn section(roff: &mut Roff, title: &str, text: &str) {
    roff.control("SH", [title]);
    roff.text([roman(text)]);
}

fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.text([roman(text)]);
}

fn item(roff: &mut Roff, name: &str, note: &str, about: &str) {
    roff.control("TP", []);
    roff.text([bold(name), roman(format!(" ({note})"))]);
    roff.text([roman(about)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_table_and_lock_is_on_the_page() {
        let page = man_page();
        let name = |name: &str| format!("\\fB{name}\\fR (");
        for key in KEYS {
            assert!(page.contains(&name(key.name)), "{}", key.name);
            assert!(page.contains(&format!("[{}]", key.table)) || key.table.is_empty());
        }
        for key in LOCK_KEYS {
            assert!(page.contains(&name(key.name)), "{}", key.name);
        }
        for entry in ENTRIES {
            assert!(page.contains(&name(entry.name)), "{}", entry.name);
        }
    }
}
