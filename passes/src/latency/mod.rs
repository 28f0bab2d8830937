//! Latency: of kernels by their texts, of layers before their network is compiled, and as it was measured.

mod cost;
mod layer;
mod network;
mod table;

pub(crate) use cost::gains_from_threads;
pub use cost::{Ceiling, call_us, ceiling, kernel_us};
pub use layer::{Geometry, latency_us, layers_program};
pub use network::{NetworkTime, network_us, other_key};
pub use table::LatencyTable;
