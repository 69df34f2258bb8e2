//! Two stores while objects move from one to the other: what is not yet in the new one is read from the old one.
//!
//! Objects are write-once, so a copy is as good as what it was copied from, and it does not matter which of the two
//! answers. New objects go to the new store, deletions to both: whatever the mover has done so far, everything that
//! was there is there, and everything that was deleted is gone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ObjectKey;
use filemap::FileMap;

use crate::{ByteStream, ListPage, ObjectMeta, ObjectWriter, Store, StoreError, Stored, Unfinished};

/// Names of unfinished objects say which store they are of; `from` sorts first. No slash: the words after it keep their
/// places, by which a sweeper knows whose they are.
const FROM: &str = "from:";
const TO: &str = "to:";

pub struct Moving {
    to: Arc<dyn Store>,
    from: Arc<dyn Store>,
}

impl Moving {
    pub fn new(to: Arc<dyn Store>, from: Arc<dyn Store>) -> Self {
        Moving { to, from }
    }
}

/// Asks the new store, then the old one, then the new one again: the object may have moved in between.
macro_rules! first_found {
    ($moving:expr, $store:ident => $ask:expr) => {{
        let mut answer = Err(StoreError::NotFound);
        for $store in [&$moving.to, &$moving.from, &$moving.to] {
            answer = $ask;
            if !matches!(answer, Err(StoreError::NotFound)) {
                break;
            }
        }
        answer
    }};
}

#[async_trait]
impl Store for Moving {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.to.create(key).await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        first_found!(self, store => store.read(key, range.clone()).await)
    }

    async fn open(&self, key: &ObjectKey) -> Result<Option<FileMap>, StoreError> {
        first_found!(self, store => store.open(key).await)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let found = first_found!(self, store => store.head(key).await?.ok_or(StoreError::NotFound));
        match found {
            Err(StoreError::NotFound) => Ok(None),
            found => found.map(Some),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let to = self.to.list(prefix, after, limit).await?;
        let from = self.from.list(prefix, after, limit).await?;
        Ok(merge(to, from, limit))
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let mut unfinished = Vec::new();
        for (side, store) in [(FROM, &self.from), (TO, &self.to)] {
            let after = match after {
                Some(after) if !after.starts_with(side) && after > side => continue,
                after => after.and_then(|after| after.strip_prefix(side)),
            };
            let free = limit - unfinished.len();
            if free > 0 {
                let found = store.list_unfinished(after, free).await?;
                let named =
                    found.into_iter().map(|one| Unfinished { name: format!("{side}{}", one.name), ..one });
                unfinished.extend(named);
            }
        }
        Ok(unfinished)
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        if let Some(name) = name.strip_prefix(FROM) {
            return self.from.remove_unfinished(name).await;
        }
        match name.strip_prefix(TO) {
            Some(name) => self.to.remove_unfinished(name).await,
            None => Err(StoreError::permanent("no such name was ever listed")),
        }
    }

    /// From the old store first: a copy that is made meanwhile is removed with the new one's.
    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let from = self.from.delete(paths).await;
        let to = self.to.delete(paths).await;
        from.into_iter().zip(to).map(|((path, from), (_, to))| (path, from.and(to))).collect()
    }

    fn is_local(&self) -> bool {
        self.to.is_local() && self.from.is_local()
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        first_found!(self, store => store.fetch(key, to).await)
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        self.to.put_file(key, from).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.to.free_bytes().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.to.probe().await?;
        self.from.probe().await
    }
}

/// Up to `limit` objects of both pages, each once. Beyond the end of a page that has more, the other one cannot be
/// believed to be alone.
fn merge(a: ListPage, b: ListPage, limit: usize) -> ListPage {
    let end_of =
        |page: &ListPage| page.more.then(|| page.objects.last().map(|(path, _)| path.clone())).flatten();
    let end = match (end_of(&a), end_of(&b)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let mut more = a.more || b.more;
    let mut objects: BTreeMap<String, u64> = b.objects.into_iter().collect();
    objects.extend(a.objects);
    if let Some(end) = end {
        objects.retain(|path, _| *path <= end);
    }
    more |= objects.len() > limit;
    ListPage { objects: objects.into_iter().take(limit).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(paths: &[&str], more: bool) -> ListPage {
        ListPage { objects: paths.iter().map(|path| ((*path).to_owned(), 1)).collect(), more }
    }

    fn merged(a: ListPage, b: ListPage, limit: usize) -> (String, bool) {
        let merged = merge(a, b, limit);
        (merged.objects.into_iter().map(|(path, _)| path).collect(), merged.more)
    }

    #[test]
    fn pages_merge_without_gaps_and_doubles() {
        let all = |text: &str, more| (text.to_owned(), more);
        assert_eq!(merged(page(&["a", "c"], false), page(&["b", "c"], false), 9), all("abc", false));
        assert_eq!(merged(page(&["a", "c"], false), page(&["b", "d"], false), 3), all("abc", true));
        // The first store may have `b` and `c` on its next page.
        assert_eq!(merged(page(&["a"], true), page(&["b", "c"], false), 9), all("a", true));
        assert_eq!(merged(page(&["a", "e"], true), page(&["b", "d"], true), 9), all("abd", true));
        assert_eq!(merged(page(&[], false), page(&[], false), 1), all("", false));
    }
}
