//! Keeps kernel addresses out of what is logged or printed for programs: one
//! address of a global variable gives the base of a randomised kernel away.

/// Hexadecimal digits of an address in the kernel's half of a 64-bit space.
const DIGITS: usize = 16;

/// `text` with each kernel address, with `0x` or without, replaced.
pub(super) fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        let is_address = digits.len() == DIGITS && digits[..4].eq_ignore_ascii_case("ffff");
        out.push_str(if is_address { "(hidden)" } else { digits });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::without_addresses;

    #[test]
    fn addresses_are_hidden_and_other_numbers_stay() {
        let text =
            "`m_start` at 0xffffffff81234560, ffff888100000000: errno 14, 0x80, sb_lock+0x10";
        assert_eq!(
            without_addresses(text),
            "`m_start` at 0x(hidden), (hidden): errno 14, 0x80, sb_lock+0x10"
        );
        assert_eq!(without_addresses("déjà vu"), "déjà vu");
    }
}
