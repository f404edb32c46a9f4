//! Walks the file: every key goes to its declaration, every other one becomes a
//! problem with a suggestion.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::field::{Field, Problem, Problems};
use super::keys::{KEYS, LOCK_KEYS};
use crate::cli::Settings;
use crate::locks::LockKind;
use crate::locks::catalogue::ENTRIES;
use crate::locks::choices::CustomLock;

/// The array of tables that adds locks.
const LOCK: &str = "lock";

/// Settings by the text, or all its problems in no order.
pub(super) fn read(text: &str) -> Result<Settings, Problems> {
    let (document, broken) = DeTable::parse_recoverable(text);
    if !broken.is_empty() {
        let problem = |error: toml::de::Error| Problem {
            at: error.span().map_or(0, |span| span.start),
            message: format!("not TOML: {}", error.message()),
        };
        return Err(broken.into_iter().map(problem).collect());
    }
    let mut reader = Reader { settings: Settings::default(), problems: Vec::new() };
    reader.top_level(document.get_ref());
    if reader.problems.is_empty() { Ok(reader.settings) } else { Err(reader.problems) }
}

struct Reader {
    settings: Settings,
    problems: Problems,
}

impl Reader {
    fn top_level(&mut self, document: &DeTable<'_>) {
        for (key, value) in document {
            let name = key.get_ref().as_ref();
            if name == LOCK {
                self.custom_locks(value);
            } else if KEYS.iter().any(|k| k.table == name) {
                match value.get_ref().as_table() {
                    Some(table) => self.table(name, table),
                    None => {
                        let found = value.get_ref().type_str();
                        let message = format!("`{name}`: expected a table [{name}], found {found}");
                        self.problem(value.span().start, message);
                    }
                }
            } else {
                self.key("", name, key.span().start, value);
            }
        }
        self.contradictions(document);
    }

    fn table(&mut self, table: &str, entries: &DeTable<'_>) {
        for (key, value) in entries {
            self.key(table, key.get_ref(), key.span().start, value);
        }
    }

    fn key(&mut self, table: &str, name: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        match KEYS.iter().find(|key| key.table == table && key.name == name) {
            Some(key) => {
                let field = Field { key: &full_name(table, name), value };
                let read = (key.read)(&mut self.settings, field);
                self.problems.extend(read.err().unwrap_or_default());
            }
            None => self.problem(at, unknown_key(table, name)),
        }
    }

    /// Locks that are both enabled and disabled.
    fn contradictions(&mut self, document: &DeTable<'_>) {
        let disabled = document.get("locks").and_then(|locks| locks.get_ref().get("disable"));
        for element in disabled.and_then(|d| d.get_ref().as_array()).into_iter().flatten() {
            let Some(name) = element.get_ref().as_str() else { continue };
            if self.settings.locks.enable.iter().any(|enabled| enabled == name) {
                let message = format!("lock `{name}` is both enabled and disabled; remove one");
                self.problem(element.span().start, message);
            }
        }
    }

    fn custom_locks(&mut self, value: &Spanned<DeValue<'_>>) {
        let tables =
            value.get_ref().as_array().filter(|a| a.iter().all(|t| t.get_ref().is_table()));
        let Some(tables) = tables else {
            let found = value.get_ref().type_str();
            let message = format!("`{LOCK}`: expected tables [[{LOCK}]], found {found}");
            return self.problem(value.span().start, message);
        };
        for table in tables.iter() {
            if let Some(entries) = table.get_ref().as_table() {
                self.custom_lock(table.span().start, entries);
            }
        }
    }

    fn custom_lock(&mut self, at: usize, entries: &DeTable<'_>) {
        let mut lock =
            CustomLock { name: String::new(), symbol: String::new(), kind: LockKind::Mutex };
        let before = self.problems.len();
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            match LOCK_KEYS.iter().find(|key| key.name == name) {
                Some(key) => {
                    let field = Field { key: &full_name(LOCK, name), value };
                    let read = (key.read)(&mut lock, field);
                    self.problems.extend(read.err().unwrap_or_default());
                }
                None => self.problem(key.span().start, unknown_key(LOCK, name)),
            }
        }
        for key in LOCK_KEYS.iter().filter(|key| entries.get(key.name).is_none()) {
            let message =
                format!("[[{LOCK}]] has no `{}`; add for instance {0} = {}", key.name, key.value);
            self.problem(at, message);
        }
        if let Some(name) = entries.get("name").filter(|_| !lock.name.is_empty()) {
            let taken = if ENTRIES.iter().any(|entry| entry.name == lock.name) {
                Some("is in the catalogue; choose another name, or use locks.enable")
            } else if self.settings.locks.custom.iter().any(|other| other.name == lock.name) {
                Some("is defined twice; choose another name")
            } else {
                None
            };
            if let Some(why) = taken {
                self.problem(name.span().start, format!("`{LOCK}.name`: `{}` {why}", lock.name));
            }
        }
        if self.problems.len() == before {
            self.settings.locks.custom.push(lock);
        }
    }

    fn problem(&mut self, at: usize, message: String) {
        self.problems.push(Problem { at, message });
    }
}

/// `name`, or `table.name`.
fn full_name(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// What to say about a key that is not declared, with the nearest that is.
fn unknown_key(table: &str, name: &str) -> String {
    let declared: Vec<(&str, &str)> = KEYS
        .iter()
        .map(|key| (key.table, key.name))
        .chain(LOCK_KEYS.iter().map(|key| (LOCK, key.name)))
        .collect();
    // The right key in the wrong table, else a similar one in this table, else
    // (at the top level, where tables are keys as well) a similar table.
    let elsewhere = declared.iter().find(|(_, n)| *n == name).map(|(t, n)| full_name(t, n));
    let nearest = elsewhere.or_else(|| {
        let here = declared.iter().filter(|(t, _)| *t == table).map(|(_, n)| full_name(table, n));
        let tables = declared.iter().map(|(t, _)| (*t).to_owned()).filter(|t| !t.is_empty());
        let tables = tables.filter(|_| table.is_empty());
        let wanted = full_name(table, name);
        here.chain(tables).min_by_key(|known| strsim::damerau_levenshtein(known, &wanted))
    });
    let wanted = full_name(table, name);
    let nearest = nearest.unwrap_or_default();
    format!("unknown key `{}`; did you mean `{nearest}`?", wanted.escape_debug())
}
