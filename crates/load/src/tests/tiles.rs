//! Instructions one by one, as an assembler encodes them.

use libc::{REG_R9, REG_R12, REG_R13, REG_R14, REG_RAX, REG_RBP, REG_RBX, REG_RCX};
use libc::{REG_RDI, REG_RDX, REG_RIP, REG_RSP, greg_t};

use super::x86::{EMPTY, Tiles, step};

type Registers = [greg_t; 23];

/// Executes code that starts with an instruction; whether it did, in which case it went behind it.
fn execute(code: &[u8], registers: &mut Registers, tiles: &mut Tiles) -> bool {
    let mut padded = code.to_vec();
    padded.extend([0; 16]);
    let start = padded.as_ptr() as greg_t;
    registers[REG_RIP as usize] = start;
    let done = step(registers, tiles);
    let expected = if done { code.len() } else { 0 };
    assert_eq!(registers[REG_RIP as usize] - start, expected as greg_t);
    done
}

fn with(pairs: &[(i32, i64)]) -> Registers {
    let mut registers = [0; 23];
    for &(register, value) in pairs {
        registers[register as usize] = value;
    }
    registers
}

/// A configuration: rows and bytes of the first registers.
fn config(shapes: &[[u8; 2]]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for (k, &[rows, bytes]) in shapes.iter().enumerate() {
        config[16 + 2 * k] = bytes;
        config[48 + k] = rows;
    }
    config
}

fn configured(config: &[u8; 64]) -> Option<Tiles> {
    let mut tiles = EMPTY;
    let mut registers = with(&[(REG_RDI, config.as_ptr() as i64)]);
    // ldtilecfg (%rdi)
    execute(&[0xc4, 0xe2, 0x78, 0x49, 0x07], &mut registers, &mut tiles).then_some(tiles)
}

/// Every register of four rows of eight bytes.
fn square() -> Tiles {
    configured(&config(&[[4, 8]; 8])).expect("the shapes are valid")
}

#[test]
fn addresses_are_those_of_the_encoding() {
    let memory: Vec<u8> = (0..64).collect();
    let at = memory.as_ptr() as i64;
    let loads: [(&[u8], Registers, usize); 4] = [
        // tileloadd 8(%r12,%rbx), %tmm1
        (
            &[0xc4, 0xc2, 0x7b, 0x4b, 0x4c, 0x1c, 0x08],
            with(&[(REG_R12, at - 8), (REG_RBX, 16)]),
            1,
        ),
        // tileloadd (%r13,%rcx,2), %tmm2
        (
            &[0xc4, 0xc2, 0x7b, 0x4b, 0x54, 0x4d, 0x00],
            with(&[(REG_R13, at), (REG_RCX, 8)]),
            2,
        ),
        // tileloadd -4660(%rbp,%r9,8), %tmm7
        (
            &[0xc4, 0xa2, 0x7b, 0x4b, 0xbc, 0xcd, 0xcc, 0xed, 0xff, 0xff],
            with(&[(REG_RBP, at + 4660), (REG_R9, 2)]),
            7,
        ),
        // tileloadd (%r12,%rax), %tmm3
        (
            &[0xc4, 0xc2, 0x7b, 0x4b, 0x1c, 0x04],
            with(&[(REG_R12, at), (REG_RAX, 16)]),
            3,
        ),
    ];
    for (code, mut registers, tile) in loads {
        let mut tiles = square();
        assert!(execute(code, &mut registers, &mut tiles), "{code:x?}");
        for row in 0..4 {
            let found = &tiles.data[tile][row];
            assert_eq!(found[..8], memory[16 * row..][..8], "{code:x?}, row {row}");
            assert_eq!(found[8..], [0; 56]);
        }
    }
    let mut tiles = square();
    tiles.data[4][3][7] = 9;
    let mut out = [1u8; 40];
    let mut registers = with(&[(REG_RSP, out.as_mut_ptr() as i64), (REG_RDX, 10)]);
    // tilestored %tmm4, (%rsp,%rdx)
    assert!(execute(
        &[0xc4, 0xe2, 0x7a, 0x4b, 0x24, 0x14],
        &mut registers,
        &mut tiles
    ));
    let mut expected = [1; 40];
    (0..4).for_each(|row| expected[10 * row..][..8].fill(0));
    expected[37] = 9;
    assert_eq!(out, expected);
}

#[test]
fn configurations_are_read_and_refused_as_by_a_processor() {
    let good = config(&[[16, 64], [1, 4]]);
    let at = good.as_ptr() as i64;
    let calls: [(&[u8], Registers); 2] = [
        // ldtilecfg 64(%rsp)
        (
            &[0xc4, 0xe2, 0x78, 0x49, 0x44, 0x24, 0x40],
            with(&[(REG_RSP, at - 64)]),
        ),
        // ldtilecfg 16(%r13,%r14,4)
        (
            &[0xc4, 0x82, 0x78, 0x49, 0x44, 0xb5, 0x10],
            with(&[(REG_R13, at - 56), (REG_R14, 10)]),
        ),
    ];
    for (code, mut registers) in calls {
        assert!(execute(code, &mut registers, &mut { EMPTY }), "{code:x?}");
    }
    for (place, byte) in [
        (0, 2),
        (1, 1),
        (5, 1),
        (16, 65),
        (48, 17),
        (49, 0),
        (18, 0),
        (60, 1),
    ] {
        let mut bad = good;
        bad[place] = byte;
        assert!(configured(&bad).is_none(), "byte {place} is {byte}");
    }
}

#[test]
fn products_want_tiles_that_fit() {
    // tdpbusd %tmm3, %tmm2, %tmm1: the second factor, the first, the sum
    const CODE: [u8; 5] = [0xc4, 0xe2, 0x61, 0x5e, 0xca];
    let product = |shapes: [[u8; 2]; 3]| {
        let all = [[0, 0], shapes[2], shapes[1], shapes[0]];
        let mut tiles = configured(&config(&all)).expect("the shapes are valid");
        tiles.data[1][0][0] = 100;
        tiles.data[2][0][..4].copy_from_slice(&[200, 1, 2, 3]);
        tiles.data[3][0][..4].copy_from_slice(&[0xff, 10, 20, 30]);
        execute(&CODE, &mut with(&[]), &mut tiles).then(|| tiles.data[1][0][0])
    };
    let sum = 100 - 200 + 10 + 40 + 90;
    assert_eq!(product([[2, 12], [3, 8], [3, 12]]), Some(sum as u8));
    assert_eq!(product([[3, 12], [3, 8], [3, 12]]), None, "steps");
    assert_eq!(product([[2, 8], [3, 8], [3, 12]]), None, "lanes");
    assert_eq!(product([[2, 12], [4, 8], [3, 12]]), None, "rows");
    assert_eq!(product([[2, 12], [0, 0], [3, 12]]), None, "no first factor");
    // tdpbusd %tmm2, %tmm2, %tmm1
    let same = [0xc4, 0xe2, 0x69, 0x5e, 0xca];
    assert!(!execute(&same, &mut with(&[]), &mut square()));
}

#[test]
fn other_instructions_are_left_alone() {
    // ud2; a load into a register without a shape; vpdpbusd with the same prefix byte
    let others: [&[u8]; 3] = [
        &[0x0f, 0x0b],
        &[0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x07],
        &[0xc4, 0xe2, 0x75, 0x50, 0xc2],
    ];
    for code in others {
        let mut tiles = EMPTY;
        assert!(!execute(code, &mut with(&[]), &mut tiles), "{code:x?}");
    }
    let mut tiles = square();
    tiles.data[6][1][1] = 5;
    // tilezero %tmm6
    assert!(execute(
        &[0xc4, 0xe2, 0x7b, 0x49, 0xf0],
        &mut with(&[]),
        &mut tiles
    ));
    assert_eq!(tiles.data[6][1][1], 0);
    // tilerelease: no register has a shape then
    assert!(execute(
        &[0xc4, 0xe2, 0x78, 0x49, 0xc0],
        &mut with(&[]),
        &mut tiles
    ));
    assert!(!execute(
        &[0xc4, 0xe2, 0x7b, 0x49, 0xf0],
        &mut with(&[]),
        &mut tiles
    ));
}
