//! `NAME_run` and, for measuring and checking single layers, `NAME_step`.

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
