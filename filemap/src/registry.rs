//! Which addresses are whose.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::Mapped;

/// By the address that a mapping begins at: its length in bytes, and what is mapped.
static MAPPINGS: RwLock<BTreeMap<usize, (usize, Arc<Mapped>)>> = RwLock::new(BTreeMap::new());

pub(crate) fn add(memory: &[u8], mapped: &Arc<Mapped>) {
    let mut mappings = MAPPINGS.write().unwrap_or_else(PoisonError::into_inner);
    mappings.insert(memory.as_ptr().addr(), (memory.len(), mapped.clone()));
}

/// Before the mapping ends: its addresses may be another's at once.
pub(crate) fn remove(memory: &[u8]) {
    let mut mappings = MAPPINGS.write().unwrap_or_else(PoisonError::into_inner);
    mappings.remove(&memory.as_ptr().addr());
}

/// The mapping that the slice lies in, and its offset there.
pub(crate) fn find(slice: &[u8]) -> Option<(Arc<Mapped>, usize)> {
    let address = slice.as_ptr().addr();
    let mappings = MAPPINGS.read().unwrap_or_else(PoisonError::into_inner);
    let (start, (length, mapped)) = mappings.range(..=address).next_back()?;
    let offset = address - start;
    let lies_within = !slice.is_empty() && offset.checked_add(slice.len()).is_some_and(|end| end <= *length);
    lies_within.then(|| (mapped.clone(), offset))
}

#[cfg(test)]
pub(crate) fn is_known(address: usize) -> bool {
    let mappings = MAPPINGS.read().unwrap_or_else(PoisonError::into_inner);
    mappings.range(..=address).next_back().is_some_and(|(start, (length, _))| address - start < *length)
}
