//! Pages that hold an image: constants that can only be read, code that can also be executed, nothing that can be written.

use region::{Allocation, Protection};

use crate::error::{LoadError, Result};
use crate::image::Image;

/// A mapped image. It lives as long as this does.
pub(crate) struct Pages(Allocation);

// SAFETY: after `map` the pages are never written, and unmapping them needs the only owner.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn map(image: &Image<'_>) -> Result<Self> {
        let refused = |error: region::Error| LoadError::Map(error.to_string());
        let mut pages =
            region::alloc(image.len().max(1), Protection::READ_WRITE).map_err(refused)?;
        let linked = image.link(pages.as_ptr::<u8>() as u64)?;
        let start = pages.as_mut_ptr::<u8>();
        let code = image.code();
        // SAFETY: the allocation has at least `linked.len()` bytes, fresh and writable; both protected parts lie in it, and no reference to it exists.
        unsafe {
            std::ptr::copy_nonoverlapping(linked.as_ptr(), start, linked.len());
            if code.start > 0 {
                region::protect(start, code.start, Protection::READ).map_err(refused)?;
            }
            if !code.is_empty() {
                synchronise(start.add(code.start), code.len());
                region::protect(start.add(code.start), code.len(), Protection::READ_EXECUTE)
                    .map_err(refused)?;
            }
        }
        Ok(Self(pages))
    }

    /// Address of the byte at `offset`.
    pub(crate) fn address(&self, offset: usize) -> *const u8 {
        assert!(offset < self.0.len(), "offset {offset} of {}", self.0.len());
        // SAFETY: the offset lies in the allocation.
        unsafe { self.0.as_ptr::<u8>().add(offset) }
    }
}

/// Makes written code visible to instruction fetch. x86-64 needs nothing.
///
/// # Safety
/// The range must be mapped and readable.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn synchronise(_start: *const u8, _len: usize) {}

/// Makes written code visible to instruction fetch. Source: Arm Architecture Reference Manual, B2.4.4. No core has cache lines under 16 bytes.
///
/// # Safety
/// The range must be mapped and readable.
#[cfg(target_arch = "aarch64")]
unsafe fn synchronise(start: *const u8, len: usize) {
    use std::arch::asm;
    const LINE: usize = 16;
    for offset in (0..len).step_by(LINE) {
        // SAFETY: cache maintenance by address on a mapped, readable range changes no value.
        unsafe { asm!("dc cvau, {}", in(reg) start.add(offset), options(nostack, preserves_flags)) }
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) }
    for offset in (0..len).step_by(LINE) {
        // SAFETY: as above.
        unsafe { asm!("ic ivau, {}", in(reg) start.add(offset), options(nostack, preserves_flags)) }
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) }
}
