//! Which locks the user wants: the catalogue's defaults, changed by the
//! configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::LockKind;
use super::catalogue::{ENTRIES, Entry};

/// Longest label value of a user's lock.
const LONGEST_NAME: usize = 64;

/// What the user chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Locks of the catalogue to watch beside the defaults.
    pub enable: Vec<String>,
    /// Locks of the catalogue not to watch.
    pub disable: Vec<String>,
    /// Locks that the catalogue does not know.
    pub custom: Vec<CustomLock>,
    /// System.map of the running kernel.
    pub system_map: Option<PathBuf>,
}

/// A lock that the user names by symbol: `[[lock]]` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomLock {
    /// Label value.
    pub name: String,
    /// `symbol`, or `symbol+0x10` for a lock inside an object.
    pub symbol: String,
    /// What sort of lock it is.
    pub kind: LockKind,
}

/// Why a choice makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// `enable` or `disable` names no lock of the catalogue.
    #[error(
        "unknown lock `{name}`; did you mean `{nearest}`? Other locks are added as [[lock]] with name, symbol and kind"
    )]
    Unknown {
        /// What was named, escaped.
        name: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// A lock is both enabled and disabled.
    #[error("lock `{0}` is both enabled and disabled; remove one")]
    Contradiction(String),
    /// Two locks have the same name.
    #[error(
        "lock `{0}` is defined twice, or has the name of a lock of the catalogue; choose another name"
    )]
    Duplicate(String),
    /// A name cannot be a label value.
    #[error(
        "`{0}` cannot be the name of a lock; use up to {LONGEST_NAME} letters, digits and underscores"
    )]
    Name(String),
    /// A symbol is not `symbol` or `symbol+offset`.
    #[error(
        "symbol `{symbol}` of lock `{name}` is neither `symbol` nor `symbol+0x10`; the offset of a member is in the object's type, as pahole(1) prints it"
    )]
    Symbol {
        /// The lock.
        name: String,
        /// Its symbol, escaped.
        symbol: String,
    },
}

/// A lock to resolve.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Of the catalogue.
    Known(&'static Entry),
    /// Of the user.
    Custom { name: &'a str, symbol: &'a str, offset: u64, kind: LockKind },
}

impl Wanted<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Known(entry) => entry.name,
            Self::Custom { name, .. } => name,
        }
    }
}

impl Choices {
    /// Whether the choices make sense, without looking at the kernel.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn check(&self) -> Result<(), ChoiceError> {
        self.wanted().map(drop)
    }

    /// Choices of those locks of the catalogue that these leave out.
    pub fn others(&self) -> Self {
        let (disable, enable) = ENTRIES.iter().partition::<Vec<_>, _>(|entry| self.includes(entry));
        let names = |entries: Vec<&Entry>| entries.iter().map(|e| e.name.to_owned()).collect();
        Self {
            enable: names(enable),
            disable: names(disable),
            custom: Vec::new(),
            system_map: self.system_map.clone(),
        }
    }

    /// Whether a lock of the catalogue is to be watched.
    fn includes(&self, entry: &Entry) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == entry.name);
        (entry.on_by_default || named(&self.enable)) && !named(&self.disable)
    }

    /// The wanted locks: those of the catalogue in its order, then the user's.
    pub(super) fn wanted(&self) -> Result<Vec<Wanted<'_>>, ChoiceError> {
        for name in self.enable.iter().chain(&self.disable) {
            if !ENTRIES.iter().any(|entry| entry.name == name) {
                return Err(unknown(name));
            }
        }
        if let Some(name) = self.enable.iter().find(|name| self.disable.contains(name)) {
            return Err(ChoiceError::Contradiction(name.clone()));
        }
        let mut wanted: Vec<_> =
            ENTRIES.iter().filter(|entry| self.includes(entry)).map(Wanted::Known).collect();
        for (i, lock) in self.custom.iter().enumerate() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = lock.name.as_str();
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(word) {
                return Err(ChoiceError::Name(name.escape_debug().to_string()));
            }
            if ENTRIES.iter().any(|entry| entry.name == name)
                || self.custom.iter().take(i).any(|other| other.name == name)
            {
                return Err(ChoiceError::Duplicate(name.into()));
            }
            let (symbol, offset) = parse_symbol(&lock.symbol).ok_or_else(|| {
                let symbol = lock.symbol.escape_debug().to_string();
                ChoiceError::Symbol { name: name.into(), symbol }
            })?;
            wanted.push(Wanted::Custom { name, symbol, offset, kind: lock.kind });
        }
        Ok(wanted)
    }
}

fn unknown(name: &str) -> ChoiceError {
    let similarity = |entry: &&Entry| strsim::jaro_winkler(entry.name, name);
    let nearest = ENTRIES.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    ChoiceError::Unknown {
        name: name.escape_debug().to_string(),
        nearest: nearest.map_or("", |entry| entry.name),
    }
}

/// Symbol and offset of `symbol` or `symbol+offset`.
fn parse_symbol(text: &str) -> Option<(&str, u64)> {
    let (symbol, offset) = match text.split_once('+') {
        None => (text, 0),
        Some((symbol, offset)) => (
            symbol,
            match offset.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok()?,
                None => offset.parse().ok()?,
            },
        ),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    (!symbol.is_empty() && symbol.chars().all(word) && offset < 1 << 30).then_some((symbol, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(choices: &Choices) -> Vec<String> {
        choices.wanted().unwrap().iter().map(|w| w.name().to_owned()).collect()
    }

    fn custom(name: &str, symbol: &str) -> Choices {
        let (name, symbol) = (name.into(), symbol.into());
        let lock = CustomLock { name, symbol, kind: LockKind::Mutex };
        Choices { custom: vec![lock], ..Choices::default() }
    }

    #[test]
    fn choices_change_the_defaults_and_keep_the_order() {
        let choices = Choices {
            enable: vec!["rename_lock".into(), "namespace_sem".into()],
            disable: vec!["tasklist_lock".into(), "sb_lock".into()],
            ..custom("cgroup", "cgroup_mutex")
        };
        assert_eq!(
            names(&choices),
            [
                "namespace_sem",
                "mnt_id_lock",
                "mount_lock",
                "shrinker_rwsem",
                "rcu_exp_mutex",
                "pcpu_alloc_mutex",
                "list_lrus_mutex",
                "rename_lock",
                "cgroup",
            ]
        );
    }

    #[test]
    fn the_others_are_the_rest_of_the_catalogue() {
        let choices = Choices {
            enable: vec!["rename_lock".into()],
            disable: vec!["tasklist_lock".into()],
            ..custom("cgroup", "cgroup_mutex")
        };
        assert_eq!(names(&choices.others()), ["tasklist_lock", "ns_tree_lock", "sb_lock"]);
        let all = choices.wanted().unwrap().len() - 1 + choices.others().wanted().unwrap().len();
        assert_eq!(all, ENTRIES.len());
    }

    #[test]
    fn an_unknown_lock_is_an_error_with_the_nearest_name() {
        let choices = Choices { enable: vec!["shrinker_mutex".into()], ..Choices::default() };
        let error = choices.check().unwrap_err().to_string();
        assert!(error.contains("`shrinker_mutex`; did you mean `shrinker_rwsem`?"), "{error}");
    }

    #[test]
    fn a_lock_cannot_be_enabled_and_disabled() {
        let both = vec!["sb_lock".to_owned()];
        let choices = Choices { enable: both.clone(), disable: both, ..Choices::default() };
        assert_eq!(choices.check(), Err(ChoiceError::Contradiction("sb_lock".into())));
    }

    #[test]
    fn custom_locks_need_a_new_name_that_can_be_a_label() {
        let taken = custom("sb_lock", "x").check();
        assert_eq!(taken, Err(ChoiceError::Duplicate("sb_lock".into())));
        for bad in ["", "a b", "a\u{1b}[2J", "ä", &"x".repeat(65)] {
            assert!(matches!(custom(bad, "x").check(), Err(ChoiceError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn symbols_may_carry_an_offset() {
        assert_eq!(parse_symbol("init_mm"), Some(("init_mm", 0)));
        assert_eq!(parse_symbol("init_mm+0x68"), Some(("init_mm", 0x68)));
        assert_eq!(parse_symbol("init_mm+16"), Some(("init_mm", 16)));
        for bad in ["", "+1", "a+", "a+0x", "a+-1", "a.b", "a b", "a+0xffffffffff"] {
            assert_eq!(parse_symbol(bad), None, "{bad}");
        }
        let error = custom("exp", "rcu_state.exp_mutex").check().unwrap_err().to_string();
        assert!(error.contains("`rcu_state.exp_mutex`"), "{error}");
    }
}
