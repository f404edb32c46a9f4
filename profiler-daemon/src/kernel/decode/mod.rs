//! What a function of the kernel does with addresses that its code contains.
//!
//! In: the bytes of a function and its address. Out: its direct calls with
//! those arguments that are constants on every path to the call, and its
//! atomic operations at constant addresses. This is how a global lock is found
//! in a kernel whose symbol table has functions only: code that takes the lock
//! contains its address.
//!
//! Each instruction set is lowered to the few effects and flows that
//! matter here; one constant propagation over the blocks of the function then
//! serves both. What is not understood makes a register unknown, never wrong.

mod arm64;
mod x86;

use std::collections::BTreeMap;

/// Instruction set of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64: arguments in `rdi`, `rsi`.
    X86_64,
    /// AArch64, little-endian: arguments in `x0`, `x1`.
    Arm64,
}

impl Arch {
    /// That of the machine this program was built for; `None` where kernel
    /// text cannot be decoded.
    pub const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Arm64)
        } else {
            None
        }
    }

    const fn argument_registers(self) -> [usize; ARGUMENTS] {
        match self {
            Self::X86_64 => [x86::RDI, x86::RSI],
            Self::Arm64 => [0, 1],
        }
    }

    /// Registers that a call may change, a bit each.
    const fn caller_saved(self) -> u32 {
        match self {
            Self::X86_64 => x86::CALLER_SAVED,
            Self::Arm64 => arm64::CALLER_SAVED,
        }
    }
}

/// How many arguments of a call are looked at.
pub const ARGUMENTS: usize = 2;

/// Something that a function does with a constant address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A direct call, or a jump out of the function (a tail call).
    Call {
        /// Address of the instruction.
        site: u64,
        /// Address of the called function.
        target: u64,
        /// The leading arguments, where constant.
        arguments: [Option<u64>; ARGUMENTS],
    },
    /// An atomic read-modify-write of memory: how inlined fast paths of locks
    /// begin, and counters too.
    Atomic {
        /// Address of the instruction.
        site: u64,
        /// Address of the memory.
        address: u64,
    },
}

/// Calls and atomic operations of the function whose `bytes` start at
/// `address`, in the order of their addresses.
pub fn decode(arch: Arch, bytes: &[u8], address: u64) -> Vec<Event> {
    let instructions = match arch {
        Arch::X86_64 => x86::lower(bytes, address),
        Arch::Arm64 => arm64::lower(bytes, address),
    };
    Function { arch, instructions: &instructions, end: address + bytes.len() as u64 }.events()
}

/// Register file: the value where it is the same on every path.
type Registers = [Option<u64>; 32];

const NOTHING_KNOWN: Registers = [None; 32];

/// What is known at the start of each block, by index of its first
/// instruction; `None` for a block that nothing has reached yet.
type States = BTreeMap<usize, Option<Registers>>;

/// What an instruction does to the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Writes a constant.
    Set { to: usize, value: u64 },
    /// Writes `from + plus`.
    Copy { to: usize, from: usize, plus: u64 },
    /// Replaces 16 bits.
    Insert { to: usize, shift: u32, bits: u16 },
    /// Writes something unknown to these registers, a bit each.
    Clobber(u32),
    /// Atomic operation at `base + plus`, or at `plus` without a base, that
    /// writes something unknown to the registers `clobber`.
    Atomic { base: Option<usize>, plus: u64, clobber: u32 },
}

const NO_EFFECT: Effect = Effect::Clobber(0);

/// Where execution goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    /// There, always.
    Jump(u64),
    /// There or at the next instruction.
    Branch(u64),
    /// At the next instruction, after a function that is known or not.
    Call(Option<u64>),
    /// Nowhere that the code tells.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    address: u64,
    effect: Effect,
    flow: Flow,
}

struct Function<'a> {
    arch: Arch,
    instructions: &'a [Instruction],
    end: u64,
}

impl Function<'_> {
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let states = self.states();
        for (first, registers) in &states {
            let Some(registers) = registers else { continue };
            self.walk(*first, *registers, &states, &mut |event| events.push(event));
        }
        events
    }

    /// Index of the instruction at `address`, if it is in the function.
    fn index(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, |i| i.address).ok()
    }

    /// What is known at the start of each block: a fixed point in which every
    /// edge into a block can only take knowledge away.
    fn states(&self) -> States {
        let mut states = States::new();
        for (i, instruction) in self.instructions.iter().enumerate() {
            let (Flow::Jump(to) | Flow::Branch(to)) = instruction.flow else {
                if instruction.flow == Flow::Stop {
                    states.insert(i + 1, None);
                }
                continue;
            };
            states.insert(i + 1, None);
            states.extend(self.index(to).map(|target| (target, None)));
        }
        states.insert(0, None);
        states.retain(|first, _| *first < self.instructions.len());

        // The entry knows nothing, nor does a block that only an indirect jump
        // reaches.
        while let Some(root) = states.iter().find(|(_, s)| s.is_none()).map(|(first, _)| *first) {
            states.insert(root, Some(NOTHING_KNOWN));
            let mut work = vec![root];
            while let Some(first) = work.pop() {
                let Some(Some(registers)) = states.get(&first).copied() else { continue };
                let edges = self.walk(first, registers, &states, &mut |_| {});
                for (target, incoming) in edges {
                    let Some(known) = states.get_mut(&target) else { continue };
                    let met = known.map_or(incoming, |known| meet(&known, &incoming));
                    if *known != Some(met) {
                        *known = Some(met);
                        work.push(target);
                    }
                }
            }
        }
        states
    }

    /// Executes the block at `first` and reports its events. Returns the blocks
    /// that it leads to, with what is known there.
    fn walk(
        &self,
        first: usize,
        mut registers: Registers,
        states: &States,
        report: &mut impl FnMut(Event),
    ) -> Vec<(usize, Registers)> {
        let mut edges = Vec::new();
        for (i, instruction) in self.instructions.iter().enumerate().skip(first) {
            if i != first && states.contains_key(&i) {
                edges.push((i, registers));
                break;
            }
            self.report(instruction, &registers, report);
            self.apply(instruction, &mut registers);
            if let Flow::Jump(to) | Flow::Branch(to) = instruction.flow {
                edges.extend(self.index(to).map(|to| (to, registers)));
            }
            if matches!(instruction.flow, Flow::Jump(_) | Flow::Stop) {
                break;
            }
        }
        edges
    }

    /// Reports what the instruction does with constants.
    fn report(
        &self,
        instruction: &Instruction,
        registers: &Registers,
        report: &mut impl FnMut(Event),
    ) {
        let site = instruction.address;
        if let Effect::Atomic { base, plus, .. } = instruction.effect
            && let Some(base) = base.map_or(Some(0), |base| registers[base])
        {
            report(Event::Atomic { site, address: base.wrapping_add(plus) });
        }
        let target = match instruction.flow {
            Flow::Call(target) => target,
            Flow::Jump(to) | Flow::Branch(to) => Some(to).filter(|to| !self.contains(*to)),
            Flow::Next | Flow::Stop => None,
        };
        if let Some(target) = target {
            let arguments = self.arch.argument_registers().map(|register| registers[register]);
            report(Event::Call { site, target, arguments });
        }
    }

    fn contains(&self, address: u64) -> bool {
        self.instructions.first().is_some_and(|i| (i.address..self.end).contains(&address))
    }

    fn apply(&self, instruction: &Instruction, registers: &mut Registers) {
        match instruction.effect {
            Effect::Clobber(mask) | Effect::Atomic { clobber: mask, .. } => {
                clobber(registers, mask);
            }
            Effect::Set { to, value } => registers[to] = Some(value),
            Effect::Copy { to, from, plus } => {
                registers[to] = registers[from].map(|value| value.wrapping_add(plus));
            }
            Effect::Insert { to, shift, bits } => {
                registers[to] = registers[to]
                    .map(|value| value & !(0xffff << shift) | u64::from(bits) << shift);
            }
        }
        if matches!(instruction.flow, Flow::Call(_)) {
            clobber(registers, self.arch.caller_saved());
        }
    }
}

/// Forgets the registers in `mask`.
fn clobber(registers: &mut Registers, mask: u32) {
    for (register, value) in registers.iter_mut().enumerate() {
        if mask & (1 << register) != 0 {
            *value = None;
        }
    }
}

/// What holds on both paths.
fn meet(one: &Registers, other: &Registers) -> Registers {
    std::array::from_fn(|i| one[i].filter(|value| other[i] == Some(*value)))
}

#[cfg(test)]
mod tests;
