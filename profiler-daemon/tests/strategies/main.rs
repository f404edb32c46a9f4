//! Each strategy of `lockprof storm` does what its name says: the system calls
//! and the superblocks of its starts, as lockprof itself counts them.
//!
//! A storm is made twice, of few and of more starts. What the longer one has more
//! of, over the starts that it has more of, is what a start does: that must
//! come out even. lockprof counts the whole machine, so another pair is made if
//! somebody else mounted meanwhile.

#[path = "../common/mod.rs"]
mod common;
mod refusal;
mod seen;

use lockprof::commands::session::Session;

use self::refusal::Feature;
use self::seen::{PerStart, per_start, session};

/// Binds of a start, every other one of which is read-only.
const BINDS: [&str; 2] = ["--binds", "4"];
/// Its masks, unless a test has its own.
const MASKS: [&str; 2] = ["--masks", "3"];

/// Mounts below `/dev` that every start makes.
const ALWAYS: u64 = 3;

/// What a start must do, by call, and how many superblocks of a type it must make.
type Expected<'a> = &'a [(&'a str, u64)];

/// Runs `check` with a session, unless the kernel does not allow BPF or mounts.
fn with_session(test: &str, check: impl FnOnce(&Session)) {
    let _alone = seen::alone();
    match session() {
        Ok(session) => check(&session),
        Err(reason) => common::skip(test, &reason),
    }
}

/// Whether `expected` takes what a start does with these flags, on top of
/// [`BINDS`] and [`MASKS`]; `false` once the kernel has been found to lack one of
/// `features`, and the refusal to say so.
fn starts(
    session: &Session,
    flags: &[&str],
    features: &[Feature],
    expected: impl Fn(&PerStart) -> Result<(), String>,
) -> bool {
    let masks = if flags.contains(&"--masks") { &[][..] } else { &MASKS };
    let flags = [&BINDS[..], masks, flags].concat();
    match per_start(session, &flags, expected) {
        Ok(()) => true,
        Err(output) => {
            refusal::names_one_of(features, &output);
            false
        }
    }
}

/// Says what differs.
fn calls_are(seen: &PerStart, expected: Expected<'_>) -> Result<(), String> {
    compare("calls", &seen.calls, expected)
}

fn superblocks_are(seen: &PerStart, expected: Expected<'_>) -> Result<(), String> {
    match &seen.superblocks {
        Some(superblocks) => compare("superblocks", superblocks, expected),
        // No hook for them here; the calls have been looked at.
        None => Ok(()),
    }
}

fn compare(
    what: &str,
    seen: &std::collections::BTreeMap<String, u64>,
    expected: Expected<'_>,
) -> Result<(), String> {
    for (name, count) in expected {
        let counted = seen.get(*name).copied().unwrap_or(0);
        if counted != *count {
            return Err(format!("{what}: {counted} of {name} instead of {count} in {seen:?}"));
        }
    }
    Ok(())
}

#[test]
fn legacy_mounts_by_mount_alone_and_pivots() {
    with_session("legacy_mounts_by_mount_alone_and_pivots", |session| {
        let made = starts(session, &["--rootfs", "legacy"], &[], |seen| {
            calls_are(
                seen,
                &[
                    // `/` private, the root, those of every container, the binds,
                    // two of them read-only, the masks.
                    ("mount", 1 + 1 + ALWAYS + 4 + 2 + 3),
                    ("pivot_root", 1),
                    ("unshare", 1),
                    // The old root, and every other bind and mask.
                    ("umount2", 1 + 4),
                    ("fsopen", 0),
                    ("fsmount", 0),
                    ("open_tree", 0),
                    ("move_mount", 0),
                    ("mount_setattr", 0),
                    ("setns", 0),
                    ("clone", 0),
                    ("clone3", 0),
                ],
            )?;
            superblocks_are(seen, &[("tmpfs", 1 + 2 + 3), ("devpts", 1)])
        });
        assert!(made, "every kernel has it");
    });
}

#[test]
fn fd_makes_no_mount_call() {
    with_session("fd_makes_no_mount_call", |session| {
        starts(session, &["--rootfs", "fd"], &[Feature::MountSetattr], |seen| {
            calls_are(
                seen,
                &[
                    ("mount", 0),
                    ("fsopen", 1 + ALWAYS + 3),
                    ("fsmount", 1 + ALWAYS + 3),
                    ("open_tree", 4),
                    // `/` private, two binds read-only.
                    ("mount_setattr", 1 + 2),
                    ("move_mount", 1 + ALWAYS + 3 + 4),
                    ("pivot_root", 1),
                    ("unshare", 1),
                    ("umount2", 1 + 4),
                ],
            )?;
            superblocks_are(seen, &[("tmpfs", 1 + 2 + 3), ("devpts", 1)])
        });
    });
}

#[test]
fn open_tree_namespace_copies_no_table_and_pivots_nothing() {
    with_session("open_tree_namespace_copies_no_table_and_pivots_nothing", |session| {
        let features = [Feature::MountSetattr, Feature::OpenTreeNamespace];
        starts(session, &["--rootfs", "open-tree-namespace"], &features, |seen| {
            calls_are(
                seen,
                &[
                    ("unshare", 0),
                    ("clone", 0),
                    ("clone3", 0),
                    ("pivot_root", 0),
                    ("mount", 0),
                    ("setns", 1),
                    // The binds, and the namespace.
                    ("open_tree", 4 + 1),
                    ("mount_setattr", 2),
                    // All but the root.
                    ("move_mount", ALWAYS + 3 + 4),
                    ("fsmount", 1 + ALWAYS + 3),
                    ("umount2", 4),
                ],
            )?;
            superblocks_are(seen, &[("tmpfs", 1 + 2 + 3), ("devpts", 1)])
        });
    });
}

#[test]
fn beneath_swaps_the_root_without_pivot_root() {
    with_session("beneath_swaps_the_root_without_pivot_root", |session| {
        let features = [Feature::MountSetattr, Feature::Beneath];
        starts(session, &["--rootfs", "beneath"], &features, |seen| {
            calls_are(
                seen,
                &[
                    ("pivot_root", 0),
                    ("mount", 0),
                    ("unshare", 1),
                    ("setns", 0),
                    ("open_tree", 4),
                    ("mount_setattr", 1 + 2),
                    // The root goes below the old one.
                    ("move_mount", 1 + ALWAYS + 3 + 4),
                    // The old root, on top, and every other bind and mask.
                    ("umount2", 1 + 4),
                ],
            )
        });
    });
}

#[test]
fn shared_tmpfs_makes_one_superblock_for_all_masks_of_a_start() {
    let test = "shared_tmpfs_makes_one_superblock_for_all_masks_of_a_start";
    with_session(test, |session| {
        if session.fresh_snapshot().superblocks.is_none() {
            common::skip(&format!("{test} (superblocks)"), "no hook for them attaches here");
        }
        for (with, of_masks) in [("tmpfs", 24), ("shared-tmpfs", 1)] {
            let flags = ["--masks", "24", "--mask-with", with];
            let made = starts(session, &flags, &[], |seen| {
                // As many mounts either way.
                calls_are(seen, &[("mount", 1 + 1 + ALWAYS + 4 + 2 + 24)])?;
                superblocks_are(seen, &[("tmpfs", 1 + 2 + of_masks)])
            });
            assert!(made, "every kernel has it");
        }
        let flags = ["--masks", "24", "--mask-with", "shared-tmpfs", "--rootfs", "fd"];
        starts(session, &flags, &[Feature::MountSetattr], |seen| {
            calls_are(seen, &[("fsmount", 1 + ALWAYS + 1), ("open_tree", 4 + 23)])?;
            superblocks_are(seen, &[("tmpfs", 1 + 2 + 1)])
        });
    });
}

#[test]
fn an_overlayfs_of_all_layers_is_the_root() {
    let test = "an_overlayfs_of_all_layers_is_the_root";
    with_session(test, |session| {
        for (rootfs, calls) in [
            // The overlayfs on top of the tmpfs of its upper directory.
            ("legacy", [("mount", 1 + 2 + ALWAYS + 4 + 2 + 3), ("fsmount", 0), ("umount2", 5)]),
            ("fd", [("mount", 0), ("fsmount", 2 + ALWAYS + 3), ("umount2", 5)]),
            // That tmpfs goes as soon as the overlayfs has it.
            ("open-tree-namespace", [("mount", 0), ("fsmount", 2 + ALWAYS + 3), ("umount2", 5)]),
            ("beneath", [("mount", 0), ("fsmount", 2 + ALWAYS + 3), ("umount2", 5)]),
        ] {
            let features = [
                Feature::MountSetattr,
                Feature::OpenTreeNamespace,
                Feature::Beneath,
                Feature::Overlay,
            ];
            let flags = ["--rootfs", rootfs, "--layers", "20"];
            starts(session, &flags, &features, |seen| {
                calls_are(seen, &calls)?;
                superblocks_are(seen, &[("overlay", 1), ("tmpfs", 1 + 2 + 3)])
            });
        }
    });
}

#[test]
fn layers_beyond_one_option_are_named_one_by_one() {
    with_session("layers_beyond_one_option_are_named_one_by_one", |session| {
        let features = [Feature::MountSetattr, Feature::Overlay, Feature::LayerNames];
        starts(session, &["--rootfs", "fd", "--layers", "120"], &features, |seen| {
            calls_are(seen, &[("mount", 0), ("fsmount", 2 + ALWAYS + 3)])?;
            let options = seen.calls.get("fsconfig").copied().unwrap_or(0);
            if options < 120 {
                return Err(format!("{options} calls of fsconfig for 120 layers"));
            }
            superblocks_are(seen, &[("overlay", 1)])
        });
    });
}

#[test]
fn layers_are_mapped_one_by_one_or_by_their_parent_and_unmounted_again() {
    let test = "layers_are_mapped_one_by_one_or_by_their_parent_and_unmounted_again";
    with_session(test, |session| {
        for (idmap, mapped) in [("per-layer", 20), ("parent", 1)] {
            let flags = ["--layers", "20", "--idmap", idmap];
            let features = [Feature::MountSetattr, Feature::Overlay, Feature::IdmappedTmpfs];
            starts(session, &flags, &features, |seen| {
                calls_are(
                    seen,
                    &[
                        ("open_tree", mapped),
                        ("mount_setattr", mapped),
                        ("move_mount", mapped),
                        ("umount2", mapped + 1 + 4),
                        ("mount", 1 + 2 + ALWAYS + 4 + 2 + 3),
                    ],
                )?;
                superblocks_are(seen, &[("overlay", 1)])
            });
        }
    });
}

#[test]
fn statmount_reads_no_mountinfo() {
    let test = "statmount_reads_no_mountinfo";
    with_session(test, |session| {
        if session.fresh_snapshot().mountinfo_readers.is_none() {
            common::skip(&format!("{test} (opens of mountinfo)"), "no hook for them attaches here");
        }
        let reads = ["--mountinfo-reads", "3"];
        let made = starts(session, &reads, &[], |seen| {
            calls_are(seen, &[("listmount", 0), ("statmount", 0)])?;
            mountinfo_opens_are(seen, 3)
        });
        assert!(made, "every kernel has it");
        let flags = [&reads[..], &["--mount-query", "statmount"]].concat();
        starts(session, &flags, &[Feature::Statmount], |seen| {
            calls_are(seen, &[("listmount", 3)])?;
            let asked = seen.calls.get("statmount").copied().unwrap_or(0);
            if asked < 3 || asked % 3 != 0 {
                return Err(format!("each time for the same mounts, not {asked} for 3 times"));
            }
            mountinfo_opens_are(seen, 0)
        });
    });
}

fn mountinfo_opens_are(seen: &PerStart, expected: u64) -> Result<(), String> {
    match seen.mountinfo_opens {
        Some(opens) if opens != expected => {
            Err(format!("{opens} opens of mountinfo instead of {expected}"))
        }
        _ => Ok(()),
    }
}

#[test]
fn slave_and_private_take_one_change_at_the_start_and_shared_one_before_the_root() {
    let test = "slave_and_private_take_one_change_at_the_start_and_shared_one_before_the_root";
    with_session(test, |session| {
        for propagation in ["private", "slave", "shared"] {
            let made = starts(session, &["--propagation", propagation], &[], |seen| {
                // Shared ones take what came out of the start away again, from the
                // namespace that it came from.
                let back = u64::from(propagation == "shared");
                calls_are(
                    seen,
                    &[
                        ("mount", 1 + 1 + ALWAYS + 4 + 2 + 3),
                        ("setns", back),
                        ("umount2", 1 + 4 + back),
                    ],
                )
            });
            assert!(made, "every kernel has it");
        }
    });
}

#[test]
fn flags_that_contradict_each_other_are_a_usage_error_that_names_both() {
    let refused = |flags: &[&str]| {
        let output = seen::storm(&[&["--duration", "1s"], flags].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    if let Err(reason) = seen::permitted() {
        let test = "flags_that_contradict_each_other_are_a_usage_error_that_names_both";
        return common::skip(test, &reason);
    }
    let said = refused(&["--idmap", "per-layer"]);
    assert!(said.contains("--idmap per-layer") && said.contains("--layers"), "{said}");
    let said = refused(&["--runtime", "runc", "--rootfs", "fd"]);
    assert!(said.contains("--runtime runc") && said.contains("--rootfs fd"), "{said}");
}
