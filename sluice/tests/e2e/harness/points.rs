//! Chance that can be had again.

/// SplitMix64: the points are random, and the same for the same seed.
pub struct Points(u64);

impl Points {
    pub fn new(seed: u64) -> Points {
        Points(seed)
    }

    pub fn next_below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn bytes(mut self, length: usize) -> bytes::Bytes {
        let words = length.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next_below(u64::MAX).to_be_bytes()).collect();
        bytes.truncate(length);
        bytes.into()
    }
}
