//! What a step is trained on.

use lowbit_ir::eval::{self, EvalError};
use lowbit_ir::{Graph, Tensor, ValueId};
use rayon::prelude::*;

use super::{FinetuneError, Loss, compared, failed, target};

/// The float network, up to what is compared.
pub(super) struct Teacher<'a> {
    float: &'a Graph,
    plan: eval::Plan,
    end: ValueId,
    loss: Loss,
}

impl<'a> Teacher<'a> {
    pub(super) fn new(float: &'a Graph, loss: Loss) -> Self {
        let end = compared(float);
        Self {
            float,
            plan: eval::Plan::only(float, |v| v == end),
            end,
            loss,
        }
    }

    /// What a student is to give.
    pub(super) fn teach(&self, inputs: &[Tensor]) -> Result<Tensor, EvalError> {
        let mut found = None;
        eval::run_observed(self.float, &self.plan, inputs, |_, v, t| {
            if v == self.end {
                found = Some(target(t, self.loss));
            }
        })?;
        Ok(found.expect("the compared value is computed"))
    }
}

/// Samples in an order that is shuffled anew each time all were taken. Every other one is mixed with another, or they would be
/// learnt by heart: the float network tells what a mixture is as well as what a sample is.
pub(super) struct Samples<'a> {
    all: &'a [Vec<Tensor>],
    teacher: &'a Teacher<'a>,
    left: Vec<usize>,
    random: Random,
}

/// Numbers that look random (xorshift, Marsaglia 2003).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 48 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// Passes over numbers.
    pub(super) fn skip(&mut self, n: usize) {
        (0..n).for_each(|_| _ = self.next());
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
}

impl<'a> Samples<'a> {
    pub(super) fn new(all: &'a [Vec<Tensor>], teacher: &'a Teacher<'a>, seed: u64) -> Self {
        Self {
            all,
            teacher,
            left: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// The next samples with what the float network gives for them, as the last tensor.
    pub(super) fn take(&mut self, n: usize) -> Result<Vec<Vec<Tensor>>, FinetuneError> {
        let n = n.min(self.all.len());
        let drawn: Vec<(usize, Vec<Tensor>)> = (0..n).map(|at| self.draw(at)).collect();
        let teach = |(i, mut inputs): (usize, Vec<Tensor>)| {
            let target = self
                .teacher
                .teach(&inputs)
                .map_err(|error| failed(i, error))?;
            inputs.push(target);
            Ok(inputs)
        };
        drawn.into_par_iter().map(teach).collect()
    }

    fn draw(&mut self, at: usize) -> (usize, Vec<Tensor>) {
        if self.left.is_empty() {
            self.left = (0..self.all.len()).collect();
        }
        let next = self.random.below(self.left.len());
        let i = self.left.swap_remove(next);
        if at.is_multiple_of(2) {
            return (i, self.all[i].clone());
        }
        let other = self.random.below(self.all.len());
        let share = self.random.below(1 << 16) as f64 / f64::from(1 << 17);
        let pairs = self.all[i].iter().zip(&self.all[other]);
        (i, pairs.map(|(a, b)| mixed(a, b, share)).collect())
    }
}

/// `b` to a share, `a` for the rest.
fn mixed(a: &Tensor, b: &Tensor, share: f64) -> Tensor {
    let pairs = a.to_f64().into_iter().zip(b.to_f64());
    let mix = pairs.map(|(a, b)| a + share * (b - a)).collect();
    Tensor::from_f64(a.dtype(), a.shape(), mix)
}
