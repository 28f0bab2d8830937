//! Tests over every level and row.

use crate::{ALL, Arch, Feature, Probe, resolve};

#[test]
fn rows_need_no_more_than_their_level_can_have() {
    for target in ALL {
        for row in target.rows {
            let may = |f: &Feature| target.features.contains(f) || target.optional.contains(f);
            assert!(row.needs.iter().all(may), "{}: {row:?}", target.name);
            assert!(
                !row.needs.is_empty() && !row.mnemonic.is_empty(),
                "{}: {row:?}",
                target.name
            );
        }
    }
}

#[test]
fn features_belong_to_the_level_s_families() {
    for target in ALL {
        for f in target.features.iter().chain(target.optional) {
            assert!(target.archs.contains(&f.arch()), "{}: {f}", target.name);
        }
    }
}

#[test]
fn no_row_is_hidden_by_an_earlier_one() {
    for target in ALL {
        for (k, row) in target.rows.iter().enumerate() {
            let hides = |e: &&crate::Row| {
                e.op == row.op && e.ty == row.ty && e.needs.iter().all(|f| row.needs.contains(f))
            };
            assert!(
                !target.rows[..k].iter().any(|e| hides(&e)),
                "{}: {row:?}",
                target.name
            );
        }
    }
}

#[test]
fn every_level_resolves_by_name_and_every_base_feature_is_there() {
    for target in ALL {
        for arch in target.archs {
            let r = resolve(Some(arch.default_triple()), Some(target.name)).unwrap();
            assert_eq!(r.level.name, target.name);
            let base = Feature::ALL
                .iter()
                .filter(|f| f.arch() == *arch && f.probe() == Probe::Base);
            assert!(base.into_iter().all(|f| r.features.contains(f)));
        }
    }
}

#[test]
fn processors_resolve_to_their_level() {
    let level = |cpu| resolve(None, Some(cpu)).unwrap().level.name;
    assert_eq!(level("cascadelake"), "x86-64-vnni");
    assert_eq!(level("haswell"), "x86-64-v3");
    assert_eq!(level("cortex-a72"), "aarch64-neon");
    assert_eq!(level("apple-m1"), "aarch64-dotprod");
    let spr = resolve(None, Some("sapphirerapids")).unwrap();
    assert_eq!(spr.level.name, "x86-64-amx");
    assert!(spr.features.contains(&Feature::Avx512vbmi));
    assert!(
        !resolve(None, Some("cascadelake"))
            .unwrap()
            .features
            .contains(&Feature::Avx512vbmi)
    );
}

#[test]
fn a_refused_feature_leaves_the_rest_of_the_host() {
    let native = resolve(None, None).unwrap();
    let without = crate::native_without(Feature::AmxTile);
    assert!(without.features.iter().all(|f| native.features.contains(f)));
    assert!(!without.features.iter().any(|f| f.is_tile()));
    assert_eq!(Feature::of_llvm_name("amx-int8"), Some(Feature::AmxInt8));
}

#[test]
fn native_is_the_host() {
    let r = resolve(None, None).unwrap();
    assert_eq!(r, resolve(None, Some("native")).unwrap());
    assert!(r.features.iter().all(|&f| crate::host::has(f)));
}

#[test]
fn a_processor_that_is_named_again_has_the_same_features() {
    let again = |cpu: &str| resolve(None, Some(cpu)).unwrap().again().to_owned();
    for cpu in ["x86-64-v3", "icelake-server", "znver4", "cortex-a76"] {
        let target = match cpu {
            "cortex-a76" => resolve(Some("aarch64-unknown-linux-gnu"), Some(cpu)).unwrap(),
            _ => resolve(Some("x86_64-unknown-linux-gnu"), Some(cpu)).unwrap(),
        };
        assert_eq!(target.again(), cpu);
    }
    // a processor stands for a level with more than it needs
    let mut native = resolve(Some("x86_64-unknown-linux-gnu"), Some("znver4")).unwrap();
    native.cpu = native.level.name.into();
    assert_ne!(native.again(), native.level.name);
    let named = resolve(Some("x86_64-unknown-linux-gnu"), Some(native.again())).unwrap();
    assert_eq!(named.features, native.features);
    assert_eq!(again("native"), again(&again("native")));
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let error = |t, c| resolve(t, c).unwrap_err().to_string();
    assert!(error(Some("x86_64-pc-windows-msvc"), None).contains("ELF"));
    assert!(error(Some("riscv64-unknown-linux-gnu"), None).contains("riscv64"));
    assert!(error(Some("x86_64-unknown-linux-gnu"), Some("cortex-a72")).contains("sapphirerapids"));
    let other = if crate::host::arch() == Arch::X86_64 {
        Arch::Aarch64
    } else {
        Arch::X86_64
    };
    assert!(error(Some(other.default_triple()), Some("native")).contains("host"));
}
