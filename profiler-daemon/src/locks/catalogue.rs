//! The locks that lockprof knows, as data.
//!
//! An [`Entry`] is a lock as users see it: one label value, whatever the
//! running kernel calls it. Its [`Candidate`]s say what kernels call it, and
//! where text that takes it can be found in kernels without data symbols.
//!
//! Sources: the named functions in `fs/namespace.c`, `fs/super.c`,
//! `fs/dcache.c`, `kernel/nstree.c`, `mm/shrinker.c`, `mm/percpu.c`,
//! `mm/list_lru.c`, `kernel/rcu/tree_exp.h`, `kernel/{exit,fork}.c`, Linux 5.10
//! to 7.3.

use super::LockKind;

/// A lock of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// Label value.
    pub name: &'static str,
    /// Whether it is watched unless the user says otherwise.
    pub on_by_default: bool,
    /// What it protects, for `config default` and `doctor`.
    pub about: &'static str,
    /// What a kernel must be to have it; `None` if all have it.
    pub needs: Option<Needs>,
    /// What kernels call it, newest first.
    pub candidates: &'static [Candidate],
}

/// What kernels must be to have a lock, so that "this kernel has no such lock"
/// can be told from "not found".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// This version of Linux or a later one. An earlier one that has one of
    /// these functions was given the lock by its distributor.
    Linux {
        /// Major and minor number.
        version: (u32, u32),
        /// Functions that came with the lock.
        functions: &'static [&'static str],
    },
    /// A kernel built with this option.
    Option {
        /// The option, for instance `CONFIG_MEMCG`.
        name: &'static str,
        /// A function that is in kernels with the option and in no others, in
        /// all versions of the catalogue.
        function: &'static str,
    },
}

impl Needs {
    /// Functions that say whether the kernel is of this sort.
    pub fn functions(self) -> impl Iterator<Item = &'static str> {
        let (several, one) = match self {
            Self::Linux { functions, .. } => (functions, None),
            Self::Option { function, .. } => (&[][..], Some(function)),
        };
        several.iter().copied().chain(one)
    }
}

/// What some kernels call a lock.
#[derive(Debug)]
pub struct Candidate {
    /// The object's symbol.
    pub symbol: &'static str,
    /// A symbol that kernels have in which this is the right reading of
    /// `symbol`; `None` if there is only one reading.
    pub beside: Option<&'static str>,
    /// What sort of lock it is.
    pub kind: LockKind,
    /// Where in the object the lock is.
    pub member: Member,
    /// Code that takes it. Sites are independent: when several can be decoded
    /// they have to agree.
    pub text: &'static [Site],
}

/// Where in an object a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The object is the lock.
    Whole,
    /// At its very start in all kernels, under this name.
    First(&'static str),
    /// The offset is in BTF.
    Btf {
        /// Structure of the object.
        of: &'static str,
        /// Path of the member.
        path: &'static str,
    },
}

/// A function whose text contains the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The function to decode.
    pub function: &'static str,
    /// What the address is passed to.
    pub passed: Passed,
}

/// What an address in text is passed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A function that locks or unlocks the candidate's kind of lock, as its
    /// first argument: it is the address of the lock.
    Lock,
    /// One of these functions as the argument with this number, from 0: it is
    /// the address of the object.
    Object(&'static [&'static str], usize),
}

/// Functions that take a pointer to a lock of `kind` as their first argument.
pub fn lock_functions(kind: LockKind) -> &'static [&'static str] {
    match kind {
        LockKind::Rwsem => &[
            "down_read",
            "down_read_interruptible",
            "down_read_killable",
            "down_read_trylock",
            "down_write",
            "down_write_killable",
            "down_write_trylock",
            "downgrade_write",
            "rwsem_down_read_slowpath",
            "rwsem_down_write_slowpath",
            "up_read",
            "up_write",
        ],
        LockKind::Mutex => &[
            "mutex_lock",
            "mutex_lock_interruptible",
            "mutex_lock_io",
            "mutex_lock_killable",
            "mutex_trylock",
            "mutex_unlock",
            "__mutex_lock_slowpath",
            "__mutex_lock_killable_slowpath",
            "__mutex_unlock_slowpath",
        ],
        LockKind::Spinlock => &[
            "_raw_spin_lock",
            "_raw_spin_lock_bh",
            "_raw_spin_lock_irq",
            "_raw_spin_lock_irqsave",
            "_raw_spin_trylock",
            "_raw_spin_unlock",
            "_raw_spin_unlock_bh",
            "_raw_spin_unlock_irq",
            "_raw_spin_unlock_irqrestore",
            "__pv_queued_spin_lock_slowpath",
            "native_queued_spin_lock_slowpath",
            "queued_spin_lock_slowpath",
        ],
        LockKind::Rwlock => &[
            "_raw_read_lock",
            "_raw_read_lock_bh",
            "_raw_read_lock_irq",
            "_raw_read_lock_irqsave",
            "_raw_read_unlock",
            "_raw_read_unlock_bh",
            "_raw_read_unlock_irq",
            "_raw_read_unlock_irqrestore",
            "_raw_write_lock",
            "_raw_write_lock_bh",
            "_raw_write_lock_irq",
            "_raw_write_lock_irqsave",
            "_raw_write_unlock",
            "_raw_write_unlock_bh",
            "_raw_write_unlock_irq",
            "_raw_write_unlock_irqrestore",
            "queued_read_lock_slowpath",
            "queued_write_lock_slowpath",
        ],
    }
}

const fn lock(function: &'static str) -> Site {
    Site { function, passed: Passed::Lock }
}

const fn object(function: &'static str, to: &'static [&'static str], argument: usize) -> Site {
    Site { function, passed: Passed::Object(to, argument) }
}

const fn plain(symbol: &'static str, kind: LockKind, text: &'static [Site]) -> Candidate {
    Candidate { symbol, beside: None, kind, member: Member::Whole, text }
}

/// A `seqlock_t`: the sequence count comes first, and the tracepoints carry
/// the address of the spinlock behind it (include/linux/seqlock_types.h).
const fn seqlock(symbol: &'static str, text: &'static [Site]) -> Candidate {
    let member = Member::Btf { of: "seqlock_t", path: "lock" };
    Candidate { symbol, beside: None, kind: LockKind::Spinlock, member, text }
}

/// The catalogue, in the order that views list it.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "namespace_sem",
        on_by_default: true,
        about: "every mount, umount and mount namespace; readers of mountinfo share it",
        needs: None,
        candidates: &[plain(
            "namespace_sem",
            LockKind::Rwsem,
            &[
                lock("namespace_unlock"),
                lock("may_umount"),
                lock("__is_local_mountpoint"),
                lock("put_mnt_ns"),
                lock("copy_mnt_ns"),
            ],
        )],
    },
    Entry {
        name: "mnt_id_lock",
        on_by_default: true,
        about: "numbers for new mounts",
        needs: None,
        candidates: &[
            // 6.14 and later.
            Candidate {
                symbol: "mnt_id_xa",
                beside: None,
                kind: LockKind::Spinlock,
                member: Member::First("xa_lock"),
                text: &[
                    lock("alloc_vfsmnt"),
                    object("alloc_vfsmnt", &["__xa_alloc"], 0),
                    object("cleanup_mnt", &["xa_erase"], 0),
                    object("clone_mnt", &["xa_erase"], 0),
                ],
            },
            // 4.19 to 6.13: `struct ida` is an xarray, whose lock comes first
            // (include/linux/idr.h, include/linux/xarray.h).
            Candidate {
                symbol: "mnt_id_ida",
                beside: None,
                kind: LockKind::Spinlock,
                member: Member::First("xa.xa_lock"),
                text: &[
                    object("alloc_vfsmnt", &["ida_alloc_range"], 0),
                    object("cleanup_mnt", &["ida_free"], 0),
                    object("clone_mnt", &["ida_free"], 0),
                ],
            },
            // Before 4.19.
            plain("mnt_id_lock", LockKind::Spinlock, &[]),
        ],
    },
    Entry {
        name: "mount_lock",
        on_by_default: true,
        about: "the mount hash; path lookups retry while it is written",
        needs: None,
        candidates: &[seqlock(
            "mount_lock",
            &[
                lock("__legitimize_mnt"),
                lock("may_umount"),
                lock("may_umount_tree"),
                lock("path_is_under"),
            ],
        )],
    },
    Entry {
        name: "shrinker_rwsem",
        on_by_default: true,
        about: "the list of shrinkers, which every new superblock joins",
        needs: None,
        candidates: &[
            // 6.7 and later.
            plain(
                "shrinker_mutex",
                LockKind::Mutex,
                &[
                    lock("shrinker_register"),
                    lock("shrinker_free"),
                    lock("alloc_shrinker_info"),
                    lock("reparent_shrinker_deferred"),
                ],
            ),
            plain(
                "shrinker_rwsem",
                LockKind::Rwsem,
                &[
                    lock("register_shrinker_prepared"),
                    lock("unregister_shrinker"),
                    lock("reparent_shrinker_deferred"),
                ],
            ),
        ],
    },
    Entry {
        name: "rcu_exp_mutex",
        on_by_default: true,
        about: "expedited RCU grace periods, one of which ends every umount",
        needs: None,
        candidates: &[Candidate {
            symbol: "rcu_state",
            beside: None,
            kind: LockKind::Mutex,
            member: Member::Btf { of: "rcu_state", path: "exp_mutex" },
            text: &[lock("exp_funnel_lock"), lock("synchronize_rcu_expedited")],
        }],
    },
    Entry {
        name: "pcpu_alloc_mutex",
        on_by_default: true,
        about: "per-CPU memory, of which every mount takes some",
        needs: None,
        candidates: &[plain(
            "pcpu_alloc_mutex",
            LockKind::Mutex,
            &[lock("pcpu_alloc_noprof"), lock("pcpu_alloc"), lock("pcpu_balance_workfn")],
        )],
    },
    Entry {
        name: "list_lrus_mutex",
        on_by_default: true,
        about: "the list of LRU lists, which every new superblock joins",
        needs: Some(Needs::Option { name: "CONFIG_MEMCG", function: "mem_cgroup_from_task" }),
        candidates: &[plain(
            "list_lrus_mutex",
            LockKind::Mutex,
            &[lock("__list_lru_init"), lock("list_lru_destroy"), lock("memcg_reparent_list_lrus")],
        )],
    },
    Entry {
        name: "tasklist_lock",
        on_by_default: true,
        about: "the list of tasks: fork, exit, wait",
        needs: None,
        candidates: &[plain(
            "tasklist_lock",
            LockKind::Rwlock,
            &[lock("release_task"), lock("__do_wait"), lock("do_wait"), lock("copy_process")],
        )],
    },
    Entry {
        name: "ns_tree_lock",
        on_by_default: false,
        about: "the tree of mount namespaces, since 6.19 of all namespaces",
        needs: Some(Needs::Linux {
            version: (6, 11),
            functions: &["mnt_ns_tree_add", "__ns_tree_add_raw"],
        }),
        candidates: &[
            // 6.19 and later.
            seqlock(
                "ns_tree_lock",
                &[lock("__ns_tree_add_raw"), lock("__ns_tree_remove"), lock("__do_sys_listns")],
            ),
            // 6.18. Before it, an object of the same name is an rb_root, and
            // BTF has no such structure; after it, the structure has no lock.
            Candidate {
                symbol: "mnt_ns_tree",
                beside: None,
                kind: LockKind::Spinlock,
                member: Member::Btf { of: "ns_tree", path: "ns_tree_lock.lock" },
                text: &[
                    object("copy_mnt_ns", &["__ns_tree_add_raw"], 1),
                    object("namespace_unlock", &["__ns_tree_remove"], 1),
                    object("get_sequential_mnt_ns", &["__ns_tree_adjoined_rcu"], 1),
                ],
            },
            // 6.14 made it a seqlock_t in the merge window that brought
            // mnt_id_xa.
            Candidate {
                beside: Some("mnt_id_xa"),
                ..seqlock("mnt_ns_tree_lock", &[lock("mnt_ns_tree_add"), lock("free_mnt_ns")])
            },
            // 6.11 to 6.13.
            Candidate {
                beside: Some("mnt_id_ida"),
                ..plain(
                    "mnt_ns_tree_lock",
                    LockKind::Rwlock,
                    &[
                        lock("mnt_ns_tree_add"),
                        lock("free_mnt_ns"),
                        lock("grab_requested_mnt_ns"),
                        lock("__lookup_next_mnt_ns"),
                    ],
                )
            },
        ],
    },
    Entry {
        name: "sb_lock",
        on_by_default: false,
        about: "the list of superblocks",
        needs: None,
        candidates: &[plain(
            "sb_lock",
            LockKind::Spinlock,
            &[
                lock("sget_fc"),
                lock("__iterate_supers"),
                lock("iterate_supers_type"),
                lock("put_super"),
                lock("drop_super"),
                lock("grab_super"),
            ],
        )],
    },
    Entry {
        name: "rename_lock",
        on_by_default: false,
        about: "renames of directory entries; path lookups retry while it is written",
        needs: None,
        candidates: &[seqlock(
            "rename_lock",
            &[lock("d_move"), lock("d_exchange"), lock("d_set_mounted"), lock("is_subdir")],
        )],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_and_defaults_are_those_that_users_rely_on() {
        let named = |on| -> Vec<_> {
            ENTRIES.iter().filter(|e| e.on_by_default == on).map(|e| e.name).collect()
        };
        assert_eq!(
            named(true),
            [
                "namespace_sem",
                "mnt_id_lock",
                "mount_lock",
                "shrinker_rwsem",
                "rcu_exp_mutex",
                "pcpu_alloc_mutex",
                "list_lrus_mutex",
                "tasklist_lock",
            ]
        );
        assert_eq!(named(false), ["ns_tree_lock", "sb_lock", "rename_lock"]);
    }

    #[test]
    fn no_lock_function_belongs_to_two_kinds() {
        let all: Vec<_> = LockKind::ALL.iter().flat_map(|kind| lock_functions(*kind)).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
    }
}
