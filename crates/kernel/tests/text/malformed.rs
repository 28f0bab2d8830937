//! The verifier names what is wrong.

use lowbit_kernel::{Kernel, Program, verify};

fn complaint(body: &str) -> String {
    let text = format!("kernel k(@x: in 64, @y: out 64 slack 16) {{ {body} }}");
    verify(&text.parse::<Kernel>().unwrap())
        .unwrap_err()
        .to_string()
}

#[test]
fn each_violation_is_found() {
    let cases = [
        ("store %0, @y[0]", "%0 is used where it is not defined"),
        ("%0 = const i32 1 %0 = const i32 2", "%0 is defined twice"),
        (
            "%0 = load i32 @x[61]",
            "bytes 61..65 of @x, which ends at 64",
        ),
        ("%0 = load i32 @x[-1]", "bytes -1..3"),
        ("for i0 in 17 { %0 = load i32 @x[0 + i0*4] }", "bytes 0..68"),
        (
            "for i0 in 3 { %0 = load i32 @x[7 + i0*-4] }",
            "bytes -1..11",
        ),
        (
            "%0 = const i8x32 0 store %0, @y[33]",
            "bytes 33..65 of @y, which ends at 64",
        ),
        (
            "%0 = load i8x32 @y[49]",
            "bytes 49..81 of @y, which ends at 80",
        ),
        ("%0 = const i32 1 store %0, @x[0]", "@x is read only"),
        ("for i0 in 0 { }", "no trips"),
        ("for i0 in 2 { } for i0 in 2 { }", "only loop of its name"),
        ("for i0 in 2 { } %0 = index i32 i0", "no surrounding loop"),
        (
            "for i0 in 2 { %0 = const i32 1 } store %0, @y[0]",
            "%0 is used where it is not defined",
        ),
        (
            "%0 = const i32 1 for i0 in 2 (%1 = %0) -> (%2) { %3 = const i64 1 yield %3 }",
            "another type",
        ),
        (
            "%0 = const i32 1 for i0 in 2 (%1 = %0) -> (%2) { }",
            "different numbers",
        ),
        ("%0 = const i8 128", "does not fit"),
        ("%0 = const i64 0 %1 = load i8 @x[0 + %0*1]", "is no i32"),
        (
            "%0 = const i32x4 0 %1 = const i32x8 0 %2 = add i32x8 %0, %1",
            "one type",
        ),
        ("%0 = const i32x4 0 %1 = dot4 i32x4 %0, %0, %0", "factors"),
        (
            "%0 = const i8x16 0 %1 = zip4 i8x16 %0, %0, %0, %0, 4",
            "part",
        ),
        (
            "%0 = const i8x12 0 %1 = zip4 i8x12 %0, %0, %0, %0, 1",
            "multiple of 16",
        ),
        (
            "%0 = const i32 0 %1 = add i32 %0",
            "takes 2 operands, found 1",
        ),
        ("%0 = const i32 0 %1 = add i32 %0, %0, 3", "attribute"),
        ("prefetch @x[0], 4", "locality"),
        ("%0 = load i8 @x[0 + %9*1]", "%9 is used"),
        (
            "for i0 in 2 { %0 = load i8 @x[0 + i0*1 + i0*1] }",
            "twice in one address",
        ),
        ("%0 = load i8 @x[2000000000000]", "no sensible number"),
    ];
    for (body, expected) in cases {
        let found = complaint(body);
        assert!(
            found.contains(expected),
            "{body}\n  found `{found}`, expected `{expected}`"
        );
    }
}

fn program_complaint(memory: &str, call: &str) -> String {
    let kernel = "kernel k(@a: in 64 slack 64, @b: out 64 align 16) { %0 = load i8x64 @a[0] store %0, @b[0] }";
    let text = format!(
        "program p {memory} consts 64 {{ {} }} {kernel} call k \"l\" ({call})",
        "00".repeat(64)
    );
    text.parse::<Program>()
        .unwrap()
        .verify()
        .unwrap_err()
        .to_string()
}

#[test]
fn each_violation_of_a_program_is_found() {
    let memory = "arena 256 inputs [128, 64] outputs [64, 16]";
    let cases = [
        ("input0", "1 places for the 2 buffers"),
        ("input1, arena+0", "ends at byte 128 of 64"),
        ("input2, arena+0", "no such argument"),
        ("input0, output0", "not aligned to 16"),
        ("input0, arena+8", "not aligned to 16"),
        ("input0, arena+208", "ends at byte 272 of 256"),
        ("input0, const+0", "it is written"),
        ("input0, input0", "it is written"),
        ("arena+0, arena+48", "overlap"),
        ("const+0, arena+0", "ends at byte 128 of 64"),
    ];
    for (call, expected) in cases {
        let found = program_complaint(memory, call);
        assert!(
            found.contains(expected),
            "{call}\n  found `{found}`, expected `{expected}`"
        );
    }
}
