//! AArch64 images, linked here and run under emulation where the tools for it are installed.

use std::process::Command;

use crate::image::Image;
use crate::relocate::Machine;

/// Maps an image at the address it was linked for and calls `net_run` in it. Arguments: image, address, offset of the code, offset of the function.
const DRIVER: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    size_t base = strtoull(argv[2], 0, 0), code = strtoull(argv[3], 0, 0), run = strtoull(argv[4], 0, 0);
    FILE *file = fopen(argv[1], "rb");
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    char *image = mmap((void *)base, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if ((size_t)image != base || fread(image, 1, size, file) != size) return 1;
    __builtin___clear_cache(image, image + size);
    if (code && mprotect(image, code, PROT_READ)) return 1;
    if (mprotect(image + code, size - code, PROT_READ | PROT_EXEC)) return 1;
    uint8_t input[16], output[64], arena[64] __attribute__((aligned(64)));
    const void *inputs[] = {input};
    void *outputs[] = {output};
    for (int first = 0; first < 240; first += 16) {
        for (int i = 0; i < 16; i++) input[i] = first + i;
        if (((int (*)(const void *const *, void *const *, void *))(image + run))(inputs, outputs, arena)) return 1;
        for (int i = 0; i < 64; i++) printf("%02x", output[i]);
    }
    return 0;
}
"#;

/// Calls the same functions, linked by the system's linker.
const REFERENCE: &str = r#"
#include <stdint.h>
#include <stdio.h>
int net_run(const void *const *, void *const *, void *);
int main(void) {
    uint8_t input[16], output[64], arena[64] __attribute__((aligned(64)));
    const void *inputs[] = {input};
    void *outputs[] = {output};
    for (int first = 0; first < 240; first += 16) {
        for (int i = 0; i < 16; i++) input[i] = first + i;
        net_run(inputs, outputs, arena);
        for (int i = 0; i < 64; i++) printf("%02x", output[i]);
    }
    return 0;
}
"#;

fn ran(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

fn installed(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        println!("skipped: there is no `{tool}`");
    }
    there
}

#[test]
fn aarch64_images_run_as_the_system_linker_makes_them() {
    let (gcc, qemu) = ("aarch64-linux-gnu-gcc", "qemu-aarch64");
    if !installed(gcc) || !installed(qemu) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [
        ("net.c", include_str!("../../tests/net.c")),
        ("driver.c", DRIVER),
        ("reference.c", REFERENCE),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let build = |arguments: &[&str]| ran(Command::new(gcc).current_dir(&folder).args(arguments));
    build(&["-c", "-O2", "-fPIC", "-fno-inline", "net.c", "-o", "net.o"]);
    build(&["-static", "driver.c", "-o", "driver"]);
    build(&["-static", "reference.c", "net.o", "-o", "reference"]);
    let object = std::fs::read(path("net.o")).unwrap();
    let image = Image::parse(&object, Machine::AArch64).unwrap();
    let base = 0x50_0000_0000;
    std::fs::write(path("image"), image.link(base).unwrap()).unwrap();
    let run = image.function("net_run").unwrap().unwrap();
    let numbers = [base as usize, image.code().start, run].map(|n| n.to_string());
    let ours = ran(Command::new(qemu)
        .arg(path("driver"))
        .arg(path("image"))
        .args(numbers));
    let wanted = ran(Command::new(qemu).arg(path("reference")));
    assert_eq!(wanted.len(), 15 * 128);
    assert_eq!(ours, wanted);
}
