//! Holds kernels against the operations' definitions.

use lowbit_ir::ops::{Codes, Epilogue, IntConv, Operation};
use lowbit_ir::{DType, Data, Op, Tensor, Type, with_data};
use lowbit_kernel::{Kernel, run_kernel, verify};
use lowbit_num::Format;
use lowbit_targets::TileCosts;

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
    let machine = |lanes, registers, native_dot4: bool, signed_dot: bool| Machine {
        lanes,
        registers,
        native_dot4,
        native_dot2: native_dot4 && !signed_dot,
        signed_dot,
        narrow_dot: lanes == 8,
        tile: None,
        fast_tables: lanes == 16,
    };
    // tiles that cost nothing are taken wherever they can be
    let tiles = Machine {
        tile: Some(TileCosts {
            product: 0,
            least: 0,
            load: 0,
            far: 0,
            crossing: 0,
            store: 0,
            configure: 0,
        }),
        ..machine(16, 32, true, false)
    };
    vec![
        tiles,
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
            check_stored(op, tensors, &storages, (&result, &expected), &machine);
        }
    }
}

/// Runs the kernels of an operation whose operands lie as their storages say, and compares every code.
pub(crate) fn check_stored(
    op: &Op,
    tensors: &[&Tensor],
    storages: &[Storage],
    (result, expected): (&Storage, &Tensor),
    machine: &Machine,
) {
    let operand = |(storage, &tensor)| Operand {
        storage,
        constant: Some(tensor),
    };
    let operands: Vec<Operand<'_>> = storages.iter().zip(tensors).map(operand).collect();
    let steps = select::lower(op, &operands, result, machine)
        .unwrap_or_else(|| panic!("{} has no kernel", op.name()));
    let found = run(&steps, storages, tensors, result);
    assert_eq!(
        found,
        *expected,
        "{} on {machine:?} of {storages:?}",
        op.name()
    );
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

fn run(steps: &[Step], storages: &[Storage], tensors: &[&Tensor], result: &Storage) -> Tensor {
    run_filled(steps, storages, tensors, result, 0x3c)
}

fn run_filled(
    steps: &[Step],
    storages: &[Storage],
    tensors: &[&Tensor],
    result: &Storage,
    border: u8,
) -> Tensor {
    let mut operands: Vec<Vec<u8>> = storages
        .iter()
        .zip(tensors)
        .map(|(s, t)| written(s, t, border))
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

fn written(s: &Storage, tensor: &Tensor, border: u8) -> Vec<u8> {
    let mut bytes = vec![border; s.bytes + s.slack];
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

/// Weights of which some are large, some small, as trained ones are.
fn weights(shape: &[usize], seed: u64) -> Tensor {
    let raw = tensor(DType::I64, shape, seed);
    let code = |&r: &i64| {
        let byte = r.rem_euclid(255) - 127;
        if r & 0xf00 == 0 { byte } else { byte / 4 }
    };
    Tensor::from_i64(
        DType::I8,
        shape,
        raw.as_slice::<i64>().iter().map(code).collect(),
    )
}

/// Holds a convolution with every epilogue against its definition, its operand in a border of its zero-point.
pub(crate) fn check_conv(
    x: [usize; 4],
    o: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) {
    let pad = [0, 1].map(|i| {
        [
            dilation[i] * (kernel[i] - 1) / 2,
            (dilation[i] * (kernel[i] - 1)).div_ceil(2),
        ]
    });
    let conv = |epilogue, out| IntConv {
        stride,
        dilation,
        pad,
        groups,
        pad_code: 5,
        weights: Format::Int8,
        epilogue,
        out,
    };
    let seed = x.iter().fold(7, |s, &d| s * 31 + d as u64);
    let w = [o, kernel[0], kernel[1], x[3] / groups];
    let tensors = [tensor(DType::U8, &x, seed), weights(&w, seed + 1)];
    let channel = |lo: i64, hi: i64, k: u64| {
        let raw = tensor(DType::I64, &[o], seed + k);
        raw.as_slice::<i64>()
            .iter()
            .map(|r| lo + r.rem_euclid(hi - lo))
            .collect::<Vec<i64>>()
    };
    let terms = (kernel[0] * kernel[1] * x[3] / groups) as i64;
    let b = Tensor::from_i64(DType::I32, [o], channel(-9000, 9000, 2));
    // results spread over the codes whatever the number of terms
    let unit = (1i64 << 32) / (terms * 200).max(64);
    let m = Tensor::from_i64(DType::I32, [o], channel(unit, 2 * unit, 3));
    let dm = Tensor::from_i64(DType::I32, [o], channel(1 << 30, (1 << 31) - 1, 4));
    let c = Tensor::from_i64(DType::U8, [o], channel(36, 41, 5));
    let high = conv(
        Epilogue::High,
        Codes {
            lo: 3,
            hi: 250,
            ..Codes::U8
        },
    );
    check_padded(&high, &[&tensors[0], &tensors[1], &b, &m]);
    let exact = conv(Epilogue::Exact { zero_point: 100 }, Codes::U8);
    check_padded(&exact, &[&tensors[0], &tensors[1], &b, &dm, &c]);
    let wide = conv(Epilogue::Exact { zero_point: 0 }, Codes::I16);
    check_padded(&wide, &[&tensors[0], &tensors[1], &b, &dm, &c]);
    check_padded(
        &conv(Epilogue::Accumulator, Codes::I32),
        &[&tensors[0], &tensors[1], &b],
    );
    let y = high
        .infer(&[&tensors[0].ty(), &tensors[1].ty(), &b.ty(), &m.ty()])
        .expect("the shapes fit");
    let r = tensor(DType::U8, &y.shape, seed + 6);
    let residual = conv(
        Epilogue::Residual {
            f: 2,
            p: 10,
            m2: 700,
        },
        Codes { lo: 1, ..Codes::U8 },
    );
    check_padded(&residual, &[&tensors[0], &tensors[1], &b, &m, &r]);
    // streams of 16 bits: one side or both
    let unit = unit << 6;
    let m = Tensor::from_i64(DType::I32, [o], channel(unit, 2 * unit, 3));
    check_padded(
        &conv(Epilogue::High, Codes::I16),
        &[&tensors[0], &tensors[1], &b, &m],
    );
    let wide = tensor(DType::I16, &y.shape, seed + 7);
    for (r, out, m2) in [
        (&r, Codes::I16, 30_000),
        (&wide, Codes::I16, 1000),
        (&wide, Codes::U8, 9),
    ] {
        let residual = conv(Epilogue::Residual { f: 2, p: 10, m2 }, out);
        check_padded(&residual, &[&tensors[0], &tensors[1], &b, &m, r]);
    }
}

/// The kernel of a convolution as it is lowered for a machine.
pub(crate) fn conv_kernel(
    x: [usize; 4],
    o: usize,
    kernel: [usize; 2],
    machine: &Machine,
) -> Kernel {
    let op = IntConv {
        stride: [1, 1],
        dilation: [1, 1],
        pad: kernel.map(|k| [(k - 1) / 2; 2]),
        groups: 1,
        pad_code: 0,
        weights: Format::Int8,
        epilogue: Epilogue::High,
        out: Codes::U8,
    };
    let tensors = [
        tensor(DType::U8, &x, 1),
        weights(&[o, kernel[0], kernel[1], x[3]], 2),
        Tensor::from_i64(DType::I32, [o], vec![0; o]),
        Tensor::from_i64(DType::I32, [o], vec![1 << 20; o]),
    ];
    let edges = op.pad[0].iter().chain(&op.pad[1]).copied();
    let edges: Vec<usize> = edges.collect();
    let mut storages: Vec<Storage> = tensors.iter().map(|t| bordered(&t.ty(), [0; 4])).collect();
    storages[0] = bordered(&tensors[0].ty(), [edges[0], edges[1], edges[2], edges[3]]);
    let operands: Vec<Operand<'_>> = storages
        .iter()
        .zip(&tensors)
        .map(|(storage, t)| Operand {
            storage,
            constant: Some(t),
        })
        .collect();
    let result = bordered(&Type::new(DType::U8, [1, x[1], x[2], o]), [0; 4]);
    let steps = super::conv::lower(&op, &operands, &result, machine);
    steps[0].kernel.clone()
}

/// Holds a convolution with weights of every format against its definition.
pub(crate) fn check_formats(x: [usize; 4], o: usize, kernel: [usize; 2], groups: usize) {
    for &format in Format::ALL {
        let w = [o, kernel[0], kernel[1], x[3] / groups];
        let all: Vec<i64> = format.codes().map(i64::from).collect();
        let raw = tensor(DType::U8, &w, 5);
        let codes = raw.as_slice::<u8>().iter();
        let codes = codes.map(|&r| all[usize::from(r) % all.len()]).collect();
        let w = Tensor::from_i64(DType::I8, w, codes);
        let op = IntConv {
            stride: [1, 1],
            dilation: [1, 1],
            pad: [0, 1].map(|i| [(kernel[i] - 1) / 2; 2]),
            groups,
            pad_code: 5,
            weights: format,
            epilogue: Epilogue::High,
            out: Codes::U8,
        };
        let largest = format.range().1 * 40 * (w.len() / o) as i32;
        let b = Tensor::new([o], (0..o as i32).map(|i| largest + i * 3).collect());
        let m = Tensor::new(
            [o],
            vec![(i64::from(i32::MAX) * 256 / i64::from(largest).max(520)) as i32; o],
        );
        check_padded(&op, &[&tensor(DType::U8, &x, 9), &w, &b, &m]);
    }
}

fn check_padded(op: &IntConv, tensors: &[&Tensor]) {
    let op_any: Op = op.clone().into();
    let expected = op_any
        .eval(tensors)
        .expect("the operation accepts its operands");
    for machine in machines() {
        for border in [[0; 4], [1, 0, 2, 1]] {
            let [rows, columns] = op.pad;
            let own = [
                rows[0] + border[0],
                rows[1] + border[1] + 2,
                columns[0] + border[2],
                columns[1] + border[3],
            ];
            let mut storages: Vec<Storage> = tensors
                .iter()
                .map(|t| bordered(&Type::new(t.dtype(), t.shape()), [0; 4]))
                .collect();
            storages[0] = bordered(&tensors[0].ty(), own);
            if tensors.len() == 5 && tensors[4].shape().len() == 4 {
                storages[4] = bordered(&tensors[4].ty(), border);
            }
            let result = bordered(&expected.ty(), border);
            let operands: Vec<Operand<'_>> = storages
                .iter()
                .zip(tensors)
                .map(|(storage, t)| Operand {
                    storage,
                    constant: Some(t),
                })
                .collect();
            let steps = super::conv::lower(op, &operands, &result, &machine);
            let found = run_filled(&steps, &storages, tensors, &result, op.pad_code);
            assert_eq!(
                found, expected,
                "{op:?} on {machine:?} with border {border:?}"
            );
        }
    }
}
