//! Who waits and who makes them wait: tasks, their cgroups and containers.
//!
//! Names of tasks and cgroups come from inside containers. [`Name`] is the one
//! type that carries them, and nothing gets into it unescaped, whether it was
//! read from the kernel, from a file or from another host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that is harmless on a terminal, in a label and in JSON: control
/// characters, and those that change the direction or the extent of text, are
/// written as escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Name(String);

impl Name {
    /// From bytes of the kernel up to the first NUL; what is not UTF-8 becomes
    /// `\xNN`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let mut text = String::new();
        for chunk in bytes[..end].utf8_chunks() {
            push_escaped(&mut text, chunk.valid());
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        if text.chars().any(needs_escape) { Self::from(text.as_str()) } else { Self(text) }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        push_escaped(&mut escaped, text);
        Self(escaped)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn push_escaped(text: &mut String, raw: &str) {
    for c in raw.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_ascii() && needs_escape(c) => {
                text.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if needs_escape(c) => text.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => text.push(c),
        }
    }
}

/// Control characters, line separators, and what is invisible or reorders text
/// (Unicode's bidirectional controls, zero-width characters, tags).
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Somebody that time is charged to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "party", rename_all = "lowercase")]
pub enum Party {
    /// Tasks of one name in one cgroup.
    Task(Who),
    /// Those that the table of charges had no room for.
    Other,
    /// Those whose rows were given to others, by runtime: mostly of containers
    /// that are gone.
    Evicted {
        /// What they belonged to.
        #[serde(default)]
        runtime: Runtime,
    },
    /// Nobody could be named.
    Unknown,
}

impl Party {
    /// Who it is, if it is anybody in particular.
    pub const fn who(&self) -> Option<&Who> {
        match self {
            Self::Task(who) => Some(who),
            Self::Other | Self::Evicted { .. } | Self::Unknown => None,
        }
    }

    /// Task name, `other`, `evicted` or `unknown`.
    pub fn task(&self) -> &str {
        match self {
            Self::Task(who) => who.task.as_str(),
            Self::Other => "other",
            Self::Evicted { .. } => "evicted",
            Self::Unknown => "unknown",
        }
    }

    /// [`Runtime`] of the tasks; `other` for those that are nobody in particular.
    pub fn runtime(&self) -> Runtime {
        match self {
            Self::Task(who) => who.runtime,
            Self::Evicted { runtime } => *runtime,
            Self::Other | Self::Unknown => Runtime::Other,
        }
    }

    /// What stays the same of a party when more becomes known of it, such as the
    /// path of its cgroup.
    pub fn key(&self) -> PartyKey {
        match self {
            Self::Task(who) => {
                PartyKey::Task(who.task.clone(), who.cgroup.as_ref().map(|cgroup| cgroup.id))
            }
            Self::Other => PartyKey::Other,
            Self::Evicted { runtime } => PartyKey::Evicted(*runtime),
            Self::Unknown => PartyKey::Unknown,
        }
    }
}

/// See [`Party::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants of `Party`")]
pub enum PartyKey {
    Task(Name, Option<u64>),
    Other,
    Evicted(Runtime),
    Unknown,
}

/// Tasks of one name in one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// Name of the task (`comm`).
    pub task: Name,
    /// The container runtime that it belongs to.
    #[serde(default)]
    pub runtime: Runtime,
    /// Its cgroup; `None` where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
}

impl Who {
    /// The container, if the cgroup is one's.
    pub fn container(&self) -> Option<&Container> {
        self.cgroup.as_ref()?.container.as_ref()
    }
}

/// A control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its id: the number of its directory's inode.
    pub id: u64,
    /// Its path below the hierarchy's root; empty when it was gone before it was
    /// looked up.
    pub path: Name,
    /// The container that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A container, as the path of its cgroup tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Container {
    /// Who made it: `docker`, `containerd`, `crio`, `podman`, `buildkit`, `lxc`, or
    /// `unknown`.
    pub manager: Name,
    /// Its id, in full.
    pub id: Name,
    /// UID of its Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Name>,
    /// Quality-of-service class of the pod: `guaranteed`, `burstable` or
    /// `besteffort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<Name>,
}

/// The runtimes that are told apart: a fixed list, so that it can be a label.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// `runc`.
    Runc,
    /// `crun`.
    Crun,
    /// `youki`.
    Youki,
    /// `containerd`.
    Containerd,
    /// `containerd-shim`.
    ContainerdShim,
    /// `conmon`.
    Conmon,
    /// `podman`.
    Podman,
    /// `dockerd`.
    Dockerd,
    /// `crio`.
    Crio,
    /// `kubelet`.
    Kubelet,
    /// `systemd`.
    Systemd,
    /// `runsc`.
    Runsc,
    /// `kata`.
    Kata,
    /// Everything else.
    #[default]
    #[serde(other)]
    Other,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Runc,
        Self::Crun,
        Self::Youki,
        Self::Containerd,
        Self::ContainerdShim,
        Self::Conmon,
        Self::Podman,
        Self::Dockerd,
        Self::Crio,
        Self::Kubelet,
        Self::Systemd,
        Self::Runsc,
        Self::Kata,
        Self::Other,
    ];

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
            Self::Containerd => "containerd",
            Self::ContainerdShim => "containerd-shim",
            Self::Conmon => "conmon",
            Self::Podman => "podman",
            Self::Dockerd => "dockerd",
            Self::Crio => "crio",
            Self::Kubelet => "kubelet",
            Self::Systemd => "systemd",
            Self::Runsc => "runsc",
            Self::Kata => "kata",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_a_cursor_or_hide_text_is_escaped() {
        assert_eq!(Name::from("\x1b[2Jboo\n\u{7f}").as_str(), "\\x1b[2Jboo\\n\\x7f");
        assert_eq!(
            Name::from("a\u{202e}b\u{200b}c\u{9b}").as_str(),
            "a\\u{202e}b\\u{200b}c\\u{9b}"
        );
        assert_eq!(Name::from("run\"c, {x} é 🦀").as_str(), "run\"c, {x} é 🦀");
    }

    #[test]
    fn an_emoji_that_the_kernel_cut_is_shown_byte_by_byte() {
        let comm = b"aaaaaaaaaaaaa\xf0\x9f\0";
        assert_eq!(Name::from_bytes(comm).as_str(), "aaaaaaaaaaaaa\\xf0\\x9f");
        assert_eq!(Name::from_bytes(b"runc\0junk").as_str(), "runc");
        assert_eq!(Name::from_bytes(b"").as_str(), "");
    }

    #[test]
    fn a_name_from_another_host_is_escaped_as_well() {
        let name: Name = serde_json::from_str("\"a\\u001b]0;x\\u0007\"").unwrap();
        assert_eq!(name.as_str(), "a\\x1b]0;x\\x07");
        let again: Name = serde_json::from_str(&serde_json::to_string(&name).unwrap()).unwrap();
        assert_eq!(again, name, "escaping an escaped name changes nothing");
    }

    #[test]
    fn the_json_of_a_party_says_what_sort_it_is() {
        let who = Who { task: "runc".into(), runtime: Runtime::Runc, cgroup: None };
        let json = serde_json::to_string(&Party::Task(who.clone())).unwrap();
        assert_eq!(json, r#"{"party":"task","task":"runc","runtime":"runc"}"#);
        assert_eq!(serde_json::from_str::<Party>(&json).unwrap(), Party::Task(who));
        assert_eq!(serde_json::to_string(&Party::Other).unwrap(), r#"{"party":"other"}"#);
        let newer = r#"{"party":"task","task":"x","runtime":"of-the-future"}"#;
        assert_eq!(serde_json::from_str::<Party>(newer).unwrap().runtime(), Runtime::Other);
    }

    #[test]
    fn the_label_of_a_runtime_is_its_json() {
        for runtime in Runtime::ALL {
            assert_eq!(serde_json::to_value(runtime).unwrap(), runtime.as_str());
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_task_calls_itself_is_harmless_and_not_escaped_twice(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            text in "(\\PC|[\\x00-\\x1f\u{7f}-\u{9f}\u{200e}\u{202a}-\u{202e}]){0,40}",
        ) {
            let harmful =
                |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{202a}'..='\u{202e}');
            for name in [Name::from_bytes(&bytes), Name::from(text.as_str()), Name::from(text)] {
                let shown = name.to_string();
                proptest::prop_assert!(!shown.chars().any(harmful), "{:?}", shown);
                proptest::prop_assert_eq!(Name::from(shown), name);
            }
        }
    }
}
