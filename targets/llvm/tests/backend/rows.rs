//! Every row of every level: the instruction appears, and the value is the interpreter's.

use crate::common::{Case, compare, program, targets};
use lowbit_llvm::{Options, disassemble, emit, scan};
use lowbit_targets::{ResolvedTarget, Row};

/// Rows that hold on a target: those that `row` finds.
fn held(target: &ResolvedTarget) -> impl Iterator<Item = &'static Row> {
    let rows = target.level.rows.iter();
    rows.filter(|r| target.row(r.op, r.ty) == Some(*r))
}

#[test]
fn every_row_emits_its_instruction() {
    let mut missing = Vec::new();
    for target in targets() {
        for row in held(&target) {
            let emitted = emit(
                &program(&Case::of_row(row.op, row.ty)),
                &target,
                &Options::default(),
            )
            .unwrap();
            let code = disassemble(&emitted.object).unwrap();
            if !code.iter().any(|(_, text)| text.starts_with(row.mnemonic)) {
                let vector = code
                    .iter()
                    .map(|(_, text)| text)
                    .filter(|t| t.contains("mm") || t.contains("v0."));
                missing.push(format!(
                    "{} {row:?}: {:?}",
                    target.level.name,
                    vector.collect::<Vec<_>>()
                ));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_row_is_held_by_some_target() {
    for row in lowbit_targets::ALL.iter().flat_map(|t| t.rows) {
        let holds = |t: &ResolvedTarget| held(t).any(|r| std::ptr::eq(r, row));
        assert!(targets().iter().any(holds), "{row:?}");
    }
}

#[test]
fn every_row_computes_what_the_interpreter_does() {
    for target in targets() {
        let cases: Vec<_> = held(&target)
            .flat_map(|r| Case::of_row(r.op, r.ty))
            .collect();
        for seed in 0..4 {
            compare(&cases, &target, seed);
        }
    }
}

#[test]
fn objects_hold_nothing_they_must_not() {
    for target in targets() {
        let cases: Vec<_> = held(&target)
            .flat_map(|r| Case::of_row(r.op, r.ty))
            .collect();
        let options = Options {
            debug_steps: true,
            ..Options::default()
        };
        let emitted = emit(&program(&cases), &target, &options).unwrap();
        let mut report = scan(&emitted.object).unwrap();
        report.exported_symbols.sort();
        assert_eq!(report.exported_symbols, ["t_check_cpu", "t_run", "t_step"]);
        assert_eq!(report.undefined_symbols, Vec::<String>::new());
        assert_eq!(report.writable_sections, Vec::<String>::new());
        assert_eq!(report.float_instructions, []);
        assert!(report.text_bytes > 0 && emitted.stack_bytes > 0);
        assert_eq!(
            emit(&program(&cases), &target, &options).unwrap(),
            emitted,
            "the same bytes again"
        );
    }
}
