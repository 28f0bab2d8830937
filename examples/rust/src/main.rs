//! Recognises a handwritten digit with an integer-only network that the build script compiled.

use rayon::prelude::*;

include!(concat!(env!("OUT_DIR"), "/digits.rs"));

/// A three, 8×8 pixels of 0 to 16.
const DIGIT: [&str; 8] = [
    "..7FFC..", "..FGGF..", "....9G..", "...8GF..", "...7GG7.", ".....FG.", ".59.AGF.", ".BGGGC..",
];

fn pixel(c: char) -> f32 {
    let value = if c == '.' {
        0
    } else {
        c.to_digit(17).unwrap_or(0)
    };
    value as f32 / 16.0
}

fn main() {
    assert!(
        digits::check_cpu(),
        "this processor lacks what the network was compiled for"
    );
    let mut input = [0u8; digits::INPUT0_ELEMENTS];
    for (code, c) in input
        .iter_mut()
        .zip(DIGIT.iter().flat_map(|row| row.chars()))
    {
        let steps = pixel(c) / digits::INPUT0_SCALE + 0.5;
        *code = (steps as i32 + digits::INPUT0_ZERO_POINT).clamp(0, 255) as u8;
    }
    let mut logits = [0i16; digits::OUTPUT0_ELEMENTS];
    let mut arena = digits::Arena::new();
    digits::run(&input, &mut logits, &mut arena);
    // the same bytes with the network's large layers on all cores; one as small as this has none
    let mut again = [0i16; digits::OUTPUT0_ELEMENTS];
    digits::run_parallel(&input, &mut again, &mut arena, &|task, parts| {
        (0..parts).into_par_iter().for_each(task);
    });
    assert_eq!(logits, again);
    let best = (0..logits.len())
        .max_by_key(|&i| (logits[i], std::cmp::Reverse(i)))
        .unwrap_or(0);
    for row in DIGIT {
        println!("{row}");
    }
    println!("is a {best}");
}
