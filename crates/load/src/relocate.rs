//! What each relocation type computes, and where its bits go. Pure functions of addresses and bytes.
//!
//! Sources: System V ABI, AMD64 supplement, table 4.10; ELF for the Arm 64-bit Architecture, section 5.7. Letters as there: S symbol, A addend, P place,
//! G slot in the table of addresses.

use object::elf;

/// `S + A − P` in 32 bits, the table's entry where the symbol is far; the crate `object` does not name it.
const R_AARCH64_PLT32: u32 = 314;

/// Instruction sets that can be relocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    AArch64,
}

impl Machine {
    /// The one that this process runs on.
    pub(crate) fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::AArch64),
            _ => None,
        }
    }

    /// Whether a relocation refers to a slot that holds the symbol's address, not to the symbol.
    pub(crate) fn wants_slot(self, kind: u32) -> bool {
        match self {
            Self::X86_64 => matches!(
                kind,
                elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX
            ),
            Self::AArch64 => matches!(
                kind,
                elf::R_AARCH64_ADR_GOT_PAGE | elf::R_AARCH64_LD64_GOT_LO12_NC
            ),
        }
    }

    /// Patches `bytes`, which start at the place and end with its section. The message says what is wrong.
    pub(crate) fn apply(self, kind: u32, at: Addresses, bytes: &mut [u8]) -> Result<(), String> {
        match self {
            Self::X86_64 => x86_64(kind, at, bytes),
            Self::AArch64 => aarch64(kind, at, bytes),
        }
    }
}

/// Run-time addresses of one relocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// P.
    pub(crate) place: u64,
    /// S, or G where the type wants a slot.
    pub(crate) symbol: u64,
    /// A.
    pub(crate) addend: i64,
}

impl Addresses {
    fn target(self) -> u64 {
        self.symbol.wrapping_add_signed(self.addend)
    }

    fn distance(self) -> i64 {
        self.target().wrapping_sub(self.place) as i64
    }

    /// Pages of 4 KiB from the place's to the target's.
    fn pages(self) -> i64 {
        let page = |address: u64| (address >> 12) as i64;
        page(self.target()) - page(self.place)
    }
}

fn x86_64(kind: u32, at: Addresses, bytes: &mut [u8]) -> Result<(), String> {
    match kind {
        elf::R_X86_64_NONE => Ok(()),
        elf::R_X86_64_64 => put(bytes, at.target().to_le_bytes()),
        elf::R_X86_64_PC64 => put(bytes, at.distance().to_le_bytes()),
        elf::R_X86_64_PC32
        | elf::R_X86_64_PLT32
        | elf::R_X86_64_GOTPCREL
        | elf::R_X86_64_GOTPCRELX
        | elf::R_X86_64_REX_GOTPCRELX => {
            let near = i32::try_from(at.distance()).map_err(|_| far(at))?;
            put(bytes, near.to_le_bytes())
        }
        elf::R_X86_64_32 | elf::R_X86_64_32S => {
            Err("an absolute 32-bit address; the object is not position-independent".into())
        }
        other => Err(unknown("R_X86_64", other)),
    }
}

fn aarch64(kind: u32, at: Addresses, bytes: &mut [u8]) -> Result<(), String> {
    match kind {
        elf::R_AARCH64_NONE => Ok(()),
        elf::R_AARCH64_ABS64 => put(bytes, at.target().to_le_bytes()),
        elf::R_AARCH64_PREL64 => put(bytes, at.distance().to_le_bytes()),
        elf::R_AARCH64_PREL32 | R_AARCH64_PLT32 => {
            let near = i32::try_from(at.distance()).map_err(|_| far(at))?;
            put(bytes, near.to_le_bytes())
        }
        elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26 => field(bytes, scaled(at, 2, 26)?, 0, 26),
        elf::R_AARCH64_CONDBR19 | elf::R_AARCH64_LD_PREL_LO19 => {
            field(bytes, scaled(at, 2, 19)?, 5, 19)
        }
        elf::R_AARCH64_TSTBR14 => field(bytes, scaled(at, 2, 14)?, 5, 14),
        elf::R_AARCH64_ADR_PREL_LO21 => {
            adr(bytes, signed(at.distance(), 21).ok_or_else(|| far(at))?)
        }
        elf::R_AARCH64_ADR_PREL_PG_HI21 | elf::R_AARCH64_ADR_GOT_PAGE => {
            adr(bytes, signed(at.pages(), 21).ok_or_else(|| far(at))?)
        }
        elf::R_AARCH64_ADR_PREL_PG_HI21_NC => adr(bytes, at.pages() as u32),
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => low12(bytes, at, 0),
        elf::R_AARCH64_LDST16_ABS_LO12_NC => low12(bytes, at, 1),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => low12(bytes, at, 2),
        elf::R_AARCH64_LDST64_ABS_LO12_NC | elf::R_AARCH64_LD64_GOT_LO12_NC => low12(bytes, at, 3),
        elf::R_AARCH64_LDST128_ABS_LO12_NC => low12(bytes, at, 4),
        elf::R_AARCH64_ABS32 | elf::R_AARCH64_ABS16 => {
            Err("an absolute 32-bit address; the object is not position-independent".into())
        }
        other => Err(unknown("R_AARCH64", other)),
    }
}

fn put<const N: usize>(bytes: &mut [u8], value: [u8; N]) -> Result<(), String> {
    let place = bytes
        .first_chunk_mut::<N>()
        .ok_or("the place lies outside of its section")?;
    *place = value;
    Ok(())
}

/// Puts the low `width` bits of `value` into an instruction at bit `from`.
fn field(bytes: &mut [u8], value: u32, from: u32, width: u32) -> Result<(), String> {
    let place = bytes
        .first_chunk_mut::<4>()
        .ok_or("the place lies outside of its section")?;
    let mask = ((1_u32 << width) - 1) << from;
    let kept = u32::from_le_bytes(*place) & !mask;
    *place = (kept | ((value << from) & mask)).to_le_bytes();
    Ok(())
}

/// The 21 bits of ADR and ADRP: two at bit 29, nineteen at bit 5.
fn adr(bytes: &mut [u8], value: u32) -> Result<(), String> {
    field(bytes, value, 29, 2)?;
    field(bytes, value >> 2, 5, 19)
}

/// The low 12 bits of the target in units of 2^`shift` bytes, at bit 10.
fn low12(bytes: &mut [u8], at: Addresses, shift: u32) -> Result<(), String> {
    let low = (at.target() & 0xfff) as u32;
    if !low.is_multiple_of(1 << shift) {
        return Err(format!(
            "the target {:#x} is not aligned to {} bytes",
            at.target(),
            1 << shift
        ));
    }
    field(bytes, low >> shift, 10, 12)
}

/// The distance in units of 2^`shift` bytes, where it fits `width` bits.
fn scaled(at: Addresses, shift: u32, width: u32) -> Result<u32, String> {
    let distance = at.distance();
    if distance & ((1 << shift) - 1) != 0 {
        return Err(format!("the target {:#x} is no instruction", at.target()));
    }
    signed(distance >> shift, width).ok_or_else(|| far(at))
}

fn signed(value: i64, width: u32) -> Option<u32> {
    let half = 1_i64 << (width - 1);
    (-half..half).contains(&value).then_some(value as u32)
}

fn far(at: Addresses) -> String {
    format!(
        "the target is {} bytes away, too far for the instruction",
        at.distance()
    )
}

fn unknown(family: &str, kind: u32) -> String {
    format!("relocation {family} type {kind} is not known here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(
        machine: Machine,
        kind: u32,
        instruction: u32,
        place: u64,
        symbol: u64,
        addend: i64,
    ) -> Result<u32, String> {
        let mut bytes = instruction.to_le_bytes();
        let at = Addresses {
            place,
            symbol,
            addend,
        };
        machine.apply(kind, at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    #[test]
    fn aarch64_fields_are_those_of_the_architecture() {
        let apply = |kind, instruction, symbol| {
            patched(Machine::AArch64, kind, instruction, 0x10_0000, symbol, 0).unwrap()
        };
        assert_eq!(
            apply(elf::R_AARCH64_CALL26, 0x9400_0000, 0x10_0010),
            0x9400_0004
        );
        assert_eq!(
            apply(elf::R_AARCH64_CALL26, 0x9400_0000, 0xf_fff0),
            0x97ff_fffc
        );
        assert_eq!(
            apply(elf::R_AARCH64_CONDBR19, 0x5400_0000, 0x10_0008),
            0x5400_0040
        );
        assert_eq!(
            apply(elf::R_AARCH64_ADR_PREL_PG_HI21, 0x9000_0000, 0x10_5123),
            0xb000_0020
        );
        assert_eq!(
            apply(elf::R_AARCH64_ADD_ABS_LO12_NC, 0x9100_0000, 0x10_5123),
            0x9104_8c00
        );
        assert_eq!(
            apply(elf::R_AARCH64_LDST64_ABS_LO12_NC, 0xf940_0000, 0x10_5128),
            0xf940_9400
        );
        assert_eq!(
            apply(elf::R_AARCH64_LDST128_ABS_LO12_NC, 0x3dc0_0000, 0x10_5120),
            0x3dc0_4800
        );
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() {
        let x86 = |kind, symbol| patched(Machine::X86_64, kind, 0, 0x1000, symbol, -4);
        assert_eq!(x86(elf::R_X86_64_PC32, 0x1008), Ok(4));
        assert!(
            x86(elf::R_X86_64_PC32, 0x1_0000_0000)
                .unwrap_err()
                .contains("too far")
        );
        assert!(
            x86(elf::R_X86_64_64, 0x1000)
                .unwrap_err()
                .contains("outside")
        );
        assert!(
            x86(elf::R_X86_64_32S, 0x1000)
                .unwrap_err()
                .contains("position-independent")
        );
        assert!(
            x86(elf::R_X86_64_TPOFF32, 0x1000)
                .unwrap_err()
                .contains("23")
        );
        let arm = |kind, symbol| patched(Machine::AArch64, kind, 0, 0x1000, symbol, 0);
        assert!(
            arm(elf::R_AARCH64_CALL26, 0x1000_0000)
                .unwrap_err()
                .contains("too far")
        );
        assert!(
            arm(elf::R_AARCH64_CALL26, 0x1002)
                .unwrap_err()
                .contains("no instruction")
        );
        assert!(
            arm(elf::R_AARCH64_LDST64_ABS_LO12_NC, 0x1004)
                .unwrap_err()
                .contains("aligned")
        );
        assert!(
            arm(elf::R_AARCH64_ADR_PREL_PG_HI21, 1 << 40)
                .unwrap_err()
                .contains("too far")
        );
        assert!(
            arm(elf::R_AARCH64_ABS32, 0)
                .unwrap_err()
                .contains("position-independent")
        );
    }
}
