//! Executes the tile instructions of x86 on processors without them, so that an object for one that has them can be checked
//! where it is built.
//!
//! A processor raises a signal at an instruction that it does not know. The handler decodes it, does what it says to the
//! registers that it keeps for the thread, and goes on behind it. Any other unknown instruction, and every one that a
//! processor with tiles refuses too, is left to who handled the signal before.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86 {
    use std::cell::UnsafeCell;
    use std::ffi::{c_int, c_void};
    use std::sync::OnceLock;

    use libc::{REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, greg_t};
    use libc::{REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP};

    const ROWS: usize = 16;
    const ROW: usize = 64;

    /// One thread's registers.
    pub(super) struct Tiles {
        rows: [usize; 8],
        row_bytes: [usize; 8],
        pub(super) data: [[[u8; ROW]; ROWS]; 8],
    }

    pub(super) const EMPTY: Tiles = Tiles {
        rows: [0; 8],
        row_bytes: [0; 8],
        data: [[[0; ROW]; ROWS]; 8],
    };

    impl Tiles {
        /// Whether a register has a shape.
        fn has(&self, tile: u8) -> bool {
            self.rows[usize::from(tile)] > 0
        }

        /// Whether three different registers have the shapes of a sum and its factors.
        fn fit(&self, [sum, a, b]: [usize; 3]) -> bool {
            let words = |tile: usize| self.row_bytes[tile].is_multiple_of(4);
            let different = sum != a && sum != b && a != b;
            different
                && [sum, a, b]
                    .iter()
                    .all(|&tile| self.rows[tile] > 0 && words(tile))
                && self.rows[sum] == self.rows[a]
                && self.row_bytes[sum] == self.row_bytes[b]
                && self.row_bytes[a] / 4 == self.rows[b]
        }
    }

    thread_local! {
        static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(EMPTY) };
    }

    /// What handled the signal before.
    static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

    /// Installs the handler, once; whether it is there.
    pub(super) fn emulate() -> bool {
        let installed = BEFORE.get_or_init(|| {
            // SAFETY: zeros are a valid `sigaction`, whose handler has the type that `SA_SIGINFO` asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let mut before: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let done = libc::sigaction(libc::SIGILL, &raw const action, &raw mut before);
                (done == 0).then_some(before)
            }
        });
        installed.is_some()
    }

    /// Asks the system to save tiles for this process; whether it will.
    pub(super) fn permitted() -> bool {
        const REQUEST_PERMISSION: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        // SAFETY: the call changes what the system saves, and takes no pointer.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }

    /// The handler. It touches registers of the interrupted thread and that thread's tiles only.
    extern "C" fn handle(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the system hands over the context of the thread that was interrupted, which this is.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let done = TILES.with(|t| {
            // SAFETY: nothing else holds a reference: the signal comes from the object's code, which knows nothing of the tiles.
            let tiles = unsafe { &mut *t.get() };
            let done = step(registers, tiles);
            // tile instructions come in sequences, and signals take longer than what they do
            while done && step(registers, tiles) {}
            done
        });
        if !done {
            // the instruction is met again, by the handler from before or by none
            match BEFORE.get() {
                // SAFETY: it is what the system gave for this signal.
                Some(Some(before)) => unsafe {
                    libc::sigaction(libc::SIGILL, before, std::ptr::null_mut());
                },
                // SAFETY: the call takes no pointer.
                _ => unsafe {
                    libc::signal(libc::SIGILL, libc::SIG_DFL);
                },
            }
        }
    }

    /// The bytes of an instruction, one after the other.
    struct Bytes(*const u8);

    impl Bytes {
        fn next(&mut self) -> u8 {
            // SAFETY: the instruction pointer leads to an instruction, of at least five bytes where its first is that of VEX;
            // no other is read beyond its first byte.
            unsafe {
                let byte = self.0.read();
                self.0 = self.0.add(1);
                byte
            }
        }

        fn displacement(&mut self, mode: u8) -> i64 {
            match mode {
                1 => i64::from(self.next() as i8),
                2 => i64::from(i32::from_le_bytes([0; 4].map(|_: u8| self.next()))),
                _ => 0,
            }
        }
    }

    const GENERAL: [c_int; 16] = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
        REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];

    fn general(registers: &[greg_t], n: u8) -> i64 {
        registers[GENERAL[usize::from(n)] as usize]
    }

    /// Executes one instruction; whether it is one of tiles. See Intel's manual, volume 2, "VEX encoding".
    pub(super) fn step(registers: &mut [greg_t], tiles: &mut Tiles) -> bool {
        const VEX: u8 = 0xc4;
        const MAP_0F38: u8 = 2;
        let mut bytes = Bytes(registers[REG_RIP as usize] as *const u8);
        if bytes.next() != VEX {
            return false;
        }
        let (first, second) = (bytes.next(), bytes.next());
        if first & 31 != MAP_0F38 || second & 0x84 != 0 {
            return false;
        }
        let (code, modrm) = (bytes.next(), bytes.next());
        let prefix = second & 3;
        let (mode, register, other) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        let third = !(second >> 3) & 7;
        let extra = [6, 5].map(|bit| u8::from(first >> bit & 1 == 0) << 3);
        match (code, mode) {
            (0x49, 3) => match (prefix, register, other) {
                (0, 0, 0) => *tiles = EMPTY,
                (3, _, 0) if tiles.has(register) => {
                    tiles.data[usize::from(register)] = EMPTY.data[0];
                }
                _ => return false,
            },
            (0x49, _) if prefix == 0 && register == 0 => {
                let (at, index) = memory(&mut bytes, (mode, other), extra, registers);
                // SAFETY: the instruction reads these 64 bytes.
                let config = unsafe {
                    at.wrapping_offset(index as isize)
                        .cast::<[u8; 64]>()
                        .read_unaligned()
                };
                if !configure(tiles, config) {
                    return false;
                }
            }
            (0x4b, 0..=2) if other == 4 && prefix != 0 && tiles.has(register) => {
                let (at, stride) = memory(&mut bytes, (mode, other), extra, registers);
                let tile = usize::from(register);
                if prefix == 2 {
                    store(tiles, tile, at, stride);
                } else {
                    load(tiles, tile, at, stride);
                }
            }
            (0x5e, 3) if tiles.fit([register, other, third].map(usize::from)) => {
                dot(tiles, [register, other, third].map(usize::from), prefix);
            }
            _ => return false,
        }
        registers[REG_RIP as usize] = bytes.0 as i64;
        true
    }

    /// Where an operand in memory is, and what its index register adds: the bytes between rows.
    fn memory(
        bytes: &mut Bytes,
        (mode, other): (u8, u8),
        [x, b]: [u8; 2],
        registers: &[greg_t],
    ) -> (*mut u8, i64) {
        const NO_INDEX: u8 = 4;
        let (mut base, mut stride) = (other | b, 0);
        if other == 4 {
            let sib = bytes.next();
            base = sib & 7 | b;
            let index = sib >> 3 & 7 | x;
            if index != NO_INDEX {
                stride = general(registers, index) << (sib >> 6);
            }
        }
        let at = match (mode, base & 7) {
            (0, 5) => {
                let by = bytes.displacement(2);
                // without a register the address counts from the next instruction, with an index from zero
                let next = if other == 4 { 0 } else { bytes.0 as i64 };
                next.wrapping_add(by)
            }
            _ => general(registers, base).wrapping_add(bytes.displacement(mode)),
        };
        (at as *mut u8, stride)
    }

    /// Gives the tiles their shapes; whether a processor would.
    fn configure(tiles: &mut Tiles, config: [u8; 64]) -> bool {
        const PALETTE: u8 = 1;
        let mut new = EMPTY;
        for k in 0..8 {
            let bytes = u16::from_le_bytes([config[16 + 2 * k], config[17 + 2 * k]]);
            new.row_bytes[k] = usize::from(bytes);
            new.rows[k] = usize::from(config[48 + k]);
        }
        let shape = |k: usize| match (new.rows[k], new.row_bytes[k]) {
            (0, 0) => true,
            (rows, bytes) => (1..=ROWS).contains(&rows) && (1..=ROW).contains(&bytes),
        };
        let zeros = config[1..16]
            .iter()
            .chain(&config[32..48])
            .chain(&config[56..]);
        let valid = config[0] == PALETTE && zeros.copied().all(|x| x == 0) && (0..8).all(shape);
        if valid {
            *tiles = new;
        }
        valid
    }

    fn load(tiles: &mut Tiles, tile: usize, at: *const u8, stride: i64) {
        let mut data = EMPTY.data[0];
        for (k, row) in data.iter_mut().take(tiles.rows[tile]).enumerate() {
            // SAFETY: the instruction reads these bytes.
            unsafe {
                let from = at.wrapping_offset(stride as isize * k as isize);
                from.copy_to_nonoverlapping(row.as_mut_ptr(), tiles.row_bytes[tile]);
            }
        }
        tiles.data[tile] = data;
    }

    fn store(tiles: &Tiles, tile: usize, at: *mut u8, stride: i64) {
        for (k, row) in tiles.data[tile].iter().take(tiles.rows[tile]).enumerate() {
            // SAFETY: the instruction writes these bytes.
            unsafe {
                let to = at.wrapping_offset(stride as isize * k as isize);
                row.as_ptr()
                    .copy_to_nonoverlapping(to, tiles.row_bytes[tile]);
            }
        }
    }

    /// `sum += a · b`; the prefix says which factors are signed: neither, the first only, the second only, both.
    fn dot(tiles: &mut Tiles, [sum, a, b]: [usize; 3], prefix: u8) {
        let read = |byte: u8, signed: bool| match signed {
            true => i32::from(byte as i8),
            false => i32::from(byte),
        };
        let (a_signed, b_signed) = match prefix {
            0 => (false, false),
            1 => (false, true),
            2 => (true, false),
            _ => (true, true),
        };
        let (lanes, steps) = (tiles.row_bytes[sum] / 4, tiles.row_bytes[a] / 4);
        for m in 0..tiles.rows[sum] {
            let mut sums = [0i32; ROW / 4];
            for (lane, bytes) in sums.iter_mut().zip(tiles.data[sum][m].chunks_exact(4)) {
                *lane = i32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }
            for s in 0..steps {
                let factors: [i32; 4] =
                    std::array::from_fn(|k| read(tiles.data[a][m][4 * s + k], a_signed));
                for (n, lane) in sums.iter_mut().take(lanes).enumerate() {
                    let product =
                        |k: usize| factors[k] * read(tiles.data[b][s][4 * n + k], b_signed);
                    *lane = lane.wrapping_add(product(0) + product(1) + product(2) + product(3));
                }
            }
            for (n, lane) in sums.iter().take(lanes).enumerate() {
                tiles.data[sum][m][4 * n..][..4].copy_from_slice(&lane.to_le_bytes());
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
#[path = "tests/tiles.rs"]
mod tests;

/// From now on, tile instructions run in this process on a processor that has the rest of what an object uses: slowly, for
/// checking. Whether that can be: on Linux on x86-64 only.
#[must_use]
pub fn emulate_tiles() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return x86::emulate();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return false;
}

/// Whether the system lets this process use tiles, which must be asked for on Linux. It says nothing of the processor.
#[must_use]
pub fn tiles_permitted() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return x86::permitted();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return false;
}
