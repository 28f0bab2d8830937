//! How the output of a convolution is cut into tiles that fit the registers.

use super::Machine;

/// How groups of four products are summed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dot {
    /// `dot4`, one instruction.
    Native,
    /// `dot4s` of activations less 128.
    Signed,
    /// `dot4`, widened to 16 bits.
    Wide,
    /// `dot2` of even and of odd bytes, the weights widened once for all pixels.
    Words,
    /// `dot4_tile`: see [`super::conv_tiles`].
    Tile,
    /// `dot2_narrow` of so many steps, then `dot2` of the sums by ones; what weights exceed its domain is added by steps of its own.
    Narrow(usize),
}

/// Most bytes of a block of widened weights.
const WIDENED: usize = 64 * 1024;
/// Why no shape of vectors is asked for by tiles.
const TILES: &str = "tiles have their own choice";

impl Dot {
    /// The way that is open to every layer.
    pub(crate) fn of(machine: &Machine) -> Self {
        match (machine.signed_dot, machine.native_dot4) {
            (true, _) => Self::Signed,
            (false, true) => Self::Native,
            (false, false) => Self::Wide,
        }
    }

    /// Registers: some, some for each vector of weights, and some for each accumulator.
    fn registers(self) -> [usize; 3] {
        match self {
            Self::Native => [2, 1, 1],
            Self::Signed | Self::Narrow(1) => [3, 1, 1],
            Self::Wide => [4, 2, 1],
            Self::Words => [3, 2, 1],
            Self::Narrow(_) => [2, 1, 2],
            Self::Tile => unreachable!("{TILES}"),
        }
    }

    /// Steps that are taken together.
    pub(crate) fn steps(self) -> usize {
        match self {
            Self::Narrow(steps) => steps,
            _ => 1,
        }
    }

    /// Time from one sum to the next that depends on it, in quarters of a cycle: of a fused product, or of additions.
    fn latency(self) -> usize {
        match self {
            Self::Native | Self::Signed => 20,
            Self::Narrow(_) => 4,
            Self::Wide | Self::Words => 8,
            Self::Tile => unreachable!("{TILES}"),
        }
    }

    /// Bytes of weights that a step of one vector reads.
    pub(crate) fn step_bytes(self, machine: &Machine) -> usize {
        machine.vector_bytes() * if self == Self::Words { 2 } else { 1 }
    }

    /// Most vectors of a tile: widened weights of a block stay in the second-level cache.
    fn vectors(self, steps: usize, machine: &Machine) -> usize {
        match self {
            Self::Words => WIDENED / (steps * self.step_bytes(machine)).max(1),
            _ => 8,
        }
    }

    /// Estimated time of a step in quarters of a cycle, without loads.
    fn time(self, pixels: usize, vectors: usize, machine: &Machine) -> usize {
        let accumulators = pixels * vectors;
        match self {
            Self::Native => 2 * accumulators,
            Self::Signed if machine.native_dot4 => 2 * accumulators,
            Self::Signed => 10 * accumulators,
            Self::Narrow(1) => 4 * accumulators,
            Self::Narrow(steps) => ((11 * steps + 8) * accumulators).div_ceil(4 * steps),
            Self::Wide => 6 * accumulators + 3 * pixels + 4 * vectors,
            Self::Words => 5 * accumulators + 2 * pixels,
            Self::Tile => unreachable!("{TILES}"),
        }
    }
}

/// A tile: `rows × columns` output pixels times `vectors` vectors of channels, one accumulator each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) vectors: usize,
}

/// Equal parts along an axis: `count` of them, each `size` long, from `first` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) first: usize,
    pub(crate) size: usize,
    pub(crate) count: usize,
}

/// Cuts `extent` into parts of `size` and one shorter one.
pub(crate) fn parts(extent: usize, size: usize) -> Vec<Part> {
    let (count, rest) = (extent / size, extent % size);
    let mut parts = Vec::new();
    if count > 0 {
        parts.push(Part {
            first: 0,
            size,
            count,
        });
    }
    if rest > 0 {
        parts.push(Part {
            first: count * size,
            size: rest,
            count: 1,
        });
    }
    parts
}

/// The tile with the least estimated time for an output of `size` pixels and `channels` channels, each a sum over
/// `steps` groups of four products.
pub(crate) fn choose(
    size: [usize; 2],
    channels: usize,
    steps: usize,
    machine: &Machine,
    dot: Dot,
) -> Shape {
    let vectors = channels.div_ceil(usize::from(machine.lanes));
    let registers = usize::from(machine.registers);
    let [spare, each, sum] = dot.registers();
    let one = Shape {
        rows: 1,
        columns: 1,
        vectors: 1,
    };
    let mut best = (u64::MAX, one);
    let widest = dot.vectors(steps, machine).clamp(1, 8);
    for v in 1..=vectors.min(widest) {
        let most = registers.saturating_sub(spare + v * each) / (v * sum);
        for shape in pixel_shapes(size, most, v) {
            let time = time(size, vectors, steps, shape, machine, dot);
            if time < best.0 {
                best = (time, shape);
            }
        }
    }
    best.1
}

/// Tiles of at most `most` pixels: parts of a row, or several narrow rows.
fn pixel_shapes([height, width]: [usize; 2], most: usize, vectors: usize) -> Vec<Shape> {
    if most == 0 {
        return Vec::new();
    }
    if width <= most {
        let rows = (most / width.max(1)).clamp(1, height.max(1));
        return (1..=rows)
            .map(|rows| Shape {
                rows,
                columns: width,
                vectors,
            })
            .collect();
    }
    (1..=most)
        .map(|columns| Shape {
            rows: 1,
            columns,
            vectors,
        })
        .collect()
}

/// Estimated time in quarters of a cycle.
pub(crate) fn time(
    size: [usize; 2],
    vectors: usize,
    steps: usize,
    shape: Shape,
    machine: &Machine,
    dot: Dot,
) -> u64 {
    let mut total = 0;
    for rows in parts(size[0], shape.rows) {
        for columns in parts(size[1], shape.columns) {
            for v in parts(vectors, shape.vectors) {
                let pixels = rows.size * columns.size;
                let accumulators = pixels * v.size;
                let loads = 2 * (pixels + v.size);
                let sums = dot.time(pixels, v.size, machine);
                let step = sums.max(loads).max(dot.latency());
                let trips = steps.div_ceil(dot.steps());
                let tile = steps * step + 4 * trips + 14 * accumulators + 24;
                total += (rows.count * columns.count * v.count * tile) as u64;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::testing::machines;
    use super::*;

    #[test]
    fn parts_cover_the_extent() {
        for (extent, size) in [(56, 14), (7, 3), (2, 5), (0, 4)] {
            let parts = parts(extent, size);
            let mut next = 0;
            for p in &parts {
                assert_eq!(p.first, next);
                next += p.size * p.count;
            }
            assert_eq!(next, extent);
        }
    }

    #[test]
    fn tiles_fit_the_registers() {
        for machine in machines() {
            for size in [[1, 1], [7, 7], [56, 56], [1, 3136], [5, 25]] {
                let s = choose(size, 96, 100, &machine, Dot::of(&machine));
                let pixels = s.rows * s.columns;
                assert!(
                    pixels * s.vectors + s.vectors + 2 <= usize::from(machine.registers),
                    "{s:?}"
                );
            }
        }
    }
}
