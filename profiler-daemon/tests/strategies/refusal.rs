//! What a storm says where the kernel lacks what its strategy takes.

use std::process::Output;

/// What a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    MountSetattr,
    OpenTreeNamespace,
    Beneath,
    Statmount,
    IdmappedTmpfs,
    Overlay,
    LayerNames,
}

impl Feature {
    /// How the refusal names it, and the version that has it for certain.
    const fn named(self) -> (&'static str, Option<(u32, u32)>) {
        match self {
            Self::MountSetattr => ("mount_setattr(2), which needs Linux 5.12", Some((5, 12))),
            Self::OpenTreeNamespace => {
                ("open_tree(OPEN_TREE_NAMESPACE), which needs Linux 7.0", Some((7, 0)))
            }
            Self::Beneath => {
                ("move_mount(MOVE_MOUNT_BENEATH) of a root, which needs Linux 7.1", Some((7, 1)))
            }
            Self::Statmount => {
                ("listmount(2) and statmount(2), which needs Linux 6.8", Some((6, 8)))
            }
            Self::IdmappedTmpfs => {
                ("an idmapped mount of tmpfs, which needs Linux 6.3", Some((6, 3)))
            }
            Self::LayerNames => ("more layers than 88, which needs Linux 6.7", Some((6, 7))),
            Self::Overlay => ("overlayfs, which needs CONFIG_OVERLAY_FS", None),
        }
    }
}

/// The storm was refused for the lack of one of `features`, by its name, and this
/// kernel is one that may lack it.
pub(crate) fn names_one_of(features: &[Feature], output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let named = features.iter().find(|feature| said.contains(feature.named().0));
    let named = named.unwrap_or_else(|| panic!("names none of {features:?}: {said}"));
    let advice = [": use --", ": leave out --"];
    assert!(advice.iter().any(|words| said.contains(words)), "says what to do instead: {said}");
    match named.named().1 {
        Some(since) => assert!(version() < since, "this kernel has it: {said}"),
        None => {
            let known = std::fs::read_to_string("/proc/filesystems").expect("procfs is mounted");
            assert!(!known.lines().any(|line| line.ends_with("\toverlay")), "{said}");
        }
    }
}

/// Of the running kernel.
fn version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().expect("a version").expect("a number");
    (next(), next())
}
