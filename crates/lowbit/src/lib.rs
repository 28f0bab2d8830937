//! The compiler as a library: one module a command.
#![forbid(unsafe_code)]

mod allocate;
mod artefact;
mod baseline;
mod bench;
pub mod build;
mod cache;
mod check;
mod compile;
mod costs;
mod decide;
mod diagnose;
mod drop;
mod error;
mod eval;
mod fit;
mod floats;
mod header;
mod inspect;
mod model;
mod network;
mod object;
mod pareto;
mod plan;
mod polish;
mod progress;
mod qemu;
mod run;
mod sensitivity;
mod targets;
mod temperature;
mod tie;
mod timeline;
mod tune;
mod tuning;
mod verify;
mod whole;
mod within;

pub use allocate::{Allocated, allocate};
pub use artefact::{Artefact, is_artefact, object_name};
pub use bench::{Bench, LayerTime, bench};
pub use cache::{Cache, Key};
pub use check::{Check, Problem, check};
pub use compile::{Compiled, Options, compile};
pub use error::{Error, Infeasible};
pub use eval::{Evaluation, Prediction, eval};
pub use header::header;
pub use inspect::{Inspection, Node, inspect};
pub use lowbit_passes::allocate::{Allocation, Least, Limits, Pin};
pub use lowbit_passes::finetune::Estimator;
pub use lowbit_passes::latency::LatencyTable;
pub use lowbit_passes::sensitivity::Metric;
pub use lowbit_report as report;
pub use model::{Model, Shapes};
pub use object::{Runner, encode, top1};
pub use pareto::{Frontier, Over, ParetoOptions, pareto};
pub use progress::{Progress, Silent};
pub use run::{Inputs, run};
pub use sensitivity::{Grouping, SensitivityOptions, sensitivity, sensitivity_of};
pub use targets::{Level, targets};
pub use tie::Tying;
pub use tune::{Latencies, read_latency_table, tune, tune_folder};
pub use tuning::{RoundingMethod, Tuning, ranges_from_name, ranges_name};
pub use verify::{Verification, verify};
pub use whole::{check_folder, write_file, writing};

/// Runs work on a number of threads.
///
/// # Errors
/// The threads cannot be started.
pub fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool
        .map_err(|e| Error::Other(format!("cannot start {threads} threads: {e}")))?
        .install(work))
}
