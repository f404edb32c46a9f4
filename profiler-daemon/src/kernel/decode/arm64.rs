//! AArch64: lowers the few encodings that carry addresses and control flow.
//!
//! Kernel text addresses its data by `adrp` with `add`, which is relative to
//! the code and so needs no KASLR offset. Encodings are those of the Arm
//! Architecture Reference Manual, section C4.1. Any other instruction makes
//! the registers unknown that an encoding of its group can write.

use super::{Effect, Flow, Instruction, NO_EFFECT};

/// `x0` to `x18` and the link register.
pub(super) const CALLER_SAVED: u32 = 0x4007_ffff;

/// Lowers all whole words of `bytes`.
pub(super) fn lower(bytes: &[u8], address: u64) -> Vec<Instruction> {
    bytes
        .chunks_exact(4)
        .zip((address..).step_by(4))
        .map(|(word, address)| {
            let word = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            Instruction { address, effect: effect(word, address), flow: flow(word, address) }
        })
        .collect()
}

/// Bits `low..low + len`.
const fn bits(word: u32, low: u32, len: u32) -> u32 {
    word >> low & ((1 << len) - 1)
}

/// The same as a register number.
const fn register(word: u32, low: u32) -> usize {
    bits(word, low, 5) as usize
}

/// The same as a signed number times 4: a branch offset.
const fn offset(word: u32, low: u32, len: u32) -> u64 {
    let shifted = (bits(word, low, len) << (32 - len)).cast_signed() >> (32 - len);
    (shifted as i64 * 4).cast_unsigned()
}

fn flow(word: u32, address: u64) -> Flow {
    let to = |offset: u64| address.wrapping_add(offset);
    if word & 0xfc00_0000 == 0x9400_0000 {
        Flow::Call(Some(to(offset(word, 0, 26)))) // bl
    } else if word & 0xfc00_0000 == 0x1400_0000 {
        Flow::Jump(to(offset(word, 0, 26))) // b
    } else if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        Flow::Branch(to(offset(word, 5, 19))) // b.cond, bc.cond, cbz, cbnz
    } else if word & 0x7e00_0000 == 0x3600_0000 {
        Flow::Branch(to(offset(word, 5, 14))) // tbz, tbnz
    } else if word & 0xfe00_0000 == 0xd600_0000 {
        // blr and its authenticated forms link; br, ret and eret do not.
        if bits(word, 21, 2) == 0b01 { Flow::Call(None) } else { Flow::Stop }
    } else {
        // `brk` among them: the kernel goes on behind that of a WARN().
        Flow::Next
    }
}

fn effect(word: u32, address: u64) -> Effect {
    let rd = register(word, 0);
    let rn = register(word, 5);
    // Register 31 is the stack pointer or zero; neither is followed.
    let ordinary = rd != 31 && rn != 31;
    match bits(word, 25, 4) {
        // Data processing, immediate.
        0b1000 | 0b1001 => {
            if word & 0x1f00_0000 == 0x1000_0000 && rd != 31 {
                // adr, adrp: 21 bits, the lowest two at 29.
                let immediate = bits(word, 5, 19) << 2 | bits(word, 29, 2);
                let signed = i64::from((immediate << 11).cast_signed() >> 11).cast_unsigned();
                let value = if word >> 31 == 1 {
                    (address & !0xfff).wrapping_add(signed << 12)
                } else {
                    address.wrapping_add(signed)
                };
                return Effect::Set { to: rd, value };
            }
            if word & 0xff80_0000 == 0x9100_0000 && ordinary {
                // add xd, xn, #imm12{, lsl #12}
                let shift = bits(word, 22, 1) * 12;
                let plus = u64::from(bits(word, 10, 12)) << shift;
                return Effect::Copy { to: rd, from: rn, plus };
            }
            let (half, shift) = (bits(word, 5, 16), bits(word, 21, 2) * 16);
            match word & 0xff80_0000 {
                0xd280_0000 if rd != 31 => {
                    Effect::Set { to: rd, value: u64::from(half) << shift } // movz
                }
                0x9280_0000 if rd != 31 => {
                    Effect::Set { to: rd, value: !(u64::from(half) << shift) } // movn
                }
                #[expect(clippy::cast_possible_truncation, reason = "16 bits were extracted")]
                0xf280_0000 if rd != 31 => {
                    Effect::Insert { to: rd, shift, bits: half as u16 } // movk
                }
                _ => Effect::Clobber(1 << rd),
            }
        }
        // Data processing, register.
        0b0101 | 0b1101 => {
            let rm = register(word, 16);
            if word & 0xffe0_ffe0 == 0xaa00_03e0 && rd != 31 && rm != 31 {
                return Effect::Copy { to: rd, from: rm, plus: 0 }; // mov xd, xm
            }
            Effect::Clobber(1 << rd)
        }
        // Floating point and vectors: some move to a general register.
        0b0111 | 0b1111 => Effect::Clobber(1 << rd),
        // Branches and system instructions.
        0b1010 | 0b1011 => {
            let reads_system = word & 0xffd0_0000 == 0xd510_0000 && bits(word, 21, 1) == 1;
            if reads_system { Effect::Clobber(1 << rd) } else { NO_EFFECT }
        }
        // Loads and stores.
        group if group & 0b0101 == 0b0100 => load_or_store(word),
        // Scalable vectors, reserved.
        _ => Effect::Clobber(u32::MAX),
    }
}

fn load_or_store(word: u32) -> Effect {
    // All that any of them writes: the data, the second of a pair, the base
    // with writeback, the status or old value of an exclusive or an atomic.
    let clobber = 1 << register(word, 0)
        | 1 << register(word, 5)
        | 1 << register(word, 10)
        | 1 << register(word, 16);
    let base = register(word, 5);

    // str with an unsigned offset, stp with a signed one: no register changes.
    let plain_store = word & 0x3fc0_0000 == 0x3900_0000 || word & 0x3fc0_0000 == 0x2900_0000;
    // ldr with an unsigned offset.
    let plain_load = word & 0x3f00_0000 == 0x3900_0000;
    // ldxr and its kind, cas and its kind (not ldar, stlr).
    let exclusive =
        word & 0x3f00_0000 == 0x0800_0000 && (bits(word, 23, 1) == 0 || bits(word, 21, 1) == 1);
    // ldadd, ldset, swp and their kind.
    let atomic = word & 0x3f20_0c00 == 0x3820_0000;

    if plain_store {
        NO_EFFECT
    } else if plain_load {
        Effect::Clobber(1 << register(word, 0))
    } else if exclusive || atomic {
        // They have no writeback: the base stays known.
        let clobber = clobber & !(1 << base) | 1 << register(word, 0) | 1 << register(word, 16);
        if base == 31 {
            return Effect::Clobber(clobber);
        }
        Effect::Atomic { base: Some(base), plus: 0, clobber }
    } else {
        Effect::Clobber(clobber)
    }
}
