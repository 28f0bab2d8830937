//! What the processor that runs the compiler has.

use crate::{Arch, Feature};

/// Family of the host; x86-64 stands for families without a code generator.
pub(crate) fn arch() -> Arch {
    if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else {
        Arch::X86_64
    }
}

/// Whether the host has a feature and its operating system supports it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has(feature: Feature) -> bool {
    use std::arch::is_x86_feature_detected as has;
    match feature {
        Feature::Sse2 => true,
        Feature::Ssse3 => has!("ssse3"),
        Feature::Sse41 => has!("sse4.1"),
        Feature::Sse42 => has!("sse4.2"),
        Feature::Popcnt => has!("popcnt"),
        Feature::Avx => has!("avx"),
        Feature::Avx2 => has!("avx2"),
        Feature::AvxVnni => has!("avxvnni"),
        Feature::Bmi => has!("bmi1"),
        Feature::Bmi2 => has!("bmi2"),
        Feature::Avx512f => has!("avx512f"),
        Feature::Avx512dq => has!("avx512dq"),
        Feature::Avx512cd => has!("avx512cd"),
        Feature::Avx512bw => has!("avx512bw"),
        Feature::Avx512vl => has!("avx512vl"),
        Feature::Avx512vbmi => has!("avx512vbmi"),
        Feature::Avx512vnni => has!("avx512vnni"),
        Feature::Avx512bitalg => has!("avx512bitalg"),
        Feature::Avx512vpopcntdq => has!("avx512vpopcntdq"),
        Feature::AmxTile => tiles() & 1 << 24 != 0,
        Feature::AmxInt8 => tiles() & 1 << 25 != 0,
        Feature::Neon | Feature::Dotprod | Feature::I8mm => false,
    }
}

/// The bits of what `cpuid` says of features that are about tiles, where the operating system saves tiles: what it saves is
/// then as large as the place of their data, which is the last of all.
#[cfg(target_arch = "x86_64")]
fn tiles() -> u32 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const STATES: u32 = 0xd;
    const TILE_DATA: u32 = 18;
    if __cpuid(0).eax < STATES {
        return 0;
    }
    let (saved, data) = (
        __cpuid_count(STATES, 0).ebx,
        __cpuid_count(STATES, TILE_DATA),
    );
    match data.eax > 0 && saved >= data.ebx + data.eax {
        true => __cpuid_count(7, 0).edx,
        false => 0,
    }
}

/// Whether the host has a feature and its operating system supports it.
#[cfg(target_arch = "aarch64")]
pub(crate) fn has(feature: Feature) -> bool {
    match feature {
        Feature::Neon => true,
        Feature::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
        Feature::I8mm => std::arch::is_aarch64_feature_detected!("i8mm"),
        _ => false,
    }
}

/// Whether the host has a feature: unknown families have none.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn has(_: Feature) -> bool {
    false
}
