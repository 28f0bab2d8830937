use lowbit_ir::Tensor;
use rayon::prelude::*;

use super::SensitivityError;

/// Computes a row for each of `n` samples, as many at once as there are threads, and gives the rows to `add` in the order
/// of the samples, so that sums do not depend on the number of threads.
///
/// # Errors
/// A sample that cannot be read; what `one` refuses.
pub(super) fn rows<R: Send, E: std::error::Error + Send + 'static>(
    n: usize,
    sample: impl Fn(usize) -> Result<Vec<Tensor>, E> + Sync,
    mut progress: impl FnMut(usize, usize),
    one: impl Fn(usize, &[Tensor]) -> Result<R, SensitivityError<E>> + Sync,
    mut add: impl FnMut(R),
) -> Result<(), SensitivityError<E>> {
    let chunk = rayon::current_num_threads().max(1);
    for first in (0..n).step_by(chunk) {
        progress(first, n);
        let rows: Result<Vec<R>, SensitivityError<E>> = (first..n.min(first + chunk))
            .into_par_iter()
            .map(|i| one(i, &sample(i).map_err(SensitivityError::Sample)?))
            .collect();
        rows?.into_iter().for_each(&mut add);
    }
    progress(n, n);
    Ok(())
}
