//! Why a step failed for a reason that has no errno, in the words of who said
//! it, told by any of the storm's processes to the caller.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::storm::start::Op;

/// Bytes that are kept.
const ROOM: usize = 1024;

/// Nobody has said anything.
const SILENT: u32 = 0;
/// Somebody is writing.
const WRITING: u32 = 1;
/// Said; of the step with this number less [`SAID`].
const SAID: u32 = 2;

/// What the first one says; there is no room for more.
#[repr(C)]
pub(super) struct Words {
    state: AtomicU32,
    text: [AtomicU8; ROOM],
}

impl Words {
    /// Keeps `text`, as much as there is room for, unless somebody was first.
    pub(super) fn say(&self, op: Op, text: &str) {
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        if self.state.compare_exchange(SILENT, WRITING, order.0, order.1).is_err() {
            return;
        }
        let end = text.floor_char_boundary(ROOM);
        for (to, from) in self.text.iter().zip(text[..end].bytes()) {
            to.store(from, Ordering::Relaxed);
        }
        // What was written goes before the state, for whoever sees that.
        self.state.store(SAID + op as u32, Ordering::Release);
    }

    /// What was said about `op`.
    pub(super) fn about(&self, op: Op) -> Option<String> {
        if self.state.load(Ordering::Acquire) != SAID + op as u32 {
            return None;
        }
        let bytes = self.text.iter().map(|byte| byte.load(Ordering::Relaxed));
        let text: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Words {
        Words { state: AtomicU32::new(0), text: [const { AtomicU8::new(0) }; ROOM] }
    }

    #[test]
    fn the_first_one_is_heard_and_on_its_own_step_alone() {
        let words = silent();
        assert_eq!(words.about(Op::RuntimeCreate), None);
        words.say(Op::RuntimeCreate, "no root");
        words.say(Op::RuntimeCreate, "second");
        assert_eq!(words.about(Op::RuntimeCreate).as_deref(), Some("no root"));
        assert_eq!(words.about(Op::RuntimeStart), None);
    }

    #[test]
    fn long_words_end_at_a_character() {
        let words = silent();
        words.say(Op::MakePrivate, &"\u{fffd}".repeat(ROOM));
        assert_eq!(words.about(Op::MakePrivate).unwrap(), "\u{fffd}".repeat(ROOM / 3));
    }
}
