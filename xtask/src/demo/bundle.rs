//! An OCI bundle that runc can start: a static busybox and a `config.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// A bundle and runc's state, in a folder that goes when this is dropped.
pub(super) struct Bundle {
    folder: PathBuf,
    runc: PathBuf,
}

impl Bundle {
    /// Makes it in the system's folder for temporary files.
    ///
    /// # Errors
    /// When a file cannot be made, or with runc's own words when
    /// `runc spec` fails.
    pub(super) fn make(runc: &Path, busybox: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("lockprof-demo-{}", std::process::id()));
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        // From here on a failure removes what is there.
        let bundle = Self { folder, runc: runc.to_owned() };
        bundle.fill(busybox)?;
        Ok(bundle)
    }

    fn fill(&self, busybox: &Path) -> Result<()> {
        let bin = self.folder.join("rootfs/bin");
        fs::create_dir_all(&bin).with_context(|| format!("failed to create {}", bin.display()))?;
        let file = bin.join("busybox");
        fs::copy(busybox, &file)
            .with_context(|| format!("failed to copy {}", busybox.display()))?;
        for name in ["true", "sh"] {
            fs::hard_link(&file, bin.join(name))
                .with_context(|| format!("failed to link {name} to {}", file.display()))?;
        }
        let mut spec = Command::new(&self.runc);
        spec.arg("spec").arg("--bundle").arg(&self.folder);
        check(&spec.output().context("failed to start runc spec")?, "runc spec")?;
        let path = self.folder.join("config.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let mut config = serde_json::from_str(&text)
            .with_context(|| format!("failed to read {}", path.display()))?;
        adjust(&mut config);
        fs::write(&path, config.to_string())
            .with_context(|| format!("failed to write {}", path.display()))
    }

    /// Starts a container with this id and waits until its `/bin/true` is done.
    ///
    /// # Errors
    /// With runc's own words.
    pub(super) fn start(&self, id: &str) -> Result<()> {
        let output = self
            .runc()
            .arg("run")
            .arg("--bundle")
            .args([self.folder.as_os_str(), id.as_ref()])
            .output()
            .context("failed to start runc run")?;
        let started = check(&output, "runc run");
        if started.is_err() {
            // Takes away what a start that failed half-way leaves: cgroups and
            // state. It has nothing to do when there is none.
            let _ = self.runc().args(["delete", "--force", id]).output();
        }
        started
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.runc);
        command.arg("--root").arg(self.folder.join("state")).stdin(std::process::Stdio::null());
        command
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("warning: failed to remove {}: {error}", self.folder.display());
        }
    }
}

/// No terminal, and a process that ends at once.
fn adjust(config: &mut Value) {
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
}

fn check(output: &Output, what: &str) -> Result<()> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{what} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_the_specification_changes() {
        let mut config = json!({
            "process": {"terminal": true, "args": ["sh"], "cwd": "/"},
            "mounts": [{"destination": "/proc"}],
        });
        adjust(&mut config);
        let want = json!({
            "process": {"terminal": false, "args": ["/bin/true"], "cwd": "/"},
            "mounts": [{"destination": "/proc"}],
        });
        assert_eq!(config, want);
    }
}
