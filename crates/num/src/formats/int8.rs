/// Signed symmetric 8 bits: −127…127, one byte a code.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

impl Int8 {
    /// Name in plans and reports.
    pub const NAME: &str = "int8";
    /// Bits a code.
    pub const BITS: u32 = 8;
    /// Lowest code; −128 is left out so that the range is symmetric.
    pub const MIN: i32 = -127;
    /// Highest code.
    pub const MAX: i32 = 127;

    /// Packs one code a byte.
    pub fn pack(codes: &[i8], out: &mut [u8]) {
        for (byte, code) in out.iter_mut().zip(codes) {
            *byte = code.cast_unsigned();
        }
    }

    /// Inverse of [`Int8::pack`].
    pub fn unpack(packed: &[u8], out: &mut [i8]) {
        for (code, byte) in out.iter_mut().zip(packed) {
            *code = byte.cast_signed();
        }
    }
}
