//! Aligned memory for everything that an object writes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A zeroed, aligned block of memory, one for each thread that runs a module.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is owned, and reached only through `&self` and `&mut self`.
unsafe impl Send for Arena {}
// SAFETY: as above; `&self` only reads.
unsafe impl Sync for Arena {}

impl Arena {
    /// A block of `bytes` bytes at a multiple of `align`, zeroed.
    ///
    /// # Panics
    /// Where `align` is not a power of two, or the size exceeds the address space.
    #[must_use]
    pub fn new(bytes: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(bytes, align)
            .expect("an arena has a possible size and alignment");
        // An allocation has at least one byte; the layout that callers see keeps the size asked for.
        let allocated = Self::allocated(layout);
        // SAFETY: the layout has at least one byte.
        let start = unsafe { alloc_zeroed(allocated) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(allocated));
        Self { start, layout }
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Alignment in bytes, a power of two.
    #[must_use]
    pub fn align(&self) -> usize {
        self.layout.align()
    }

    /// What the last run left.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block has so many initialised bytes, and is borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }

    /// The bytes, to be written before a run: a result must not depend on what was there.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len()) }
    }

    fn allocated(layout: Layout) -> Layout {
        Layout::from_size_align(layout.size().max(1), layout.align())
            .expect("one byte fits everywhere")
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), Self::allocated(self.layout)) }
    }
}
