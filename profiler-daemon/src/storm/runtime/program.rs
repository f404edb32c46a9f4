//! The container's process: a program that ends at once and needs nothing from
//! an image, no loader and no library.

/// Where it is loaded: a multiple of all page sizes.
const ADDRESS: u64 = 0x40_0000;
/// Largest page size of the architectures below.
const LARGEST_PAGE: u64 = 0x1_0000;
/// Bytes of an ELF header and of the one program header.
const HEADERS: [u16; 2] = [64, 56];

/// `e_machine` (elf(5)) and the instructions of `exit_group(0)`, whose number
/// is 231 on x86-64 and 94 elsewhere (asm-generic/unistd.h). `None` where they
/// are not known.
const fn instructions() -> Option<(u16, &'static [u8])> {
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        // xor edi, edi; mov eax, 231; syscall
        Some((62, &[0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]))
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        // mov x0, #0; mov x8, #94; svc #0
        Some((183, &[0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]))
    } else if cfg!(target_arch = "riscv64") {
        // li a0, 0; li a7, 94; ecall
        Some((243, &[0x13, 0x05, 0x00, 0x00, 0x93, 0x08, 0xe0, 0x05, 0x73, 0x00, 0x00, 0x00]))
    } else {
        None
    }
}

/// The file: an ELF executable of one segment. `None` on an architecture that
/// it is not known for.
pub(super) fn file() -> Option<Vec<u8>> {
    let (machine, code) = instructions()?;
    let [header, program_header] = HEADERS;
    let start = u64::from(header) + u64::from(program_header);
    let size = start + code.len() as u64;
    // 64 bits, little-endian, version 1, System V.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type ET_EXEC, e_machine.
    file.extend([2, machine].into_iter().flat_map(u16::to_le_bytes));
    // e_version.
    file.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff, e_shoff.
    file.extend([ADDRESS + start, header.into(), 0].into_iter().flat_map(u64::to_le_bytes));
    // e_flags.
    file.extend(0_u32.to_le_bytes());
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    let sizes = [header, program_header, 1, 0, 0, 0];
    file.extend(sizes.into_iter().flat_map(u16::to_le_bytes));
    // p_type PT_LOAD, p_flags PF_R | PF_X.
    file.extend([1, 5].into_iter().flat_map(u32::to_le_bytes));
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    let segment = [0, ADDRESS, ADDRESS, size, size, LARGEST_PAGE];
    file.extend(segment.into_iter().flat_map(u64::to_le_bytes));
    file.extend(code);
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs_here_and_ends_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, file().expect("known for the architectures that tests run on")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
}
