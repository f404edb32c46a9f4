//! What one start does, from the difference of two storms.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::snapshot::Snapshot;
use rustix::thread::{CapabilitySet, capabilities};

use crate::common::{self, LOCKPROF};

/// Pairs of storms until one has the machine for itself.
const PAIRS: usize = 5;

/// Storms and their counts are made one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a storm can run here.
pub(crate) fn permitted() -> Result<(), String> {
    let own = capabilities(None).expect("capget works");
    let has = own.effective.contains(CapabilitySet::SYS_ADMIN);
    has.then_some(()).ok_or_else(|| "storm needs CAP_SYS_ADMIN".to_owned())
}

/// A session that counts mount calls, or why there is none.
pub(crate) fn session() -> Result<Session, String> {
    permitted()?;
    if let Some(reason) = common::bpf_refused() {
        return Err(reason);
    }
    let session = Session::start(&Settings::default()).expect("attaches");
    let hooks = session.programs().hooks();
    let mount = hooks.iter().find(|hook| hook.hook == "sys_mount").expect("it is listed");
    match mount.backend {
        Some(_) => Ok(session),
        None => Err(format!("mount calls cannot be observed: {:?}", mount.refused)),
    }
}

/// What a start does.
#[derive(Debug)]
pub(crate) struct PerStart {
    /// Mount calls by name, whatever came of them.
    pub(crate) calls: BTreeMap<String, u64>,
    /// New superblocks by type of file system, where they can be observed.
    pub(crate) superblocks: Option<BTreeMap<String, u64>>,
    /// How often mountinfo is opened, where that can be observed.
    pub(crate) mountinfo_opens: Option<u64>,
}

/// Storms with these flags until `expected` takes what a start does.
///
/// # Errors
/// The output of a storm that did not run.
pub(crate) fn per_start(
    session: &Session,
    flags: &[&str],
    expected: impl Fn(&PerStart) -> Result<(), String>,
) -> Result<(), Output> {
    let mut wrong = Vec::new();
    for _ in 0..PAIRS {
        let short = Storm::make(session, flags, "6")?;
        let long = Storm::make(session, flags, "18")?;
        let seen = difference(&short, &long).and_then(|seen| expected(&seen));
        match seen {
            Ok(()) => return Ok(()),
            Err(why) => wrong.push(why),
        }
    }
    panic!("{flags:?}:\n{}", wrong.join("\n"));
}

/// Runs the command.
pub(crate) fn storm(flags: &[&str]) -> Output {
    let fixed = ["storm", "--json", "--no-measure", "--pollers", "0", "--concurrency", "2"];
    Command::new(LOCKPROF).args(fixed).args(flags).output().expect("storm can be run")
}

/// One storm.
struct Storm {
    starts: u64,
    window: Snapshot,
}

impl Storm {
    fn make(session: &Session, flags: &[&str], starts: &str) -> Result<Self, Output> {
        let before = session.fresh_snapshot();
        let output = storm(&[&["--starts", starts], flags].concat());
        let window = session.fresh_snapshot().since(&before);
        if output.status.code() == Some(3) {
            return Err(output);
        }
        assert!(output.status.success(), "{output:?}");
        let summary: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a summary in JSON");
        assert_eq!(summary["killed"], false, "{summary}");
        let starts = summary["starts"].as_u64().expect("a count");
        Ok(Self { starts, window })
    }

    fn calls(&self) -> BTreeMap<String, u64> {
        sums(self.window.syscalls.iter().map(|row| (row.syscall.clone(), row.calls.count)))
    }

    fn superblocks(&self) -> Option<BTreeMap<String, u64>> {
        let rows = self.window.superblocks.as_ref()?.iter();
        Some(sums(rows.map(|row| (row.filesystem.as_str().to_owned(), row.count))))
    }

    fn mountinfo_opens(&self) -> Option<u64> {
        let rows = self.window.mountinfo_readers.as_ref()?.iter();
        Some(rows.filter(|row| row.file == "mountinfo").map(|row| row.opens).sum())
    }
}

fn sums(rows: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in rows {
        *sums.entry(name).or_insert(0) += count;
    }
    sums
}

/// What each start did that the longer storm has more of, if it comes out even.
fn difference(short: &Storm, long: &Storm) -> Result<PerStart, String> {
    let starts = long.starts.checked_sub(short.starts).filter(|more| *more >= 2);
    let Some(starts) = starts else {
        return Err(format!("{} starts, then {}", short.starts, long.starts));
    };
    let each = |name: &str, short: u64, long: u64| match long.checked_sub(short) {
        Some(more) if more % starts == 0 => Ok(more / starts),
        _ => Err(format!("{short} of {name}, then {long}, in {starts} starts more")),
    };
    let each_of = |short: &BTreeMap<String, u64>, long: &BTreeMap<String, u64>| {
        let of = |name: &String| short.get(name).copied().unwrap_or(0);
        let rows = long.iter();
        rows.map(|(name, count)| Ok((name.clone(), each(name, of(name), *count)?)))
            .collect::<Result<BTreeMap<_, _>, String>>()
    };
    let superblocks = short.superblocks().zip(long.superblocks());
    let opens = short.mountinfo_opens().zip(long.mountinfo_opens());
    Ok(PerStart {
        calls: each_of(&short.calls(), &long.calls())?,
        superblocks: superblocks.map(|(short, long)| each_of(&short, &long)).transpose()?,
        mountinfo_opens: opens
            .map(|(short, long)| each("opens of mountinfo", short, long))
            .transpose()?,
    })
}
