//! The C header of an object.

use std::fmt::Write;

use lowbit_report::{Port, Report};

use crate::object::{element_bytes, port_bytes};

fn c_type(port: &Port) -> &'static str {
    match port.r#type.as_str() {
        "u8" => "uint8_t",
        "i16" => "int16_t",
        "u16" => "uint16_t",
        _ => "int32_t",
    }
}

/// The header's text: C99 and C++11.
pub fn header(report: &Report) -> String {
    let name = &report.model.name;
    let upper = name.to_uppercase();
    let mut text = format!(
        "/* {name}: an integer-only network. Written by lowbit {version}; it belongs to whoever compiled it.\n *\n \
         * Call {name}_check_cpu() once, then {name}_run() as often as you like. Calls from several\n \
         * threads are independent where each has its own arena. Nothing is allocated, no float is computed.\n */\n\
         #ifndef {upper}_H\n#define {upper}_H\n\n#include <stdint.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         /* The caller's memory for intermediate results, and the stack a run needs at most. */\n\
         #define {upper}_ARENA_BYTES {arena}\n#define {upper}_ARENA_ALIGN 64\n#define {upper}_STACK_BYTES {stack}\n\n\
         #define {upper}_INPUTS {inputs}\n#define {upper}_OUTPUTS {outputs}\n",
        version = report.reproduce.lowbit_version,
        arena = report.totals.arena_bytes,
        stack = report.totals.stack_bytes,
        inputs = report.model.inputs.len(),
        outputs = report.model.outputs.len(),
    );
    for (kind, ports) in [
        ("INPUT", &report.model.inputs),
        ("OUTPUT", &report.model.outputs),
    ] {
        for (k, port) in ports.iter().enumerate() {
            port_macros(&mut text, &format!("{upper}_{kind}{k}"), port);
        }
    }
    let _ = write!(
        text,
        "\n/* Runs the network. inputs[k] and outputs[k] point to {upper}_INPUTk_BYTES and {upper}_OUTPUTk_BYTES bytes and\n \
         * may be unaligned; arena points to {upper}_ARENA_BYTES bytes aligned to {upper}_ARENA_ALIGN.\n \
         * Returns 0; 1 where a pointer is null; 2 where the arena is not aligned. */\n\
         int {name}_run(const void *const *inputs, void *const *outputs, void *arena);\n\n\
         /* Returns 0 where this processor and its operating system have what the object uses\n \
         * ({features}); else another number, and {name}_run must not be called.{asks} */\n\
         int {name}_check_cpu(void);\n",
        features = if report.target.features.is_empty() {
            "nothing special".into()
        } else {
            report.target.features.join(", ")
        },
        asks = if report.target.features.iter().any(|f| f == "amx-tile") {
            " Linux\n * lets a process use matrix tiles once it asked: this call asks, for all its threads."
        } else {
            ""
        },
    );
    if let Some(threads) = report.reproduce.threads {
        parallel(&mut text, name, threads);
    }
    helpers(&mut text, report, &upper);
    let _ = write!(text, "\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n");
    text
}

/// The entry for several threads.
fn parallel(text: &mut String, name: &str, threads: usize) {
    let _ = write!(
        text,
        "\n/* Runs the network with its large layers cut into {threads} parts. parallel_for(context, task, argument, parts) must call\n \
         * task(argument, part) once for every part from 0 to parts - 1, on threads of its choice, and return when all have\n \
         * returned; context is handed through. Returns what {name}_run returns, and the same bytes. */\n\
         typedef void (*{name}_task)(void *argument, int part);\n\
         typedef void (*{name}_parallel_for)(void *context, {name}_task task, void *argument, int parts);\n\
         int {name}_run_parallel(const void *const *inputs, void *const *outputs, void *arena,\n    \
         {name}_parallel_for parallel_for, void *context);\n",
    );
}

fn port_macros(text: &mut String, prefix: &str, port: &Port) {
    let shape: Vec<String> = port.shape.iter().map(ToString::to_string).collect();
    let escaped = c_string(&port.name);
    let _ = write!(
        text,
        "\n#define {prefix}_NAME \"{escaped}\"\n#define {prefix}_SHAPE {{{}}}\n#define {prefix}_ELEMENTS {}\n\
         #define {prefix}_BYTES {}\n#define {prefix}_TYPE {}\n#define {prefix}_SCALE {}\n#define {prefix}_ZERO_POINT {}\n",
        shape.join(", "),
        port_bytes(port) / element_bytes(port),
        port_bytes(port),
        c_type(port),
        float(port.scale),
        port.zero_point,
    );
}

/// The inside of a C string literal: what is not plain ASCII, or could end the literal or begin a trigraph, in octal.
fn c_string(text: &str) -> String {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && !b"\"\\?".contains(&b);
    text.bytes()
        .map(|b| match plain(b) {
            true => char::from(b).to_string(),
            false => format!("\\{b:03o}"),
        })
        .collect()
}

/// A scale as a C literal; scales are exact in `float`.
fn float(x: f64) -> String {
    format!("{:e}f", x as f32)
}

/// Inline functions that convert real values and codes; the object itself needs none of them.
fn helpers(text: &mut String, report: &Report, upper: &str) {
    let name = &report.model.name;
    let inline = "static inline";
    let _ = write!(
        text,
        "\n#ifndef {upper}_NO_HELPERS\n/* real = SCALE * (code - ZERO_POINT). Define {upper}_NO_HELPERS to leave these out. */\n"
    );
    for (k, port) in report.model.inputs.iter().enumerate() {
        let p = format!("{upper}_INPUT{k}");
        let _ = write!(
            text,
            "{inline} void {name}_quantize_input{k}(const float *real, {ty} *codes)\n{{\n    long i;\n    \
             for (i = 0; i < (long){p}_ELEMENTS; i++) {{\n        \
             double x = (double)real[i] / (double){p}_SCALE + 0.5;\n        \
             long q = x >= 256.0 ? 256 : x > -256.0 ? (long)x : -256;\n        \
             if ((double)q > x) q--;\n        q += {p}_ZERO_POINT;\n        \
             codes[i] = ({ty})(q < 0 ? 0 : q > 255 ? 255 : q);\n    }}\n}}\n",
            ty = c_type(port),
        );
    }
    for (k, port) in report.model.outputs.iter().enumerate() {
        let p = format!("{upper}_OUTPUT{k}");
        let _ = write!(
            text,
            "{inline} void {name}_dequantize_output{k}(const {ty} *codes, float *real)\n{{\n    long i;\n    \
             for (i = 0; i < (long){p}_ELEMENTS; i++)\n        \
             real[i] = {p}_SCALE * (float)((long)codes[i] - {p}_ZERO_POINT);\n}}\n",
            ty = c_type(port),
        );
    }
    let _ = writeln!(text, "#endif");
}
