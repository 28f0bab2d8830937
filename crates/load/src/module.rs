//! A mapped object and its entries.

use std::ffi::{c_int, c_void};

use crate::arena::Arena;
use crate::error::{LoadError, Result};
use crate::image::Image;
use crate::memory::Pages;
use crate::relocate::Machine;

type Check = unsafe extern "C" fn() -> c_int;
type Run = unsafe extern "C" fn(*const *const c_void, *const *mut c_void, *mut c_void) -> c_int;
type Step =
    unsafe extern "C" fn(c_int, *const *const c_void, *const *mut c_void, *mut c_void) -> c_int;

type Task = unsafe extern "C" fn(*mut c_void, c_int);
type ParallelFor = unsafe extern "C" fn(*mut c_void, Task, *mut c_void, c_int);
type RunParallel = unsafe extern "C" fn(
    *const *const c_void,
    *const *mut c_void,
    *mut c_void,
    ParallelFor,
    *mut c_void,
) -> c_int;

/// Calls its first argument with every number below the second one, on threads of its choice, and waits for all.
pub type ForEach<'a> = &'a mut dyn FnMut(&(dyn Fn(i32) + Sync), i32);

/// What an object reads and writes, as its header says: `NAME_INPUTK_BYTES`, `NAME_OUTPUTK_BYTES`, `NAME_ARENA_BYTES`, `NAME_ARENA_ALIGN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of each input, in order.
    pub inputs: Vec<usize>,
    /// Bytes of each output, in order.
    pub outputs: Vec<usize>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Alignment of the arena, a power of two.
    pub arena_align: usize,
}

/// An object that is mapped into this process and can be called, from several threads at once where each has its own [`Arena`].
pub struct Module {
    pages: Pages,
    sizes: Sizes,
    check: usize,
    run: usize,
    step: Option<usize>,
    parallel: Option<usize>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

impl Module {
    /// Maps the object file in `object`, compiled for this processor under the name `name`, with `sizes` as in its header.
    ///
    /// The object must be one that this compiler wrote, with the sizes of its own header: see the crate's safety contract.
    ///
    /// # Errors
    /// The bytes are no relocatable ELF object for this machine; it has undefined symbols, writable data or relocations that are not
    /// known; `NAME_run` or `NAME_check_cpu` is missing; the system refuses executable memory.
    pub fn load(object: &[u8], name: &str, sizes: Sizes) -> Result<Self> {
        let host = std::env::consts::ARCH;
        let machine = Machine::host().ok_or_else(|| LoadError::WrongMachine {
            found: "another machine".into(),
            host,
        })?;
        let image = Image::parse(object, machine)?;
        let entry = |suffix: &str| {
            let symbol = format!("{name}_{suffix}");
            let found = image.function(&symbol)?;
            found.ok_or(LoadError::MissingSymbol(symbol))
        };
        Ok(Self {
            check: entry("check_cpu")?,
            run: entry("run")?,
            step: image.function(&format!("{name}_step"))?,
            parallel: image.function(&format!("{name}_run_parallel"))?,
            pages: Pages::map(&image)?,
            sizes,
        })
    }

    /// What it reads and writes.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// An arena as it needs.
    #[must_use]
    pub fn arena(&self) -> Arena {
        Arena::new(self.sizes.arena_bytes, self.sizes.arena_align)
    }

    /// Calls `NAME_check_cpu`: 0 where this processor and system have what the object uses, which must be known before the first run.
    #[must_use]
    pub fn check_cpu(&self) -> i32 {
        // SAFETY: the address is that of `NAME_check_cpu`, whose type this is, in executable pages that live as long as `self`.
        let check: Check = unsafe { std::mem::transmute(self.pages.address(self.check)) };
        // SAFETY: the crate's contract.
        unsafe { check() }
    }

    /// Calls `NAME_run`: 0, or the error that the header documents.
    ///
    /// # Panics
    /// Where the number or lengths of `inputs` and `outputs` or the arena's size or alignment are not those of [`sizes`](Self::sizes).
    #[must_use]
    pub fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], arena: &mut Arena) -> i32 {
        self.check_buffers(inputs, outputs, arena);
        let (inputs, outputs) = (pointers(inputs), pointers_mut(outputs));
        // SAFETY: the address is that of `NAME_run`, whose type this is, in executable pages that live as long as `self`.
        let run: Run = unsafe { std::mem::transmute(self.pages.address(self.run)) };
        // SAFETY: the buffers have the object's own sizes and are borrowed for the call; the rest is the crate's contract.
        unsafe {
            run(
                inputs.as_ptr(),
                outputs.as_ptr(),
                arena.bytes_mut().as_mut_ptr().cast(),
            )
        }
    }

    /// Whether the object cuts its layers for several threads.
    #[must_use]
    pub fn is_parallel(&self) -> bool {
        self.parallel.is_some()
    }

    /// Calls `NAME_run_parallel`: 0, or the error that the header documents; `None` where the object has none. A panic of `for_each` ends
    /// the process.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn run_parallel(
        &self,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        arena: &mut Arena,
        for_each: ForEach<'_>,
    ) -> Option<i32> {
        let offset = self.parallel?;
        self.check_buffers(inputs, outputs, arena);
        let (inputs, outputs) = (pointers(inputs), pointers_mut(outputs));
        // SAFETY: the address is that of `NAME_run_parallel`, whose type this is, in executable pages that live as long as `self`.
        let run: RunParallel = unsafe { std::mem::transmute(self.pages.address(offset)) };
        let mut for_each = for_each;
        // SAFETY: as in `run`; `hand_out` gets back the pointer to `for_each`, which outlives the call.
        Some(unsafe {
            run(
                inputs.as_ptr(),
                outputs.as_ptr(),
                arena.bytes_mut().as_mut_ptr().cast(),
                hand_out,
                std::ptr::from_mut(&mut for_each).cast(),
            )
        })
    }

    /// Whether the object can be run call by call, as one emitted for debugging can.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        self.step.is_some()
    }

    /// Calls `NAME_step`, which makes the one call of number `call` on what the calls before it left in the arena; `None` where the object
    /// has no steps.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn step(
        &self,
        call: i32,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        arena: &mut Arena,
    ) -> Option<i32> {
        let offset = self.step?;
        self.check_buffers(inputs, outputs, arena);
        let (inputs, outputs) = (pointers(inputs), pointers_mut(outputs));
        // SAFETY: the address is that of `NAME_step`, whose type this is, in executable pages that live as long as `self`.
        let step: Step = unsafe { std::mem::transmute(self.pages.address(offset)) };
        // SAFETY: as in `run`.
        Some(unsafe {
            step(
                call,
                inputs.as_ptr(),
                outputs.as_ptr(),
                arena.bytes_mut().as_mut_ptr().cast(),
            )
        })
    }

    fn check_buffers(&self, inputs: &[&[u8]], outputs: &[&mut [u8]], arena: &Arena) {
        let sizes = &self.sizes;
        assert!(
            inputs
                .iter()
                .map(|input| input.len())
                .eq(sizes.inputs.iter().copied()),
            "inputs differ from {sizes:?}"
        );
        assert!(
            outputs
                .iter()
                .map(|output| output.len())
                .eq(sizes.outputs.iter().copied()),
            "outputs differ from {sizes:?}"
        );
        assert!(
            arena.len() >= sizes.arena_bytes && arena.align() >= sizes.arena_align,
            "the arena differs from {sizes:?}"
        );
    }
}

/// What a task takes, which it may be given on any thread.
struct Argument(*mut c_void);

// SAFETY: tasks of one call write different parts of memory that outlives the call, which waits for all of them.
unsafe impl Sync for Argument {}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        self.0
    }
}

/// The `parallel_for` of an object: `context` points to a [`ForEach`].
unsafe extern "C" fn hand_out(
    context: *mut c_void,
    task: Task,
    argument: *mut c_void,
    parts: c_int,
) {
    // SAFETY: `run_parallel` gave the object this pointer.
    let for_each = unsafe { &mut *context.cast::<ForEach<'_>>() };
    let argument = Argument(argument);
    // SAFETY: the object asks for every part to be run once, on any thread, before this returns.
    for_each(&|part| unsafe { task(argument.pointer(), part) }, parts);
}

fn pointers(inputs: &[&[u8]]) -> Vec<*const c_void> {
    inputs.iter().map(|input| input.as_ptr().cast()).collect()
}

fn pointers_mut(outputs: &mut [&mut [u8]]) -> Vec<*mut c_void> {
    outputs
        .iter_mut()
        .map(|output| output.as_mut_ptr().cast())
        .collect()
}
