//! What the settings name: by default a SQLite file, a folder of objects and a key pair in the data directory.

use std::sync::Arc;

use chassis::ops::Check;
use chassis::{Failure, Settings, ops};
use sql::Catalog;
use store::Store;

/// What everything else stands on.
pub struct Embedded {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
}

impl Embedded {
    /// Makes what is missing; brings the schema up to date.
    pub async fn open(settings: &Settings) -> Result<Embedded, Failure> {
        settings.make_data_dir()?;
        let catalog = Catalog::open(&settings.database_place()).await?;
        let store = store::open(&settings.store_place()).await?;
        Ok(Embedded { catalog, store })
    }

    /// What has to answer before we are ready.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        vec![ops::check("database", self.catalog.pinger()), ops::check("store", store::prober(&self.store))]
    }
}
