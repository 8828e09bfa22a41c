//! The machine's only source of randomness.

/// SplitMix64, begun with the seed: it decides whom to probe and tell, nothing that must be secret.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let hash = *blake3::hash(seed).as_bytes();
        Self(u64::from_be_bytes(hash.first_chunk::<8>().copied().unwrap_or_default()))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `below`; zero if there is none.
    pub(crate) const fn below(&mut self, below: usize) -> usize {
        if below == 0 {
            return 0;
        }
        (self.next() % below as u64) as usize
    }

    /// Fisher and Yates's shuffle.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
