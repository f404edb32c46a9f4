//! What on a kernel's console means that the kernel is not well.

/// A line of the console that fails a run, whatever the programs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The line, without its time.
    pub(crate) line: String,
    /// Whether the kernel can be expected to go on: it does after a warning.
    pub(crate) goes_on: bool,
}

/// Texts that a line must start with, after its time.
///
/// `WARNING:` elsewhere in a line is no `WARN_ON`: Linux 5.10 greets with
/// "Spectre V2 : WARNING: Unprivileged eBPF is enabled".
const STARTS: &[(&str, bool)] = &[
    // __warn() in kernel/panic.c, and every splat of kernel/locking/lockdep.c.
    ("WARNING:", true),
    ("BUG:", false),
    ("kernel BUG at", false),
    ("Kernel panic", false),
    ("Oops:", false),
    ("Oops ", false),
    ("general protection fault", false),
    ("stack segment", false),
    ("divide error", false),
    ("invalid opcode", false),
    ("int3:", false),
    ("double fault", false),
    ("traps: PANIC", false),
    ("UBSAN:", true),
    // The out-of-memory killer: whatever it took, the figures are void.
    ("Out of memory:", false),
    ("Memory cgroup out of memory:", false),
];

/// Texts that a line must have anywhere.
const CONTAINS: &[(&str, bool)] = &[
    ("BUG: soft lockup", false),
    ("BUG: workqueue lockup", false),
    ("hard LOCKUP", false),
    ("detected stalls on", false),
    ("self-detected stall", false),
    ("detected expedited stalls", false),
    ("kthread starved for", false),
    // kernel/hung_task.c
    ("blocked for more than", false),
    ("possible recursive locking", true),
    // kernel/bpf/verifier.c
    ("verifier bug", true),
    ("bpf verifier is misconfigured", true),
    ("REG INVARIANTS VIOLATION", true),
    ("list_add corruption", false),
    ("list_del corruption", false),
    ("Unable to mount root", false),
    // init/initramfs.c: files are cut short or missing, mostly for want of memory.
    ("Initramfs unpacking failed", false),
];

/// What is wrong according to this line, if anything.
pub(crate) fn complaint(line: &str) -> Option<Complaint> {
    let text = message(line);
    let starts = STARTS.iter().find(|(start, _)| text.starts_with(start));
    let (_, goes_on) =
        starts.or_else(|| CONTAINS.iter().find(|(inside, _)| text.contains(inside)))?;
    Some(Complaint { line: text.to_owned(), goes_on: *goes_on })
}

/// A line without its time and its caller: `[    1.234567][  T42] text`.
fn message(line: &str) -> &str {
    let mut rest = line.trim();
    while let Some((head, tail)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let digits = head.trim().trim_start_matches(['T', 'C']);
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
            break;
        }
        rest = tail.trim_start();
    }
    rest
}

/// Cuts a console's bytes into lines, without carriage returns and the escape
/// sequences of the firmware.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            lines.push(clean(&line));
        }
        lines
    }

    /// The line that has not ended, if there is one.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let rest = clean(&std::mem::take(&mut self.pending));
        (!rest.is_empty()).then_some(rest)
    }
}

fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC c, or ESC [ ... letter.
            if chars.next() == Some('[') {
                chars.by_ref().find(char::is_ascii_alphabetic);
            }
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_be_unwell_is_seen() {
        for line in [
            "[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[   12.345678] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "[   12.345678] Oops: int3: 0000 [#1] SMP NOPTI",
            "[   12.3][  T812] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
            "[  100.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [storm:77]",
            "[  100.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
            "[  100.000000] watchdog: CPU2: Watchdog detected hard LOCKUP on cpu 2",
            "[   30.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   30.000000] rcu: INFO: rcu_sched self-detected stall on CPU",
            "[   30.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D }",
            "[   30.000000] rcu: rcu_preempt kthread starved for 5250 jiffies!",
            "[  242.000000] INFO: task lockprof:99 blocked for more than 120 seconds.",
            "[    1.000000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[    1.000000] kernel BUG at mm/slub.c:4023!",
            "[    9.000000] Out of memory: Killed process 71 (lockprof) total-vm:1kB",
            "[    9.000000] list_add corruption. prev->next should be next (ffff), but was 0.",
        ] {
            let found = complaint(line).unwrap_or_else(|| panic!("{line}"));
            assert!(!found.goes_on, "{line}");
        }
    }

    #[test]
    fn a_kernel_goes_on_after_a_warning() {
        for line in [
            "[   12.345678] WARNING: CPU: 1 PID: 77 at kernel/bpf/core.c:10 bpf_x+0x1/0x2",
            "[   12.345678] WARNING: kernel/bpf/core.c:10 at bpf_x+0x1/0x2, CPU#1: storm/77",
            "[   12.345678] WARNING: possible circular locking dependency detected",
            "[   12.345678] verifier bug: REG INVARIANTS VIOLATION (true_reg1): range bounds",
        ] {
            let found = complaint(line).unwrap_or_else(|| panic!("{line}"));
            assert!(found.goes_on, "{line}");
            assert!(!found.line.starts_with('['), "{line}");
        }
    }

    #[test]
    fn what_a_healthy_kernel_says_under_emulation_is_no_complaint() {
        for line in [
            "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
            "[    3.2] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable",
            "[    0.5] NMI watchdog: Perf NMI watchdog permanently disabled",
            "[    0.5] rcu: \tRCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=4.",
            "[    0.5] unchecked MSR access error: RDMSR from 0x852 at rIP: 0xffffffff9d2a1e28",
            "[    4.0] sched: DL replenish lagged too much",
            "[    4.0] hrtimer: interrupt took 13108512 ns",
            "[    0.0] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
            "[    1.0] systemd-debug: WARNING: not at the start",
            "",
        ] {
            assert_eq!(complaint(line), None, "{line}");
        }
    }

    #[test]
    fn lines_lose_carriage_returns_and_escapes_but_not_text() {
        let mut lines = Lines::default();
        assert!(lines.push(b"\x1bc\x1b[?7l\x1b[2JSeaBIOS").is_empty());
        assert_eq!(lines.push(b" x\r\n[  1.0] BUG: y\r\nhalf"), ["SeaBIOS x", "[  1.0] BUG: y"]);
        assert_eq!(lines.finish().as_deref(), Some("half"));
        assert_eq!(lines.finish(), None);
    }
}
