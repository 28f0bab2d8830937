//! Reads an object back and proves what it must not have.

use inkwell::llvm_sys::disassembler::{LLVMCreateDisasmCPUFeatures, LLVMDisasmContextRef};
use inkwell::llvm_sys::disassembler::{
    LLVMDisasmDispose, LLVMDisasmInstruction, LLVMSetDisasmOptions,
};
use inkwell::targets::{InitializationConfig, Target};
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};
use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::sync::Once;
use thiserror::Error;

use crate::kernel::KERNEL_PREFIX;

/// One instruction that computes, converts or compares floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatInstruction {
    /// Offset in its section in bytes.
    pub offset: u64,
    /// Its mnemonic.
    pub mnemonic: String,
}

/// What an object holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Floating-point instructions.
    pub float_instructions: Vec<FloatInstruction>,
    /// Symbols that a linker would have to find elsewhere.
    pub undefined_symbols: Vec<String>,
    /// Global symbols.
    pub exported_symbols: Vec<String>,
    /// Sections that hold data which a program may write.
    pub writable_sections: Vec<String>,
    /// Bytes of code.
    pub text_bytes: u64,
    /// Bytes of constants.
    pub rodata_bytes: u64,
}

/// Why an object cannot be scanned.
#[derive(Debug, Error)]
pub enum ScanError {
    /// It is no object file that can be read.
    #[error("not an object file: {0}")]
    Object(#[from] object::Error),
    /// There is no disassembler for it.
    #[error("no disassembler for {0:?}")]
    Architecture(Architecture),
    /// Bytes of code that are no instruction.
    #[error("section {section}: the bytes at offset {offset} are no instruction")]
    Undecodable {
        /// The section.
        section: String,
        /// Offset in it.
        offset: u64,
    },
}

/// Scans an object.
///
/// # Errors
/// It cannot be read or disassembled.
pub fn scan(bytes: &[u8]) -> Result<Report, ScanError> {
    let file = object::File::parse(bytes)?;
    let mut report = Report::default();
    for section in file.sections() {
        match section.kind() {
            SectionKind::Text => report.text_bytes += section.size(),
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                report.rodata_bytes += section.size()
            }
            _ => {}
        }
        if is_writable(section.flags()) && section.size() > 0 {
            report.writable_sections.push(section.name()?.to_owned());
        }
    }
    for symbol in file
        .symbols()
        .filter(|s| !s.name_bytes().unwrap_or_default().is_empty())
    {
        if symbol.is_undefined() {
            report.undefined_symbols.push(symbol.name()?.to_owned());
        } else if symbol.is_global() {
            report.exported_symbols.push(symbol.name()?.to_owned());
        }
    }
    let is_float = if file.architecture() == Architecture::Aarch64 {
        is_float_aarch64
    } else {
        is_float_x86
    };
    for (offset, text) in disassemble(bytes)? {
        if is_float(&text) {
            let mnemonic = mnemonic(&text).to_owned();
            report
                .float_instructions
                .push(FloatInstruction { offset, mnemonic });
        }
    }
    Ok(report)
}

/// Bytes of code of each kernel, by its name.
///
/// # Errors
/// It cannot be read.
pub fn kernel_bytes(bytes: &[u8]) -> Result<HashMap<String, u64>, ScanError> {
    let file = object::File::parse(bytes)?;
    let kernel = |s: object::Symbol| {
        let name = s.name().ok()?.strip_prefix(KERNEL_PREFIX)?;
        Some((name.to_owned(), s.size()))
    };
    Ok(file.symbols().filter_map(kernel).collect())
}

fn is_writable(flags: SectionFlags) -> bool {
    matches!(flags, SectionFlags::Elf { sh_flags } if sh_flags & u64::from(object::elf::SHF_WRITE) != 0)
}

/// Every instruction of every code section: offset in its section, text in the target's usual syntax (Intel's on x86).
///
/// # Errors
/// It cannot be read or disassembled.
pub fn disassemble(bytes: &[u8]) -> Result<Vec<(u64, String)>, ScanError> {
    let file = object::File::parse(bytes)?;
    let decoder = Decoder::new(file.architecture())?;
    let mut instructions = Vec::new();
    for section in file.sections().filter(|s| s.kind() == SectionKind::Text) {
        let (data, mut offset) = (section.data()?.to_vec(), 0);
        while offset < data.len() {
            let undecodable = || ScanError::Undecodable {
                section: section.name().unwrap_or_default().to_owned(),
                offset: offset as u64,
            };
            let (length, text) = decoder
                .decode(&data[offset..], offset as u64)
                .ok_or_else(undecodable)?;
            instructions.push((offset as u64, text));
            offset += length;
        }
    }
    Ok(instructions)
}

struct Decoder(LLVMDisasmContextRef);

impl Decoder {
    fn new(architecture: Architecture) -> Result<Self, ScanError> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            let config = InitializationConfig {
                disassembler: true,
                ..Default::default()
            };
            Target::initialize_x86(&config);
            Target::initialize_aarch64(&config);
        });
        let (triple, features) = match architecture {
            Architecture::X86_64 => (c"x86_64-unknown-linux-gnu", c""),
            Architecture::Aarch64 => (c"aarch64-unknown-linux-gnu", c"+all"),
            other => return Err(ScanError::Architecture(other)),
        };
        const INTEL_SYNTAX: u64 = 4;
        let (triple, features) = (triple.as_ptr(), features.as_ptr());
        // SAFETY: both strings end in NUL, no callback is given, and the context is checked before use.
        let context = unsafe {
            LLVMCreateDisasmCPUFeatures(
                triple,
                c"".as_ptr(),
                features,
                std::ptr::null_mut(),
                0,
                None,
                None,
            )
        };
        if context.is_null() {
            return Err(ScanError::Architecture(architecture));
        }
        if architecture == Architecture::X86_64 {
            // SAFETY: the context is valid.
            unsafe { LLVMSetDisasmOptions(context, INTEL_SYNTAX) };
        }
        Ok(Self(context))
    }

    /// Length and text of the first instruction of `bytes`.
    fn decode(&self, bytes: &[u8], address: u64) -> Option<(usize, String)> {
        let mut text = [0 as c_char; 256];
        let window = &bytes[..bytes.len().min(16)];
        let start = window.as_ptr().cast_mut();
        // SAFETY: LLVM only reads `window`, and writes at most the given length with a NUL into `text`.
        let (length, text) = unsafe {
            let length = LLVMDisasmInstruction(
                self.0,
                start,
                window.len() as u64,
                address,
                text.as_mut_ptr(),
                text.len(),
            );
            (length, CStr::from_ptr(text.as_ptr()))
        };
        let text = text.to_string_lossy();
        (length > 0).then(|| (length, without_encoding(text.trim()).to_owned()))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the context is valid and not used again.
        unsafe { LLVMDisasmDispose(self.0) }
    }
}

/// LLVM puts `{vex}` or `{evex}` in front where an instruction has both encodings.
fn without_encoding(text: &str) -> &str {
    match text.split_once('}') {
        Some((_, rest)) if text.starts_with('{') => rest.trim_start(),
        _ => text,
    }
}

fn mnemonic(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Moves, shuffles and bitwise operations with a float name: by what the name starts with, after `v`.
const MOVES: &[&str] = &[
    "mov",
    "and",
    "or",
    "xor",
    "shuf",
    "unpck",
    "blend",
    "perm",
    "broadcast",
    "insert",
    "extract",
    "compress",
    "expand",
    "gather",
    "scatter",
    "maskmov",
    "test",
    "mskmov",
];

/// A vector instruction with a float suffix that is no move, any conversion, and all of x87.
fn is_float_x86(text: &str) -> bool {
    let name = mnemonic(text);
    let stem = name.strip_prefix('v').unwrap_or(name);
    if stem.starts_with("cvt") || stem.starts_with("pf") {
        return true;
    }
    if name.starts_with('f') {
        return true;
    }
    let on_vectors = text.contains("mm");
    let suffixed = ["ps", "pd", "ss", "sd", "ph", "sh"]
        .iter()
        .any(|s| stem.ends_with(s));
    let integer = stem.starts_with('p')
        || ["tdpb", "tdpbssd"]
            .iter()
            .any(|t| stem.starts_with(t) && stem.ends_with('d'));
    on_vectors
        && (suffixed || stem.contains("bf16"))
        && !integer
        && !MOVES.iter().any(|m| stem.starts_with(m))
}

/// Everything that starts with `f` but a move or a selection, conversions from integers, and bfloat arithmetic.
fn is_float_aarch64(text: &str) -> bool {
    let name = mnemonic(text);
    let moves = ["fmov", "fcsel"];
    let conversions = [
        "scvtf", "ucvtf", "bfcvt", "bfdot", "bfmmla", "bfmlal", "bfadd", "bfsub", "bfmul",
    ];
    (name.starts_with('f') && !moves.contains(&name))
        || conversions.iter().any(|c| name.starts_with(c))
}

#[cfg(test)]
mod tests {
    use super::{is_float_aarch64, is_float_x86, without_encoding};

    #[test]
    fn encodings_are_no_mnemonics() {
        assert_eq!(
            without_encoding("{vex}\tvpdpbusd\tymm0, ymm1, ymm2"),
            "vpdpbusd\tymm0, ymm1, ymm2"
        );
        assert_eq!(
            without_encoding("vmovdqu8\tzmm1 {k1}, zmm2"),
            "vmovdqu8\tzmm1 {k1}, zmm2"
        );
    }

    #[test]
    fn x86_float_instructions_are_told_from_moves_and_integers() {
        for float in [
            "vaddps zmm0, zmm1, zmm2",
            "cvtsi2sd xmm0, eax",
            "vfmadd213ss xmm0, xmm1, xmm2",
            "fld qword ptr [rax]",
            "ucomisd xmm0, xmm1",
            "vdpbf16ps zmm0, zmm1, zmm2",
            "vcvtdq2ps ymm0, ymm1",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "vminph zmm0, zmm1, zmm2",
        ] {
            assert!(is_float_x86(float), "{float}");
        }
        for other in [
            "vmovups zmm0, zmmword ptr [rax]",
            "vxorps xmm0, xmm0, xmm0",
            "vpdpbusd zmm0, zmm1, zmm2",
            "vpmaxsd zmm0, zmm1, zmm2",
            "push rbx",
            "vpackusdw ymm0, ymm1, ymm2",
            "vshufps ymm0, ymm1, ymm2, 136",
            "tdpbusd tmm0, tmm1, tmm2",
            "vinsertf128 ymm0, ymm0, xmm1, 1",
            "vpermi2ps zmm0, zmm1, zmm2",
            "vpabsd xmm0, xmm1",
            "vbroadcastss zmm0, xmm0",
            "movsd xmm0, qword ptr [rax]",
        ] {
            assert!(!is_float_x86(other), "{other}");
        }
    }

    #[test]
    fn aarch64_float_instructions_are_told_from_moves_and_integers() {
        for float in [
            "fadd v0.4s, v1.4s, v2.4s",
            "scvtf s0, w0",
            "fcmp s0, s1",
            "fcvtzs w0, s0",
            "bfdot v0.4s, v1.8h, v2.8h",
        ] {
            assert!(is_float_aarch64(float), "{float}");
        }
        for other in [
            "fmov s0, w0",
            "bfi w0, w1, #3, #4",
            "bfxil x0, x1, #0, #8",
            "sdot v0.4s, v1.16b, v2.16b",
            "fcsel s0, s1, s2, eq",
        ] {
            assert!(!is_float_aarch64(other), "{other}");
        }
    }
}
