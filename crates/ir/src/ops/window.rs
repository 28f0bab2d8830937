use super::{OpError, Pool, PoolKind};

impl Pool {
    /// `[N, H', W', C]` for an operand `[N, H, W, C]`.
    ///
    /// # Errors
    /// Another rank, or a window that does not fit.
    pub fn result_shape(&self, x: &[usize]) -> Result<Vec<usize>, OpError> {
        let &[n, h, w, c] = x else {
            return Err(OpError::shape(format!(
                "pooling takes four axes, found {x:?}"
            )));
        };
        let extent = |i: usize, size: usize| {
            let padded = size
                .checked_add(self.pad[i][0])?
                .checked_add(self.pad[i][1])?;
            let reach = self.dilation[i]
                .checked_mul(self.kernel[i].checked_sub(1)?)?
                .checked_add(1)?;
            padded
                .checked_sub(reach)?
                .checked_div(self.stride[i])?
                .checked_add(1)
        };
        match (extent(0, h), extent(1, w)) {
            (Some(oh), Some(ow)) => Ok(vec![n, oh, ow, c]),
            _ => Err(OpError::shape(format!(
                "a window of {:?} does not fit {h}×{w}",
                self.kernel
            ))),
        }
    }

    /// Positions `[row, column]` of the window at `at` that lie inside a tensor of height and width `size`.
    pub fn taps_inside(
        &self,
        size: [usize; 2],
        at: [usize; 2],
    ) -> impl Iterator<Item = [usize; 2]> {
        let [rows, columns] = [0, 1].map(|i| self.axis_taps(i, size[i], at[i]));
        rows.into_iter()
            .flat_map(move |r| columns.clone().into_iter().map(move |c| [r, c]))
    }

    fn axis_taps(&self, axis: usize, size: usize, at: usize) -> Vec<usize> {
        let taps = (0..self.kernel[axis]).map(|k| at * self.stride[axis] + k * self.dilation[axis]);
        taps.filter_map(|p| p.checked_sub(self.pad[axis][0]))
            .filter(|&p| p < size)
            .collect()
    }

    /// What the sum of the window at `at` is divided by.
    pub fn counted(&self, size: [usize; 2], at: [usize; 2]) -> u32 {
        let declared = match self.kind {
            PoolKind::PaddedMean { declared } => declared,
            PoolKind::Max | PoolKind::Mean => return self.taps_inside(size, at).count() as u32,
        };
        let axis = |i: usize| {
            let end = size[i] + self.pad[i][0] + declared[i];
            let taps = (0..self.kernel[i]).map(|k| at[i] * self.stride[i] + k * self.dilation[i]);
            taps.filter(|&p| p < end).count() as u32
        };
        axis(0) * axis(1)
    }
}
