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
    /// Counters of the loops over the axes, and how far a trip goes along each.
    vars: Vec<(LoopVar, usize)>,
    /// Where it is along the last axis when its counter is 0.
    first: usize,
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
        self.emit_groups(b, 1, &mut |b, rows| body(b, &rows[0]));
    }

    /// Hands up to `most` neighbouring rows at a time to the body.
    pub(crate) fn emit_groups(
        &self,
        b: &mut Builder,
        most: usize,
        body: &mut dyn FnMut(&mut Builder, &[Row<'_>]),
    ) {
        self.nest(b, Vec::new(), most, body);
    }

    fn nest(
        &self,
        b: &mut Builder,
        vars: Vec<(LoopVar, usize)>,
        most: usize,
        body: &mut dyn FnMut(&mut Builder, &[Row<'_>]),
    ) {
        let row = |first, vars| Row {
            rows: self,
            vars,
            first,
        };
        let Some(&extent) = self.extents.get(vars.len()) else {
            return body(b, &[row(0, vars)]);
        };
        if vars.len() + 1 < self.extents.len() {
            b.for_(extent as u32, &[], |b, i, _| {
                self.nest(b, [vars.clone(), vec![(i, 1)]].concat(), most, body);
                Vec::new()
            });
            return;
        }
        let mut first = 0;
        for chunk in groups(extent, most) {
            let (count, trips) = chunk;
            b.for_(trips as u32, &[], |b, i, _| {
                let vars = [vars.clone(), vec![(i, count)]].concat();
                let rows: Vec<Row<'_>> = (first..first + count)
                    .map(|first| row(first, vars.clone()))
                    .collect();
                body(b, &rows);
                Vec::new()
            });
            first += count * trips;
        }
    }
}

/// Sizes of groups of rows, and how many of them follow one another: as equal as they can be.
fn groups(rows: usize, most: usize) -> Vec<(usize, usize)> {
    let count = rows.div_ceil(most);
    let (size, larger) = (rows / count, rows % count);
    let both = [(size + 1, larger), (size, count - larger)];
    both.into_iter().filter(|g| g.1 > 0).collect()
}

impl Row<'_> {
    /// Where tensor `k`'s row starts.
    pub(crate) fn addr(&self, k: usize, buffer: BufId) -> Addr {
        let strides = &self.rows.strides[k];
        let before = strides.last().map_or(0, |stride| self.first * stride);
        let start = buffer.at((self.rows.offsets[k] + before) as i64);
        let axes = self.vars.iter().zip(strides);
        axes.fold(start, |addr, (&(var, trip), &stride)| {
            addr.step(var, (trip * stride) as i64)
        })
    }
}

/// Elements of a row that are handled by one loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) start: usize,
    /// Elements a trip.
    pub(crate) lanes: u16,
    /// Trips, at least 1.
    pub(crate) trips: u32,
}

impl Chunk {
    /// The element behind the last trip's.
    pub(crate) fn end(&self) -> usize {
        self.start + usize::from(self.lanes) * self.trips as usize
    }

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
