//! Where buffers lie in the arena.

/// Memory that is needed during some calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Bytes.
    pub bytes: usize,
    /// First call that needs it.
    pub first: usize,
    /// Last call that needs it.
    pub last: usize,
}

/// Offsets of all buffers, in order, and the size of the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Offset of each buffer.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub bytes: usize,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Large buffers start on a cache line.
    fn align(&self) -> usize {
        if self.bytes >= 4096 { 64 } else { 16 }
    }
}

/// The largest total of bytes that any call needs: no arena can be smaller.
pub fn lower_bound(buffers: &[Lifetime]) -> usize {
    let total = |call| {
        buffers
            .iter()
            .filter(|b| b.first <= call && call <= b.last)
            .map(|b| b.bytes)
            .sum()
    };
    buffers
        .iter()
        .map(|b| b.first)
        .map(total)
        .max()
        .unwrap_or(0)
}

/// Orders that are tried from the best one on, each with one buffer moved to the front.
const MOVES: usize = 400;

/// Places buffers greedily, each at the lowest offset where it meets nothing, in several orders; the smallest arena wins. Where
/// it is larger than the bound, buffers that end at its top are placed before all others, one after the other, as long as
/// that helps.
pub fn plan(buffers: &[Lifetime]) -> Plan {
    let key = |order: usize, i: usize| {
        let b = &buffers[i];
        let span = b.last - b.first;
        match order {
            0 => (usize::MAX - b.bytes, b.first),
            1 => (usize::MAX - span, usize::MAX - b.bytes),
            2 => (b.first, usize::MAX - b.bytes),
            3 => (usize::MAX - b.last, usize::MAX - b.bytes),
            _ => (usize::MAX - b.bytes.saturating_mul(span + 1), b.first),
        }
    };
    let ordered = (0..5).map(|order| {
        let mut indices: Vec<usize> = (0..buffers.len()).collect();
        indices.sort_by_key(|&i| (key(order, i), i));
        indices
    });
    let bound = lower_bound(buffers);
    ordered
        .map(|order| improved(buffers, order, bound))
        .min_by_key(|p| p.bytes)
        .expect("there are several orders")
}

/// The best plan met on the way from an order, each step of which places a buffer at the top of the arena first.
fn improved(buffers: &[Lifetime], mut order: Vec<usize>, bound: usize) -> Plan {
    let mut plan = place(buffers, &order);
    let mut best = plan.clone();
    for _ in 0..MOVES {
        if best.bytes <= bound {
            break;
        }
        let top = |&i: &usize| plan.offsets[i] + buffers[i].bytes == plan.bytes;
        let Some(at) = order.iter().position(top).filter(|&at| at > 0) else {
            break;
        };
        order[..=at].rotate_right(1);
        plan = place(buffers, &order);
        if plan.bytes < best.bytes {
            best = plan.clone();
        }
    }
    best
}

fn place(buffers: &[Lifetime], order: &[usize]) -> Plan {
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    for &i in order {
        let own = &buffers[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&k| buffers[k].meets(own))
            .map(|&k| (offsets[k], offsets[k] + buffers[k].bytes))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + own.bytes <= start {
                break;
            }
            at = at.max(end.next_multiple_of(own.align()));
        }
        offsets[i] = at;
        placed.push(i);
    }
    let bytes = offsets
        .iter()
        .zip(buffers)
        .map(|(o, b)| o + b.bytes)
        .max()
        .unwrap_or(0);
    Plan { offsets, bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buffers_that_meet_do_not_overlap(
            raw in prop::collection::vec((1usize..9000, 0usize..20, 0usize..6), 1..40)
        ) {
            let buffers: Vec<Lifetime> =
                raw.iter().map(|&(bytes, first, span)| Lifetime { bytes, first, last: first + span }).collect();
            let plan = plan(&buffers);
            prop_assert!(plan.bytes >= lower_bound(&buffers));
            for (i, a) in buffers.iter().enumerate() {
                for (k, b) in buffers.iter().enumerate().skip(i + 1) {
                    let (x, y) = (plan.offsets[i], plan.offsets[k]);
                    prop_assert!(!a.meets(b) || x + a.bytes <= y || y + b.bytes <= x);
                }
            }
        }
    }
}
