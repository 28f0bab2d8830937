//! Block reconstruction: one stretch of the network after another learns to give what it gives in the float network
//! (BRECQ, Li et al. 2021), from what those before it give when they are rounded, of which every other element on average
//! is taken from the float network instead (QDrop, Wei et al. 2022).

use std::collections::{HashMap, HashSet};
use std::hint::select_unpredictable;

use lowbit_ir::eval;
use lowbit_ir::{DType, Graph, Tensor, ValueId};
use rayon::prelude::*;

use super::parameters::Scale;
use super::samples::Random;
use super::student::{Stretch, Student, compared};
use super::{BATCH, Finetune, FinetuneError, Loss, Taught, Training, failed};
use crate::quantize::{Layer, Quantized};

/// Fewest layers of a block.
const LAYERS: usize = 2;
/// Most held-out samples that a block is judged on: a mean square needs fewer than a divergence.
const JUDGES: usize = 64;

/// A sample in front of a block.
struct Fed {
    /// In the float network.
    float: Vec<Tensor>,
    /// In the rounded one.
    rounded: Vec<Tensor>,
}

impl Training<'_> {
    /// Trains block by block, on the first `own` samples; the others judge.
    pub(super) fn reconstruct(
        &mut self,
        quantized: &Quantized,
        layers: &[&Layer],
        samples: &[&Vec<Tensor>],
        own: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), FinetuneError> {
        let how = Finetune {
            steps: self.how.block_steps,
            loss: Loss::Square,
            ..*self.how
        };
        let fed = |x: &&Vec<Tensor>| Fed {
            float: (*x).clone(),
            rounded: (*x).clone(),
        };
        let mut fed: Vec<Fed> = samples.iter().take(own + JUDGES).map(fed).collect();
        let mut random = Random::new(how.seed);
        let blocks = blocks(self.float, quantized, layers);
        for (n, block) in blocks.iter().enumerate() {
            let nodes = block.nodes(self.float);
            let inside = |&i: &usize| nodes.iter().any(|node| node.output == layers[i].float);
            let inside: Vec<usize> = (0..layers.len()).filter(inside).collect();
            let wanted = passed(&block.float(self.float)?, &fed, |f| &f.float)?;
            let part: Vec<&Layer> = inside.iter().map(|&i| layers[i]).collect();
            let student = Student::between(self.float, quantized, block, &part, how.loss)?;
            let scales = student.scales.iter().map(|s| self.scale(s.source));
            let mut part = Training {
                float: self.float,
                scales: scales.collect(),
                trained: inside.iter().map(|&i| self.trained[i].clone()).collect(),
                student,
                how: &how,
            };
            let pairs: Vec<(&Fed, &Tensor)> = fed.iter().zip(&wanted).collect();
            let (train, judge) = pairs.split_at(own);
            let held: Vec<Taught<'_>> = judge
                .iter()
                .map(|(f, y)| (&f.rounded, (*y).clone()))
                .collect();
            let mut draw = || {
                let one = |_| {
                    let at = random.below(train.len());
                    let own = random.clone();
                    let words = train[at].0.rounded.iter().map(|t| t.len().div_ceil(WORD));
                    random.skip(words.sum());
                    (at, own)
                };
                let drawn: Vec<(usize, Random)> = (0..BATCH.min(train.len())).map(one).collect();
                let mix = |(at, mut random): (usize, Random)| {
                    let (f, y) = train[at];
                    let inputs = f.rounded.iter().zip(&f.float);
                    let mut inputs: Vec<Tensor> =
                        inputs.map(|(q, x)| dropped(q, x, &mut random)).collect();
                    inputs.push(y.clone());
                    inputs
                };
                Ok(drawn.into_par_iter().map(mix).collect())
            };
            let mut step = |done, total| progress(n * total + done, blocks.len() * total);
            part.run(&mut draw, &held, &mut step)?;
            let network = std::mem::take(&mut part.student.network);
            let after = passed(&part.load(network), &fed, |f| &f.rounded)?;
            for (f, (float, rounded)) in fed.iter_mut().zip(wanted.into_iter().zip(after)) {
                (f.float, f.rounded) = (vec![float], vec![rounded]);
            }
            for (i, t) in inside.into_iter().zip(part.trained) {
                self.trained[i] = t;
            }
            for (place, s) in part.student.scales.iter().zip(part.scales) {
                self.scale_mut(place.source).value = s.value;
            }
        }
        Ok(())
    }

    fn scale(&self, source: ValueId) -> Scale {
        let at = self.student.scales.iter().position(|s| s.source == source);
        Scale::new(self.scales[at.expect("the whole network has the scales of its parts")].value)
    }

    fn scale_mut(&mut self, source: ValueId) -> &mut Scale {
        let at = self.student.scales.iter().position(|s| s.source == source);
        &mut self.scales[at.expect("the whole network has the scales of its parts")]
    }
}

/// What a graph of one output gives for samples.
fn passed(
    graph: &Graph,
    fed: &[Fed],
    side: impl Fn(&Fed) -> &Vec<Tensor> + Sync,
) -> Result<Vec<Tensor>, FinetuneError> {
    let one = |(i, f): (usize, &Fed)| {
        let mut found = eval::run(graph, side(f)).map_err(|error| failed(i, error))?;
        Ok(found.swap_remove(0))
    };
    fed.par_iter().enumerate().map(one).collect()
}

/// Each element at even odds that of the float network.
fn dropped(rounded: &Tensor, float: &Tensor, random: &mut Random) -> Tensor {
    let mut mixed = rounded.clone();
    match mixed.dtype() {
        DType::F32 => drop_into(mixed.as_mut_slice::<f32>(), float.as_slice(), random),
        _ => drop_into(mixed.as_mut_slice::<f64>(), float.as_slice(), random),
    }
    mixed
}

/// Elements that a random number decides on.
const WORD: usize = 32;

fn drop_into<T: Copy>(mixed: &mut [T], float: &[T], random: &mut Random) {
    for (mixed, float) in mixed.chunks_mut(WORD).zip(float.chunks(WORD)) {
        let bits = random.next() as u32;
        for (i, (m, &x)) in mixed.iter_mut().zip(float).enumerate() {
            *m = select_unpredictable(bits & 1 << i == 0, *m, x);
        }
    }
}

/// Stretches between values that everything behind them depends on alone.
pub(super) fn blocks(float: &Graph, quantized: &Quantized, layers: &[&Layer]) -> Vec<Stretch> {
    let whole = Stretch {
        from: float.inputs().to_vec(),
        to: compared(float),
    };
    let nodes = whole.nodes(float);
    let mut last: HashMap<ValueId, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        let read = node.inputs.iter().filter(|&&v| float.as_const(v).is_none());
        last.extend(read.map(|&v| (v, at)));
    }
    let mut open: HashSet<ValueId> = whole.from.iter().copied().collect();
    let (mut found, mut from, mut inside) = (Vec::new(), whole.from.clone(), 0);
    for (at, node) in nodes.iter().enumerate() {
        open.insert(node.output);
        open.retain(|v| last.get(v).is_some_and(|&l| l > at));
        inside += usize::from(layers.iter().any(|l| l.float == node.output));
        let alone = open.len() == 1 && open.contains(&node.output);
        let end = node.output == whole.to && inside > 0;
        if end || alone && inside >= LAYERS && quantized.values.contains_key(&node.output) {
            found.push(Stretch {
                from: std::mem::replace(&mut from, vec![node.output]),
                to: node.output,
            });
            inside = 0;
        }
    }
    found
}
