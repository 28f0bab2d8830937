//! `NAME_check_cpu`: asks the processor for what the object uses. It uses base instructions only.

use crate::generate::{Generator, V};
use inkwell::IntPredicate;
use inkwell::attributes::AttributeLoc;
use inkwell::module::Linkage;
use inkwell::values::{FunctionValue, IntValue};
use lowbit_kernel::Type;
use lowbit_targets::{Arch, CpuidRegister, Probe, ResolvedTarget};
use std::collections::BTreeMap;

const BUILT: &str = "the builder stands in a block";

/// What `NAME_check_cpu` returns where the processor lacks a feature.
pub(crate) const LACKS_FEATURE: u64 = 1;
/// What it returns where the operating system does not save the registers.
pub(crate) const LACKS_STATE: u64 = 2;

/// Defines the function: 0, [`LACKS_FEATURE`] or [`LACKS_STATE`].
pub(crate) fn define<'c>(
    g: &Generator<'c>,
    target: &ResolvedTarget,
    name: &str,
) -> FunctionValue<'c> {
    let int = g.context.i32_type();
    let function = g.function(
        &format!("{name}_check_cpu"),
        &[],
        Some(int.into()),
        Linkage::External,
    );
    let base = if target.arch == Arch::X86_64 {
        "x86-64"
    } else {
        "generic"
    };
    function.add_attribute(AttributeLoc::Function, g.word("target-cpu", base));
    function.add_attribute(AttributeLoc::Function, g.word("target-features", ""));
    g.builder
        .position_at_end(g.context.append_basic_block(function, ""));
    match target.arch {
        Arch::X86_64 => x86(g, target, function),
        Arch::Aarch64 => aarch64(g, target, function),
    }
    g.builder
        .build_return(Some(&int.const_zero()))
        .expect(BUILT);
    function
}

/// Returns `code` unless `(value & mask) == mask`.
fn require<'c>(
    g: &Generator<'c>,
    function: FunctionValue<'c>,
    value: IntValue<'c>,
    mask: u64,
    code: u64,
) {
    let (b, int) = (&g.builder, value.get_type());
    let mask = int.const_int(mask, false);
    let bits = b.build_and(value, mask, "").expect(BUILT);
    let holds = b
        .build_int_compare(IntPredicate::EQ, bits, mask, "")
        .expect(BUILT);
    branch(g, function, holds, code);
}

fn branch<'c>(g: &Generator<'c>, function: FunctionValue<'c>, holds: IntValue<'c>, code: u64) {
    let (b, int) = (&g.builder, g.context.i32_type());
    let (next, fails) = (
        g.context.append_basic_block(function, ""),
        g.context.append_basic_block(function, ""),
    );
    b.build_conditional_branch(holds, next, fails).expect(BUILT);
    b.position_at_end(fails);
    b.build_return(Some(&int.const_int(code, false)))
        .expect(BUILT);
    b.position_at_end(next);
}

fn x86<'c>(g: &Generator<'c>, target: &ResolvedTarget, function: FunctionValue<'c>) {
    let mut masks: BTreeMap<(u32, u32, CpuidRegister), u32> = BTreeMap::new();
    let mut states = 0;
    for feature in &target.features {
        if let Probe::Cpuid {
            leaf,
            subleaf,
            register,
            bit,
            xcr0,
        } = feature.probe()
        {
            *masks.entry((leaf, subleaf, register)).or_default() |= 1 << bit;
            states |= xcr0;
        }
    }
    if let Some(&(top, ..)) = masks.keys().last() {
        let highest = answer(g, 0, 0, CpuidRegister::Eax);
        let top = g.context.i32_type().const_int(top.into(), false);
        let knows = g
            .builder
            .build_int_compare(IntPredicate::UGE, highest, top, "")
            .expect(BUILT);
        branch(g, function, knows, LACKS_FEATURE);
    }
    for ((leaf, subleaf, register), mask) in masks {
        require(
            g,
            function,
            answer(g, leaf, subleaf, register),
            mask.into(),
            LACKS_FEATURE,
        );
    }
    if states != 0 {
        const OSXSAVE: u64 = 1 << 27;
        require(
            g,
            function,
            answer(g, 1, 0, CpuidRegister::Ecx),
            OSXSAVE,
            LACKS_STATE,
        );
        require(g, function, enabled_states(g), states.into(), LACKS_STATE);
        if states & TILE_DATA != 0 && target.triple.contains("linux") {
            let granted = g
                .builder
                .build_int_compare(
                    IntPredicate::EQ,
                    ask_for_tiles(g),
                    g.context.i64_type().const_zero(),
                    "",
                )
                .expect(BUILT);
            branch(g, function, granted, LACKS_STATE);
        }
    }
}

/// A register of what `cpuid` answers. Sub-leaves that a processor does not know read as zero.
fn answer<'c>(g: &Generator<'c>, leaf: u32, subleaf: u32, register: CpuidRegister) -> IntValue<'c> {
    let question = [leaf, subleaf].map(|x| g.constant(Type::I32, x.into()));
    let registers = "={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}";
    let position = match register {
        CpuidRegister::Eax => 0,
        CpuidRegister::Ebx => 1,
        CpuidRegister::Ecx => 2,
        CpuidRegister::Edx => 3,
    };
    assembly(g, "cpuid", registers, 4, &question, position)
}

/// The state component of XCR0 that holds tiles.
const TILE_DATA: u32 = 1 << 18;

/// Asks Linux to save tiles for this process, as it does for those only that ask: 0 where it will.
fn ask_for_tiles<'c>(g: &Generator<'c>) -> IntValue<'c> {
    const ARCH_PRCTL: u64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    let long = g.context.i64_type();
    let numbers = [
        ARCH_PRCTL,
        REQUEST_PERMISSION,
        u64::from(TILE_DATA.trailing_zeros()),
    ];
    let ty = long.fn_type(&[long.into(); 3], false);
    let registers = "={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},~{flags}";
    let code = g.context.create_inline_asm(
        ty,
        "syscall".to_owned(),
        registers.to_owned(),
        true,
        false,
        None,
        false,
    );
    let args = numbers.map(|n| long.const_int(n, false).into());
    let call = g
        .builder
        .build_indirect_call(ty, code, &args, "")
        .expect(BUILT);
    call.try_as_basic_value()
        .basic()
        .expect("it returns a register")
        .into_int_value()
}

/// Low half of XCR0.
fn enabled_states<'c>(g: &Generator<'c>) -> IntValue<'c> {
    let registers = "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}";
    assembly(g, "xgetbv", registers, 2, &[g.constant(Type::I32, 0)], 0)
}

fn assembly<'c>(
    g: &Generator<'c>,
    text: &str,
    registers: &str,
    results: usize,
    args: &[V<'c>],
    position: u32,
) -> IntValue<'c> {
    let int = g.context.i32_type();
    let result = g.context.struct_type(&vec![int.into(); results], false);
    let ty = result.fn_type(&vec![int.into(); args.len()], false);
    let code = g.context.create_inline_asm(
        ty,
        text.to_owned(),
        registers.to_owned(),
        true,
        false,
        None,
        false,
    );
    let args: Vec<_> = args.iter().map(|&a| a.into()).collect();
    let call = g
        .builder
        .build_indirect_call(ty, code, &args, "")
        .expect(BUILT);
    let answer = call
        .try_as_basic_value()
        .basic()
        .expect("it returns registers")
        .into_struct_value();
    g.builder
        .build_extract_value(answer, position, "")
        .expect(BUILT)
        .into_int_value()
}

fn aarch64<'c>(g: &Generator<'c>, target: &ResolvedTarget, function: FunctionValue<'c>) {
    let fields = target.features.iter().filter_map(|f| match f.probe() {
        Probe::IdRegister { name, shift } => Some((name, shift)),
        _ => None,
    });
    for (name, shift) in fields {
        let long = g.context.i64_type();
        let ty = long.fn_type(&[], false);
        let (text, out) = (format!("mrs $0, {name}"), "=r".to_owned());
        let code = g
            .context
            .create_inline_asm(ty, text, out, true, false, None, false);
        let call = g
            .builder
            .build_indirect_call(ty, code, &[], "")
            .expect(BUILT);
        let register = call
            .try_as_basic_value()
            .basic()
            .expect("it returns a register")
            .into_int_value();
        let field = g
            .builder
            .build_and(register, long.const_int(15 << shift, false), "")
            .expect(BUILT);
        let there = g
            .builder
            .build_int_compare(IntPredicate::NE, field, long.const_zero(), "")
            .expect(BUILT);
        branch(g, function, there, LACKS_FEATURE);
    }
}
