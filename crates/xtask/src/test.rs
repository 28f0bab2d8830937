use std::time::Instant;

use anyhow::Result;

use crate::shell::{self, cargo};
use crate::{setup, tidy};

/// Every test.
pub(crate) fn run() -> Result<()> {
    let python = timed("setup", setup::run_all)?;
    timed("tidy", tidy::run)?;
    timed("tests", || {
        shell::run(
            cargo()
                .args(["test", "--workspace", "--no-fail-fast"])
                .env("LOWBIT_PYTHON", &python),
        )
    })
}

/// Accepts what snapshot tests print now.
pub(crate) fn bless() -> Result<()> {
    shell::run(
        cargo()
            .args(["test", "--workspace", "--no-fail-fast"])
            .env("LOWBIT_BLESS", "1"),
    )
}

fn timed<T>(stage: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    eprintln!("xtask: {stage} took {:.0} s", start.elapsed().as_secs_f64());
    result
}
