//! Holds kernels against the operations' definitions.

use lowbit_ir::{DType, Data, Op, Tensor, Type, with_data};
use lowbit_kernel::{run_kernel, verify};

use super::{Arg, Machine, Operand, Step, Storage, select};

/// Codes that repeat for equal seeds.
pub(crate) fn tensor(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let codes = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as i64
        })
        .collect();
    Tensor::from_i64(dtype, shape, codes)
}

/// Machines of every vector width.
pub(crate) fn machines() -> Vec<Machine> {
    let machine = |lanes, registers, native_dot4, signed_dot| Machine {
        lanes,
        registers,
        native_dot4,
        signed_dot,
        fast_tables: false,
    };
    vec![
        machine(4, 16, false, false),
        machine(4, 32, true, true),
        machine(8, 16, false, false),
        machine(16, 32, true, false),
    ]
}

/// Runs the kernels of an operation for every machine, with and without borders, and compares every code.
pub(crate) fn check(op: &Op, tensors: &[&Tensor]) {
    let expected = op
        .eval(tensors)
        .expect("the operation accepts its operands");
    for machine in machines() {
        for border in [[0; 4], [1, 0, 2, 1]] {
            let ty = expected.ty();
            let storages: Vec<Storage> =
                tensors.iter().map(|t| bordered(&t.ty(), border)).collect();
            let result = bordered(&ty, border);
            let operands: Vec<Operand<'_>> = storages
                .iter()
                .zip(tensors)
                .map(|(storage, t)| Operand {
                    storage,
                    constant: Some(t),
                })
                .collect();
            let steps = select::lower(op, &operands, &result, &machine)
                .unwrap_or_else(|| panic!("{} has no kernel", op.name()));
            let found = run(&steps, &storages, tensors, &result);
            assert_eq!(
                found,
                expected,
                "{} on {machine:?} with border {border:?}",
                op.name()
            );
        }
    }
}

/// A storage with a border of pixels around height and width where there are such axes.
fn bordered(ty: &Type, border: [usize; 4]) -> Storage {
    let mut s = Storage::dense(ty.dtype, &ty.shape);
    if let &[n, h, w, c] = &ty.shape[..] {
        let [top, bottom, left, right] = border;
        let pixel = c * ty.dtype.bytes();
        let row = (w + left + right) * pixel;
        let image = (h + top + bottom) * row;
        s.strides = vec![image, row, pixel, ty.dtype.bytes()];
        s.offset = top * row + left * pixel;
        s.bytes = n * image;
    }
    s.slack = 64;
    s
}

pub(crate) fn run(
    steps: &[Step],
    storages: &[Storage],
    tensors: &[&Tensor],
    result: &Storage,
) -> Tensor {
    let mut operands: Vec<Vec<u8>> = storages
        .iter()
        .zip(tensors)
        .map(|(s, t)| written(s, t))
        .collect();
    let mut output = vec![0xa5u8; result.bytes + result.slack];
    let mut scratch: Vec<Vec<u8>> = vec![Vec::new(); 8];
    for step in steps {
        verify(&step.kernel).expect("the kernel is well-formed");
        let mut memory: Vec<Vec<u8>> = step
            .args
            .iter()
            .zip(&step.kernel.buffers)
            .map(|(arg, buffer)| {
                let mut bytes = match arg {
                    Arg::Operand(i) => operands[*i].clone(),
                    Arg::Result => output.clone(),
                    Arg::Const(bytes) => bytes.clone(),
                    Arg::Scratch(k, _) => scratch[*k].clone(),
                };
                assert!(
                    !matches!(arg, Arg::Const(_)) || bytes.len() == buffer.len,
                    "@{}",
                    buffer.name
                );
                bytes.resize(buffer.len + buffer.slack, 0x5a);
                bytes
            })
            .collect();
        run_kernel(&step.kernel, &mut memory).expect("the kernel runs");
        for (arg, bytes) in step.args.iter().zip(memory) {
            match arg {
                Arg::Result => output = bytes,
                Arg::Scratch(k, _) => scratch[*k] = bytes,
                Arg::Operand(i) => operands[*i] = bytes,
                Arg::Const(_) => {}
            }
        }
    }
    read(result, &output)
}

fn written(s: &Storage, tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0x3cu8; s.bytes + s.slack];
    let elements: Vec<Vec<u8>> = match tensor.data() {
        Data::U8(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Data::I8(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Data::I16(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Data::U16(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Data::I32(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Data::I64(v) => v.iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        other => panic!(
            "no codes of {}",
            with_data!(other, v => std::any::type_name_of_val(v))
        ),
    };
    for (i, element) in elements.iter().enumerate() {
        bytes[place(s, i)..][..element.len()].copy_from_slice(element);
    }
    bytes
}

fn read(s: &Storage, bytes: &[u8]) -> Tensor {
    let width = s.dtype.bytes();
    let codes = (0..s.elements())
        .map(|i| {
            let mut wide = [0u8; 8];
            wide[..width].copy_from_slice(&bytes[place(s, i)..][..width]);
            i64::from_le_bytes(wide)
        })
        .collect();
    Tensor::from_i64(s.dtype, s.shape.clone(), codes)
}

fn place(s: &Storage, mut i: usize) -> usize {
    let mut at = s.offset;
    for (extent, stride) in s.shape.iter().zip(&s.strides).rev() {
        at += i % extent * stride;
        i /= extent;
    }
    at
}
