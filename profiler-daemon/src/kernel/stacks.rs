//! Names for the addresses of kernel stacks.
//!
//! In: addresses, and `/proc/kallsyms`. Out: `function+0xoffset`. Addresses in
//! functions that are not known yet are looked up together, in one pass over the
//! file, away from whoever shows them; the functions are kept, as in each pass the
//! kernel writes out all of its symbols. The file stays open: whether it shows
//! addresses is decided by the privileges of whoever opened it (`kallsyms_open` in
//! kernel/kallsyms.c, Linux 5.8), so that it can be read after they were given up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _};
use std::sync::{Mutex, PoisonError, RwLock};

use super::kallsyms::{KALLSYMS, KallsymsError, parse};

/// Most functions that are kept.
const CAPACITY: usize = 8192;

/// Functions that were looked up.
#[derive(Debug, Default)]
pub struct StackNames {
    /// By the address where they begin.
    functions: RwLock<BTreeMap<u64, Function>>,
    /// Opened before it is needed.
    table: Option<Mutex<File>>,
}

impl StackNames {
    /// Names of the running kernel's functions, by what this thread may see now.
    pub fn of_running_kernel() -> Self {
        // One that cannot be opened is tried again, and reported, when names are
        // wanted.
        Self { table: File::open(KALLSYMS).ok().map(Mutex::new), ..Self::default() }
    }

    /// Name of the function at `address`, with the offset; `None` until it was
    /// looked up.
    pub fn get(&self, address: u64) -> Option<Box<str>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let (start, function) = at(&functions, address)?;
        Some(match start {
            0 => function.name.clone(),
            start => format!("{}+{:#x}", function.name, address - start).into_boxed_str(),
        })
    }

    /// Looks up those of `addresses` that are not known.
    ///
    /// # Errors
    ///
    /// `/proc/kallsyms` cannot be read, or hides addresses.
    pub fn look_up(&self, addresses: impl IntoIterator<Item = u64>) -> Result<(), KallsymsError> {
        let Some(table) = &self.table else {
            return self.look_up_in(addresses, || File::open(KALLSYMS).map(BufReader::new));
        };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_up_in(addresses, || {
            table.rewind()?;
            Ok(BufReader::new(&mut *table))
        })
    }

    /// The same in a table of that format.
    fn look_up_in<T: BufRead>(
        &self,
        addresses: impl IntoIterator<Item = u64>,
        table: impl FnOnce() -> std::io::Result<T>,
    ) -> Result<(), KallsymsError> {
        let mut unknown: Vec<u64> = {
            let known = self.functions.read().unwrap_or_else(PoisonError::into_inner);
            addresses.into_iter().filter(|address| at(&known, *address).is_none()).collect()
        };
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let read = |source| KallsymsError::Read { path: KALLSYMS.into(), source };
        let Some(found) = functions(table().map_err(read)?, &unknown).map_err(read)? else {
            return Err(KallsymsError::Hidden);
        };
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.len() + found.len() > CAPACITY {
            functions.clear();
        }
        for (start, function) in found {
            // Where nobody says where it ends, what is known of it grows.
            let known = functions.entry(start).or_insert_with(|| function.clone());
            if known.name == function.name {
                known.end = known.end.max(function.end);
            } else {
                *known = function;
            }
        }
        Ok(())
    }
}

/// A function, as far as it is known.
#[derive(Clone, Debug)]
struct Function {
    /// `?` for what is below all code.
    name: Box<str>,
    /// The address after the last one that is known to be in it.
    end: u64,
}

/// The function that `address` is in, with the address where it begins.
fn at(functions: &BTreeMap<u64, Function>, address: u64) -> Option<(u64, &Function)> {
    let (start, function) = functions.range(..=address).next_back()?;
    (address < function.end).then_some((*start, function))
}

/// A symbol of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Symbol {
    start: u64,
    name: Box<str>,
    module: Option<Box<str>>,
}

impl Symbol {
    /// Whether it is of code that is made at run time, of which more may be made
    /// between two such (`bpf_get_kallsym` and its neighbours in kernel/kallsyms.c).
    fn is_generated(&self) -> bool {
        let module = self.module.as_deref().unwrap_or_default();
        module == "bpf" || module.starts_with("__builtin__")
    }
}

/// The function that each of `addresses`, ascending, is in, with where it begins:
/// that with the highest address not above it; `None` if every function is at 0,
/// which is how the kernel hides them.
///
/// It ends where the next one of the same module begins. Behind the last one of a
/// module, and between functions made at run time, others come and go: of those only
/// the address itself is known.
fn functions(
    mut table: impl BufRead,
    addresses: &[u64],
) -> std::io::Result<Option<Vec<(u64, Function)>>> {
    // For each address the nearest symbol between it and the address before, and
    // the nearest one between it and the address after.
    let mut below: Vec<Option<Symbol>> = vec![None; addresses.len()];
    let mut above: Vec<Option<Symbol>> = vec![None; addresses.len()];
    let mut line = String::new();
    let mut hidden = true;
    loop {
        line.clear();
        if table.read_line(&mut line)? == 0 {
            break;
        }
        let Some((start, letter, name, module)) = parse(&line) else { continue };
        if !matches!(letter, 't' | 'T' | 'w' | 'W') {
            continue;
        }
        hidden &= start == 0;
        let symbol = || Some(Symbol { start, name: name.into(), module: module.map(Into::into) });
        let after = addresses.partition_point(|address| *address < start);
        if let Some(below) = below.get_mut(after)
            && below.as_ref().is_none_or(|below| below.start < start)
        {
            *below = symbol();
        }
        if let Some(above) = after.checked_sub(1).and_then(|before| above.get_mut(before))
            && above.as_ref().is_none_or(|above| above.start > start)
        {
            *above = symbol();
        }
    }
    if hidden {
        return Ok(None);
    }
    // An address with no symbol between it and its neighbour has what that one has.
    for at in 1..addresses.len() {
        if below[at].is_none() {
            below[at] = below[at - 1].clone();
        }
    }
    for at in (1..addresses.len()).rev() {
        if above[at - 1].is_none() {
            above[at - 1] = above[at].clone();
        }
    }
    let found =
        addresses.iter().zip(below.into_iter().zip(above)).map(|(address, (below, above))| {
            let below = below.unwrap_or(Symbol { name: "?".into(), ..Symbol::default() });
            let end = match above {
                Some(above) if above.module == below.module && !below.is_generated() => above.start,
                _ => address.saturating_add(1),
            };
            (below.start, Function { name: below.name, end })
        });
    Ok(Some(found.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ffffffff81000000 T _text
ffffffff81000100 t down_write
ffffffff81000140 d not_code
ffffffff81000180 T up_write
ffffffffa0000000 t of_a_module\t[overlay]
ffffffff81000200 t after_the_module
ffffffffa1000000 t bpf_prog_one\t[bpf]
ffffffffa1000800 t bpf_prog_two\t[bpf]
";

    fn names(addresses: &[u64]) -> Vec<String> {
        let names = StackNames::default();
        names.look_up_in(addresses.iter().copied(), || Ok(TABLE.as_bytes())).unwrap();
        addresses.iter().map(|address| names.get(*address).unwrap().into_string()).collect()
    }

    #[test]
    fn an_address_is_in_the_function_that_starts_below_it() {
        assert_eq!(
            names(&[0xffff_ffff_8100_0108, 0xffff_ffff_8100_0150]),
            ["down_write+0x8", "down_write+0x50"]
        );
        assert_eq!(
            names(&[0xffff_ffff_8100_0180, 0xffff_ffff_8100_0204, 0xffff_ffff_a000_0010]),
            ["up_write+0x0", "after_the_module+0x4", "of_a_module+0x10"]
        );
        assert_eq!(names(&[0x1000]), ["?"], "below all code");
    }

    /// Looks addresses up in a table that must not be asked for others.
    fn known(names: &StackNames, address: u64) -> bool {
        let asked = std::cell::Cell::new(false);
        let table = || {
            asked.set(true);
            Ok(TABLE.as_bytes())
        };
        names.look_up_in([address], table).unwrap();
        !asked.get()
    }

    #[test]
    fn what_was_looked_up_is_known_with_all_of_its_function() {
        let names = StackNames::default();
        assert_eq!(names.get(0xffff_ffff_8100_0108), None);
        assert!(!known(&names, 0xffff_ffff_8100_0108));
        assert_eq!(names.get(0xffff_ffff_8100_0108).as_deref(), Some("down_write+0x8"));
        assert!(known(&names, 0xffff_ffff_8100_0100));
        assert!(known(&names, 0xffff_ffff_8100_017f));
        assert_eq!(names.get(0xffff_ffff_8100_0180), None, "of the next function");
        assert_eq!(names.get(0xffff_ffff_8100_00ff), None, "of the one before");
        // Below all code nothing begins, up to the first function.
        assert!(!known(&names, 0x1000));
        assert_eq!(names.get(0x2000).as_deref(), Some("?"));
        assert_eq!(names.get(0xffff_ffff_8100_0108).as_deref(), Some("down_write+0x8"));
    }

    #[test]
    fn where_others_come_and_go_only_what_was_asked_is_known() {
        let names = StackNames::default();
        for address in [0xffff_ffff_a000_0010, 0xffff_ffff_8100_0204, 0xffff_ffff_a100_0010] {
            assert!(!known(&names, address));
            assert!(known(&names, address));
            assert!(!known(&names, address + 0x100), "another one may be loaded there");
            assert!(known(&names, address + 0x100));
        }
        assert_eq!(names.get(0xffff_ffff_a000_0110).as_deref(), Some("of_a_module+0x110"));
    }

    #[test]
    fn a_table_that_hides_addresses_names_nothing_and_says_what_would_help() {
        let names = StackNames::default();
        let hidden = "0000000000000000 T _text\n0000000000000000 t down_write\n";
        let error = names.look_up_in([0xffff_ffff_8100_0108], || Ok(hidden.as_bytes()));
        assert!(error.unwrap_err().to_string().contains("kernel.kptr_restrict"));
        // Nothing wrong is kept: the next look may be allowed.
        assert_eq!(names.get(0xffff_ffff_8100_0108), None);
    }
}
