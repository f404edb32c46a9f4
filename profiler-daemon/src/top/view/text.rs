//! Text that fits and does no harm.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Theme;
use crate::snapshot::Name;

impl Theme {
    /// `text` without anything that could move the cursor. Most texts are
    /// [`Name`]s already; keys of another host's JSON are not.
    pub(super) fn clean(self, text: &str) -> String {
        let name = Name::from(text);
        if !self.ascii || name.as_str().is_ascii() {
            return name.as_str().to_owned();
        }
        let mut ascii = String::new();
        for c in name.as_str().chars() {
            if c.is_ascii() {
                ascii.push(c);
            } else {
                ascii.extend(c.escape_unicode());
            }
        }
        ascii
    }

    /// [`Theme::clean`] text, cut at its end to `width` terminal columns.
    pub(super) fn fit(self, text: &str, width: u16) -> String {
        let text = self.clean(text);
        let width = usize::from(width);
        if text.width() <= width {
            return text;
        }
        let mark = self.ellipsis();
        let room = width.saturating_sub(mark.width());
        let mut used = 0;
        let mut cut = String::new();
        for c in text.chars() {
            used += c.width().unwrap_or(0);
            if used > room {
                break;
            }
            cut.push(c);
        }
        if width >= mark.width() {
            cut.push_str(mark);
        }
        cut
    }

    /// [`Theme::fit`], filled up with spaces.
    pub(super) fn pad(self, text: &str, width: u16, right: bool) -> String {
        let text = self.fit(text, width);
        let fill = " ".repeat(usize::from(width).saturating_sub(text.width()));
        if right { fill + &text } else { text + &fill }
    }

    /// Clean text in lines of at most `width` terminal columns, broken at spaces
    /// where that is possible.
    pub(super) fn wrap(self, text: &str, width: u16) -> Vec<String> {
        let width = usize::from(width.max(1));
        let mut lines = vec![String::new()];
        for word in self.clean(text).split(' ').filter(|word| !word.is_empty()) {
            let mut line = lines.pop().unwrap_or_default();
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            for c in word.chars() {
                if line.width() + c.width().unwrap_or(0) > width && !line.is_empty() {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(c);
            }
            lines.push(line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Theme = Theme { colour: false, ascii: false };
    const ASCII: Theme = Theme { colour: false, ascii: true };

    #[test]
    fn wide_characters_count_twice_and_are_not_cut_in_half() {
        assert_eq!(PLAIN.fit("ab🦀cd", 5), "ab🦀…");
        assert_eq!(PLAIN.fit("ab🦀cd", 4), "ab…");
        assert_eq!(PLAIN.pad("🦀", 4, true), "  🦀");
        assert_eq!(PLAIN.fit("abc", 0), "");
        assert_eq!(ASCII.fit("é…", 9), "\\u{e9}\\u~");
    }

    #[test]
    fn what_could_move_the_cursor_is_escaped_whatever_it_came_in() {
        assert_eq!(PLAIN.clean("a\x1b[2J\u{202e}b"), "a\\x1b[2J\\u{202e}b");
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(PLAIN.wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(PLAIN.wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(PLAIN.wrap("", 3), [""]);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in any::<String>(), width in 0u16..40) {
            prop_assert!(PLAIN.fit(&text, width).width() <= usize::from(width));
            prop_assert!(ASCII.pad(&text, width, false).is_ascii());
            prop_assert_eq!(PLAIN.pad(&text, width, true).width(), usize::from(width));
            for line in PLAIN.wrap(&text, width.max(2)) {
                prop_assert!(line.width() <= usize::from(width.max(2)), "{:?}", line);
            }
        }
    }
}
