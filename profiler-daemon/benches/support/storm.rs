//! The standard load.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::LOCKPROF;

fn command(duration: Duration) -> Command {
    let mut command = Command::new(LOCKPROF);
    command.args([
        "storm",
        "--no-measure",
        "--json",
        "--concurrency",
        "8",
        "--pollers",
        "2",
        "--duration",
    ]);
    command.arg(format!("{}s", duration.as_secs())).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Container starts per second of one storm.
pub(crate) fn starts_per_second(duration: Duration) -> f64 {
    let output = command(duration).output().expect("storm runs");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    summary["starts_per_second"].as_f64().expect("a number")
}

/// A storm that lasts as long as this.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start() -> Self {
        let child = command(Duration::from_secs(3600))
            .stdout(Stdio::null())
            .spawn()
            .expect("storm can be run");
        // Until the workers are under way.
        std::thread::sleep(Duration::from_secs(1));
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Killing the parent takes the workers along, by their pid namespace.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
