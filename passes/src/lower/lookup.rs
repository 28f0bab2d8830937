use lowbit_ir::DType;
use lowbit_kernel::{Builder, Role, Scalar, Type};

use super::elementwise::Nest;
use super::view::View;
use super::{Arg, Machine, Operand, Step, Storage};

pub(crate) fn lower(operands: &[Operand<'_>], result: &Storage, machine: &Machine) -> Vec<Step> {
    let table = operands[1].constant.expect("a table is constant");
    let bytes: Vec<u8> = if table.dtype() == DType::U8 {
        table.as_slice::<u8>().to_vec()
    } else {
        table
            .as_slice::<i16>()
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect()
    };
    let mut b = Builder::new("lookup");
    let x = b.buffer("x", Role::In, operands[0].storage.bytes);
    let t = b.buffer("table", Role::Const, bytes.len());
    let y = b.buffer("y", Role::Out, result.bytes);
    let byte_table = table.dtype() == DType::U8;
    let lanes = if byte_table {
        machine.vector_bytes() as u16
    } else {
        1
    };
    Nest::new(&View::of(result), &[View::of(operands[0].storage)]).emit(&mut b, lanes, |b, at| {
        let codes = at.load(b, 1, x);
        let v = if byte_table {
            b.lut256(codes, t.at(0))
        } else {
            let index = b.zext(Scalar::I32, codes);
            b.load(Type::I16, t.at(0).indexed(index, 2))
        };
        b.store(v, at.addr(0, y));
    });
    vec![Step {
        kernel: b.finish(),
        args: vec![Arg::Operand(0), Arg::Const(bytes), Arg::Result],
    }]
}

#[cfg(test)]
mod tests {
    use lowbit_ir::ops::IntLookup;

    use super::super::testing::{check, tensor};
    use super::*;

    #[test]
    fn equals_the_definition() {
        for dtype in [DType::U8, DType::I16] {
            let x = tensor(DType::U8, &[3, 5, 45], 1);
            check(&IntLookup.into(), &[&x, &tensor(dtype, &[256], 2)]);
        }
    }
}
