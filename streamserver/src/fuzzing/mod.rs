//! What the fuzzers run, and what the tests run over the fuzzers' corpora: each body takes any bytes whatever, and
//! panics where a promise is broken (`reliability` §5). The targets in `fuzz/` are calls of these.

pub mod forms;
pub mod headers;
pub mod ranges;
pub mod sequences;

#[cfg(test)]
mod tests;

/// Bytes read as choices; at the end of them every choice is 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}
