use super::*;
use crate::cli::args::{Cli, Command};
use clap::Parser;

fn parse(line: &str) -> Result<StormArgs, clap::Error> {
    let line = format!("lockprof storm {line}");
    Cli::try_parse_from(line.split_whitespace()).map(|cli| match cli.command {
        Command::Storm(storm) => *storm,
        other => panic!("{other:?}"),
    })
}

fn cpus(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[test]
fn a_storm_starts_two_containers_per_cpu_at_a_time_unless_told_otherwise() {
    let concurrency = |line| parse(line).unwrap().options(cpus(3), None).concurrency.get();
    assert_eq!(concurrency(""), 6);
    assert_eq!(concurrency("--concurrency 8"), 8);
    assert!(parse("--concurrency 0").is_err());
}

#[test]
fn a_pinned_storm_starts_two_for_each_cpu_that_it_is_pinned_to() {
    let storm = parse("--pin cpus:4,0-1").unwrap();
    assert_eq!(storm.pin, Some(Place::Cpus(vec![0, 1, 4])));
    let options = storm.options(cpus(64), Some(vec![0, 1, 4]));
    assert_eq!((options.concurrency.get(), options.cpus), (6, Some(vec![0, 1, 4])));
    assert_eq!(parse("--pin node:1").unwrap().pin, Some(Place::NumaNode(1)));
}

#[test]
fn where_a_storm_runs_is_a_node_or_a_list_of_cpus() {
    for bad in [
        "",
        "a",
        "3",
        "cpus:",
        "cpus:3-1",
        "cpus:0,",
        "cpus:-1",
        "node:",
        "node:x",
        "cpus:0-99999999999",
    ] {
        let error = parse(&format!("--pin={bad}")).unwrap_err().to_string();
        assert!(error.contains("node:1, or CPUs like cpus:0-3,8"), "{bad}: {error}");
    }
}

#[test]
fn it_ends_after_a_time_or_after_some_starts() {
    assert_eq!(
        parse("").unwrap().options(cpus(1), None).stop,
        Stop::After(Duration::from_secs(10))
    );
    assert_eq!(parse("--starts 7").unwrap().options(cpus(1), None).stop, Stop::Starts(7));
    assert!(parse("--starts 7 --duration 1s").is_err());
    assert!(parse("--starts 0").is_err());
}

#[test]
fn a_rate_is_a_positive_number() {
    assert_eq!(parse("--rate 0.5").unwrap().rate, Some(0.5));
    for bad in ["0", "-1", "x", "nan", "inf", "1e9"] {
        assert!(parse(&format!("--rate={bad}")).is_err(), "{bad}");
    }
}

#[test]
fn the_flags_describe_the_strategy_and_the_default_is_the_default() {
    assert_eq!(parse("").unwrap().strategy(), Strategy::default());
    let line = "--rootfs fd --layers 50 --idmap parent --masks 96 --mask-with shared-tmpfs \
                --propagation slave --mount-query statmount --runtime crun --host-mounts 30 \
                --binds 1 --mountinfo-reads 2";
    assert_eq!(
        parse(line).unwrap().strategy(),
        Strategy {
            runtime: Runtime::Crun,
            rootfs: RootFs::Fd,
            layers: 50,
            idmap: Some(Idmap::Parent),
            binds: 1,
            masks: 96,
            mask_with: MaskWith::SharedTmpfs,
            host_mounts: 30,
            propagation: Propagation::Slave,
            mountinfo_reads: 2,
            mount_query: MountQuery::Statmount,
        }
    );
}

#[test]
fn a_name_that_is_none_is_answered_with_those_that_are() {
    let error = parse("--rootfs pivot").unwrap_err().to_string();
    assert!(error.contains("open-tree-namespace"), "{error}");
}

#[test]
fn strategies_to_compare_change_what_the_flags_say() {
    let storm = parse("--masks 96 --compare tmpfs,shared-tmpfs+fd,idmap=parent+layers=50").unwrap();
    let base = storm.strategy();
    let all: Vec<_> = storm.compare.iter().map(|change| change.apply(&base)).collect();
    let (first, second) = (base.clone(), base.clone());
    let shared = Strategy { mask_with: MaskWith::SharedTmpfs, rootfs: RootFs::Fd, ..first };
    let mapped = Strategy { idmap: Some(Idmap::Parent), layers: 50, ..second };
    assert_eq!(all, [base, shared, mapped]);
    assert_eq!(storm.compare[1].as_str(), "shared-tmpfs+fd");
}

#[test]
fn a_part_that_no_strategy_has_is_named() {
    for bad in ["foo", "fd+", "layers=x", "layers=100000", "idmap=fd", "concurrency=4"] {
        let error = parse(&format!("--compare legacy,{bad}")).unwrap_err().to_string();
        let part = bad.rsplit('+').next().unwrap();
        assert!(error.contains(&format!("`{part}` is no part of a strategy")), "{bad}: {error}");
    }
}

#[test]
fn no_two_flags_have_a_value_of_the_same_name() {
    let all = [
        RootFs::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>(),
        Runtime::ALL.iter().map(|v| v.as_str()).collect(),
        Idmap::ALL.iter().map(|v| v.as_str()).collect(),
        MaskWith::ALL.iter().map(|v| v.as_str()).collect(),
        Propagation::ALL.iter().map(|v| v.as_str()).collect(),
        MountQuery::ALL.iter().map(|v| v.as_str()).collect(),
    ]
    .concat();
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn a_sweep_doubles_goes_in_steps_or_takes_a_list() {
    let values = |text: &str| Sweep::parse(text).unwrap().values;
    assert_eq!(values("concurrency=1..64"), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(values("concurrency=3..10"), [3, 6, 10]);
    assert_eq!(values("layers=10..50:10"), [10, 20, 30, 40, 50]);
    assert_eq!(values("host-mounts=0..4"), [0, 1, 2, 4]);
    assert_eq!(values("binds=200|8|40|8"), [8, 40, 200]);
}

#[test]
fn a_sweep_that_is_none_is_answered_with_the_form() {
    for (bad, named) in [
        ("concurrency", "write it like"),
        ("colour=1..4", "`colour` cannot be swept"),
        ("concurrency=0..4", "`0` is not a figure of concurrency from 1 to 4096"),
        ("layers=1..9999", "`9999` is not a figure of layers"),
        ("binds=5", "two values at least"),
        ("binds=5..5", "two values at least"),
        ("binds=0..1000:1", "too many"),
        ("binds=0..9:0", "step must be"),
        ("binds=4..x", "`x` is not a figure"),
    ] {
        let error = Sweep::parse(bad).unwrap_err();
        assert!(error.contains(named), "{bad}: {error}");
    }
}

#[test]
fn a_strategys_name_is_what_asks_for_it() {
    for name in ["legacy", "crun", "fd+layers=50+masks=96+parent+shared-tmpfs+slave+statmount"] {
        let strategy = Change::parse(name).unwrap().apply(&Strategy::default());
        assert_eq!(strategy.name(), name);
    }
}
