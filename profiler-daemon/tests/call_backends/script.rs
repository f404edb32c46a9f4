//! Mount system calls whose number and outcome are known, made in a mount
//! namespace that goes with the thread that makes them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// Bind mounts that are made and undone.
const BINDS: u64 = 100;
/// Mounts of a filesystem that does not exist.
const UNKNOWN: u64 = 50;

/// What is counted of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Every return of it.
    Any,
    /// Returns with this errno, by its symbolic name.
    Error(String),
}

/// Runs the script in a thread: what a profiler must have counted, zeros left
/// out.
pub(crate) fn run() -> BTreeMap<(String, Outcome), u64> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = std::thread::scope(|scope| scope.spawn(|| script(folder.path())).join());
    made.expect("the script ends")
}

/// Makes calls and keeps count of those that are mount calls.
#[derive(Default)]
struct Script {
    made: BTreeMap<(String, Outcome), u64>,
}

/// A system call of an architecture of its own number.
type Call = (&'static str, libc::c_long);

const MOUNT: Call = ("mount", libc::SYS_mount);
const UMOUNT2: Call = ("umount2", libc::SYS_umount2);
const MOVE_MOUNT: Call = ("move_mount", libc::SYS_move_mount);
const FSOPEN: Call = ("fsopen", libc::SYS_fsopen);
const FSCONFIG: Call = ("fsconfig", libc::SYS_fsconfig);
const FSMOUNT: Call = ("fsmount", libc::SYS_fsmount);
const FSPICK: Call = ("fspick", libc::SYS_fspick);
const OPEN_TREE: Call = ("open_tree", libc::SYS_open_tree);
const OPEN_TREE_ATTR: Call = ("open_tree_attr", 467);
const MOUNT_SETATTR: Call = ("mount_setattr", libc::SYS_mount_setattr);
const PIVOT_ROOT: Call = ("pivot_root", libc::SYS_pivot_root);
const UNSHARE: Call = ("unshare", libc::SYS_unshare);
const SETNS: Call = ("setns", libc::SYS_setns);
const CLONE: Call = ("clone", libc::SYS_clone);
const CLONE3: Call = ("clone3", libc::SYS_clone3);
const STATMOUNT: Call = ("statmount", 457);
const LISTMOUNT: Call = ("listmount", 458);

/// Result of a call: what it returned, or its errno.
type Return = Result<usize, i32>;

/// Makes a call. Nothing is counted.
fn make(call: Call, arguments: &[usize]) -> Return {
    let argument = |n: usize| arguments.get(n).copied().unwrap_or(0);
    // SAFETY: the callers pass integers, and addresses of what outlives the call
    // and is as large as it expects; errors are part of the script.
    let result = unsafe {
        libc::syscall(call.1, argument(0), argument(1), argument(2), argument(3), argument(4))
    };
    usize::try_from(result)
        .map_err(|_| io::Error::last_os_error().raw_os_error().expect("an errno"))
}

impl Script {
    /// Makes a call that counts, `times` over; the last result.
    fn repeat(&mut self, times: u64, call: Call, arguments: &[usize]) -> Return {
        let mut last = Err(0);
        for _ in 0..times {
            last = self.call(call, arguments);
        }
        last
    }

    /// Makes a call that counts, unless the kernel does not have it.
    fn call(&mut self, call: Call, arguments: &[usize]) -> Return {
        let result = make(call, arguments);
        self.count(call, result);
        result
    }

    fn count(&mut self, call: Call, result: Return) {
        let mut count = |outcome| *self.made.entry((call.0.to_owned(), outcome)).or_insert(0) += 1;
        match result {
            Err(libc::ENOSYS) => {}
            Ok(_) => count(Outcome::Any),
            Err(errno) => {
                count(Outcome::Any);
                count(Outcome::Error(name(errno).to_owned()));
            }
        }
    }

    /// Makes a call that forks. The child ends at once: in what was a process of
    /// several threads it must not even allocate.
    fn fork(&mut self, counts: bool, call: Call, arguments: &[usize]) {
        match make(call, arguments) {
            // SAFETY: ends the child, which shares nothing that matters.
            Ok(0) => unsafe { libc::_exit(0) },
            Ok(child) => {
                if counts {
                    self.count(call, Ok(child));
                }
                let child = libc::pid_t::try_from(child).expect("a pid");
                // SAFETY: a child of this process, whose status nobody wants.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            }
            Err(errno) => panic!("{}: {}", call.0, io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Symbolic names of the errors that the script provokes.
fn name(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => "ENOENT",
        libc::EBADF => "EBADF",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        other => panic!("the script failed: {}", io::Error::from_raw_os_error(other)),
    }
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn address(text: &CString) -> usize {
    text.as_ptr().addr()
}

#[expect(clippy::cast_sign_loss, reason = "flags and descriptors, as the kernel reads them")]
const fn word(value: i32) -> usize {
    value as usize
}

const NEWNS: usize = word(libc::CLONE_NEWNS);
const SIGCHLD: usize = word(libc::SIGCHLD);
const HERE: usize = word(libc::AT_FDCWD);
/// No descriptor.
const BAD: usize = 999_999;

fn script(folder: &Path) -> BTreeMap<(String, Outcome), u64> {
    let mut script = Script::default();
    let outside = namespace("mnt");
    make(UNSHARE, &[word(libc::CLONE_FS)]).expect("counts for nothing");
    script.call(UNSHARE, &[NEWNS]).expect("a mount namespace of its own");
    let _ = script.repeat(3, UNSHARE, &[NEWNS | 1]);

    let (root, none, tmpfs) = (c("/"), c("none"), c("tmpfs"));
    let private = usize::try_from(libc::MS_REC | libc::MS_PRIVATE).expect("flags");
    script.call(MOUNT, &[address(&none), address(&root), 0, private]).expect("private");
    let folder = folder.to_str().expect("UTF-8");
    let base = c(folder);
    script.call(MOUNT, &[address(&none), address(&base), address(&tmpfs)]).expect("tmpfs");
    let [a, b, missing] = ["a", "b", "missing"].map(|name| format!("{folder}/{name}"));
    std::fs::create_dir(&a).expect("a tmpfs takes folders");
    std::fs::create_dir(&b).expect("a tmpfs takes folders");
    let [a, b, missing] = [a, b, missing].map(|path| c(&path));

    classic(&mut script, &a, &b, &missing);
    by_descriptor(&mut script, &a, &b, &missing);
    lists(&mut script);
    namespaces(&mut script, &outside);
    forks(&mut script);

    // The figures of the parts that matter most, so that a script that does
    // nothing does not pass.
    let made = |call: &str, outcome| script.made.get(&(call.to_owned(), outcome)).copied();
    assert_eq!(made("mount", Outcome::Any), Some(2 + BINDS + UNKNOWN + 7));
    assert_eq!(made("mount", Outcome::Error("ENODEV".to_owned())), Some(UNKNOWN));
    assert_eq!(made("umount2", Outcome::Any), Some(BINDS + 9));
    assert_eq!(made("setns", Outcome::Any), Some(5));
    script.made
}

/// mount, umount2 and pivot_root.
fn classic(script: &mut Script, a: &CString, b: &CString, missing: &CString) {
    let unknown = c("nosuchfs");
    let bind = usize::try_from(libc::MS_BIND).expect("a flag");
    let detach = word(libc::MNT_DETACH);
    for _ in 0..BINDS {
        script.call(MOUNT, &[address(a), address(b), 0, bind]).expect("a bind mount");
        script.call(UMOUNT2, &[address(b), detach]).expect("it can be undone");
    }
    let _ = script.repeat(UNKNOWN, MOUNT, &[address(a), address(b), address(&unknown)]);
    let _ = script.repeat(7, MOUNT, &[address(a), address(missing), 0, bind]);
    let _ = script.repeat(9, UMOUNT2, &[address(b), detach]);
    let _ = script.repeat(3, PIVOT_ROOT, &[address(missing), address(missing)]);
}

/// The calls that take and give descriptors.
fn by_descriptor(script: &mut Script, a: &CString, b: &CString, missing: &CString) {
    let (empty, tmpfs, unknown) = (c(""), c("tmpfs"), c("nosuchfs"));
    let (create, empty_path, clone) = (6, 4, 1);
    for _ in 0..5 {
        let context = script.call(FSOPEN, &[address(&tmpfs)]).expect("tmpfs");
        script.call(FSCONFIG, &[context, create]).expect("a superblock");
        let mount = script.call(FSMOUNT, &[context]).expect("a mount");
        let target = [mount, address(&empty), HERE, address(b), empty_path];
        script.call(MOVE_MOUNT, &target).expect("in place");
        close([context, mount]);
    }
    let _ = script.repeat(3, FSOPEN, &[address(&unknown)]);
    let _ = script.repeat(2, FSCONFIG, &[BAD, create]);
    let _ = script.repeat(2, FSMOUNT, &[BAD]);
    let _ = script.repeat(4, MOVE_MOUNT, &[BAD, address(&empty), HERE, address(b), empty_path]);
    close([script.call(FSPICK, &[HERE, address(b)]).expect("a mount point")]);
    let _ = script.repeat(2, FSPICK, &[HERE, address(missing)]);

    let tree = script.call(OPEN_TREE, &[HERE, address(a), clone]).expect("a copy");
    let _ = script.repeat(2, OPEN_TREE, &[HERE, address(missing), clone]);
    // `struct mount_attr`: set `MOUNT_ATTR_RDONLY`, clear nothing.
    let attributes: [u64; 4] = [1, 0, 0, 0];
    let (at, size) = (attributes.as_ptr().addr(), size_of_val(&attributes));
    let set = [tree, address(&empty), word(libc::AT_EMPTY_PATH), at];
    let _ = script.call(MOUNT_SETATTR, &[&set[..], &[size]].concat());
    let _ = script.repeat(2, MOUNT_SETATTR, &[&set[..], &[0]].concat());
    close([tree]);
    let tree = script.call(OPEN_TREE_ATTR, &[HERE, address(a), clone, at, size]);
    close(tree);
    let _ = script.repeat(2, OPEN_TREE_ATTR, &[HERE, address(missing), clone, at, size]);
}

/// statmount and listmount.
fn lists(script: &mut Script) {
    // `struct mnt_id_req`: its size, the mount, and where to go on or what to
    // tell. The root is `LSMT_ROOT`.
    let request = |mount: u64, parameter: u64| [24, mount, parameter];
    let mut ids = [0u64; 4];
    let root = request(u64::MAX, 0);
    let list = [root.as_ptr().addr(), ids.as_mut_ptr().addr(), ids.len(), 0];
    let _ = script.repeat(2, LISTMOUNT, &list);
    let _ = script.repeat(3, LISTMOUNT, &[list[0], list[1], list[2], 0xff00]);
    let mut told = [0u64; 128];
    let nobody = request(u64::MAX - 1, 1);
    let what = [nobody.as_ptr().addr(), told.as_mut_ptr().addr(), size_of_val(&told), 0];
    let _ = script.repeat(2, STATMOUNT, &what);
    let _ = script.repeat(3, STATMOUNT, &[what[0], what[1], what[2], 0xff00]);
}

/// setns, which counts when it asks for a mount namespace, or asks for nothing
/// and changes it.
fn namespaces(script: &mut Script, outside: &File) {
    let descriptor = |file: &File| word(file.as_raw_fd());
    let (own, network) = (namespace("mnt"), namespace("net"));
    script.call(SETNS, &[descriptor(&own), NEWNS]).expect("its own");
    script.call(SETNS, &[descriptor(outside), NEWNS]).expect("the one outside");
    script.call(SETNS, &[descriptor(&own), 0]).expect("back");
    let _ = script.repeat(2, SETNS, &[BAD, NEWNS]);
    make(SETNS, &[descriptor(&own), 0]).expect("changes nothing");
    make(SETNS, &[descriptor(&network), 0]).expect("changes nothing");
    make(SETNS, &[descriptor(&network), word(libc::CLONE_NEWNET)]).expect("another kind");
    make(SETNS, &[BAD, 0]).expect_err("changes nothing");
}

/// clone and clone3, which count with `CLONE_NEWNS`.
fn forks(script: &mut Script) {
    script.fork(true, CLONE, &[NEWNS | SIGCHLD]);
    script.fork(true, CLONE, &[NEWNS | SIGCHLD]);
    script.fork(false, CLONE, &[SIGCHLD]);
    // Contradicts itself.
    let _ = script.repeat(3, CLONE, &[NEWNS | word(libc::CLONE_FS) | SIGCHLD]);
    // `struct clone_args`: flags first, the signal fifth.
    let arguments = |flags: usize| [flags as u64, 0, 0, 0, SIGCHLD as u64, 0, 0, 0];
    for (counts, flags) in [(true, NEWNS), (false, 0), (true, NEWNS)] {
        let arguments = arguments(flags);
        script.fork(counts, CLONE3, &[arguments.as_ptr().addr(), size_of_val(&arguments)]);
    }
    let wrong = arguments(NEWNS | word(libc::CLONE_FS));
    let _ = script.repeat(3, CLONE3, &[wrong.as_ptr().addr(), size_of_val(&wrong)]);
}

fn namespace(kind: &str) -> File {
    File::open(format!("/proc/thread-self/ns/{kind}")).expect("this thread's namespace")
}

fn close(descriptors: impl IntoIterator<Item = usize>) {
    for descriptor in descriptors {
        let descriptor = i32::try_from(descriptor).expect("a descriptor");
        // SAFETY: a descriptor that a call of the script gave, and closed once.
        assert_eq!(unsafe { libc::close(descriptor) }, 0);
    }
}
