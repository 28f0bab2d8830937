/// `⌊√x⌋` by Newton's iteration from above.
pub fn isqrt(x: u64) -> u64 {
    if x < 2 {
        return x;
    }
    let mut r = 1u64 << (64 - x.leading_zeros()).div_ceil(2);
    loop {
        let next = (r + x / r) / 2;
        if next >= r {
            return r;
        }
        r = next;
    }
}

#[cfg(test)]
mod tests {
    use super::isqrt;

    #[test]
    fn is_the_floor_of_the_root() {
        for x in (0..10_000).chain([u64::from(u32::MAX), (1 << 40) - 1, 1 << 40, u64::MAX]) {
            let r = isqrt(x);
            assert!(r.checked_mul(r).is_some_and(|s| s <= x), "{x}");
            assert!((r + 1).checked_mul(r + 1).is_none_or(|s| s > x), "{x}");
        }
    }
}
