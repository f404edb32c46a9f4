//! A kernel stack without what lockprof itself put there.

use crate::snapshot::Name;

/// What a frame is called whose function was not looked up.
pub(super) const UNNAMED: &str = "(not looked up yet)";

/// How functions are called that lead from a tracepoint to the programs on it.
const TRACEPOINT: [&str; 4] = ["__traceiter_", "__bpf_trace_", "bpf_trace_run", "trace_call_bpf"];
/// How a tracepoint, a program and what a program calls are called.
const OWN: [&str; 6] = ["bpf_", "__bpf_", "__traceiter_", "trace_", "__trace_", "?"];
/// Through these go the returns of functions that programs are attached to.
const TRAMPOLINE: &str = "bpf_trampoline_";
/// How many frames the way from a tracepoint to a program takes at most: the
/// helper, the program with its own functions, and three of the kernel.
const DEEPEST: usize = 8;

/// Of the frames of a stack, innermost first, those from the lock's slow path on.
///
/// Programs of fexit show once more as trampolines between a mount call and its
/// caller; these go too. A program that waits for a lock itself stays, below the
/// slow path.
pub(super) fn from_slow_path(frames: Vec<Name>) -> Vec<Name> {
    let starts =
        |frame: &Name, with: &[&str]| with.iter().any(|prefix| frame.as_str().starts_with(prefix));
    // Where the kernel does not tell the names of programs
    // (`bpf_jit_kallsyms_enabled` in include/linux/filter.h), theirs seem to be
    // those of whatever lies below them.
    let inner = &frames[..frames.len().min(DEEPEST)];
    let tracepoint = inner.iter().rposition(|frame| starts(frame, &TRACEPOINT));
    let first = tracepoint.map_or(0, |at| at + 1);
    let first = frames[first..].iter().position(|frame| !starts(frame, &OWN)).map(|at| first + at);
    // Nothing but own frames is better than nothing.
    let Some(first) = first else { return frames };
    frames.into_iter().skip(first).filter(|frame| !starts(frame, &[TRAMPOLINE])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(frames: &[&str]) -> Vec<String> {
        let frames = frames.iter().map(|frame| Name::from(*frame)).collect();
        from_slow_path(frames).iter().map(|frame| frame.as_str().to_owned()).collect()
    }

    const SLOW_PATH: &str = "rwsem_down_write_slowpath+0x1ea";

    #[test]
    fn what_leads_from_the_tracepoint_to_the_program_is_left_out() {
        let frames = [
            "bpf_get_stack_raw_tp+0x60",
            "bpf_prog_5fa70957f9c5b3b6_contention_end+0x88d",
            "bpf_trace_run2+0x8e",
            "__bpf_trace_contention_end+0xb",
            "__traceiter_contention_end+0x44",
            "trace_contention_end+0x62",
            SLOW_PATH,
            "down_write+0x5b",
        ];
        assert_eq!(shown(&frames), frames[6..]);
    }

    #[test]
    fn of_a_program_on_a_function_neither_it_nor_a_trampoline_is_shown() {
        let frames = [
            "bpf_prog_1f0e_optimistic_end+0x2f1",
            "bpf_trampoline_6442509981+0x8c",
            "down_write+0x5b",
            "path_mount+0x2b0",
            "__x64_sys_mount+0x113",
            "bpf_trampoline_6442512390+0x5a",
            "do_syscall_64+0x7d",
        ];
        let of_the_kernel = ["down_write+0x5b", "path_mount+0x2b0", "__x64_sys_mount+0x113"];
        assert_eq!(shown(&frames), [&of_the_kernel[..], &["do_syscall_64+0x7d"]].concat());
    }

    #[test]
    fn programs_without_names_of_their_own_are_left_out_before_a_tracepoint() {
        // Where the kernel hides programs, the last function of a module seems to
        // go on up to them.
        let hidden =
            ["overlay_exit+0x3a2f0", "bpf_trace_run2+0x8e", "__traceiter_contention_end+0x44"];
        assert_eq!(shown(&[&hidden[..], &[SLOW_PATH]].concat()), [SLOW_PATH]);
        let unnamed = [UNNAMED, "bpf_trace_run2+0x8e", SLOW_PATH];
        assert_eq!(shown(&unnamed), [SLOW_PATH]);
    }

    #[test]
    fn a_program_that_waits_itself_stays() {
        let frames = [SLOW_PATH, "down_write+0x5b", "bpf_prog_77_guard+0x10", "bpf_lsm_path+0x5"];
        assert_eq!(shown(&frames), frames);
    }

    #[test]
    fn a_stack_of_own_frames_alone_is_shown_as_it_is() {
        let frames = ["bpf_prog_77_contention_end+0x10", "?"];
        assert_eq!(shown(&frames), frames);
        assert_eq!(shown(&[]), [""; 0]);
    }
}
