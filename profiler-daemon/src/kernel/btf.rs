//! The types of the running kernel, from its BTF.
//!
//! In: `/sys/kernel/btf/vmlinux`. Out: where a member of a structure is, and
//! what it holds. Programs written in Rust have no CO-RE relocations for
//! fields, so offsets are looked up here and handed to them as read-only data;
//! [`super::fields`] says which.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use memmap2::MmapMut;

/// BTF of the running kernel's image.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const TYPE_TAG: u32 = 18;

/// Structures inside structures that a member is looked for in; the C compiler
/// sets no limit, the kernel has some five.
const NESTING: u32 = 16;

/// Why an offset is not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// There is no BTF, or it could not be read.
    #[error("failed to read {}; the kernel must be built with CONFIG_DEBUG_INFO_BTF", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data are not BTF as this program knows it.
    #[error("the kernel's BTF is malformed or of a newer format at byte {offset:#x}")]
    Malformed {
        /// Where.
        offset: usize,
    },
    /// No structure, union or typedef of one has this name.
    #[error("this kernel has no `struct {0}`")]
    NoStruct(String),
    /// The structure has no such member.
    #[error("`struct {of}` of this kernel has no member `{member}`")]
    NoMember {
        /// The structure.
        of: String,
        /// The missing member.
        member: String,
    },
    /// The member is a bit field, which has no address.
    #[error("`{member}` of `struct {of}` is a bit field")]
    BitField {
        /// The structure.
        of: String,
        /// The member.
        member: String,
    },
}

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is in the structure, in bytes.
    pub offset: u32,
    /// What it holds.
    pub shape: Shape,
}

/// What a member holds, as far as lockprof tells such things apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An integer of this many bytes.
    Integer(u32),
    /// A pointer to the structure or union of this name; the name is empty for
    /// any other pointer.
    Pointer(String),
    /// An array of pointers to the structure of this name.
    Pointers(String),
    /// An array of integers of one byte, this many.
    Bytes(u32),
    /// Anything else.
    Other,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(bytes) => write!(f, "an integer of {bytes} bytes"),
            Self::Pointer(to) if to.is_empty() => f.write_str("a pointer"),
            Self::Pointer(to) => write!(f, "a pointer to `struct {to}`"),
            Self::Pointers(to) => write!(f, "an array of pointers to `struct {to}`"),
            Self::Bytes(count) => write!(f, "an array of {count} bytes"),
            Self::Other => f.write_str("something else"),
        }
    }
}

/// The types of a kernel: some 6 MiB. Drop it when the offsets are known.
#[derive(Debug)]
pub struct Btf {
    // Mapped, not allocated: it goes back to the kernel whole when dropped.
    data: MmapMut,
    /// Offset in `data` of every type, by id.
    types: Vec<u32>,
    strings: usize,
}

/// The first words of a type.
#[derive(Clone, Copy)]
struct Type {
    /// Where what follows them is in `data`.
    rest: usize,
    name: u32,
    kind: u32,
    /// Members, parameters or values that follow.
    len: usize,
    /// Member offsets carry a bit field's size in their top byte.
    bit_fields: bool,
    /// What a typedef, modifier or pointer is about; the size in bytes of
    /// anything that has one.
    of: u32,
}

impl Btf {
    /// Reads the types of the running kernel.
    ///
    /// # Errors
    ///
    /// The file is missing (a kernel without BTF), unreadable or malformed.
    pub fn read() -> Result<Self, BtfError> {
        let path = Path::new(VMLINUX);
        let read = || -> io::Result<MmapMut> {
            let mut file = File::open(path)?;
            let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
            let mut data = MmapMut::map_anon(len.max(1))?;
            file.read_exact(&mut data[..len])?;
            Ok(data)
        };
        Self::parse(read().map_err(|source| BtfError::Read { path: path.into(), source })?)
    }

    fn parse(data: MmapMut) -> Result<Self, BtfError> {
        let mut btf = Self { data, types: vec![0], strings: 0 };
        let magic = btf.data.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        if magic != Some(MAGIC.to_le()) || cfg!(target_endian = "big") {
            return Err(BtfError::Malformed { offset: 0 });
        }
        let header = btf.word(4)? as usize;
        let start = header + btf.word(8)? as usize;
        let end = start + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        let mut at = start;
        while at < end {
            let position = u32::try_from(at).map_err(|_| BtfError::Malformed { offset: at })?;
            btf.types.push(position);
            let found = btf.type_at(at)?;
            let each = match found.kind {
                POINTER | 7 | TYPEDEF..=12 | 16 | TYPE_TAG => 0,
                // An integer, variable or declaration tag has one more word,
                // an array three.
                INT | 14 | 17 => 4,
                ARRAY => 12,
                ENUM | 13 => 8 * found.len,
                STRUCT | UNION | 15 | 19 => 12 * found.len,
                _ => return Err(BtfError::Malformed { offset: at }),
            };
            at = found.rest + each;
        }
        if at != end {
            return Err(BtfError::Malformed { offset: end });
        }
        Ok(btf)
    }

    /// Offset in bytes of `member` in the structure, union or typedef `of`.
    ///
    /// Members of anonymous structures and unions inside count as members, as
    /// in C. `member` may go into named ones too: `ns.inum`.
    ///
    /// # Errors
    ///
    /// The kernel has no such type or member.
    pub fn offset(&self, of: &str, member: &str) -> Result<u32, BtfError> {
        self.find(of, member).map(|(offset, _)| offset)
    }

    /// The same with what the member holds.
    ///
    /// # Errors
    ///
    /// As [`offset`](Self::offset).
    pub fn describe(&self, of: &str, member: &str) -> Result<Member, BtfError> {
        let (offset, found) = self.find(of, member)?;
        Ok(Member { offset, shape: self.shape(found)? })
    }

    /// Value of `enumerator` in `enum of`; `None` if the kernel has no such
    /// enumeration or enumerator.
    ///
    /// # Errors
    ///
    /// The data are malformed.
    pub fn enumerator(&self, of: &str, enumerator: &str) -> Result<Option<u32>, BtfError> {
        for at in self.types.iter().skip(1) {
            let found = self.type_at(*at as usize)?;
            if found.kind != ENUM || !self.is_called(found.name, of) {
                continue;
            }
            for at in (found.rest..).step_by(8).take(found.len) {
                if self.is_called(self.word(at)?, enumerator) {
                    return self.word(at + 4).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Offset in bytes and type of a member.
    fn find(&self, of: &str, member: &str) -> Result<(u32, Type), BtfError> {
        let missing = || BtfError::NoMember { of: of.into(), member: member.into() };
        let mut inside = self.named(of)?.ok_or_else(|| BtfError::NoStruct(of.into()))?;
        let mut bits = 0;
        for name in member.split('.') {
            let (offset, member_type) = self.member(inside, name, NESTING)?.ok_or_else(missing)?;
            bits += offset;
            inside = self.resolved(member_type)?;
        }
        if bits % 8 != 0 {
            return Err(BtfError::BitField { of: of.into(), member: member.into() });
        }
        Ok((bits / 8, inside))
    }

    fn shape(&self, found: Type) -> Result<Shape, BtfError> {
        Ok(match found.kind {
            INT => Shape::Integer(found.of),
            POINTER => {
                let to = self.resolved(found.of)?;
                let named = matches!(to.kind, STRUCT | UNION);
                Shape::Pointer(if named { self.string(to.name) } else { String::new() })
            }
            // Type of the elements, type of the index, number of elements.
            ARRAY => {
                let element = self.resolved(self.word(found.rest)?)?;
                match (element.kind, element.of) {
                    (INT, 1) => Shape::Bytes(self.word(found.rest + 8)?),
                    (POINTER, _) => match self.shape(element)? {
                        Shape::Pointer(to) => Shape::Pointers(to),
                        _ => Shape::Other,
                    },
                    _ => Shape::Other,
                }
            }
            _ => Shape::Other,
        })
    }

    /// The structure, union or typedef of one called `name`, with members.
    fn named(&self, name: &str) -> Result<Option<Type>, BtfError> {
        for at in self.types.iter().skip(1) {
            let found = self.type_at(*at as usize)?;
            if matches!(found.kind, STRUCT | UNION | TYPEDEF) && self.is_called(found.name, name) {
                let found = self.resolved_type(found)?;
                if matches!(found.kind, STRUCT | UNION) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Offset in bits and type of the member `name` of `of`.
    fn member(&self, of: Type, name: &str, depth: u32) -> Result<Option<(u32, u32)>, BtfError> {
        if !matches!(of.kind, STRUCT | UNION) || depth == 0 {
            return Ok(None);
        }
        for at in (of.rest..).step_by(12).take(of.len) {
            let (member_name, member_type) = (self.word(at)?, self.word(at + 4)?);
            let offset = self.word(at + 8)?;
            let offset = if of.bit_fields { offset & 0x00ff_ffff } else { offset };
            if self.is_called(member_name, name) {
                return Ok(Some((offset, member_type)));
            }
            if self.is_called(member_name, "") {
                let inner = self.member(self.resolved(member_type)?, name, depth - 1)?;
                if let Some((inner, inner_type)) = inner {
                    return Ok(Some((offset + inner, inner_type)));
                }
            }
        }
        Ok(None)
    }

    /// The type with this id, without typedefs and modifiers.
    fn resolved(&self, id: u32) -> Result<Type, BtfError> {
        let at = self.types.get(id as usize).filter(|_| id != 0);
        match at {
            Some(at) => self.resolved_type(self.type_at(*at as usize)?),
            None => Ok(Type { rest: 0, name: 0, kind: 0, len: 0, bit_fields: false, of: 0 }),
        }
    }

    fn resolved_type(&self, mut found: Type) -> Result<Type, BtfError> {
        for _ in 0..NESTING {
            match found.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {}
                _ => break,
            }
            let Some(at) = self.types.get(found.of as usize).filter(|_| found.of != 0) else {
                break;
            };
            found = self.type_at(*at as usize)?;
        }
        Ok(found)
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = self.word(at + 4)?;
        Ok(Type {
            rest: at + 12,
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            len: (info & 0xffff) as usize,
            bit_fields: info >> 31 == 1,
            of: self.word(at + 8)?,
        })
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        self.data
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes))
            .ok_or(BtfError::Malformed { offset: at })
    }

    /// The string at `offset` of the string table; empty if it has no end.
    fn string(&self, offset: u32) -> String {
        let rest = self.data.get(self.strings + offset as usize..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&rest[..len]).into_owned()
    }

    /// Whether the string at `offset` of the string table is `name`.
    fn is_called(&self, offset: u32, name: &str) -> bool {
        let at = self.strings + offset as usize;
        let string = self.data.get(at..at + name.len() + 1);
        string.is_some_and(|s| s.split_last() == Some((&0, name.as_bytes())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Builds BTF by hand, type by type.
    #[derive(Default)]
    pub(crate) struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn string(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }

        pub(crate) fn add(&mut self, name: &str, info: u32, of: u32, rest: &[u32]) -> u32 {
            let name = self.string(name);
            self.words(&[name, info, of]);
            self.words(rest);
            self.count += 1;
            self.count
        }

        pub(crate) fn int(&mut self) -> u32 {
            self.integer("int", 4)
        }

        pub(crate) fn integer(&mut self, name: &str, bytes: u32) -> u32 {
            self.add(name, INT << 24, bytes, &[8 * bytes])
        }

        pub(crate) fn pointer(&mut self, to: u32) -> u32 {
            self.add("", POINTER << 24, to, &[])
        }

        pub(crate) fn array(&mut self, of: u32, len: u32) -> u32 {
            self.add("", ARRAY << 24, 0, &[of, of, len])
        }

        pub(crate) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            self.composite(STRUCT, name, members)
        }

        pub(crate) fn composite(
            &mut self,
            kind: u32,
            name: &str,
            members: &[(&str, u32, u32)],
        ) -> u32 {
            let rest: Vec<u32> = members
                .iter()
                .flat_map(|(name, of, bits)| [self.string(name), *of, *bits])
                .collect();
            let len = u32::try_from(members.len()).unwrap();
            self.add(name, kind << 24 | len, 64, &rest)
        }

        pub(crate) fn build(self) -> Result<Btf, BtfError> {
            let types = u32::try_from(self.types.len()).unwrap();
            let strings = u32::try_from(self.strings.len()).unwrap();
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            Btf::parse(mapped(&bytes))
        }
    }

    fn mapped(bytes: &[u8]) -> MmapMut {
        let mut data = MmapMut::map_anon(bytes.len()).unwrap();
        data.copy_from_slice(bytes);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_unions_typedefs_and_paths() {
        let mut builder = Builder::new();
        let int = builder.int();
        let inner = builder.composite(STRUCT, "", &[("a", int, 0), ("lock", int, 32)]);
        let seqlock = builder.add("seqlock_t", TYPEDEF << 24, inner, &[]);
        let either = builder.composite(UNION, "", &[("b", int, 0), ("", inner, 64)]);
        builder.composite(
            STRUCT,
            "tree",
            &[("root", int, 0), ("", either, 64), ("tree_lock", seqlock, 256)],
        );
        let btf = builder.build().unwrap();
        assert_eq!(btf.offset("seqlock_t", "lock").unwrap(), 4);
        assert_eq!(btf.offset("tree", "b").unwrap(), 8);
        assert_eq!(btf.offset("tree", "a").unwrap(), 16);
        assert_eq!(btf.offset("tree", "tree_lock.lock").unwrap(), 36);
    }

    #[test]
    fn what_a_member_holds_is_told_through_typedefs_and_modifiers() {
        let mut builder = Builder::new();
        let (int, byte) = (builder.int(), builder.integer("char", 1));
        let name = builder.array(byte, 16);
        let numbers = builder.array(int, 16);
        let leaf = builder.structure("leaf", &[("x", int, 0)]);
        let constant = builder.add("", CONST << 24, leaf, &[]);
        let (to_leaf, to_int) = (builder.pointer(constant), builder.pointer(int));
        let tagged = builder.add("rcu", TYPE_TAG << 24, to_leaf, &[]);
        let long = builder.integer("long", 8);
        let atomic = builder.structure("", &[("counter", long, 0)]);
        let atomic = builder.add("atomic_long_t", TYPEDEF << 24, atomic, &[]);
        let members = ["number", "name", "numbers", "leaf", "other", "word", "inner"];
        let types = [int, name, numbers, tagged, to_int, atomic, leaf];
        let members: Vec<_> = (0..).zip(members.into_iter().zip(types)).collect();
        let members: Vec<_> = members.iter().map(|(i, (name, of))| (*name, *of, i * 64)).collect();
        builder.structure("tree", &members);
        let btf = builder.build().unwrap();
        let shape = |member: &str| btf.describe("tree", member).unwrap().shape;
        assert_eq!(shape("number"), Shape::Integer(4));
        assert_eq!(shape("name"), Shape::Bytes(16));
        assert_eq!(shape("numbers"), Shape::Other);
        assert_eq!(shape("leaf"), Shape::Pointer("leaf".into()));
        assert_eq!(shape("other"), Shape::Pointer(String::new()));
        assert_eq!(shape("word"), Shape::Other);
        assert_eq!(shape("word.counter"), Shape::Integer(8));
        assert_eq!(btf.describe("tree", "inner.x").unwrap().offset, 48);
        assert_eq!(shape("inner"), Shape::Other);
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let mut builder = Builder::new();
        let int = builder.int();
        builder.composite(STRUCT, "tree", &[("root", int, 0)]);
        let btf = builder.build().unwrap();
        let error = btf.offset("forest", "root").unwrap_err().to_string();
        assert_eq!(error, "this kernel has no `struct forest`");
        let error = btf.offset("tree", "leaf").unwrap_err().to_string();
        assert_eq!(error, "`struct tree` of this kernel has no member `leaf`");
        assert!(btf.offset("tree", "root.x").is_err(), "an int has no members");
    }

    #[test]
    fn a_structure_with_bit_fields_has_other_offset_words() {
        let mut builder = Builder::new();
        let int = builder.int();
        let (a, b) = (builder.string("flag"), builder.string("plain"));
        let members = [a, int, 1 << 24 | 3, b, int, 32];
        builder.add("mixed", 1 << 31 | STRUCT << 24 | 2, 8, &members);
        let btf = builder.build().unwrap();
        assert_eq!(btf.offset("mixed", "plain").unwrap(), 4);
        assert!(matches!(btf.offset("mixed", "flag"), Err(BtfError::BitField { .. })));
    }

    #[test]
    fn a_structure_that_contains_itself_ends_the_search() {
        let mut builder = Builder::new();
        builder.composite(STRUCT, "loop", &[("", 1, 0)]);
        assert!(builder.build().unwrap().offset("loop", "x").is_err());
    }

    #[test]
    fn malformed_data_are_refused() {
        assert!(matches!(Btf::parse(mapped(&[0; 24])), Err(BtfError::Malformed { offset: 0 })));
        let mut builder = Builder::new();
        builder.composite(STRUCT, "cut", &[]);
        builder.types[4] = 200;
        assert!(matches!(builder.build(), Err(BtfError::Malformed { .. })));
    }
}
