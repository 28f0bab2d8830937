//! Any text is a program that prints as what it was parsed from, or a message.
#![no_main]

use lowbit_kernel::Program;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(program) = text.parse::<Program>() {
        let _ = program.verify();
        assert!(program.to_string().parse::<Program>().unwrap() == program);
    }
});
