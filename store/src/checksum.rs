//! CRC-64/NVME: nearly free, composable over parts, and what S3 checks itself.

use crc_fast::{CrcAlgorithm, Digest};
use futures::TryStreamExt;

use crate::{ByteStream, StoreError};

/// A running CRC-64/NVME.
#[derive(Clone)]
pub struct Crc64Nvme(Digest);

impl Default for Crc64Nvme {
    fn default() -> Self {
        Crc64Nvme(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64Nvme {
    /// Of an object that is being read, to its end.
    pub async fn of(mut blocks: ByteStream) -> Result<Crc64Nvme, StoreError> {
        let mut crc = Crc64Nvme::default();
        while let Some(block) = blocks.try_next().await? {
            crc.update(&block);
        }
        Ok(crc)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Goes on with bytes that were run through another one.
    pub fn append(&mut self, other: &Crc64Nvme) {
        self.0.combine(&other.0);
    }

    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Crc64Nvme {
        let mut crc = Crc64Nvme::default();
        crc.update(bytes);
        crc
    }

    #[test]
    fn gives_the_check_value_of_the_catalogue() {
        let mut crc = of(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn parts_add_up() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * 7) as u8).collect();
        for cuts in [[0, 0], [0, 1000], [1, 2], [300, 700], [1000, 1000]] {
            let mut crc = of(&bytes[..cuts[0]]);
            crc.append(&of(&bytes[cuts[0]..cuts[1]]));
            crc.append(&of(&bytes[cuts[1]..]));
            assert_eq!(crc.value(), of(&bytes).value(), "{cuts:?}");
        }
    }
}
