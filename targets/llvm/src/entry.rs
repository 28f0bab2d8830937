//! `NAME_run`, `NAME_run_parallel` where layers are cut for threads and, for measuring and checking single layers, `NAME_step`.

use crate::generate::Generator;
use inkwell::IntPredicate;
use inkwell::module::Linkage;
use inkwell::values::{BasicMetadataValueEnum, FunctionValue, GlobalValue, IntValue, PointerValue};
use lowbit_kernel::{Call, Place, Program};

const BUILT: &str = "the builder stands in a block";
/// What `NAME_run` returns for a null pointer.
const NULL_POINTER: u64 = 1;
/// What it returns for an arena that is not aligned to [`ARENA_ALIGN`].
const MISALIGNED: u64 = 2;
/// What `NAME_step` returns for a number that is no call's.
const NO_SUCH_STEP: u64 = 3;
/// Alignment of the arena and of the constants.
pub(crate) const ARENA_ALIGN: u32 = 64;
const POINTER_BYTES: i64 = 8;
/// Pointers that a task's record takes: inputs, outputs, arena, and the number of its first call.
const RECORD: u32 = 4;

/// Name of the function that makes one of several calls at the same time; the dot keeps it apart from every exported name.
pub(crate) fn task_symbol(program: &Program) -> String {
    format!("{}.task", program.name)
}

/// Parameters of an entry, and what calls refer to.
pub(crate) struct Entry<'a, 'c> {
    pub(crate) g: &'a Generator<'c>,
    pub(crate) program: &'a Program,
    pub(crate) kernels: &'a [FunctionValue<'c>],
    pub(crate) consts: Option<GlobalValue<'c>>,
}

struct Arguments<'c> {
    inputs: PointerValue<'c>,
    outputs: PointerValue<'c>,
    arena: PointerValue<'c>,
}

impl<'c> Entry<'_, 'c> {
    /// Defines `int NAME_run(const void *const *inputs, void *const *outputs, void *arena)`.
    pub(crate) fn define_run(&self) -> FunctionValue<'c> {
        let pointer = self.g.context.ptr_type(Default::default()).into();
        let int = self.g.context.i32_type();
        let name = format!("{}_run", self.program.name);
        let run = self
            .g
            .function(&name, &[pointer; 3], Some(int.into()), Linkage::External);
        self.g
            .builder
            .position_at_end(self.g.context.append_basic_block(run, ""));
        let arguments = self.arguments(run, 0);
        self.check(run, &arguments);
        for call in &self.program.calls {
            self.call(call, &arguments);
        }
        self.finish(0);
        run
    }

    /// Defines `int NAME_run_parallel(inputs, outputs, arena, parallel_for, context)`, and the task that it hands to
    /// `parallel_for(context, task, argument, parts)`, which calls `task(argument, part)` for every part and waits for all.
    pub(crate) fn define_run_parallel(&self) -> [FunctionValue<'c>; 2] {
        let (context, b) = (self.g.context, &self.g.builder);
        let pointer = context.ptr_type(Default::default());
        let int = context.i32_type();
        let task = self.define_task();
        let name = format!("{}_run_parallel", self.program.name);
        let params = [pointer.into(); 5];
        let run = self
            .g
            .function(&name, &params, Some(int.into()), Linkage::External);
        b.position_at_end(context.append_basic_block(run, ""));
        let arguments = self.arguments(run, 0);
        let [parallel_for, given] = [3, 4].map(|k| {
            let given = run.get_nth_param(k).expect("declared above");
            given.into_pointer_value()
        });
        self.check(run, &arguments);
        self.refuse(
            run,
            b.build_is_null(parallel_for, "").expect(BUILT),
            NULL_POINTER,
        );
        let record = b.build_alloca(pointer.array_type(RECORD), "").expect(BUILT);
        let pointers = [arguments.inputs, arguments.outputs, arguments.arena];
        for (k, value) in pointers.into_iter().enumerate() {
            let at = self.g.offset(record, k as i64 * POINTER_BYTES);
            b.build_store(at, value).expect(BUILT);
        }
        let takes = [pointer.into(), pointer.into(), pointer.into(), int.into()];
        let callback = context.void_type().fn_type(&takes, false);
        for group in self.program.groups() {
            if group.len() == 1 {
                self.call(&self.program.calls[group.start], &arguments);
                continue;
            }
            let first = int.const_int(group.start as u64, false);
            let at = self.g.offset(record, 3 * POINTER_BYTES);
            b.build_store(at, first).expect(BUILT);
            let parts = int.const_int(group.len() as u64, false);
            let task = task.as_global_value().as_pointer_value();
            let args = [given.into(), task.into(), record.into(), parts.into()];
            b.build_indirect_call(callback, parallel_for, &args, "")
                .expect(BUILT);
        }
        self.finish(0);
        [run, task]
    }

    /// Makes the call of a number counted from the one in the record: one of those that may run at the same time.
    fn define_task(&self) -> FunctionValue<'c> {
        let (context, b) = (self.g.context, &self.g.builder);
        let pointer = context.ptr_type(Default::default());
        let int = context.i32_type();
        let params = [pointer.into(), int.into()];
        let task = self
            .g
            .function(&task_symbol(self.program), &params, None, Linkage::Internal);
        let top = context.append_basic_block(task, "");
        b.position_at_end(top);
        let record = task.get_nth_param(0).expect("declared above");
        let record = record.into_pointer_value();
        let part = task.get_nth_param(1).expect("declared above");
        let [inputs, outputs, arena] = [0, 1, 2].map(|k| self.element(record, k));
        let arguments = Arguments {
            inputs,
            outputs,
            arena,
        };
        let first = self.g.offset(record, 3 * POINTER_BYTES);
        let first = b.build_load(int, first, "").expect(BUILT).into_int_value();
        let number = b
            .build_int_add(first, part.into_int_value(), "")
            .expect(BUILT);
        let mut cases = Vec::new();
        let groups = self.program.groups();
        for k in groups.into_iter().filter(|g| g.len() > 1).flatten() {
            let block = context.append_basic_block(task, "");
            b.position_at_end(block);
            self.call(&self.program.calls[k], &arguments);
            b.build_return(None).expect(BUILT);
            cases.push((int.const_int(k as u64, false), block));
        }
        let other = context.append_basic_block(task, "");
        b.position_at_end(other);
        b.build_return(None).expect(BUILT);
        b.position_at_end(top);
        b.build_switch(number, other, &cases).expect(BUILT);
        task
    }

    /// Defines `int NAME_step(int call, …)`, which makes one call.
    pub(crate) fn define_step(&self) -> FunctionValue<'c> {
        let (context, b) = (self.g.context, &self.g.builder);
        let pointer = context.ptr_type(Default::default()).into();
        let int = context.i32_type();
        let name = format!("{}_step", self.program.name);
        let params = [int.into(), pointer, pointer, pointer];
        let step = self
            .g
            .function(&name, &params, Some(int.into()), Linkage::External);
        let top = context.append_basic_block(step, "");
        let arguments = self.arguments(step, 1);
        let mut cases = Vec::new();
        for (k, call) in self.program.calls.iter().enumerate() {
            let block = context.append_basic_block(step, "");
            b.position_at_end(block);
            self.call(call, &arguments);
            self.finish(0);
            cases.push((int.const_int(k as u64, false), block));
        }
        let other = context.append_basic_block(step, "");
        b.position_at_end(other);
        self.finish(NO_SUCH_STEP);
        b.position_at_end(top);
        let number = step
            .get_nth_param(0)
            .expect("declared above")
            .into_int_value();
        b.build_switch(number, other, &cases).expect(BUILT);
        step
    }

    fn arguments(&self, function: FunctionValue<'c>, from: u32) -> Arguments<'c> {
        let get = |k| {
            function
                .get_nth_param(from + k)
                .expect("declared above")
                .into_pointer_value()
        };
        Arguments {
            inputs: get(0),
            outputs: get(1),
            arena: get(2),
        }
    }

    fn finish(&self, code: u64) {
        let code = self.g.context.i32_type().const_int(code, false);
        self.g.builder.build_return(Some(&code)).expect(BUILT);
    }

    fn check(&self, run: FunctionValue<'c>, arguments: &Arguments<'c>) {
        let b = &self.g.builder;
        let lists = [
            (arguments.inputs, self.program.inputs.len()),
            (arguments.outputs, self.program.outputs.len()),
        ];
        for (list, len) in lists.into_iter().filter(|l| l.1 > 0) {
            self.refuse(run, b.build_is_null(list, "").expect(BUILT), NULL_POINTER);
            for k in 0..len {
                let element = self.element(list, k);
                self.refuse(
                    run,
                    b.build_is_null(element, "").expect(BUILT),
                    NULL_POINTER,
                );
            }
        }
        if self.program.arena_bytes > 0 {
            self.refuse(
                run,
                b.build_is_null(arguments.arena, "").expect(BUILT),
                NULL_POINTER,
            );
            let long = self.g.context.i64_type();
            let address = b.build_ptr_to_int(arguments.arena, long, "").expect(BUILT);
            let low = b
                .build_and(
                    address,
                    long.const_int(u64::from(ARENA_ALIGN) - 1, false),
                    "",
                )
                .expect(BUILT);
            let odd = b
                .build_int_compare(IntPredicate::NE, low, long.const_zero(), "")
                .expect(BUILT);
            self.refuse(run, odd, MISALIGNED);
        }
    }

    fn refuse(&self, run: FunctionValue<'c>, when: IntValue<'c>, code: u64) {
        let (context, b) = (self.g.context, &self.g.builder);
        let (bad, good) = (
            context.append_basic_block(run, ""),
            context.append_basic_block(run, ""),
        );
        b.build_conditional_branch(when, bad, good).expect(BUILT);
        b.position_at_end(bad);
        self.finish(code);
        b.position_at_end(good);
    }

    fn element(&self, list: PointerValue<'c>, k: usize) -> PointerValue<'c> {
        self.g
            .load_pointer(self.g.offset(list, k as i64 * POINTER_BYTES))
    }

    fn call(&self, call: &Call, arguments: &Arguments<'c>) {
        let place = |p: &Place| -> BasicMetadataValueEnum<'c> { self.place(*p, arguments).into() };
        let args: Vec<_> = call.args.iter().map(place).collect();
        self.g
            .builder
            .build_call(self.kernels[call.kernel], &args, "")
            .expect(BUILT);
    }

    fn place(&self, place: Place, arguments: &Arguments<'c>) -> PointerValue<'c> {
        match place {
            Place::Arena(at) => self.g.offset(arguments.arena, at as i64),
            Place::Const(at) => {
                let consts = self.consts.expect("verified: the constants are there");
                self.g.offset(consts.as_pointer_value(), at as i64)
            }
            Place::Input(k) => self.element(arguments.inputs, k),
            Place::Output(k) => self.element(arguments.outputs, k),
        }
    }
}

/// The program's constants as one read-only global.
pub(crate) fn define_consts<'c>(g: &Generator<'c>, program: &Program) -> Option<GlobalValue<'c>> {
    if program.consts.is_empty() {
        return None;
    }
    let bytes = g.context.const_string(&program.consts, false);
    let global = g.module.add_global(bytes.get_type(), None, "constants.all");
    global.set_initializer(&bytes);
    global.set_constant(true);
    global.set_linkage(Linkage::Internal);
    global.set_unnamed_address(inkwell::values::UnnamedAddress::Global);
    global.set_alignment(ARENA_ALIGN);
    Some(global)
}
