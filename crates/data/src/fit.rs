//! From a stored sample to the model's input: scale, normalise, reorder, reshape.

use crate::array::{Array, count};
use crate::descriptor::{Input, Layout, Numbers};

/// What a descriptor asks to be done to every value of an input.
#[derive(Debug, Clone)]
pub(crate) struct Transform {
    scale: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
    layout: Option<Layout>,
}

impl Transform {
    /// Values as stored, in the model's layout.
    pub(crate) fn identity() -> Self {
        Self::new(&Input::default())
    }

    pub(crate) fn new(input: &Input) -> Self {
        let values = |numbers: &Option<Numbers>, default| {
            let given = numbers.as_ref().map(Numbers::values);
            given.unwrap_or_else(|| vec![default])
        };
        let layout = if input.images.is_some() {
            Some(Layout::ChannelsLast)
        } else {
            input.layout
        };
        Self {
            scale: input.scale.unwrap_or(1.0) as f32,
            mean: values(&input.mean, 0.0),
            std: values(&input.std, 1.0),
            layout,
        }
    }
}

/// How samples of one stored shape become samples of the model's shape.
#[derive(Debug, Clone)]
pub(crate) struct Fit {
    scale: f32,
    /// Mean and standard deviation of each channel; one pair where they are the same for all.
    channels: Vec<(f32, f32)>,
    /// Elements that follow one another in the same channel.
    run: usize,
    /// Stored sample as a matrix to be transposed, rows × columns.
    transpose: Option<(usize, usize)>,
    shape: Vec<usize>,
}

impl Fit {
    /// Plans the way from a sample stored as `stored` to the input shape `wanted`; the hint says what to do where there is none.
    pub(crate) fn new(
        transform: &Transform,
        stored: &[usize],
        wanted: &[usize],
    ) -> Result<Self, String> {
        let (channels, run) = channels(transform, stored, wanted)?;
        let (moved, transpose) = reorder(transform.layout, stored, wanted)?;
        if !same_elements_in_order(&moved, wanted) {
            return Err(hint(transform.layout, &moved, wanted));
        }
        Ok(Self {
            scale: transform.scale,
            channels,
            run,
            transpose,
            shape: wanted.to_vec(),
        })
    }

    /// Turns one stored sample into the model's input.
    pub(crate) fn apply(&self, mut values: Vec<f32>) -> Array {
        for (run, &(mean, std)) in values
            .chunks_mut(self.run.max(1))
            .zip(self.channels.iter().cycle())
        {
            for value in run {
                *value = (*value * self.scale - mean) / std;
            }
        }
        if let Some((rows, columns)) = self.transpose {
            values = transposed(&values, rows, columns);
        }
        Array {
            shape: self.shape.clone(),
            data: values,
        }
    }
}

/// The pair (mean, std) of each channel, and how many elements in a row share one.
fn channels(
    transform: &Transform,
    stored: &[usize],
    wanted: &[usize],
) -> Result<(Vec<(f32, f32)>, usize), String> {
    let n = transform.mean.len().max(transform.std.len());
    let each = |values: &[f32]| match values.len() {
        1 => Ok(vec![values[0]; n]),
        len if len == n => Ok(values.to_vec()),
        len => Err(format!(
            "`mean` and `std` differ in length ({n} and {len}); give one number, or one a channel"
        )),
    };
    let pairs = each(&transform.mean)?
        .into_iter()
        .zip(each(&transform.std)?)
        .collect();
    if n == 1 {
        return Ok((pairs, count(stored).unwrap_or(1)));
    }
    let axis = channel_axis(transform.layout, stored, wanted, n);
    let axis = axis.ok_or_else(|| format!("`mean` or `std` has {n} numbers, and samples of shape {stored:?} have no channel axis of that length"))?;
    Ok((pairs, stored[axis + 1..].iter().product()))
}

fn channel_axis(
    layout: Option<Layout>,
    stored: &[usize],
    wanted: &[usize],
    n: usize,
) -> Option<usize> {
    let last = stored.len().checked_sub(1)?;
    let first = usize::from(stored.len() == 4 && stored[0] == 1);
    let is_first = match layout {
        Some(Layout::ChannelsLast) => false,
        Some(Layout::ChannelsFirst) => true,
        None => stored.len() >= 3 && wanted.len() == 4 && wanted[1] == n && stored[first] == n,
    };
    let axis = if is_first { first } else { last };
    (stored.get(axis) == Some(&n)).then_some(axis)
}

/// The stored shape after moving the channel axis to where the model has it, and the transposition that does it.
#[allow(clippy::type_complexity)]
fn reorder(
    layout: Option<Layout>,
    stored: &[usize],
    wanted: &[usize],
) -> Result<(Vec<usize>, Option<(usize, usize)>), String> {
    let (Some(layout), [_, second, .., last]) = (layout, wanted) else {
        return Ok((stored.to_vec(), None));
    };
    let image = match stored {
        [1, image @ ..] if image.len() == 3 => image,
        image => image,
    };
    let [a, b, c] = *image else {
        return Ok((stored.to_vec(), None));
    };
    Ok(match layout {
        Layout::ChannelsLast if wanted.len() == 4 && *second == c && *last != c => {
            (vec![c, a, b], Some((a * b, c)))
        }
        Layout::ChannelsFirst if wanted.len() == 4 && *last == a && *second != a => {
            (vec![b, c, a], Some((a, b * c)))
        }
        _ => (image.to_vec(), None),
    })
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |c| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

/// Whether one shape becomes the other by joining and splitting neighbouring axes, so that no axis changes its place.
fn same_elements_in_order(from: &[usize], to: &[usize]) -> bool {
    let splits = |fine: &[usize], coarse: &[usize]| {
        let ends = |shape: &[usize]| {
            let running = |total: &mut usize, &axis: &usize| {
                *total = total.saturating_mul(axis);
                Some(*total)
            };
            shape.iter().scan(1, running).collect::<Vec<_>>()
        };
        let fine = ends(fine);
        ends(coarse)
            .iter()
            .all(|&end| end == 1 || fine.contains(&end))
    };
    count(from) == count(to) && (splits(from, to) || splits(to, from))
}

fn hint(layout: Option<Layout>, stored: &[usize], wanted: &[usize]) -> String {
    if let ([h, w, c], [_, c2, h2, w2]) = (stored, wanted)
        && layout.is_none()
        && (h, w, c) == (h2, w2, c2)
    {
        return "say `layout = \"NHWC\"` in the descriptor".into();
    }
    if count(stored) == count(wanted) {
        return "the axes are in another order; store them in the model's, or give `layout`".into();
    }
    "store samples of the model's size, or change it with --shape".into()
}
