//! From an object file to the bytes that lie in memory: sections placed, relocations applied. Nothing here maps or calls.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use object::elf::{self, FileHeader64};
use object::read::elf::ElfFile;
use object::{
    Endianness, Object, ObjectKind, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget,
    SectionFlags, SectionIndex, SymbolIndex, SymbolSection,
};

use crate::error::{LoadError, Result};
use crate::relocate::{Addresses, Machine};

type File<'a> = ElfFile<'a, FileHeader64<Endianness>>;
type Section<'a, 'f> = object::read::elf::ElfSection<'a, 'f, FileHeader64<Endianness>>;

/// Alignment of the two halves: the largest page size in use, and 4 KiB pages fit it.
const PAGE: usize = 1 << 16;
const LARGEST: usize = 1 << 30;
const SLOT: usize = 8;
/// A symbol that assemblers name and linkers define. No relocation that is known here refers to it.
const TABLE: &str = "_GLOBAL_OFFSET_TABLE_";

/// An object whose sections have a place: constants and the table of addresses first, code behind them on pages of its own.
pub(crate) struct Image<'a> {
    file: File<'a>,
    machine: Machine,
    /// Offset of each mapped section.
    places: BTreeMap<usize, usize>,
    /// Offset of each symbol's slot in the table of addresses.
    slots: HashMap<SymbolIndex, usize>,
    code: Range<usize>,
}

impl<'a> Image<'a> {
    /// Reads an object for `machine` and places its sections.
    pub(crate) fn parse(bytes: &'a [u8], machine: Machine) -> Result<Self> {
        let file = parse(bytes, machine)?;
        for symbol in file.symbols() {
            let name = symbol.name().map_err(damaged)?;
            if symbol.is_undefined() && !name.is_empty() && name != TABLE {
                return Err(LoadError::Undefined(name.into()));
            }
        }
        let mut image = Self {
            file,
            machine,
            places: BTreeMap::new(),
            slots: HashMap::new(),
            code: 0..0,
        };
        image.place()?;
        Ok(image)
    }

    /// Bytes of the image, a multiple of every page size.
    pub(crate) fn len(&self) -> usize {
        self.code.end
    }

    /// The part that must be executable; what lies before it is only read. It starts on a page.
    pub(crate) fn code(&self) -> Range<usize> {
        self.code.clone()
    }

    /// Offset of an exported function.
    pub(crate) fn function(&self, name: &str) -> Result<Option<usize>> {
        let is_it = |symbol: &object::read::elf::ElfSymbol<_>| {
            symbol.is_definition() && symbol.is_global() && symbol.name() == Ok(name)
        };
        let Some(symbol) = self.file.symbols().find(is_it) else {
            return Ok(None);
        };
        let offset = self.offset(symbol.index())?;
        if !self.code.contains(&offset) {
            return Err(LoadError::MissingSymbol(name.into()));
        }
        Ok(Some(offset))
    }

    /// The image as it must lie at the address `base`, itself on a page.
    pub(crate) fn link(&self, base: u64) -> Result<Vec<u8>> {
        let mut image = vec![0; self.len()];
        for (&symbol, &slot) in &self.slots {
            let address = base + self.offset(symbol)? as u64;
            image[slot..slot + SLOT].copy_from_slice(&address.to_le_bytes());
        }
        for (&index, &place) in &self.places {
            let section = self.section(index)?;
            let data = section.data().map_err(damaged)?;
            let span = &mut image[place..place + data.len()];
            span.copy_from_slice(data);
            self.relocate(&section, span, base, place)?;
        }
        Ok(image)
    }

    fn relocate(
        &self,
        section: &Section<'a, '_>,
        span: &mut [u8],
        base: u64,
        place: usize,
    ) -> Result<()> {
        for (offset, relocation) in section.relocations() {
            let fault = |why: String| LoadError::Relocation {
                section: section.name().unwrap_or_default().into(),
                offset,
                why,
            };
            let (kind, symbol) = target(&relocation).map_err(fault)?;
            let to = match symbol {
                Some(symbol) if self.machine.wants_slot(kind) => self.slots[&symbol],
                Some(symbol) => self.offset(symbol)?,
                None => 0,
            };
            let start = usize::try_from(offset)
                .ok()
                .filter(|&start| start <= span.len());
            let start =
                start.ok_or_else(|| fault("the place lies outside of its section".into()))?;
            let at = Addresses {
                place: base + place as u64 + offset,
                symbol: base + to as u64,
                addend: relocation.addend(),
            };
            self.machine
                .apply(kind, at, &mut span[start..])
                .map_err(fault)?;
        }
        Ok(())
    }

    fn place(&mut self) -> Result<()> {
        let mut constants = Vec::new();
        let mut code = Vec::new();
        for section in self.file.sections() {
            match role(&section)? {
                Role::Constants => constants.push(section.index()),
                Role::Code => code.push(section.index()),
                Role::None => {}
            }
        }
        let mut end = 0;
        for index in constants {
            end = self.append(index, end)?;
        }
        end = self.place_slots(end)?.next_multiple_of(PAGE);
        let start = end;
        for index in code {
            end = self.append(index, end)?;
        }
        self.code = start..end.next_multiple_of(PAGE);
        Ok(())
    }

    /// Places a section behind `end`, and gives the new end.
    fn append(&mut self, index: SectionIndex, end: usize) -> Result<usize> {
        let section = self.section(index.0)?;
        let fault = |why: &str| LoadError::Section {
            name: section.name().unwrap_or_default().into(),
            why: why.into(),
        };
        let align = section.align().max(1) as usize;
        if !align.is_power_of_two() || align > PAGE {
            return Err(fault("its alignment makes no sense"));
        }
        let size = section.data().map_err(damaged)?.len();
        if size as u64 != section.size() {
            return Err(fault("its size and its data differ"));
        }
        let start = end.next_multiple_of(align);
        let end = start.checked_add(size).filter(|&end| end <= LARGEST);
        let end = end.ok_or_else(|| fault("the object is larger than 1 GiB"))?;
        self.places.insert(index.0, start);
        Ok(end)
    }

    fn place_slots(&mut self, end: usize) -> Result<usize> {
        let mut next = end.next_multiple_of(SLOT);
        for section in self.file.sections() {
            if role(&section)? == Role::None {
                continue;
            }
            for (_, relocation) in section.relocations() {
                if let Ok((kind, Some(symbol))) = target(&relocation)
                    && self.machine.wants_slot(kind)
                    && !self.slots.contains_key(&symbol)
                {
                    self.slots.insert(symbol, next);
                    next += SLOT;
                }
            }
        }
        Ok(next)
    }

    fn section(&self, index: usize) -> Result<Section<'a, '_>> {
        self.file
            .section_by_index(SectionIndex(index))
            .map_err(damaged)
    }

    /// Where a symbol lies in the image.
    fn offset(&self, index: SymbolIndex) -> Result<usize> {
        let symbol = self.file.symbol_by_index(index).map_err(damaged)?;
        let name = || symbol.name().unwrap_or_default().to_string();
        let SymbolSection::Section(section) = symbol.section() else {
            return Err(LoadError::Undefined(name()));
        };
        let place = self.places.get(&section.0);
        let place = *place.ok_or_else(|| LoadError::Undefined(name()))?;
        let size = self.section(section.0)?.size();
        if symbol.address() > size {
            return Err(LoadError::NotElf(format!(
                "symbol `{}` lies outside of its section",
                name()
            )));
        }
        Ok(place + symbol.address() as usize)
    }
}

fn parse(bytes: &[u8], machine: Machine) -> Result<File<'_>> {
    let kind = object::FileKind::parse(bytes).map_err(damaged)?;
    if kind != object::FileKind::Elf64 {
        return Err(LoadError::NotElf(format!("it is {kind:?}")));
    }
    let file = File::parse(bytes).map_err(damaged)?;
    if file.kind() != ObjectKind::Relocatable {
        return Err(LoadError::NotRelocatable(format!("{:?}", file.kind())));
    }
    let found = match file.architecture() {
        object::Architecture::X86_64 => Some(Machine::X86_64),
        object::Architecture::Aarch64 => Some(Machine::AArch64),
        _ => None,
    };
    if found != Some(machine) || file.endianness() != Endianness::Little {
        return Err(LoadError::WrongMachine {
            found: format!("{:?}", file.architecture()),
            host: std::env::consts::ARCH,
        });
    }
    Ok(file)
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Constants,
    Code,
    None,
}

fn role(section: &Section<'_, '_>) -> Result<Role> {
    let SectionFlags::Elf { sh_flags } = section.flags() else {
        return Ok(Role::None);
    };
    let has = |flag: u32| sh_flags & u64::from(flag) != 0;
    if !has(elf::SHF_ALLOC) || section.size() == 0 {
        return Ok(Role::None);
    }
    let name = section.name().map_err(damaged)?;
    let relocated_once = name == ".data.rel.ro" || name.starts_with(".data.rel.ro.");
    if has(elf::SHF_WRITE) && !relocated_once || has(elf::SHF_TLS) {
        return Err(LoadError::Writable(name.into()));
    }
    Ok(if has(elf::SHF_EXECINSTR) {
        Role::Code
    } else {
        Role::Constants
    })
}

/// Type of a relocation and the symbol that it names.
fn target(relocation: &object::Relocation) -> Result<(u32, Option<SymbolIndex>), String> {
    let RelocationFlags::Elf { r_type } = relocation.flags() else {
        return Err("it is no ELF relocation".into());
    };
    if relocation.has_implicit_addend() {
        return Err("its addend lies in the code; only RELA sections are known here".into());
    }
    match relocation.target() {
        RelocationTarget::Symbol(symbol) => Ok((r_type, Some(symbol))),
        RelocationTarget::Absolute if r_type == 0 => Ok((r_type, None)),
        other => Err(format!("it has no symbol ({other:?})")),
    }
}

fn damaged(error: object::Error) -> LoadError {
    LoadError::NotElf(error.to_string())
}
