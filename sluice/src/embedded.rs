//! The embedded defaults: a SQLite file, a folder of objects and a key pair in the data directory.

use std::path::Path;
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
        make_writable(&settings.data_dir)?;
        let catalog = Catalog::open(&settings.database_place()).await?;
        let store = store::open(&settings.store_place()).await?;
        Ok(Embedded { catalog, store })
    }

    /// What has to answer before we are ready.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        vec![ops::check("database", self.catalog.pinger()), ops::check("store", store::prober(&self.store))]
    }
}

/// A data directory that we cannot write to is told here, once, and not by whoever trips over it first.
pub fn make_writable(folder: &Path) -> Result<(), Failure> {
    let refused = |error: std::io::Error| {
        let uid = rustix::process::getuid().as_raw();
        let folder = folder.display();
        Failure::cannot_create(format!(
            "Cannot write {folder} (we are uid {uid}): {error}. Run chown {uid} {folder}, or set SLUICE_DATA_DIR."
        ))
    };
    std::fs::create_dir_all(folder).map_err(refused)?;
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| refused(error.into()))
}
