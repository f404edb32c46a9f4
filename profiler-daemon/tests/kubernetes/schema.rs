//! The manifest against the schema of the API that Kubernetes publishes, by
//! `kubernetes-validate` from PyPI, which brings it.

use std::path::Path;
use std::process::Command;

use crate::common;
use crate::manifest::{self, DAEMONSET};

const VALIDATOR: &str = "kubernetes-validate==1.37.0";

/// The oldest and the newest that the validator knows.
const VERSIONS: [&str; 2] = ["1.34", "1.37"];

/// Whether it fits, and what was said. Unknown fields do not fit.
fn fits(validator: &Path, version: &str, file: &Path) -> (bool, String) {
    let mut command = Command::new("python3");
    command.args(["-m", "kubernetes_validate", "--strict", "-k", version]).arg(file);
    let output = command.env("PYTHONPATH", validator).output().expect("pip was there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn the_manifest_fits_the_schema_that_kubernetes_publishes() {
    let name = "the_manifest_fits_the_schema_that_kubernetes_publishes";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let validator = folder.path().join("validator");
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.args(["--no-input", "--target"]).arg(&validator).arg(VALIDATOR);
    match install.output() {
        Err(error) => return common::skip(name, &format!("python3 cannot be run: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().next_back().unwrap_or("no reason");
            return common::skip(name, &format!("{VALIDATOR} cannot be had: {last}"));
        }
        Ok(_) => {}
    }
    let kinds = manifest::read(DAEMONSET).matches("\nkind: ").count();
    for version in VERSIONS {
        let (fine, said) = fits(&validator, version, &manifest::repository().join(DAEMONSET));
        assert!(fine, "{said}");
        assert_eq!(said.matches("passed for").count(), kinds, "{said}");
    }

    let wrong = [
        ("a field that is not there", "hostPID: true", "hostPids: true"),
        ("a number that is text", "value: 1000000", "value: high"),
        ("a list that is none", "drop: [ALL]", "drop: ALL"),
        (
            "a field that is missing",
            "          image: registry.example.com/lockprof:0.1.0\n          args",
            "          arg",
        ),
    ];
    for (what, is, would_be) in wrong {
        let text = manifest::read(DAEMONSET);
        assert!(text.contains(is), "{what}: the manifest has no `{is}`");
        let file = folder.path().join("wrong.yaml");
        std::fs::write(&file, text.replace(is, would_be)).expect("it is writable");
        let (fine, said) = fits(&validator, VERSIONS[1], &file);
        assert!(!fine, "{what}: {said}");
    }
}
