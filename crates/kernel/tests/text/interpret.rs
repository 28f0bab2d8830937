//! Meanings of operations on small examples worked out by hand.

use lowbit_kernel::{Kernel, OpCode, Program, run_kernel};

/// Runs statements on `x`, which store to `@y`.
fn run(body: &str, x: &[u8], y: usize) -> Result<Vec<u8>, String> {
    let text = format!("kernel k(@x: in {}, @y: out {y}) {{ {body} }}", x.len());
    let kernel: Kernel = text.parse().unwrap();
    lowbit_kernel::verify(&kernel).unwrap();
    let mut memory = vec![x.to_vec(), vec![0; y]];
    run_kernel(&kernel, &mut memory).map_err(|e| e.to_string())?;
    Ok(memory.remove(1))
}

fn i32s(xs: &[i32]) -> Vec<u8> {
    xs.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn every_operation_is_found_by_its_name() {
    for &code in OpCode::ALL {
        assert_eq!(OpCode::from_name(code.def().name), Some(code));
    }
    assert_eq!(OpCode::from_name("dot5"), None);
}

#[test]
fn dot4_reads_activations_unsigned_and_weights_signed() {
    let x = [i32s(&[7]), vec![255, 1, 2, 3, 0xff, 2, 0x80, 1]].concat();
    let body = |op| {
        format!(
            "%0 = load i32 @x[0] %1 = load i8x4 @x[4] %2 = load i8x4 @x[8] %3 = {op} i32 %0, %1, %2 store %3, @y[0]"
        )
    };
    assert_eq!(
        run(&body("dot4"), &x, 4).unwrap(),
        i32s(&[7 - 255 + 2 - 256 + 3])
    );
    assert_eq!(
        run(&body("dot4s"), &x, 4).unwrap(),
        i32s(&[7 + 1 + 2 - 256 + 3])
    );
}

#[test]
fn dot4_tile_multiplies_rows_by_columns_of_four_bytes() {
    // two rows of four bytes, three bytes apart; the columns of w are 1, 2, … in every byte
    let x = [1_u8, 1, 1, 255, 2, 2, 2];
    let w: Vec<u8> = (0..64).map(|k| k / 4 + 1).collect();
    let body = "%0 = const i32x32 7 %1 = load_rows i8x8 @x[0] rows 2 by 3 %2 = load_rows i8x64 @x[7] rows 1 by 0
        %3 = dot4_tile i32x32 %0, %1, %2 store %3, @y[0]";
    let sums = |row: i32| (1..=16).map(move |n| 7 + row * n);
    let expected: Vec<i32> = sums(1 + 1 + 1 + 255).chain(sums(255 + 2 + 2 + 2)).collect();
    assert_eq!(
        run(body, &[&x[..], &w].concat(), 128).unwrap(),
        i32s(&expected)
    );
    let refused = |text: &str| {
        let text = format!("kernel k(@x: in 64, @y: out 64) {{ {text} }}");
        lowbit_kernel::verify(&text.parse().unwrap())
            .unwrap_err()
            .to_string()
    };
    assert!(refused("%0 = load_rows i8x64 @x[0] rows 2 by 33").contains("ends at 64"));
    assert!(refused("%0 = load_rows i8x64 @x[0] rows 2 by -1").contains("@x"));
    assert!(refused("%0 = load_rows i8x68 @x[0] rows 17 by 0").contains("16 rows"));
    assert!(refused("%0 = load_rows i8x4 @x[0] rows 2 by 0").contains("multiple of 4"));
}

#[test]
fn requant_rounds_half_up_and_mulhi_floors() {
    let x = i32s(&[5, -5, 6, -7]);
    let body = "%0 = load i32x4 @x[0] %1 = const i32x4 3 %2 = const i32x4 1 %3 = requant i32x4 %0, %1, %2 store %3, @y[0]";
    assert_eq!(run(body, &x, 16).unwrap(), i32s(&[8, -7, 9, -10]));
    let body =
        "%0 = load i32x4 @x[0] %1 = const i32x4 1073741824 %2 = mulhi i32x4 %0, %1 store %2, @y[0]";
    assert_eq!(run(body, &x, 16).unwrap(), i32s(&[1, -2, 1, -2]));
}

#[test]
fn pack4_u8_undoes_zip4() {
    let rows: Vec<u8> = (0..128).collect();
    let body =
        "%0 = load i8x32 @x[0] %1 = load i8x32 @x[32] %2 = load i8x32 @x[64] %3 = load i8x32 @x[96]
        %4 = zip4 i8x32 %0, %1, %2, %3, 0 %5 = zip4 i8x32 %0, %1, %2, %3, 3
        store %4, @y[0] store %5, @y[32]";
    let found = run(body, &rows, 64).unwrap();
    assert_eq!(found[..8], [0, 32, 64, 96, 1, 33, 65, 97]);
    assert_eq!(found[16..20], [16, 48, 80, 112]);
    assert_eq!(found[32..36], [12, 44, 76, 108]);
    let low = "%10 = const i32x8 255";
    let part = |j: u32| {
        format!(
            "%{0} = zip4 i8x32 %0, %1, %2, %3, {j} %{1} = bitcast i32x8 %{0} %{2} = and i32x8 %{1}, %10",
            20 + j,
            30 + j,
            40 + j
        )
    };
    let parts: String = (0..4).map(part).collect();
    let loads = "%0 = load i8x32 @x[0] %1 = load i8x32 @x[32] %2 = load i8x32 @x[64] %3 = load i8x32 @x[96]";
    let body =
        format!("{loads} {low} {parts} %50 = pack4_u8 i8x32 %40, %41, %42, %43 store %50, @y[0]");
    assert_eq!(run(&body, &rows, 32).unwrap(), rows[..32]);
}

#[test]
fn loops_carry_values_and_move_addresses() {
    let x = i32s(&[1, 2, 3, 4, 5, 6]);
    let body = "%0 = const i32 0 for i0 in 2 (%1 = %0) -> (%2) {
        for i1 in 3 unroll (%3 = %1) -> (%4) {
          %5 = load i32 @x[20 + i0*-12 + i1*-4] %6 = index i32 i1 %7 = mul i32 %5, %6 %8 = add i32 %3, %7 yield %8 }
        store %4, @y[0 + i0*4] yield %4 } store %2, @y[8]";
    assert_eq!(run(body, &x, 12).unwrap(), i32s(&[13, 17, 17]));
}

#[test]
fn operands_outside_the_domain_are_faults() {
    let fault = |body| run(body, &[200, 0, 0, 0], 4).unwrap_err();
    assert!(fault("%0 = load i32 @x[0] %1 = shl i32 %0, %0").contains("shift amount 200"));
    assert!(fault("%0 = load i32 @x[0] %1 = const i32 0 %2 = udiv i32 %0, %1").contains("zero"));
    assert!(fault("%0 = load i32 @x[0] %1 = requant i32 %0, %0, %0").contains("1..=62"));
    assert!(
        fault("%0 = load i32 @x[0] %1 = load i8 @x[0 + %0*1]").contains("bytes 200..201 of @x")
    );
}

#[test]
fn a_program_runs_its_calls_in_order() {
    let text = "program p arena 64 inputs [4] outputs [4] consts 4 { 05000000 }
        kernel plus(@a: in 4, @b: const 4, @y: out 4) { %0 = load i32 @a[0] %1 = load i32 @b[0] %2 = add i32 %0, %1 store %2, @y[0] }
        call plus \"one\" (input0, const+0, arena+16)
        call plus \"two\" (arena+16, const+0, output0)";
    let program: Program = text.parse().unwrap();
    program.verify().unwrap();
    assert_eq!(program.run(&[&i32s(&[100])]).unwrap(), [i32s(&[110])]);
    assert!(
        program
            .run(&[&[0; 3]])
            .unwrap_err()
            .to_string()
            .contains("3 bytes, expected 4")
    );
    assert!(
        program
            .run(&[])
            .unwrap_err()
            .to_string()
            .contains("0 bytes, expected 4")
    );
}
