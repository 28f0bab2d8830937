use lowbit_ir::Tensor;
use lowbit_ir::ops::{IntConv, dot_products};

/// Rows that are gathered before they are multiplied out: sums of as many products of two codes fit 32 bits.
const BATCH: usize = 256;
/// Rows of second moments that are summed in one pass over the batch.
const ROWS: usize = 8;

/// First moments of what a layer reads at all positions, and second moments at some of them: sums of codes and of
/// products of codes, which are exact and do not depend on their order.
pub(crate) struct Moments {
    /// Taps of the kernel, channels and channel groups.
    taps: usize,
    channels: usize,
    groups: usize,
    /// Sums over all positions, by tap and channel.
    pub(crate) sums: Vec<i64>,
    /// Number of all positions.
    pub(crate) positions: u64,
    /// Rows in the second moments.
    rows: u64,
    row_sums: Vec<i64>,
    /// By group, row-major, upper triangle.
    products: Vec<i64>,
    /// Rows not multiplied out yet, one column after another.
    columns: Vec<i16>,
    filled: usize,
}

/// Which positions enter the second moments: every `step`-th from `start` on; none where the step is 0.
#[derive(Clone, Copy)]
pub(crate) struct Stride {
    pub(crate) start: usize,
    pub(crate) step: usize,
}

impl Moments {
    /// Of nothing, for a kernel of `taps` over `channels` in `groups`; `second` asks for second moments.
    pub(crate) fn new(taps: usize, channels: usize, groups: usize, second: bool) -> Self {
        let n = taps * channels;
        let k = n / groups;
        let of = |len: usize| if second { len } else { 0 };
        Self {
            taps,
            channels,
            groups,
            sums: vec![0; n],
            positions: 0,
            rows: 0,
            row_sums: vec![0; n],
            products: vec![0; of(groups * k * k)],
            columns: vec![0; of(n * BATCH)],
            filled: 0,
        }
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, op: &IntConv, x: &Tensor, kernel: [usize; 2], rows: Stride) {
        let mut at = 0;
        op.each_patch(x, kernel, |patch| {
            self.sums
                .iter_mut()
                .zip(patch)
                .for_each(|(s, &p)| *s += i64::from(p));
            if rows.step > 0 && at % rows.step == rows.start % rows.step {
                self.push(patch);
            }
            at += 1;
        });
        self.positions += at as u64;
    }

    fn push(&mut self, patch: &[i16]) {
        for (column, &x) in self.columns.chunks_exact_mut(BATCH).zip(patch) {
            column[self.filled] = x;
        }
        self.row_sums
            .iter_mut()
            .zip(patch)
            .for_each(|(s, &p)| *s += i64::from(p));
        self.rows += 1;
        self.filled += 1;
        if self.filled == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.filled == 0 {
            return;
        }
        let (k, n) = (self.size(), self.filled);
        let mut own = vec![0; k * n];
        let mut dots = vec![0; ROWS * k];
        for g in 0..self.groups {
            for (i, column) in own.chunks_exact_mut(n).enumerate() {
                column.copy_from_slice(&self.columns[self.index(g, i) * BATCH..][..n]);
            }
            for i in (0..k).step_by(ROWS) {
                let (rows, across) = (ROWS.min(k - i), k - i);
                let dots = &mut dots[..rows * across];
                dot_products(&own[i * n..][..rows * n], &own[i * n..], n, dots);
                for (r, dots) in dots.chunks_exact(across).enumerate() {
                    let sums = &mut self.products[(g * k + i + r) * k + i..][..across];
                    sums[r..]
                        .iter_mut()
                        .zip(&dots[r..])
                        .for_each(|(s, d)| *s += i64::from(*d));
                }
            }
        }
        self.filled = 0;
    }

    /// Taps and channels that one output channel reads.
    pub(crate) fn size(&self) -> usize {
        self.taps * self.channels / self.groups
    }

    fn index(&self, group: usize, i: usize) -> usize {
        let cg = self.channels / self.groups;
        i / cg * self.channels + group * cg + i % cg
    }

    /// Rows in the second moments.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Joins two parts.
    pub(crate) fn merge(mut self, mut other: Self) -> Self {
        self.flush();
        other.flush();
        let join = |a: &mut Vec<i64>, b: &[i64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        join(&mut self.sums, &other.sums);
        join(&mut self.row_sums, &other.row_sums);
        join(&mut self.products, &other.products);
        self.positions += other.positions;
        self.rows += other.rows;
        self
    }

    /// Mean code of what channels of a group read, over all positions.
    pub(crate) fn mean(&self, group: usize) -> Vec<f64> {
        let n = self.positions.max(1) as f64;
        (0..self.size())
            .map(|i| self.sums[self.index(group, i)] as f64 / n)
            .collect()
    }

    /// Covariance of the codes that channels of a group read, `[k, k]`.
    pub(crate) fn covariance(&mut self, group: usize) -> Vec<f64> {
        self.flush();
        let (k, n) = (self.size(), self.rows.max(1) as f64);
        let mean: Vec<f64> = (0..k)
            .map(|i| self.row_sums[self.index(group, i)] as f64 / n)
            .collect();
        let mut covariance = vec![0.0; k * k];
        for i in 0..k {
            for j in i..k {
                let c = self.products[(group * k + i) * k + j] as f64 / n - mean[i] * mean[j];
                covariance[i * k + j] = c;
                covariance[j * k + i] = c;
            }
        }
        covariance
    }
}
