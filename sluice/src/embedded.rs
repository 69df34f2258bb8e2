//! The embedded defaults: a SQLite file, a folder of objects and a key pair in the data directory.

use std::path::Path;
use std::sync::Arc;

use chassis::ops::Check;
use chassis::{Failure, Settings};
use futures::FutureExt;
use sql::Catalog;
use store::{Disk, Store};

/// What everything else stands on.
pub struct Embedded {
    pub catalog: Catalog,
    pub store: Arc<dyn Store>,
}

impl Embedded {
    /// Makes what is missing; brings the schema up to date.
    pub async fn open(settings: &Settings) -> Result<Embedded, Failure> {
        make_writable(&settings.data_dir)?;
        let url = settings.database_url.clone();
        let url = url.unwrap_or_else(|| Catalog::sqlite_url(&settings.database_file()));
        let catalog = Catalog::open(&url).await.map_err(|error| {
            Failure::unavailable(format!(
                "The database cannot be opened: {error}. See SLUICE_DATA_DIR and DATABASE_URL."
            ))
        })?;
        let folder = settings.objects_dir();
        let store = Disk::open(&folder).map_err(|error| {
            Failure::cannot_create(format!(
                "Objects cannot be kept in {}: {error}. See SLUICE_STORE.",
                folder.display()
            ))
        })?;
        Ok(Embedded { catalog, store: Arc::new(store) })
    }

    /// What has to answer before we are ready.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        let (catalog, store) = (self.catalog.clone(), self.store.clone());
        let database: Check = Arc::new(move || {
            let catalog = catalog.clone();
            async move { catalog.ping().await.map_err(|error| error.to_string()) }.boxed()
        });
        let store: Check = Arc::new(move || {
            let store = store.clone();
            async move { store.probe().await.map_err(|error| error.to_string()) }.boxed()
        });
        vec![("database", database), ("store", store)]
    }
}

/// A data directory that we cannot write to is told here, once, and not by whoever trips over it first.
fn make_writable(folder: &Path) -> Result<(), Failure> {
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
