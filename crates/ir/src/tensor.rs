use std::sync::Arc;

use crate::{DType, Type};

/// Elements of a tensor in row-major order.
#[derive(Clone, PartialEq, Debug)]
#[allow(
    missing_docs,
    reason = "a variant holds elements of the type it is named after"
)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
}

/// Runs `$body` with `$v` bound to the typed vector inside a [`Data`].
#[macro_export]
macro_rules! with_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($v) => $body,
            $crate::Data::F64($v) => $body,
            $crate::Data::Bool($v) => $body,
            $crate::Data::I8($v) => $body,
            $crate::Data::U8($v) => $body,
            $crate::Data::I16($v) => $body,
            $crate::Data::U16($v) => $body,
            $crate::Data::I32($v) => $body,
            $crate::Data::U32($v) => $body,
            $crate::Data::I64($v) => $body,
            $crate::Data::U64($v) => $body,
        }
    };
}

/// A type that tensors hold.
pub trait Element: Copy + Default + PartialEq + PartialOrd + Send + Sync + 'static {
    /// The element type's tag.
    const DTYPE: DType;
    /// Wraps a vector.
    fn wrap(v: Vec<Self>) -> Data;
    /// The elements, if they are of this type.
    fn of(data: &Data) -> Option<&[Self]>;
    /// The elements to write to, if they are of this type.
    fn of_mut(data: &mut Data) -> Option<&mut [Self]>;
}

macro_rules! elements {
    ($($t:ty, $variant:ident;)*) => {
        $(impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn wrap(v: Vec<Self>) -> Data {
                Data::$variant(v)
            }
            fn of(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn of_mut(data: &mut Data) -> Option<&mut [Self]> {
                match data {
                    Data::$variant(v) => Some(v),
                    _ => None,
                }
            }
        })*

        impl Data {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self {
                    $(Self::$variant(_) => DType::$variant,)*
                }
            }
        }
    };
}

elements! {
    f32, F32;
    f64, F64;
    bool, Bool;
    i8, I8;
    u8, U8;
    i16, I16;
    u16, U16;
    i32, I32;
    u32, U32;
    i64, I64;
    u64, U64;
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A dense row-major tensor. Cloning and reshaping share the elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Data>,
}

impl Tensor {
    /// A tensor from its elements.
    ///
    /// # Panics
    /// When the number of elements is not the product of the shape.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, elements: Vec<T>) -> Self {
        Self::from_data(shape, T::wrap(elements))
    }

    /// A tensor from typed data; see [`Tensor::new`].
    pub fn from_data(shape: impl Into<Vec<usize>>, data: Data) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "a tensor of shape {shape:?} was given {} elements",
            data.len()
        );
        Self {
            shape,
            data: Arc::new(data),
        }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(x: T) -> Self {
        Self::new([], vec![x])
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The typed elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Type without quantisation.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype(), self.shape.clone())
    }

    /// The elements as `T`.
    ///
    /// # Panics
    /// When they are of another type: shape rules have checked it before a body runs.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        T::of(&self.data)
            .unwrap_or_else(|| panic!("expected {} elements, found {}", T::DTYPE, self.dtype()))
    }

    /// The elements as `T`, to write to; copied first where another tensor shares them.
    ///
    /// # Panics
    /// When they are of another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        let found = self.dtype();
        T::of_mut(Arc::make_mut(&mut self.data))
            .unwrap_or_else(|| panic!("expected {} elements, found {found}", T::DTYPE))
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// When the number of elements changes.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            self.len(),
            "reshape changes the size"
        );
        Self {
            shape,
            data: Arc::clone(&self.data),
        }
    }

    /// Elements of any integer type or `Bool`, widened; `None` for floats and for `u64` beyond `i64`.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self.data() {
            Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I64(v) => v.clone(),
            Data::U64(v) => return v.iter().map(|&x| i64::try_from(x).ok()).collect(),
            Data::F32(_) | Data::F64(_) => return None,
        })
    }

    /// Elements of any type as `f64`.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.data() {
            Data::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F64(v) => v.clone(),
            Data::U64(v) => v.iter().map(|&x| x as f64).collect(),
            _ => {
                let wide = self.to_i64().expect("every other type widens");
                wide.into_iter().map(|x| x as f64).collect()
            }
        }
    }

    /// A tensor of an integer type or `Bool` from wide elements, each wrapped to the type's width.
    ///
    /// # Panics
    /// When `dtype` is a float.
    pub fn from_i64(dtype: DType, shape: impl Into<Vec<usize>>, v: Vec<i64>) -> Self {
        let data = match dtype {
            DType::Bool => Data::Bool(v.into_iter().map(|x| x != 0).collect()),
            DType::I8 => Data::I8(v.into_iter().map(|x| x as i8).collect()),
            DType::U8 => Data::U8(v.into_iter().map(|x| x as u8).collect()),
            DType::I16 => Data::I16(v.into_iter().map(|x| x as i16).collect()),
            DType::U16 => Data::U16(v.into_iter().map(|x| x as u16).collect()),
            DType::I32 => Data::I32(v.into_iter().map(|x| x as i32).collect()),
            DType::U32 => Data::U32(v.into_iter().map(|x| x as u32).collect()),
            DType::I64 => Data::I64(v),
            DType::U64 => Data::U64(v.into_iter().map(|x| x as u64).collect()),
            DType::F32 | DType::F64 => panic!("from_i64 makes integer tensors, not {dtype}"),
        };
        Self::from_data(shape, data)
    }

    /// A tensor of type `f32` or `f64` from wide elements.
    ///
    /// # Panics
    /// When `dtype` is not a float.
    pub fn from_f64(dtype: DType, shape: impl Into<Vec<usize>>, v: Vec<f64>) -> Self {
        match dtype {
            DType::F32 => Self::new(shape, v.into_iter().map(|x| x as f32).collect()),
            DType::F64 => Self::new(shape, v),
            _ => panic!("from_f64 makes float tensors, not {dtype}"),
        }
    }
}
