//! Printing and parsing undo each other, and no text makes the reader panic.

use crate::random::{Random, SIZES, kernel};
use lowbit_kernel::{Call, Kernel, Place, Program, run_kernel, verify};
use proptest::prelude::{any, prop_assert_eq, proptest};

fn program(seed: u64) -> Program {
    let mut second = kernel(seed.wrapping_add(1));
    second.name = "other".into();
    let args = |at| {
        vec![
            Place::Input(0),
            Place::Const(at),
            Place::Output(0),
            Place::Arena(64),
        ]
    };
    let call = |kernel, label: &str| Call {
        kernel,
        label: label.into(),
        args: args(64 * kernel),
        beside: label.is_empty(),
    };
    Program {
        name: "net".into(),
        kernels: vec![kernel(seed), second],
        consts: Random(seed).bytes(700),
        calls: vec![call(0, "first layer"), call(1, "second"), call(0, "")],
        arena_bytes: 704,
        inputs: vec![SIZES[0]],
        outputs: vec![SIZES[2]],
    }
}

proptest! {
    #[test]
    fn a_printed_kernel_parses_to_itself(seed in any::<u64>()) {
        let kernel = kernel(seed);
        verify(&kernel).unwrap();
        prop_assert_eq!(kernel.to_string().parse::<Kernel>().unwrap(), kernel);
    }

    #[test]
    fn a_printed_program_parses_to_itself(seed in any::<u64>()) {
        let program = program(seed);
        prop_assert_eq!(program.to_string().parse::<Program>().unwrap(), program);
    }

    #[test]
    fn a_spoilt_text_is_an_error_or_a_kernel(seed in any::<u64>(), at in any::<usize>(), with in "[-a-z0-9%@{}() ,*+\\[\\]]{0,4}") {
        let mut text = program(seed).to_string();
        let at = at % text.len();
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        if let Ok(program) = text.parse::<Program>() {
            let _ = program.verify();
        }
        for kernel in program(seed).kernels {
            let mut text = kernel.to_string();
            // all but the last brace and the line's end
            text.truncate(at % text.trim_end().len());
            assert!(text.parse::<Kernel>().is_err());
        }
    }

    #[test]
    fn any_text_is_an_error_or_a_kernel(text in "\\PC{0,200}") {
        let _ = text.parse::<Program>();
        let _ = format!("kernel k() {{ {text} }}").parse::<Kernel>();
    }

    #[test]
    fn a_verified_kernel_runs(seed in any::<u64>()) {
        let kernel = kernel(seed);
        let mut memory: Vec<_> = SIZES.iter().map(|&n| Random(seed).bytes(n)).collect();
        run_kernel(&kernel, &mut memory).unwrap();
    }
}
