//! Loop nests over tensors of one logical shape that lie differently in memory.

use lowbit_ir::DType;
use lowbit_kernel::{Addr, BufId, Builder, LoopVar, Scalar, Type, Val};

use super::view::View;

/// The loops that visit every element of a result together with the elements of its operands.
///
/// Tensor 0 is the result; the others are operands, broadcast to it. Axes that lie jointly without gaps are merged. The
/// innermost axis is walked in vectors where every tensor has it contiguous or repeats one element along it.
pub(crate) struct Nest {
    outer: Vec<Axis>,
    inner: Axis,
    offsets: Vec<isize>,
    elements: Vec<DType>,
}

#[derive(Clone, Debug)]
struct Axis {
    extent: usize,
    strides: Vec<isize>,
}

/// A place in the loops: where each tensor's current elements are.
pub(crate) struct At<'a> {
    nest: &'a Nest,
    vars: Vec<(LoopVar, usize)>,
    inner: Option<LoopVar>,
    start: usize,
    step: usize,
    /// Elements handled at once; 1 in scalar code.
    pub(crate) lanes: u16,
}

/// What stands inside the outer loops, given their counters by axis.
type Body<'a> = dyn FnMut(&mut Builder, Vec<(LoopVar, usize)>) + 'a;

impl Nest {
    /// Loops over `result` and operands that broadcast to it.
    pub(crate) fn new(result: &View, operands: &[View]) -> Self {
        let mut axes: Vec<Axis> = (0..result.shape.len())
            .map(|a| Axis {
                extent: result.shape[a],
                strides: std::iter::once(result.strides[a])
                    .chain(
                        operands
                            .iter()
                            .map(|s| s.broadcast_stride(a, result.shape.len())),
                    )
                    .collect(),
            })
            .filter(|axis| axis.extent != 1)
            .collect();
        merge(&mut axes);
        let tensors = || std::iter::once(result).chain(operands);
        let unit = || Axis {
            extent: 1,
            strides: tensors().map(|s| s.dtype.bytes() as isize).collect(),
        };
        let inner = axes.pop().unwrap_or_else(unit);
        Self {
            outer: axes,
            inner,
            offsets: tensors().map(|s| s.offset).collect(),
            elements: tensors().map(|s| s.dtype).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.inner.extent == 0 || self.outer.iter().any(|a| a.extent == 0)
    }

    fn vectorised(&self) -> bool {
        let strides = self.inner.strides.iter().zip(&self.elements).enumerate();
        let mut fits = strides.map(|(k, (&s, d))| s == d.bytes() as isize || (k > 0 && s == 0));
        fits.all(|f| f)
    }

    /// Writes the loops; `body` handles the elements at one place, at most `lanes` of them.
    pub(crate) fn emit(
        &self,
        b: &mut Builder,
        lanes: u16,
        mut body: impl FnMut(&mut Builder, &At<'_>),
    ) {
        if self.is_empty() {
            return;
        }
        self.outer_loops(b, Vec::new(), &mut |b, vars| {
            let mut start = 0;
            let mut step = if self.vectorised() {
                usize::from(lanes)
            } else {
                1
            };
            while start < self.inner.extent {
                while start + step > self.inner.extent {
                    step /= 2;
                }
                let trips = (self.inner.extent - start) / step;
                let at = |inner| At {
                    nest: self,
                    vars: vars.clone(),
                    inner,
                    start,
                    step,
                    lanes: step as u16,
                };
                if trips == 1 {
                    body(b, &at(None));
                } else {
                    b.for_(trips as u32, &[], |b, i, _| {
                        body(b, &at(Some(i)));
                        Vec::new()
                    });
                }
                start += trips * step;
            }
        });
    }

    fn outer_loops(&self, b: &mut Builder, vars: Vec<(LoopVar, usize)>, body: &mut Body<'_>) {
        let Some(axis) = self.outer.get(vars.len()) else {
            return body(b, vars);
        };
        b.for_(axis.extent as u32, &[], |b, i, _| {
            let at = vars.len();
            let vars = [vars.clone(), vec![(i, at)]].concat();
            self.outer_loops(b, vars, body);
            Vec::new()
        });
    }
}

impl At<'_> {
    /// The address of tensor `k` here, in the buffer that holds it.
    pub(crate) fn addr(&self, k: usize, buffer: BufId) -> Addr {
        let inner = &self.nest.inner;
        let mut addr =
            buffer.at((self.nest.offsets[k] + self.start as isize * inner.strides[k]) as i64);
        for &(var, axis) in &self.vars {
            addr = addr.step(var, self.nest.outer[axis].strides[k] as i64);
        }
        match self.inner {
            Some(var) => addr.step(var, (self.step as isize * inner.strides[k]) as i64),
            None => addr,
        }
    }

    /// The type of `lanes` elements of a scalar type.
    pub(crate) fn ty(&self, scalar: Scalar) -> Type {
        Type {
            scalar,
            lanes: self.lanes,
        }
    }

    /// The codes of tensor `k` here, as they are stored.
    pub(crate) fn load(&self, b: &mut Builder, k: usize, buffer: BufId) -> Val {
        let ty = self.ty(scalar_of(self.nest.elements[k]));
        let addr = self.addr(k, buffer);
        if self.nest.inner.strides[k] == 0 && self.lanes > 1 {
            b.load_splat(ty, addr)
        } else {
            b.load(ty, addr)
        }
    }

    /// The codes of tensor `k` here, widened to `i32`.
    pub(crate) fn load_wide(&self, b: &mut Builder, k: usize, buffer: BufId) -> Val {
        let v = self.load(b, k, buffer);
        widen(b, v, self.nest.elements[k])
    }
}

/// Codes widened to `i32` by the signedness of their type.
pub(crate) fn widen(b: &mut Builder, v: Val, dtype: DType) -> Val {
    match dtype {
        DType::U8 | DType::U16 | DType::Bool => b.zext(Scalar::I32, v),
        DType::I8 | DType::I16 => b.sext(Scalar::I32, v),
        _ => v,
    }
}

/// The scalar type of the kernel IR that holds an element.
pub(crate) fn scalar_of(dtype: DType) -> Scalar {
    match dtype.bytes() {
        1 => Scalar::I8,
        2 => Scalar::I16,
        4 => Scalar::I32,
        _ => Scalar::I64,
    }
}

/// `i32` codes, clamped and stored with the width of the result.
pub(crate) fn store_codes(b: &mut Builder, codes: Val, out: lowbit_ir::ops::Codes, addr: Addr) {
    let ty = b.ty(codes);
    let full = match out.dtype {
        DType::U8 => (0, 255),
        DType::I16 => (i16::MIN.into(), i16::MAX.into()),
        _ => (i32::MIN, i32::MAX),
    };
    let mut v = codes;
    if out.lo > full.0 {
        let lo = b.constant(ty, out.lo.into());
        v = b.smax(v, lo);
    }
    if out.hi < full.1 {
        let hi = b.constant(ty, out.hi.into());
        v = b.smin(v, hi);
    }
    let v = match out.dtype {
        DType::U8 => b.sat_u8(v),
        DType::I16 => b.sat_i16(v),
        _ => v,
    };
    b.store(v, addr);
}

/// Merges neighbouring axes that every tensor walks as one.
fn merge(axes: &mut Vec<Axis>) {
    let mut a = 1;
    while a < axes.len() {
        let joint = (0..axes[a].strides.len())
            .all(|k| axes[a - 1].strides[k] == axes[a].strides[k] * axes[a].extent as isize);
        if joint {
            let inner = axes.remove(a);
            axes[a - 1] = Axis {
                extent: axes[a - 1].extent * inner.extent,
                strides: inner.strides,
            };
        } else {
            a += 1;
        }
    }
}
