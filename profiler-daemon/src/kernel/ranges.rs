//! Where the code of functions is.
//!
//! In: symbols, a name. Out: the ranges of the functions of this name and of
//! the changed copies that a compiler made of it (`.isra.0`, `.part.0`,
//! `.constprop.0`, `.cold`). A function ends where the next symbol begins, so
//! the padding behind it belongs to it.

use super::kallsyms::Kallsyms;

/// The code of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRange {
    /// Its name in the symbol table.
    pub name: String,
    /// Address of its first byte.
    pub start: u64,
    /// Address behind its last byte.
    pub end: u64,
}

/// The code of the functions called `name` and of copies of them. A name that
/// several functions share says nothing about any of them, so they are left out.
pub fn of_function(kallsyms: &Kallsyms, name: &str) -> Vec<FunctionRange> {
    kallsyms
        .functions(name)
        .filter(|(full, _)| kallsyms.get(full).len() == 1)
        .filter_map(|(full, symbol)| {
            let end = symbol.end?;
            Some(FunctionRange { name: full.to_owned(), start: symbol.address, end })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ffffffff81000000 T _stext
ffffffff81000100 t walk
ffffffff81000180 t __pfx_other
ffffffff81000190 t other
ffffffff810001c0 t walk_far
ffffffff81000200 t other
ffffffff81000280 t walk.cold
ffffffff810002a0 t walk.part.0
ffffffff81000300 T _etext
";

    fn found(name: &str) -> Vec<(String, u64, u64)> {
        let table = Kallsyms::collect_from(TABLE.as_bytes(), "table", [name]).unwrap();
        let ranges = of_function(&table, name).into_iter();
        ranges.map(|r| (r.name, r.start & 0xfff, r.end & 0xfff)).collect()
    }

    #[test]
    fn a_function_has_the_code_up_to_the_next_symbol_and_its_copies_have_theirs() {
        let range = |name: &str, start, end| (name.to_owned(), start, end);
        assert_eq!(
            found("walk"),
            [
                range("walk", 0x100, 0x180),
                range("walk.cold", 0x280, 0x2a0),
                range("walk.part.0", 0x2a0, 0x300),
            ]
        );
    }

    #[test]
    fn functions_that_share_a_name_are_left_out() {
        assert_eq!(found("other"), []);
        assert_eq!(found("absent"), []);
    }
}
