//! From a program to an object.

use crate::entry::{Entry, define_consts, task_symbol};
use crate::generate::Generator;
use crate::{check, kernel};
use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context;
use inkwell::llvm_sys::LLVMDiagnosticSeverity::{LLVMDSError, LLVMDSWarning};
use inkwell::llvm_sys::core::{
    LLVMContextSetDiagnosticHandler, LLVMDisposeMessage, LLVMGetDiagInfoDescription,
    LLVMGetDiagInfoSeverity,
};
use inkwell::llvm_sys::prelude::LLVMDiagnosticInfoRef;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};
use lowbit_kernel::{Program, ProgramError};
use lowbit_targets::ResolvedTarget;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::sync::Once;
use thiserror::Error;

/// Optimisations in order. Loops are never unrolled, vectorised or turned into library calls: the kernel text decides. Nothing
/// is moved out of loops here either: selection sees one block at a time and must find sign extensions next to their products,
/// and LLVM moves what is invariant after selection, as far as registers allow.
const PASSES: &str = "function(early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,early-cse<memssa>,adce)";

/// What to emit besides the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep LLVM's text after the passes.
    pub ir: bool,
    /// Keep the assembly.
    pub asm: bool,
    /// Export `int NAME_step(int call, const void *const *inputs, void *const *outputs, void *arena)`, which makes one call of the
    /// program (3 when there is none of that number). For measuring and checking layers, not for delivery.
    pub debug_steps: bool,
    /// Export `int NAME_run_parallel(const void *const *inputs, void *const *outputs, void *arena, parallel_for, void *context)`,
    /// which hands calls that may run at the same time to
    /// `void parallel_for(void *context, void (*task)(void *argument, int part), void *argument, int parts)`.
    pub parallel: bool,
}

/// An emitted program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The ELF object.
    pub object: Vec<u8>,
    /// LLVM's text, where asked for.
    pub ir: Option<String>,
    /// Assembly, where asked for.
    pub asm: Option<String>,
    /// Bytes of stack that `NAME_run`, or `NAME_run_parallel` without the caller's `parallel_for`, needs at most, return
    /// addresses and alignment included.
    pub stack_bytes: u32,
}

/// Why a program cannot be emitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EmitError {
    /// The program is malformed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// LLVM was built without the target or refuses it.
    #[error("LLVM has no code generator for {0}")]
    Target(String),
    /// LLVM refuses the module: a bug of this crate.
    #[error("LLVM refuses the module: {0}")]
    Llvm(String),
}

/// Lowers a program for a target. The same program, target and options give the same bytes. Calls from several threads are independent.
///
/// # Errors
/// The program is malformed, or LLVM lacks the target.
pub fn emit(
    program: &Program,
    target: &ResolvedTarget,
    options: &Options,
) -> Result<Emitted, EmitError> {
    program.verify()?;
    let machine = machine(target)?;
    let frames = Frames::default();
    let context = Context::create();
    frames.listen(&context);
    let module = context.create_module(&program.name);
    module.set_source_file_name(&program.name);
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let g = Generator::new(&context, module);
    fill(&g, program, target, options);
    let module = &g.module;
    module
        .verify()
        .map_err(|e| EmitError::Llvm(e.to_string()))?;
    let passes = PassBuilderOptions::create();
    module
        .run_passes(PASSES, &machine, passes)
        .map_err(|e| EmitError::Llvm(e.to_string()))?;
    let ir = options.ir.then(|| module.print_to_string().to_string());
    let asm = if options.asm {
        Some(assembly(&machine, &module.clone())?)
    } else {
        None
    };
    frames.sizes.borrow_mut().clear();
    let object = write(&machine, module, FileType::Object)?;
    Ok(Emitted {
        object,
        ir,
        asm,
        stack_bytes: frames.deepest(program),
    })
}

fn fill(g: &Generator<'_>, program: &Program, target: &ResolvedTarget, options: &Options) {
    let consts = define_consts(g, program);
    let kernels: Vec<_> = program
        .kernels
        .iter()
        .map(|k| kernel::define(g, target, k))
        .collect();
    let entry = Entry {
        g,
        program,
        kernels: &kernels,
        consts,
    };
    let run = entry.define_run();
    let mut others = vec![check::define(g, target, &program.name)];
    if options.debug_steps {
        others.push(entry.define_step());
    }
    if options.parallel {
        others.extend(entry.define_run_parallel());
    }
    let wide = (target.level.vector_bytes * 8).to_string();
    for function in kernels.iter().copied().chain([run]).chain(others) {
        function.add_attribute(AttributeLoc::Function, g.word("prefer-vector-width", &wide));
        function.add_attribute(AttributeLoc::Function, g.word("warn-stack-size", "0"));
    }
}

fn machine(target: &ResolvedTarget) -> Result<TargetMachine, EmitError> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let config = InitializationConfig::default();
        Target::initialize_x86(&config);
        Target::initialize_aarch64(&config);
    });
    let triple = TargetTriple::create(&target.triple);
    let refused = |_| EmitError::Target(target.triple.clone());
    let llvm = Target::from_triple(&triple).map_err(refused)?;
    let machine = llvm.create_target_machine(
        &triple,
        target.level.llvm_cpu_for(target.arch),
        &target.llvm_features(),
        OptimizationLevel::Default,
        RelocMode::PIC,
        CodeModel::Small,
    );
    machine.ok_or_else(|| EmitError::Target(target.triple.clone()))
}

fn write(
    machine: &TargetMachine,
    module: &Module<'_>,
    kind: FileType,
) -> Result<Vec<u8>, EmitError> {
    let buffer = machine
        .write_to_memory_buffer(module, kind)
        .map_err(|e| EmitError::Llvm(e.to_string()))?;
    Ok(buffer.as_slice().to_vec())
}

fn assembly(machine: &TargetMachine, module: &Module<'_>) -> Result<String, EmitError> {
    let text = write(machine, module, FileType::Assembly)?;
    Ok(String::from_utf8_lossy(&text)
        .trim_end_matches('\0')
        .to_owned())
}

/// Frame sizes by function, as LLVM reports them where a frame is larger than its `warn-stack-size`.
#[derive(Debug, Default)]
struct Frames {
    sizes: RefCell<BTreeMap<String, u32>>,
    unread: RefCell<Vec<String>>,
}

impl Frames {
    /// A return address, and what aligning the stack for 64-byte spills may skip.
    const CALL: u32 = 8 + 64;

    fn listen(&self, context: &Context) {
        let this = std::ptr::from_ref(self).cast_mut();
        // SAFETY: the context is dropped before `self`, and only the thread that emits calls the handler.
        unsafe { LLVMContextSetDiagnosticHandler(context.raw(), Some(record), this.cast()) }
    }

    fn note(&self, message: &str) {
        match frame(message) {
            Some((function, size)) => {
                self.sizes.borrow_mut().insert(function.to_owned(), size);
            }
            None => self.unread.borrow_mut().push(message.to_owned()),
        }
    }

    fn of(&self, function: &str) -> u32 {
        self.sizes.borrow().get(function).copied().unwrap_or(0) + Self::CALL
    }

    fn deepest(&self, program: &Program) -> u32 {
        let unread = self.unread.borrow();
        assert!(unread.is_empty(), "LLVM reported: {}", unread.join("; "));
        let deepest = program
            .kernels
            .iter()
            .map(|k| self.of(&kernel::symbol(k)))
            .max()
            .unwrap_or(0);
        // a kernel is called by the run, or by a task that the run has handed out
        let run = self.of(&format!("{}_run", program.name));
        let parallel = format!("{}_run_parallel", program.name);
        let tasks = if self.sizes.borrow().contains_key(&parallel) {
            self.of(&parallel) + self.of(&task_symbol(program))
        } else {
            0
        };
        run.max(tasks) + deepest
    }
}

/// Reads `stack frame size (N) exceeds limit (0) in function 'f'`.
fn frame(message: &str) -> Option<(&str, u32)> {
    let (_, rest) = message.split_once("stack frame size (")?;
    let (size, rest) = rest.split_once(')')?;
    let (_, rest) = rest.split_once("in function '")?;
    Some((rest.strip_suffix('\'')?, size.parse().ok()?))
}

extern "C" fn record(info: LLVMDiagnosticInfoRef, frames: *mut c_void) {
    // SAFETY: LLVM hands back the pointer that `listen` gave it and a message that lives until it is disposed of.
    unsafe {
        if !matches!(LLVMGetDiagInfoSeverity(info), LLVMDSError | LLVMDSWarning) {
            return;
        }
        let text = LLVMGetDiagInfoDescription(info);
        let message = CStr::from_ptr(text).to_string_lossy().into_owned();
        LLVMDisposeMessage(text);
        (*frames.cast_const().cast::<Frames>()).note(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn frame_messages_are_read() {
        let message = "stack frame size (136) exceeds limit (0) in function 'net_run'";
        assert_eq!(frame(message), Some(("net_run", 136)));
        assert_eq!(frame("something else"), None);
    }
}
