//! Kernels that work row by row along the last axis.

use lowbit_kernel::{Addr, BufId, Builder, LoopVar};

use super::Storage;

/// Loops over all rows of tensors with the same axes but for the last.
pub(crate) struct Rows {
    extents: Vec<usize>,
    strides: Vec<Vec<usize>>,
    offsets: Vec<usize>,
}

/// One row.
pub(crate) struct Row<'a> {
    rows: &'a Rows,
    vars: Vec<LoopVar>,
}

impl Rows {
    /// # Panics
    /// When a last axis has gaps.
    pub(crate) fn new(tensors: &[&Storage]) -> Self {
        let rank = tensors[0].shape.len();
        for s in tensors {
            let last = rank - 1;
            assert!(
                s.shape[last] == 1 || s.strides[last] == s.dtype.bytes(),
                "a row has no gaps"
            );
        }
        let axes: Vec<usize> = (0..rank - 1)
            .filter(|&a| tensors[0].shape[a] != 1)
            .collect();
        Self {
            extents: axes.iter().map(|&a| tensors[0].shape[a]).collect(),
            strides: tensors
                .iter()
                .map(|s| axes.iter().map(|&a| s.strides[a]).collect())
                .collect(),
            offsets: tensors.iter().map(|s| s.offset).collect(),
        }
    }

    pub(crate) fn emit(&self, b: &mut Builder, mut body: impl FnMut(&mut Builder, &Row<'_>)) {
        self.nest(b, Vec::new(), &mut body);
    }

    fn nest(
        &self,
        b: &mut Builder,
        vars: Vec<LoopVar>,
        body: &mut dyn FnMut(&mut Builder, &Row<'_>),
    ) {
        let Some(&extent) = self.extents.get(vars.len()) else {
            return body(b, &Row { rows: self, vars });
        };
        b.for_(extent as u32, &[], |b, i, _| {
            self.nest(b, [vars.clone(), vec![i]].concat(), body);
            Vec::new()
        });
    }
}

impl Row<'_> {
    /// Where tensor `k`'s row starts.
    pub(crate) fn addr(&self, k: usize, buffer: BufId) -> Addr {
        let start = buffer.at(self.rows.offsets[k] as i64);
        self.vars
            .iter()
            .zip(&self.rows.strides[k])
            .fold(start, |addr, (&var, &stride)| addr.step(var, stride as i64))
    }
}

/// Elements of a row that are handled by one loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    start: usize,
    /// Elements a trip.
    pub(crate) lanes: u16,
    /// Trips, at least 1.
    pub(crate) trips: u32,
}

impl Chunk {
    /// The address of a trip's elements.
    pub(crate) fn addr(&self, base: &Addr, bytes: usize, i: LoopVar) -> Addr {
        self.first(base, bytes)
            .step(i, (usize::from(self.lanes) * bytes) as i64)
    }

    /// The address of the first trip's elements.
    pub(crate) fn first(&self, base: &Addr, bytes: usize) -> Addr {
        base.clone().plus((self.start * bytes) as i64)
    }
}

/// Splits `n` elements into loops over at most `lanes` at once, the last ones over fewer.
pub(crate) fn chunks(n: usize, lanes: u16) -> Vec<Chunk> {
    let (mut start, mut width) = (0, usize::from(lanes));
    let mut result = Vec::new();
    while start < n {
        while start + width > n {
            width /= 2;
        }
        let trips = (n - start) / width;
        result.push(Chunk {
            start,
            lanes: width as u16,
            trips: trips as u32,
        });
        start += trips * width;
    }
    result
}
