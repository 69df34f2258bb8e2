//! Two servers on one database and one store, and a person who uploads.

use std::sync::{Arc, Mutex, PoisonError};

use chassis::settings::ServiceName;
use chassis::{App, Clock, Edge, EdgeConfig, Ids, LinkKeys, Settings, SigningKey, Tokens};
use domain::{DatabasePlace, IdParts, ObjectKey, Role, SessionId, UserId};
use sql::{Catalog, NewSession, NewUser};
use store::{Faulty, Memory, Store};
use tokio_util::sync::CancellationToken;

use crate::{Deps, StreamServer, routes};

const TEN_YEARS_S: i64 = 10 * 365 * 24 * 3600;

/// Reused by many sequences.
pub struct World {
    /// As the servers have it, but in fine weather.
    pub catalog: Catalog,
    pub store: Memory,
    pub clock: Clock,
    pub author: UserId,
    pub token: String,
    pub expires_ms: i64,
    pub(super) apps: Vec<App>,
    pub(super) faults: Faults,
    servers: Vec<StreamServer>,
    ids: Ids,
    shutdown: CancellationToken,
    // Removed at the end.
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn new() -> World {
        let folder = in_memory();
        let place = DatabasePlace::sqlite(&folder.path().join("sluice.db"));
        let catalog = Catalog::open(&place).await.expect("a database");
        let (store, clock, ids) = (Memory::new(), Clock::manual(Clock::system().now()), Ids::system());
        let (key, shutdown) = (SigningKey::generate(&ids).expect("a key"), CancellationToken::new());
        let mut settings = Settings::load(ServiceName::Streamserver, None, []).expect("settings");
        settings.limits.requests_per_s_per_client = 0;
        settings.limits.requests_per_s_per_user = 0;
        settings.limits.upload_bytes_max = 100_000;
        let faults = Faults::default();
        let mut world = World {
            author: ids.next(clock.now()),
            token: String::new(),
            expires_ms: i64::try_from(settings.limits.upload_expires_s).expect("a few days") * 1000,
            apps: Vec::new(),
            servers: Vec::new(),
            catalog,
            store,
            clock,
            faults,
            ids,
            shutdown,
            _folder: folder,
        };
        for _ in 0..2 {
            world.start(&settings, &key);
        }
        world.token = world.log_in(&key).await;
        world
    }

    fn start(&mut self, settings: &Settings, key: &SigningKey) {
        let (of_store, of_database) = (self.faults.clone(), self.faults.clone());
        let deps = Deps {
            catalog: self
                .catalog
                .clone()
                .under(move |_| of_database.strikes().map(|fault| fault.of_database())),
            store: Arc::new(Faulty::chosen(self.store.clone(), move |_| {
                of_store.strikes().map(|fault| fault.of_store())
            })),
            clock: self.clock.clone(),
            link_keys: LinkKeys::generate(&self.ids).expect("a new key is one"),
            ids: self.ids.clone(),
            limits: settings.limits.clone(),
            views: settings.views,
            cache_tag_header: settings.cache_tag_header,
            shutdown: self.shutdown.clone(),
        };
        let server = StreamServer::new(deps, String::new());
        let tokens = Tokens::new(key.verifying(), self.clock.clone(), self.catalog.session_lookup());
        let (router, _) = routes(server.clone(), tokens).finish();
        self.apps.push(Edge::new(EdgeConfig::new(settings, self.ids.clone())).wrap(router));
        self.servers.push(server);
    }

    async fn log_in(&self, key: &SigningKey) -> String {
        let (session, now): (SessionId, _) = (self.id(), self.clock.now());
        let user = NewUser {
            id: self.author,
            username: "alice".parse().expect("a name"),
            email: None,
            password_hash: "none".into(),
            role: Role::User,
            display_name: "Alice".into(),
        };
        self.catalog.create_user(&user, now).await.expect("a person");
        let expires_at = now.plus_s(TEN_YEARS_S);
        let new = NewSession { id: session, user: self.author, expires_at };
        self.catalog.create_session(&new, now).await.expect("a session");
        key.session_token(self.author, session, Role::User, now, expires_at)
    }

    pub(super) fn id<T: From<IdParts>>(&self) -> T {
        self.ids.next(self.clock.now())
    }

    /// As the scheduler does it, without any grace: nobody writes meanwhile.
    pub(super) async fn sweep(&self) {
        let now = self.clock.now();
        self.catalog.sweep_resumables(now.plus_ms(-7 * self.expires_ms), now).await.expect("a sweep");
        for (video, attempt) in self.catalog.stale_attempts(now, -1, 1000).await.expect("a list") {
            let prefix = ObjectKey::attempt_prefix(video, attempt);
            let page = self.store.list(&prefix, None, 1000).await.expect("a page");
            let paths: Vec<String> = page.objects.into_iter().map(|(path, _)| path).collect();
            self.store.delete(&paths).await;
            self.catalog.forget_attempt(attempt).await.expect("it is forgotten");
        }
    }

    /// Nothing is left over, and the rows make sense.
    pub async fn end(self) {
        self.shutdown.cancel();
        for server in &self.servers {
            server.drain().await;
        }
        assert_eq!(self.store.list_unfinished(None, 10).await.expect("a list"), []);
        assert_eq!(self.catalog.violations().await.expect("a check"), []);
        self.catalog.close().await;
    }
}

/// There `fsync` costs nothing, and the sequences are many.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// How the call goes wrong that was chosen to.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Before,
    /// Only its answer is lost.
    After,
}

impl Fault {
    fn of_store(self) -> store::Fault {
        match self {
            Fault::Before => store::Fault::Before,
            Fault::After => store::Fault::After,
        }
    }

    fn of_database(self) -> sql::Fault {
        match self {
            Fault::Before => sql::Fault::Before,
            Fault::After => sql::Fault::After,
        }
    }
}

/// Which call from now on goes wrong: one of the store or the database, whichever comes to its turn.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Option<(u8, Fault)>>>);

impl Faults {
    pub fn arm(&self, calls: u8, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((calls, fault));
    }

    pub fn disarm(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn strikes(&self) -> Option<Fault> {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some((0, _)) => armed.take().map(|(_, fault)| fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }
}
