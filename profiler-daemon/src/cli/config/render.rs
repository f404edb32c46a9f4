//! The commented default configuration, from the declarations of the keys.

use std::fmt::Write;

use super::keys::{KEYS, Key, LOCK_KEYS};
use crate::locks::catalogue::ENTRIES;

/// Columns that comments are wrapped to.
const WIDTH: usize = 78;

/// The default configuration: every key with what it does. Reading it gives the
/// defaults.
pub fn default_text() -> String {
    let mut text = String::new();
    comment(&mut text, "Configuration of lockprof. Every value below is the default.");
    comment(
        &mut text,
        "`lockprof config check` validates this file; SIGHUP makes the daemon read it again.",
    );
    let mut table = "";
    for key in KEYS {
        text.push('\n');
        if key.table != table {
            table = key.table;
            line(&mut text, format_args!("[{table}]"));
            if table == "locks" {
                catalogue(&mut text);
            }
        }
        write_key(&mut text, key);
    }
    text.push('\n');
    comment(&mut text, "Locks beside the catalogue, as many as wanted:");
    line(&mut text, format_args!("# [[lock]]"));
    for key in LOCK_KEYS {
        comment(&mut text, key.about);
        line(&mut text, format_args!("# {} = {}", key.name, key.value));
    }
    text
}

fn write_key(text: &mut String, key: &Key) {
    comment(text, key.about);
    let mark = if key.is_default { "" } else { "# " };
    line(text, format_args!("{mark}{} = {}", key.name, key.value));
}

/// What can be enabled and disabled.
fn catalogue(text: &mut String) {
    comment(text, "The catalogue:");
    for entry in ENTRIES {
        let on = if entry.on_by_default { "on" } else { "off" };
        comment(text, &format!("  {} ({on}): {}", entry.name, entry.about));
    }
    text.push('\n');
}

/// Writes a comment, wrapped; the further lines of an indented one are indented
/// twice as deep.
fn comment(text: &mut String, words: &str) {
    let indent = &words[..words.len() - words.trim_start().len()];
    let mut row = format!("#{indent}");
    for word in words.split_whitespace() {
        if row.len() + 1 + word.len() > WIDTH {
            line(text, format_args!("{row}"));
            row = format!("#{}", indent.repeat(2));
        }
        row.push(' ');
        row.push_str(word);
    }
    line(text, format_args!("{row}"));
}

fn line(text: &mut String, row: std::fmt::Arguments<'_>) {
    writeln!(text, "{row}").expect("writing to a string does not fail");
}
