use super::*;

/// Functions of a running Linux 6.18, a line each: address and bytes.
const RECORDED: &str = include_str!("../../../tests/fixtures/linux-6.18-x86_64.text");

fn recorded(start: u64) -> Vec<u8> {
    let line = RECORDED.lines().find_map(|line| line.strip_prefix(&format!("{start:x} ")));
    let hex = line.expect("a recorded function");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// First arguments of the calls, by called address, where constant.
fn first_arguments(events: &[Event]) -> Vec<(u64, u64)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Call { target, arguments: [Some(argument), _], .. } => {
                Some((*target, *argument))
            }
            _ => None,
        })
        .collect()
}

fn atomics(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Atomic { address, .. } => Some(*address),
            Event::Call { .. } => None,
        })
        .collect()
}

const BASE: u64 = 0xffff_ffff_8100_0000;
const LOCK: u64 = 0xffff_ffff_8314_b060;

/// `call` to `BASE + 0x100`, assembled at `BASE + at`.
fn call(at: i32) -> Vec<u8> {
    let mut bytes = vec![0xe8];
    bytes.extend((0x100 - (at + 5)).to_le_bytes());
    bytes
}

fn x86(bytes: &[u8]) -> Vec<Event> {
    decode(Arch::X86_64, bytes, BASE)
}

#[test]
fn a_recorded_function_passes_the_locks_that_it_takes() {
    let start = 0xffff_ffff_816e_e0f0;
    let events = decode(Arch::X86_64, &recorded(start), start);
    assert_eq!(
        first_arguments(&events),
        [
            (0xffff_ffff_821f_f4b0, 0xffff_ffff_8314_b060), // down_read
            (0xffff_ffff_8220_3860, 0xffff_ffff_8300_b784), // _raw_spin_lock
            (0xffff_ffff_8220_39e0, 0xffff_ffff_8300_b784), // _raw_spin_unlock
            (0xffff_ffff_813d_fa30, 0xffff_ffff_8314_b060), // up_read
        ]
    );
}

#[test]
fn second_arguments_are_seen_too() {
    let start = 0xffff_ffff_816f_6870; // copy_mnt_ns
    let events = decode(Arch::X86_64, &recorded(start), start);
    let tree_add = 0xffff_ffff_8139_4d40;
    let trees: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Call { target, arguments, .. } if *target == tree_add => Some(arguments[1]),
            _ => None,
        })
        .collect();
    assert_eq!(trees, [Some(0xffff_ffff_8307_6ec0); 2]);
}

#[test]
fn every_way_to_load_an_address_is_understood() {
    let immediate = [0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83]; // mov $imm32,%rdi
    let wide = [0x48, 0xbf, 0x60, 0xb0, 0x14, 0x83, 0xff, 0xff, 0xff, 0xff]; // movabs
    let relative = [0x48, 0x8d, 0x3d, 0x59, 0xb0, 0x14, 0x02]; // lea disp(%rip),%rdi
    // mov $imm32,%rbx; lea 0x60(%rbx),%rdi
    let copied = [0x48, 0xc7, 0xc3, 0x00, 0xb0, 0x14, 0x83, 0x48, 0x8d, 0x7b, 0x60];
    // mov $imm32,%rdi; add $0x60,%rdi
    let added = [0x48, 0xc7, 0xc7, 0x00, 0xb0, 0x14, 0x83, 0x48, 0x83, 0xc7, 0x60];
    for load in [&immediate[..], &wide, &relative, &copied, &added] {
        let code = [load, &call(i32::try_from(load.len()).unwrap())].concat();
        assert_eq!(first_arguments(&x86(&code)), [(BASE + 0x100, LOCK)], "{load:x?}");
    }
}

#[test]
fn a_call_forgets_what_it_may_change_and_keeps_what_it_must_not() {
    // mov $LOCK,%rdi; mov %rdi,%rbx; call; call; mov %rbx,%rdi; call
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0x48, 0x89, 0xfb];
    code.extend(call(10));
    code.extend(call(15));
    code.extend([0x48, 0x89, 0xdf]);
    code.extend(call(23));
    let known: Vec<_> = x86(&code)
        .iter()
        .map(|event| match event {
            Event::Call { arguments, .. } => arguments[0],
            Event::Atomic { .. } => None,
        })
        .collect();
    assert_eq!(known, [Some(LOCK), None, Some(LOCK)]);
}

#[test]
fn a_partly_overwritten_register_is_unknown() {
    // mov $LOCK,%rdi; mov $1,%dil; call
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0x40, 0xb7, 0x01];
    code.extend(call(10));
    assert_eq!(first_arguments(&x86(&code)), []);
}

#[test]
fn paths_that_join_with_different_addresses_leave_none() {
    // mov $LOCK,%rdi; je +7; mov $LOCK+0x40,%rdi; call
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0x74, 0x07];
    code.extend([0x48, 0xc7, 0xc7, 0xa0, 0xb0, 0x14, 0x83]);
    code.extend(call(16));
    assert_eq!(first_arguments(&x86(&code)), []);
    // The same address on both paths stays known.
    code[12] = 0x60;
    assert_eq!(first_arguments(&x86(&code)), [(BASE + 0x100, LOCK)]);
}

#[test]
fn a_loop_cannot_keep_an_address_that_it_changes() {
    // mov $LOCK,%rdi; 7: mov %rdi,%rbx; add $8,%rbx; mov %rbx,%rdi; jne 7; call
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0x48, 0x89, 0xfb];
    code.extend([0x48, 0x83, 0xc3, 0x08, 0x48, 0x89, 0xdf, 0x75, 0xf4]);
    code.extend(call(19));
    assert_eq!(first_arguments(&x86(&code)), []);
}

#[test]
fn a_block_that_only_an_indirect_jump_reaches_knows_nothing() {
    // mov $LOCK,%rdi; jmp *%rax; call
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0xff, 0xe0];
    code.extend(call(9));
    assert_eq!(first_arguments(&x86(&code)), []);
    assert_eq!(x86(&code).len(), 1, "the call itself is seen");
}

#[test]
fn tail_calls_are_calls() {
    // mov $LOCK,%rdi; jmp BASE+0x100
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83];
    code.extend(call(7));
    code[7] = 0xe9;
    assert_eq!(first_arguments(&x86(&code)), [(BASE + 0x100, LOCK)]);
}

#[test]
fn inlined_lock_operations_are_seen_and_plain_stores_are_not() {
    // mov $1,%edx; lock cmpxchg %edx,disp(%rip)
    let relative = [0xba, 1, 0, 0, 0, 0xf0, 0x0f, 0xb1, 0x15, 0x53, 0xb0, 0x14, 0x02];
    assert_eq!(atomics(&x86(&relative)), [LOCK]);
    // mov $LOCK,%rdi; lock xadd %eax,(%rdi)
    let based = [0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0xf0, 0x0f, 0xc1, 0x07];
    assert_eq!(atomics(&x86(&based)), [LOCK]);
    // lock decl 0xffffffff8314b060; xchg %eax,0xffffffff8314b060
    let absolute = [0xf0, 0xff, 0x0c, 0x25, 0x60, 0xb0, 0x14, 0x83];
    let exchange = [0x87, 0x04, 0x25, 0x60, 0xb0, 0x14, 0x83];
    assert_eq!(atomics(&x86(&[&absolute[..], &exchange].concat())), [LOCK, LOCK]);
    // mov %eax,0xffffffff8314b060; lock incl %gs:0x10
    let plain = [0x89, 0x04, 0x25, 0x60, 0xb0, 0x14, 0x83];
    let per_cpu = [0x65, 0xf0, 0xff, 0x04, 0x25, 0x10, 0, 0, 0];
    assert!(atomics(&x86(&[&plain[..], &per_cpu].concat())).is_empty());
}

#[test]
fn bytes_that_are_no_code_end_the_block() {
    let mut code = vec![0x48, 0xc7, 0xc7, 0x60, 0xb0, 0x14, 0x83, 0x06];
    code.extend(call(8));
    assert_eq!(first_arguments(&x86(&code)), []);
    assert!(x86(&[]).is_empty());
    assert!(decode(Arch::Arm64, &[0x20], BASE).is_empty());
}

const ARM_BASE: u64 = 0xffff_8000_8001_0000;

/// Bytes as objdump prints the words of an assembled function.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn arm64_page_pairs_survive_calls_in_saved_registers_and_end_in_tail_calls() {
    let code = words(&[
        0xd503_233f, // paciasp
        0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
        0xf900_0bf3, // str x19, [sp, #16]
        0xb001_1a33, // adrp x19, . + 0x2345000
        0x9101_8273, // add x19, x19, #0x60
        0xb400_0080, // cbz x0, +0x10
        0xaa13_03e0, // mov x0, x19
        0x9404_0000, // bl +0x100000
        0x1400_0003, // b +0xc
        0xaa13_03e0, // mov x0, x19
        0x9404_0040, // bl +0x100100
        0xb001_1a20, // adrp x0, . + 0x2345000
        0x9102_8000, // add x0, x0, #0xa0
        0xf940_0bf3, // ldr x19, [sp, #16]
        0xa8c2_7bfd, // ldp x29, x30, [sp], #32
        0xd503_23bf, // autiasp
        0x1404_0080, // b +0x100200
    ]);
    let page = ARM_BASE + 0x234_5000;
    assert_eq!(
        first_arguments(&decode(Arch::Arm64, &code, ARM_BASE)),
        [
            (ARM_BASE + 0x10_001c, page + 0x60),
            (ARM_BASE + 0x10_0128, page + 0x60),
            (ARM_BASE + 0x10_0240, page + 0xa0),
        ]
    );
}

#[test]
fn arm64_atomics_of_both_kinds_and_wide_constants_are_seen() {
    let code = words(&[
        0x9001_8001, // adrp x1, . + 0x3000000
        0x911e_1021, // add x1, x1, #0x784
        0x5280_0022, // mov w2, #1
        0x5280_0000, // mov w0, #0
        0x88e0_7c22, // casa w0, w2, [x1]
        0x885f_fc23, // ldaxr w3, [x1]
        0x8804_7c22, // stxr w4, w2, [x1]
        0xd297_dde0, // mov x0, #0xbeef
        0xf2bb_d5a0, // movk x0, #0xdead, lsl #16
        0x9404_0000, // bl +0x100000
        0x9404_0040, // bl +0x100100
        0xaa01_03e0, // mov x0, x1
        0xd65f_03c0, // ret
    ]);
    let events = decode(Arch::Arm64, &code, ARM_BASE);
    assert_eq!(atomics(&events), [ARM_BASE + 0x300_0784; 3]);
    assert_eq!(first_arguments(&events), [(ARM_BASE + 0x10_0024, 0xdead_beef)]);
}

#[test]
fn arm64_stores_keep_registers_and_writeback_does_not() {
    // adrp x0; str x0, [sp, #8]; bl
    let kept = words(&[0x9001_8000, 0xf900_07e0, 0x9404_0000]);
    assert_eq!(first_arguments(&decode(Arch::Arm64, &kept, ARM_BASE)).len(), 1);
    // adrp x0; str x1, [x0], #8; bl
    let lost = words(&[0x9001_8000, 0xf800_8401, 0x9404_0000]);
    assert_eq!(first_arguments(&decode(Arch::Arm64, &lost, ARM_BASE)), []);
    // adrp x0; ldr x0, [x0, #8]; bl
    let loaded = words(&[0x9001_8000, 0xf940_0400, 0x9404_0000]);
    assert_eq!(first_arguments(&decode(Arch::Arm64, &loaded, ARM_BASE)), []);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        for arch in [Arch::X86_64, Arch::Arm64] {
            decode(arch, &bytes, u64::MAX - 300);
            decode(arch, &bytes, BASE);
        }
    }
}

/// `mov $LOCK,%rdi`, 7 bytes.
fn load_lock() -> Vec<u8> {
    let mut bytes = vec![0x48, 0xc7, 0xc7];
    bytes.extend(LOCK.to_le_bytes()[..4].iter());
    bytes
}

#[test]
fn a_trampoline_at_the_entry_of_a_traced_function_hides_nothing() {
    // Five bytes of padding become a call out of the kernel image.
    let mut bytes = vec![0xe8, 0xfb, 0xff, 0xff, 0x3e];
    bytes.extend(load_lock());
    bytes.extend(call(12));
    let events = x86(&bytes);
    assert_eq!(first_arguments(&events), [(BASE + 0x100, LOCK)]);
}

#[test]
fn a_probe_makes_what_it_overwrites_unknown_and_never_wrong() {
    // At the start of an instruction, where kprobes and live patching write
    // `int3`.
    for at in [0, 7] {
        let mut bytes = load_lock();
        bytes.extend(call(7));
        assert_eq!(first_arguments(&x86(&bytes)), [(BASE + 0x100, LOCK)]);
        bytes[at] = 0xcc;
        assert_eq!(first_arguments(&x86(&bytes)), [], "int3 at {at}");
    }
}
