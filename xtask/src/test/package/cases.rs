//! What is tried, in this order: each case finds what those before it left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::jail::{Jail, PACKAGES};
use super::{Made, here, notices, versions};
use crate::package::{VERSION, deb, tarball, tree};

/// A case; its name goes on from `package`.
pub(super) type Case = (&'static str, fn(&Made, &Jail) -> Result<()>);

/// All of them.
pub(super) const ALL: &[Case] = &[
    ("gives lintian nothing to say", lintian),
    ("names what is linked into its binary, as the tarball does", notices::name_what_is_linked),
    ("is the same when made again", same_again),
    ("is gone after a purge, but for the user and what Debian keeps", purge_leaves_nothing),
    ("installs", installs),
    ("runs, with the configuration that it brings", runs),
    ("has man pages that man shows", man_pages),
    ("completes in bash", completes),
    ("has units that systemd understands, and enables the service alone", units),
    ("replaces a configuration that nobody edited", replaces_default),
    ("keeps an edited configuration, and asks nothing", keeps_edited),
    ("puts a new default beside an edited configuration", puts_beside),
    ("is removed but for its configuration", removes),
    ("comes back with the configuration as it was", comes_back),
    ("as a tarball runs where nothing else is", runs_alone),
    ("as a tarball installs below a prefix, and goes again", tarball_installs),
    ("as a tarball says what is wrong with its arguments", tarball_refuses),
];

const CONFIG: &str = "/etc/lockprof/lockprof.toml";

/// What a user might write.
const EDIT: &str = "# edited here";

/// `apt-get install` of a package in the folder of packages. There is no network:
/// what it depends on has to be there.
fn install(made: &Made, jail: &Jail, deb: &Path, options: &str) -> Result<String> {
    let name = deb.strip_prefix(&made.folder).context("a package is in the folder of packages")?;
    let name = name.display();
    jail.run(&format!("apt-get install -y -qq --no-install-recommends {options} {PACKAGES}/{name}"))
}

fn lintian(made: &Made, _: &Jail) -> Result<()> {
    here(
        Command::new("lintian")
            .args(["--no-cfg", "--profile", "debian", "--fail-on", "error,warning"])
            .arg(&made.deb),
    )
    .map(drop)
}

fn same_again(made: &Made, _: &Jail) -> Result<()> {
    let again = made.scratch.join("again");
    let binary = crate::build::of_profile("tests")?;
    let tree = tree::stage(&binary)?;
    let debs = (&made.deb, deb::make(&binary, &deb::version(VERSION), &again)?);
    // The binary of the first one: only the packing is tried.
    let unpacked = unpack(&made.tarball, &again)?;
    let tarballs =
        (&made.tarball, tarball::make(&tree, &unpacked.join("usr/bin/lockprof"), &again)?);
    for (first, second) in [debs, tarballs] {
        let read = |path: &Path| {
            fs::read(path).with_context(|| format!("failed to read {}", path.display()))
        };
        ensure!(read(first)? == read(&second)?, "{} differs", first.display());
    }
    Ok(())
}

/// Unpacks the tarball and returns its one folder.
pub(super) fn unpack(tarball: &Path, to: &Path) -> Result<std::path::PathBuf> {
    fs::create_dir_all(to).with_context(|| format!("failed to create {}", to.display()))?;
    here(Command::new("tar").arg("-xzf").arg(tarball).arg("-C").arg(to))?;
    let name = tarball.file_name().context("a tarball has a name")?.display().to_string();
    let name = name.strip_suffix(".tar.gz").context("a tarball ends with .tar.gz")?;
    Ok(to.join(name))
}

/// Files that are there after a purge and were not before, and why: they are of
/// dpkg and apt, or of the user, who stays as Debian's system users do.
const KEPT: [(&str, &str); 12] = [
    ("/etc/group-", "the groups before the last change"),
    ("/etc/gshadow-", "the same of their passwords"),
    ("/etc/passwd-", "the users before the last change"),
    ("/etc/shadow-", "the same of their passwords"),
    ("/etc/.pwd.lock", "systemd-sysusers' lock"),
    ("/var/lib/dpkg/status-old", "dpkg's status before the last change"),
    ("/var/lib/dpkg/available-old", "dpkg's list before the last change"),
    ("/var/lib/dpkg/diversions-old", "the same of diversions"),
    ("/var/lib/dpkg/statoverride-old", "the same of owners"),
    ("/var/cache/apt/", "apt's own index"),
    ("/var/log/", "logs of dpkg and apt"),
    ("/var/lib/apt/", "apt's own state"),
];

fn purge_leaves_nothing(made: &Made, jail: &Jail) -> Result<()> {
    let users = || -> Result<BTreeSet<String>> {
        let text = jail.run("cat /etc/passwd /etc/group")?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (files, before) = (jail.files()?, users()?);
    install(made, jail, &made.deb, "")?;
    jail.run(&format!("echo '{EDIT}' >> {CONFIG}; apt-get purge -y -qq lockprof"))?;
    differences(&files, &jail.files()?)?;
    let now = users()?;
    let new: Vec<_> = now.difference(&before).collect();
    ensure!(
        new.len() == 2 && new.iter().all(|line| line.starts_with("lockprof:")),
        "users and groups are new that are not lockprof's: {new:?}"
    );
    ensure!(before.is_subset(&now), "users or groups are gone");
    Ok(())
}

fn differences(before: &[String], after: &[String]) -> Result<()> {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.iter().collect(), after.iter().collect());
    let kept = |line: &&&String| {
        let path = line.split_once(' ').map_or("", |(_, path)| path);
        KEPT.iter().any(|(kept, _)| match kept.strip_suffix('/') {
            Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
            None => path == *kept,
        })
    };
    let gone: Vec<_> = before.difference(&after).filter(|line| !kept(line)).collect();
    let left: Vec<_> = after.difference(&before).filter(|line| !kept(line)).collect();
    ensure!(gone.is_empty() && left.is_empty(), "left behind: {left:?}; taken away: {gone:?}");
    Ok(())
}

fn installs(made: &Made, jail: &Jail) -> Result<()> {
    install(made, jail, &made.deb, "")?;
    let complaints = jail.run("dpkg --audit; dpkg --verify lockprof")?;
    ensure!(complaints.is_empty(), "dpkg complains: {complaints}");
    // That it can verify at all.
    let changed =
        jail.run("echo >>/usr/share/doc/lockprof/README.md; dpkg --verify lockprof || true")?;
    ensure!(changed.contains("README.md"), "a changed file is not told: {changed}");
    let shown = jail.run("dpkg-query --show --showformat='${Depends}' lockprof")?;
    ensure!(shown.contains("libc6 (>= "), "it depends on no C library: {shown}");
    Ok(())
}

fn runs(_: &Made, jail: &Jail) -> Result<()> {
    let said = jail.run("cd /; lockprof --version")?;
    ensure!(said == format!("lockprof {VERSION}\n"), "--version said {said}");
    jail.run(&format!("lockprof config check && lockprof config default | cmp - {CONFIG}"))?;
    // Modes that do not follow from the umask of who made the package.
    let modes = jail.run(
        "find $(dpkg -L lockprof) -maxdepth 0 -type f ! -perm 644 -printf '%m %p\\n' -o ! -user 0 \
         -printf '%u %p\\n'",
    )?;
    ensure!(modes == "755 /usr/bin/lockprof\n", "modes or owners are not usual: {modes}");
    Ok(())
}

fn man_pages(_: &Made, jail: &Jail) -> Result<()> {
    let said = jail.run(
        "for page in $(dpkg -L lockprof | grep '^/usr/share/man/.*gz$'); do
            lexgrog \"$page\" >/dev/null || echo \"$page has no description\"
            man --warnings -E UTF-8 -l -Tutf8 -Z \"$page\" 2>&1 >/dev/null
        done
        for name in lockprof.8 lockprof-daemon.8 lockprof-stat.8 lockprof.toml.5; do
            man -w \"$name\" >/dev/null
        done",
    )?;
    ensure!(said.is_empty(), "man complains: {said}");
    let text = jail.run("man lockprof.toml | cat")?;
    ensure!(text.contains("slow_wait"), "lockprof.toml(5) is about something else: {text}");
    Ok(())
}

fn completes(_: &Made, jail: &Jail) -> Result<()> {
    // As readline calls it, after `lockprof dae`.
    let said = jail.run(
        "set +u; source /usr/share/bash-completion/bash_completion; _completion_loader lockprof \
         || true; function=$(complete -p lockprof | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         COMP_WORDS=(lockprof dae); COMP_CWORD=1; COMP_LINE='lockprof dae'; COMP_POINT=12; \
         $function lockprof dae lockprof; echo \"${COMPREPLY[@]}\"",
    )?;
    ensure!(said.trim() == "daemon", "`lockprof dae` is completed to {said}");
    Ok(())
}

fn units(_: &Made, jail: &Jail) -> Result<()> {
    let said = jail.run(
        "systemctl is-enabled lockprof.service; systemctl is-enabled lockprof.socket || true
        systemd-analyze verify --man=yes lockprof.service lockprof.socket",
    )?;
    ensure!(said == "enabled\ndisabled\n", "systemd says: {said}");
    Ok(())
}

fn config(jail: &Jail) -> Result<String> {
    jail.run(&format!("cat {CONFIG}"))
}

fn replaces_default(made: &Made, jail: &Jail) -> Result<()> {
    let deb = versions::later(&made.deb, "99.0-1", Some("# default 99.0"), &made.scratch)?;
    install(made, jail, &deb, "")?;
    ensure!(config(jail)?.ends_with("# default 99.0\n"), "the old default is still there");
    Ok(())
}

fn keeps_edited(made: &Made, jail: &Jail) -> Result<()> {
    jail.run(&format!("echo '{EDIT}' >> {CONFIG}; systemctl disable --quiet lockprof.service"))?;
    let deb = versions::later(&made.deb, "99.1-1", Some("# default 99.0"), &made.scratch)?;
    install(made, jail, &deb, "")?;
    let version = jail.run("dpkg-query --show --showformat='${Version}' lockprof")?;
    ensure!(version == "99.1-1", "this is {version}");
    ensure!(config(jail)?.ends_with(&format!("{EDIT}\n")), "the edit is gone");
    let there = jail.run("ls /etc/lockprof")?;
    ensure!(there == "lockprof.toml\n", "in /etc/lockprof are {there}");
    let enabled = jail.run("systemctl is-enabled lockprof.service || true")?;
    ensure!(enabled == "disabled\n", "a disabled service is {enabled} after the upgrade");
    Ok(())
}

fn puts_beside(made: &Made, jail: &Jail) -> Result<()> {
    let deb = versions::later(&made.deb, "99.2-1", Some("# default 99.2"), &made.scratch)?;
    // As unattended upgrades do: without it dpkg asks, and nobody is there.
    let options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold";
    install(made, jail, &deb, options)?;
    ensure!(config(jail)?.ends_with(&format!("{EDIT}\n")), "the edit is gone");
    let beside = jail.run(&format!("cat {CONFIG}.dpkg-dist"))?;
    ensure!(beside.ends_with("# default 99.2\n"), "the new default is not beside it");
    Ok(())
}

fn removes(_: &Made, jail: &Jail) -> Result<()> {
    jail.run("apt-get remove -y -qq lockprof")?;
    ensure!(config(jail)?.ends_with(&format!("{EDIT}\n")), "the edit is gone");
    let left = jail.run(
        "find / -xdev \\( -path /proc -o -path /mnt -o -path /etc -o -path /var/lib/dpkg -o -path \
         /var/lib/systemd \\) -prune -o -name '*lockprof*' -print",
    )?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}

fn comes_back(made: &Made, jail: &Jail) -> Result<()> {
    install(made, jail, &made.deb, "-o Dpkg::Options::=--force-confold")?;
    ensure!(config(jail)?.ends_with(&format!("{EDIT}\n")), "the edit is gone");
    jail.run("lockprof --version; apt-get purge -y -qq lockprof; ! test -e /etc/lockprof")?;
    Ok(())
}

fn runs_alone(made: &Made, _: &Jail) -> Result<()> {
    let folder = unpack(&made.tarball, &made.scratch.join("alone"))?;
    let binary = folder.join("usr/bin/lockprof");
    let said = here(Command::new("ldd").arg(&binary)).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(
        said.contains("statically linked") || said.contains("not a dynamic executable"),
        "ldd says: {said}"
    );
    let root = folder.join("root");
    fs::create_dir(&root).with_context(|| format!("failed to create {}", root.display()))?;
    fs::copy(&binary, root.join("lockprof")).context("failed to copy the binary")?;
    let run = |arguments: &[&str]| {
        here(Command::new("chroot").arg(&root).arg("/lockprof").args(arguments))
    };
    ensure!(run(&["--version"])? == format!("lockprof {VERSION}\n"), "it is another version");
    let default = fs::read_to_string(folder.join("etc/lockprof/lockprof.toml"))
        .context("failed to read the configuration")?;
    ensure!(run(&["config", "default"])? == default, "the configuration is another one");
    // Names are looked up without the C library's own modules.
    fs::create_dir(root.join("etc"))
        .and_then(|()| fs::write(root.join("etc/hosts"), "127.0.0.1 lockprof-test\n"))
        .context("failed to write etc/hosts")?;
    // Port 9 is discard's, and nobody's.
    match run(&["top", "--once", "--connect", "http://lockprof-test:9"]) {
        Err(error) if format!("{error:#}").contains("refused") => Ok(()),
        other => bail!("a name of /etc/hosts was not looked up: {other:?}"),
    }
}

fn tarball_installs(made: &Made, jail: &Jail) -> Result<()> {
    let name = made.tarball.file_name().context("a tarball has a name")?.display().to_string();
    let folder = name.trim_end_matches(".tar.gz");
    let before = jail.files()?;
    let said = jail.run(&format!(
        "tar -xzf {PACKAGES}/{name} -C /tmp; /tmp/{folder}/install.sh
        lockprof --version; lockprof config check; lockprof man >/dev/null
        grep -q '^ExecStart=/usr/local/bin/lockprof ' /usr/local/lib/systemd/system/lockprof.service
        ! grep -r '[^l]/usr/bin/lockprof\\|=/usr/share' /usr/local/lib /usr/local/share/lockprof
        echo '{EDIT}' >> {CONFIG}; /tmp/{folder}/install.sh
        tail -n 1 {CONFIG}; ls /etc/lockprof; /tmp/{folder}/install.sh --uninstall"
    ))?;
    ensure!(said.contains(&format!("lockprof {VERSION}\n")), "it does not run: {said}");
    ensure!(
        said.contains(&format!("{EDIT}\nlockprof.toml\nlockprof.toml.new\n")),
        "the edited configuration was not kept: {said}"
    );
    let left: BTreeSet<_> = jail.files()?.into_iter().collect();
    let left: Vec<_> =
        left.iter().filter(|line| line.starts_with("f ") && !before.contains(line)).collect();
    ensure!(
        left == ["f /etc/lockprof/lockprof.toml", "f /etc/lockprof/lockprof.toml.new"],
        "left behind: {left:?}"
    );
    Ok(())
}

fn tarball_refuses(made: &Made, jail: &Jail) -> Result<()> {
    let name = made.tarball.file_name().context("a tarball has a name")?.display().to_string();
    let folder = name.trim_end_matches(".tar.gz");
    for (arguments, says) in [
        ("--prefix", "--prefix wants a folder"),
        ("--prefix here", "wants an absolute path, not 'here'"),
        ("--perfix /opt", "does not know '--perfix'"),
    ] {
        let said = jail.run(&format!("! /tmp/{folder}/install.sh {arguments}"))?;
        ensure!(said.contains(says), "`{arguments}` is answered with: {said}");
    }
    let said = jail.run(&format!(
        "chmod 755 /tmp/{folder}; ! setpriv --reuid=65534 --regid=65534 --clear-groups \
         /tmp/{folder}/install.sh"
    ))?;
    ensure!(said.contains("has to be run as root"), "another user is answered with: {said}");
    Ok(())
}
