//! Objects that a C compiler writes, loaded and called; damaged ones, refused.

use std::process::Command;
use std::sync::OnceLock;

use lowbit_load::{Arena, LoadError, Module, Sizes};
use proptest::prelude::*;

const NET: &str = include_str!("net.c");

/// Compiles C for this processor; `None`, with a line that says so, where there is no compiler.
fn compile(source: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("net.c"), folder.path().join("net.o"));
    std::fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-c", "-O2", "-fno-asynchronous-unwind-tables"])
        .args(flags);
    let Ok(done) = command.arg(&input).arg("-o").arg(&output).output() else {
        println!("skipped: there is no `cc`");
        return None;
    };
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Some(std::fs::read(output).unwrap())
}

fn net() -> Option<&'static [u8]> {
    static NET_OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let object = NET_OBJECT.get_or_init(|| compile(NET, &["-fPIC", "-fno-inline"]));
    object.as_deref()
}

fn sizes() -> Sizes {
    Sizes {
        inputs: vec![16],
        outputs: vec![64],
        arena_bytes: 64,
        arena_align: 64,
    }
}

/// What `net.c` computes.
fn expected(input: &[u8]) -> Vec<u8> {
    let (table, primes) = ([3, 1, 4, 1, 5, 9, 2, 6], [2, 3, 5, 7]);
    let choose = |x: i32| match x & 15 {
        0 => x * 3 + 7,
        1 => x * x - 11,
        2 => x / 5,
        3 => x * 9,
        4 => (x << 3) ^ 0x55,
        5 => -x,
        6 => x % 13 + 1,
        which => table[(which & 7) as usize],
    };
    let value = |(i, &x): (usize, &u8)| {
        let other = if x & 1 == 0 {
            table[i & 3]
        } else {
            primes[i & 3]
        };
        choose(i32::from(x)) + other
    };
    input
        .iter()
        .enumerate()
        .map(value)
        .flat_map(i32::to_le_bytes)
        .collect()
}

#[test]
fn a_module_computes_what_the_source_says() {
    let Some(object) = net() else { return };
    let module = Module::load(object, "net", sizes()).unwrap();
    assert_eq!(module.check_cpu(), 0);
    let mut arena = module.arena();
    for first in 0..240 {
        let input: Vec<u8> = (first..).take(16).collect();
        let mut output = [0; 64];
        assert_eq!(module.run(&[&input], &mut [&mut output], &mut arena), 0);
        assert_eq!(output[..], expected(&input));
    }
}

#[test]
fn sections_of_their_own_and_debug_information_do_no_harm() {
    let flags = [
        "-fPIC",
        "-g",
        "-ffunction-sections",
        "-fdata-sections",
        "-fasynchronous-unwind-tables",
    ];
    let Some(object) = compile(NET, &flags) else {
        return;
    };
    let module = Module::load(&object, "net", sizes()).unwrap();
    let mut output = [0; 64];
    assert_eq!(
        module.run(&[&[9; 16]], &mut [&mut output], &mut module.arena()),
        0
    );
    assert_eq!(output[..], expected(&[9; 16]));
}

#[test]
fn threads_share_a_module() {
    let Some(object) = net() else { return };
    let module = Module::load(object, "net", sizes()).unwrap();
    std::thread::scope(|scope| {
        for first in 0..4_u8 {
            let module = &module;
            scope.spawn(move || {
                let input: Vec<u8> = (first * 50..).take(16).collect();
                let mut arena = module.arena();
                for _ in 0..1000 {
                    let mut output = [0; 64];
                    assert_eq!(module.run(&[&input], &mut [&mut output], &mut arena), 0);
                    assert_eq!(output[..], expected(&input));
                }
            });
        }
    });
}

#[test]
fn steps_make_one_call_each() {
    let Some(object) = net() else { return };
    let module = Module::load(object, "net", sizes()).unwrap();
    assert!(module.has_steps());
    let (input, mut output, mut arena) = ([200; 16], [0; 64], module.arena());
    arena.bytes_mut().fill(0xaa);
    assert_eq!(
        module.step(0, &[&input], &mut [&mut output], &mut arena),
        Some(0)
    );
    assert_eq!((arena.bytes(), output), (&expected(&input)[..], [0; 64]));
    assert_eq!(
        module.step(1, &[&input], &mut [&mut output], &mut arena),
        Some(0)
    );
    assert_eq!(output[..], expected(&input));
    assert_eq!(
        module.step(2, &[&input], &mut [&mut output], &mut arena),
        Some(3)
    );
}

#[test]
fn an_object_without_steps_says_so() {
    let source = "int net_run(void) { return 5; } int net_check_cpu(void) { return 6; }";
    let Some(object) = compile(source, &["-fPIC"]) else {
        return;
    };
    let none = Sizes {
        inputs: vec![],
        outputs: vec![],
        arena_bytes: 0,
        arena_align: 1,
    };
    let module = Module::load(&object, "net", none).unwrap();
    let mut arena = module.arena();
    assert_eq!(
        (module.run(&[], &mut [], &mut arena), module.check_cpu()),
        (5, 6)
    );
    assert_eq!(module.step(0, &[], &mut [], &mut arena), None);
}

#[test]
#[should_panic(expected = "outputs differ")]
fn a_short_output_panics_before_the_call() {
    let Some(object) = net() else {
        panic!("outputs differ: not tested without `cc`")
    };
    let module = Module::load(object, "net", sizes()).unwrap();
    let _ = module.run(&[&[0; 16]], &mut [&mut [0; 63]], &mut module.arena());
}

#[test]
#[should_panic(expected = "arena differs")]
fn a_small_arena_panics_before_the_call() {
    let Some(object) = net() else {
        panic!("arena differs: not tested without `cc`")
    };
    let module = Module::load(object, "net", sizes()).unwrap();
    let _ = module.run(&[&[0; 16]], &mut [&mut [0; 64]], &mut Arena::new(63, 64));
}

fn refusal(source: &str, flags: &[&str]) -> Option<String> {
    let object = compile(source, flags)?;
    Some(
        Module::load(&object, "net", sizes())
            .unwrap_err()
            .to_string(),
    )
}

#[test]
fn unfit_objects_are_refused_with_the_reason() {
    let entries = "int net_check_cpu(void) { return 0; } int net_run(void)";
    let cases = [
        (
            format!("int other(void); {entries} {{ return other() + 1; }}"),
            "`other` is undefined",
        ),
        (
            format!("int state; {entries} {{ return state++; }}"),
            "`.bss` is writable",
        ),
        (
            format!("int state = 4; {entries} {{ return state++; }}"),
            "`.data` is writable",
        ),
        ("int net_check_cpu(void) { return 0; }".into(), "`net_run`"),
        ("int net_run(void) { return 0; }".into(), "`net_check_cpu`"),
        (
            "const int net_run = 4; const int net_check_cpu = 3;".into(),
            "no function",
        ),
    ];
    for (source, part) in cases {
        let Some(message) = refusal(&source, &["-fPIC"]) else {
            return;
        };
        assert!(
            message.contains(part),
            "{source} gave {message:?}, without {part:?}"
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn code_that_depends_on_its_place_is_refused() {
    let source = "static const int t[4] = {1, 2, 3, 4}; int net_check_cpu(int i) { return t[i]; } int net_run(void) { return 0; }";
    let Some(message) = refusal(source, &["-fno-pic", "-mcmodel=kernel"]) else {
        return;
    };
    assert!(message.contains("position-independent"), "{message}");
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"hello", b"\x7fELF", &[0; 4096]] {
        assert!(matches!(
            Module::load(bytes, "net", sizes()),
            Err(LoadError::NotElf(_))
        ));
    }
    let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(
        Module::load(&me, "net", sizes()),
        Err(LoadError::NotRelocatable(_))
    ));
}

#[test]
fn a_foreign_object_is_refused() {
    let Some(object) = net() else { return };
    let mut object = object.to_vec();
    let riscv = 243_u16;
    object[18..20].copy_from_slice(&riscv.to_le_bytes());
    assert!(matches!(
        Module::load(&object, "net", sizes()),
        Err(LoadError::WrongMachine { .. })
    ));
}

#[test]
fn a_truncated_object_is_refused_at_every_length() {
    let Some(object) = net() else { return };
    for length in 0..object.len() {
        assert!(
            Module::load(&object[..length], "net", sizes()).is_err(),
            "{length} bytes were accepted"
        );
    }
}

proptest! {
    /// Loading damaged bytes ends in a module or an error. What loads is never called.
    #[test]
    fn damaged_objects_never_crash(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        if let Some(object) = net() {
            let mut object = object.to_vec();
            for (place, byte) in changes {
                *place.get_mut(&mut object) = byte;
            }
            let _ = Module::load(&object, "net", sizes());
        }
    }

    /// As above, with the changes where the structure is: headers of the file, sections, symbols and relocations.
    #[test]
    fn damaged_headers_never_crash(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..4)) {
        if let Some(object) = net() {
            let mut object = object.to_vec();
            for (place, word) in changes {
                let words = object.len() / 8;
                let at = place.index(words) * 8;
                object[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            let _ = Module::load(&object, "net", sizes());
        }
    }
}

#[test]
fn arenas_are_aligned_and_zeroed() {
    for (bytes, align) in [(0, 64), (1, 1), (1000, 4096), (64, 64)] {
        let arena = Arena::new(bytes, align);
        assert_eq!(
            (arena.len(), arena.align(), arena.is_empty()),
            (bytes, align, bytes == 0)
        );
        assert_eq!(arena.bytes().as_ptr() as usize % align, 0);
        assert!(arena.bytes().iter().all(|&byte| byte == 0));
    }
}
