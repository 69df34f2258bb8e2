//! Everything there is, page by page, in the order of the paths: as rows, and as objects.

use anyhow::Context;
use sql::{Catalog, StoredObject};
use store::Store;

const PAGE_ROWS: usize = 1000;

/// Object rows in the order of their paths.
pub struct Rows<'a> {
    catalog: &'a Catalog,
    page: std::vec::IntoIter<StoredObject>,
    last: Option<String>,
}

impl<'a> Rows<'a> {
    pub fn new(catalog: &'a Catalog) -> Self {
        Rows { catalog, page: Vec::new().into_iter(), last: None }
    }

    pub async fn next(&mut self) -> anyhow::Result<Option<(String, StoredObject)>> {
        if self.page.as_slice().is_empty() {
            let rows = self.catalog.objects_after(self.last.as_deref(), PAGE_ROWS);
            self.page = rows.await.context("read the rows of objects")?.into_iter();
        }
        let next = self.page.next().map(|row| (row.key.path(), row));
        self.last = next.as_ref().map(|(path, _)| path.clone()).or_else(|| self.last.take());
        Ok(next)
    }
}

/// Objects of the store in the order of their paths.
pub struct Objects<'a> {
    store: &'a dyn Store,
    page: std::vec::IntoIter<(String, u64)>,
    last: Option<String>,
    more: bool,
}

impl<'a> Objects<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Objects { store, page: Vec::new().into_iter(), last: None, more: true }
    }

    pub async fn next(&mut self) -> anyhow::Result<Option<(String, u64)>> {
        if self.page.as_slice().is_empty() && self.more {
            let page =
                self.store.list("", self.last.as_deref(), PAGE_ROWS).await.context("list the store")?;
            self.more = page.more;
            self.page = page.objects.into_iter();
        }
        let next = self.page.next();
        self.last = next.as_ref().map(|(path, _)| path.clone()).or_else(|| self.last.take());
        Ok(next)
    }
}
