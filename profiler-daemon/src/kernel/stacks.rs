//! Names for the addresses of kernel stacks.
//!
//! In: addresses, and `/proc/kallsyms`. Out: `function+0xoffset`. Addresses that
//! are not known yet are looked up together, in one pass over the file, away from
//! whoever shows them; what was looked up is kept. The file stays open: whether it
//! shows addresses is decided by the privileges of whoever opened it
//! (`kallsyms_open` in kernel/kallsyms.c, Linux 5.8), so that it can be read after
//! they were given up.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _};
use std::sync::{Mutex, PoisonError, RwLock};

use super::kallsyms::{KALLSYMS, KallsymsError, parse};

/// Most addresses whose names are kept: those of some hundred call chains.
const CAPACITY: usize = 8192;

/// Names that were looked up.
#[derive(Debug, Default)]
pub struct StackNames {
    names: RwLock<HashMap<u64, Box<str>>>,
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
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
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
            let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
            addresses.into_iter().filter(|address| !known.contains_key(address)).collect()
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
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() + found.len() > CAPACITY {
            names.clear();
        }
        names.extend(found);
        Ok(())
    }
}

/// Addresses with the names of the functions that they are in.
type Found = Vec<(u64, Box<str>)>;

/// The function that each of `addresses`, ascending, is in: that with the highest
/// address not above it; `None` if every function is at 0, which is how the kernel
/// hides them.
fn functions(mut table: impl BufRead, addresses: &[u64]) -> std::io::Result<Option<Found>> {
    let mut best: Found = vec![(0, "".into()); addresses.len()];
    let mut line = String::new();
    let mut hidden = true;
    loop {
        line.clear();
        if table.read_line(&mut line)? == 0 {
            break;
        }
        let Some((start, letter, name, _)) = parse(&line) else { continue };
        if !matches!(letter, 't' | 'T' | 'w' | 'W') {
            continue;
        }
        hidden &= start == 0;
        // Of the addresses at or above it the lowest is enough: the others get
        // what that one has, unless they have something higher.
        let at = addresses.partition_point(|address| *address < start);
        if let Some(best) = best.get_mut(at).filter(|best| best.0 < start) {
            *best = (start, name.into());
        }
    }
    if hidden {
        return Ok(None);
    }
    let mut below: (u64, Box<str>) = (0, "".into());
    let mut found = Vec::new();
    for (address, best) in addresses.iter().zip(best) {
        if best.0 > below.0 {
            below = best;
        }
        let name = match below.0 {
            0 => "?".into(),
            start => format!("{}+{:#x}", below.1, address - start).into_boxed_str(),
        };
        found.push((*address, name));
    }
    Ok(Some(found))
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
";

    fn names(addresses: &[u64]) -> Vec<String> {
        let found = functions(TABLE.as_bytes(), addresses).unwrap().unwrap();
        found.into_iter().map(|(_, name)| name.into_string()).collect()
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

    #[test]
    fn what_was_looked_up_is_known() {
        let names = StackNames::default();
        assert_eq!(names.get(0xffff_ffff_8100_0108), None);
        names.look_up_in([0xffff_ffff_8100_0108], || Ok(TABLE.as_bytes())).unwrap();
        assert_eq!(names.get(0xffff_ffff_8100_0108).as_deref(), Some("down_write+0x8"));
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
