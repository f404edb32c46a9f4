//! x86-64: lowers instructions decoded by `iced-x86`.
//!
//! Kernel text addresses its data by `mov $imm32,%reg` (sign-extended; the
//! image lies in the top 2 GiB), by `lea disp(%rip),%reg` in position
//! independent builds, or by `movabs`.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction as Iced, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};

use super::{Effect, Flow, Instruction, NO_EFFECT};

/// Number of `rdi` as instructions encode it.
pub(super) const RDI: usize = 7;
/// Number of `rsi`.
pub(super) const RSI: usize = 6;
/// `rax`, `rcx`, `rdx`, `rsi`, `rdi`, `r8` to `r11`.
pub(super) const CALLER_SAVED: u32 = 0b0000_1111_1100_0111;

/// Lowers all of `bytes`; a byte that starts no instruction ends a block.
pub(super) fn lower(bytes: &[u8], address: u64) -> Vec<Instruction> {
    let mut info = InstructionInfoFactory::new();
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE)
        .iter()
        .map(|instruction| Instruction {
            address: instruction.ip(),
            effect: effect(&instruction, &mut info),
            flow: flow(&instruction),
        })
        .collect()
}

fn flow(instruction: &Iced) -> Flow {
    let target = instruction.near_branch_target();
    if instruction.code() == Code::INVALID || instruction.mnemonic() == Mnemonic::Int3 {
        return Flow::Stop;
    }
    match instruction.flow_control() {
        FlowControl::Call => Flow::Call(Some(target)),
        FlowControl::IndirectCall => Flow::Call(None),
        FlowControl::UnconditionalBranch => Flow::Jump(target),
        FlowControl::ConditionalBranch => Flow::Branch(target),
        FlowControl::Return | FlowControl::IndirectBranch => Flow::Stop,
        // `ud2` among them: the kernel goes on behind that of a WARN().
        _ => Flow::Next,
    }
}

/// Number of a 64-bit register, `None` for anything else.
fn wide(register: Register) -> Option<usize> {
    (register.is_gpr64()).then(|| register.number())
}

fn effect(instruction: &Iced, info: &mut InstructionInfoFactory) -> Effect {
    constant(instruction).unwrap_or_else(|| {
        let clobber = written(instruction, info);
        match atomic(instruction) {
            Some((base, plus)) => Effect::Atomic { base, plus, clobber },
            None if clobber == 0 => NO_EFFECT,
            None => Effect::Clobber(clobber),
        }
    })
}

/// The instructions whose result is followed.
fn constant(instruction: &Iced) -> Option<Effect> {
    if instruction.op_count() != 2 || instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let to = wide(instruction.op0_register())?;
    match (instruction.mnemonic(), instruction.op1_kind()) {
        (Mnemonic::Mov, OpKind::Immediate32to64 | OpKind::Immediate64) => {
            Some(Effect::Set { to, value: instruction.immediate(1) })
        }
        (Mnemonic::Mov, OpKind::Register) => {
            Some(Effect::Copy { to, from: wide(instruction.op1_register())?, plus: 0 })
        }
        (Mnemonic::Add, OpKind::Immediate32to64 | OpKind::Immediate8to64) => {
            Some(Effect::Copy { to, from: to, plus: instruction.immediate(1) })
        }
        (Mnemonic::Lea, OpKind::Memory) => Some(match memory(instruction)? {
            (None, value) => Effect::Set { to, value },
            (Some(from), plus) => Effect::Copy { to, from, plus },
        }),
        _ => None,
    }
}

/// Base register and displacement of a memory operand that has no index.
fn memory(instruction: &Iced) -> Option<(Option<usize>, u64)> {
    let segment = instruction.segment_prefix();
    if instruction.memory_index() != Register::None || segment != Register::None {
        return None;
    }
    let displacement = instruction.memory_displacement64();
    match instruction.memory_base() {
        // iced gives the sum with the address of the next instruction.
        Register::RIP | Register::None => Some((None, displacement)),
        base => Some((Some(wide(base)?), displacement)),
    }
}

/// Where an atomic read-modify-write goes.
fn atomic(instruction: &Iced) -> Option<(Option<usize>, u64)> {
    let to_memory = instruction.op_count() >= 1 && instruction.op0_kind() == OpKind::Memory;
    // `xchg` with memory locks the bus without a prefix.
    let locked = instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg;
    (to_memory && locked).then(|| memory(instruction)).flatten()
}

/// General registers that the instruction writes, whole or in part.
fn written(instruction: &Iced, info: &mut InstructionInfoFactory) -> u32 {
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    info.info(instruction)
        .used_registers()
        .iter()
        .filter(|used| writes(used.access()))
        .map(|used| used.register().full_register())
        .filter_map(wide)
        .fold(0, |mask, register| mask | 1 << register)
}
