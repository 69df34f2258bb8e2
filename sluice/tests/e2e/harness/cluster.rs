//! Many processes of each service on one database and one store, any of which may die; and clients who go on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use chassis::{Ids, LinkKeys, SigningKey};
use reqwest::RequestBuilder;
use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Backends, Objects, Persona, Program, check, client_within, clips, sluice};

const SERVE_S_MAX: u64 = 60;

/// How many processes of each service.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub apis: usize,
    pub streamservers: usize,
    pub schedulers: usize,
}

impl Sizes {
    pub const ONE_EACH: Sizes = Sizes { apis: 1, streamservers: 1, schedulers: 1 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Api,
    Streamserver,
    Scheduler,
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Service::Api => "api",
            Service::Streamserver => "streamserver",
            Service::Scheduler => "scheduler",
        }
    }
}

pub struct Cluster {
    // Before what they stand on: fields are dropped in this order.
    members: Vec<Member>,
    pub backends: Backends,
    pub folder: TempDir,
    settings: Vec<(String, String)>,
}

/// A process, and those that took its place after it died.
struct Member {
    service: Service,
    /// Of its own: on its database and store a process needs nothing that another one wrote.
    folder: PathBuf,
    log_name: String,
    running: Mutex<Running>,
    /// `None` while nobody listens.
    address: RwLock<Option<Address>>,
}

#[derive(Default)]
struct Running {
    program: Option<Program>,
    starts: u32,
}

#[derive(Clone)]
struct Address {
    base: String,
    ops: String,
}

impl Cluster {
    /// On what the environment asks for.
    pub async fn start(sizes: Sizes, settings: &[(&str, &str)]) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let backends = Backends::fresh(folder.path());
        Cluster::on(backends, folder, sizes, settings).await
    }

    pub async fn on(backends: Backends, folder: TempDir, sizes: Sizes, settings: &[(&str, &str)]) -> Cluster {
        let settings = all_settings(&backends, folder.path(), settings);
        let services = [
            (Service::Api, sizes.apis),
            (Service::Streamserver, sizes.streamservers),
            (Service::Scheduler, sizes.schedulers),
        ];
        let numbers = services.iter().flat_map(|&(service, size)| (0..size).map(move |n| (service, n)));
        let members = numbers.map(|(service, number)| Member::new(service, number, folder.path())).collect();
        let cluster = Cluster { members, backends, folder, settings };
        for number in 0..cluster.members.len() {
            cluster.start_member(number);
            cluster.until_ready(number).await;
        }
        cluster
    }

    const HEARD_OF: Duration = Duration::from_millis(100);

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The numbers of the members of a service.
    pub fn of(&self, service: Service) -> Vec<usize> {
        (0..self.len()).filter(|&number| self.members[number].service == service).collect()
    }

    pub fn service(&self, number: usize) -> Service {
        self.members[number].service
    }

    /// `kill -9`.
    pub fn kill(&self, number: usize) {
        let member = &self.members[number];
        *member.address.write().unwrap() = None;
        let program = member.running.lock().unwrap().program.take();
        program.expect("it runs").kill();
    }

    /// SIGTERM; returns when the process has ended, as it should. Whoever spreads the requests hears of it a moment
    /// before, as a load balancer does.
    pub fn terminate(&self, number: usize) {
        let member = &self.members[number];
        *member.address.write().unwrap() = None;
        std::thread::sleep(Cluster::HEARD_OF);
        let mut program = member.running.lock().unwrap().program.take().expect("it runs");
        let status = program.terminate();
        assert!(status.success(), "SIGTERM ends {} with {status}:\n{}", member.log_name, program.log());
    }

    /// Another process in its place, which listens when this returns.
    pub fn start_member(&self, number: usize) {
        let member = &self.members[number];
        let mut running = member.running.lock().unwrap();
        let log_name = format!("{}-{}", member.log_name, running.starts);
        running.starts += 1;
        let program = Program::start(member.service.name(), &member.folder, &log_name, &self.settings);
        *member.address.write().unwrap() =
            Some(Address { base: program.base.clone(), ops: program.ops.clone() });
        running.program = Some(program);
    }

    /// `kill -9` and a new start; how long the place was empty, until the next one said that it is ready.
    pub async fn kill_and_restart(self: &Arc<Self>, number: usize) -> Duration {
        let cluster = self.clone();
        let began = Instant::now();
        let restart = move || {
            cluster.kill(number);
            cluster.start_member(number);
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
        self.until_ready(number).await;
        began.elapsed()
    }

    pub async fn until_ready(&self, number: usize) {
        let began = Instant::now();
        while self.readiness(number).await.is_none_or(|answer| answer.status != 200) {
            assert!(
                began.elapsed().as_secs() < SERVE_S_MAX,
                "not ready within {SERVE_S_MAX} s:\n{}",
                self.log(number)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What `/readyz` answers, if anything does.
    pub async fn readiness(&self, number: usize) -> Option<Answer> {
        let ops = self.members[number].address.read().unwrap().as_ref()?.ops.clone();
        let anyone = Persona::anonymous(&ops);
        anyone.try_send(anyone.request(reqwest::Method::GET, "/readyz")).await.ok()
    }

    pub fn base(&self, number: usize) -> String {
        self.members[number].address.read().unwrap().as_ref().expect("it runs").base.clone()
    }

    pub fn ops(&self, number: usize) -> String {
        self.members[number].address.read().unwrap().as_ref().expect("it runs").ops.clone()
    }

    /// One of the living processes of a service, another one each turn.
    pub fn living(&self, service: Service, turn: usize) -> Option<String> {
        let members = self.members.iter().filter(|member| member.service == service);
        let living: Vec<String> = members
            .filter_map(|member| Some(member.address.read().unwrap().as_ref()?.base.clone()))
            .collect();
        living.get(turn % living.len().max(1)).cloned()
    }

    pub fn resident_kib(&self, number: usize) -> u64 {
        self.with_program(number, Program::resident_kib)
    }

    pub fn pid(&self, number: usize) -> u32 {
        self.with_program(number, Program::pid)
    }

    pub fn log(&self, number: usize) -> String {
        self.with_program(number, Program::log)
    }

    /// What a member started; nothing while nobody is in its place.
    pub fn children(&self, number: usize) -> Vec<Pid> {
        let running = self.members[number].running.lock().unwrap();
        running.program.as_ref().map_or_else(Vec::new, Program::children)
    }

    fn with_program<T>(&self, number: usize, ask: impl FnOnce(&Program) -> T) -> T {
        ask(self.members[number].running.lock().unwrap().program.as_ref().expect("it runs"))
    }

    /// Ends every process as an operator would, and has `sluice check` look over what they left.
    pub fn finish(self) {
        for number in 0..self.len() {
            self.terminate(number);
        }
        self.check();
    }

    pub fn check(&self) {
        check(self.folder.path(), &self.settings);
    }

    /// What a command of `sluice` says.
    pub fn sluice(&self, command: &str) -> String {
        let output = sluice(self.folder.path(), &self.settings, command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn objects(&self) -> Objects {
        Objects::open(&self.backends, &self.folder.path().join("shared/objects"), self.folder.path()).await
    }

    /// Registers somebody.
    pub async fn client(self: &Arc<Self>, username: &str) -> Client {
        let client = Client::anonymous(self);
        let body = json!({"username": username, "password": Persona::PASSWORD});
        let registered =
            client.ask(Service::Api, |http, base| http.post(format!("{base}/api/users")).json(&body));
        assert!([201, 409].contains(&registered.await.answer.status));
        client.log_in(username).await
    }

    pub async fn admin(self: &Arc<Self>) -> Client {
        Client::anonymous(self).log_in("root").await
    }

    /// Of the first `api`.
    pub async fn user(&self, username: &str) -> Persona {
        Persona::register(&self.base(self.of(Service::Api)[0]), username).await
    }
}

/// Where the data directories are each process's own, what is not on the network is named to all of them.
fn all_settings(backends: &Backends, folder: &Path, settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let shared = folder.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let keys = folder.join("keys");
    SigningKey::load_or_create(&keys, &Ids::system()).unwrap();
    LinkKeys::load_or_create(&keys, &Ids::system()).unwrap();
    let mut all = vec![
        ("DATABASE_URL".to_owned(), format!("sqlite://{}", shared.join("sluice.db").display())),
        ("SLUICE_STORE".to_owned(), format!("disk:{}", shared.join("objects").display())),
        ("SLUICE_SIGNING_KEY_FILE".to_owned(), keys.join("signing.pem").display().to_string()),
        ("SLUICE_VERIFYING_KEY_FILE".to_owned(), keys.join("verifying.pem").display().to_string()),
        ("SLUICE_LINK_KEYS_FILE".to_owned(), keys.join("links.keys").display().to_string()),
        ("SLUICE_ADMIN_USERNAME".to_owned(), "root".to_owned()),
        ("SLUICE_ADMIN_PASSWORD".to_owned(), Persona::PASSWORD.to_owned()),
    ];
    let given = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in backends.settings().iter().cloned().chain(given) {
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
    }
    all
}

impl Member {
    fn new(service: Service, number: usize, folder: &Path) -> Member {
        let log_name = format!("{}-{number}", service.name());
        let folder = folder.join(&log_name);
        std::fs::create_dir(&folder).unwrap();
        let (running, address) = (Mutex::default(), RwLock::new(None));
        Member { service, folder, log_name, running, address }
    }
}

/// Somebody who sends a request to one process after the other until one of them has an answer.
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    http: reqwest::Client,
    token: Option<String>,
    turn: Arc<AtomicUsize>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Done {
    pub answer: Answer,
    /// Tries that may have taken effect without an answer that said so, and what came instead.
    pub in_doubt: Vec<String>,
}

impl Client {
    const TRY_S_MAX: u64 = 30;
    const ANSWER_S_MAX: u64 = 90;
    const PAUSE: Duration = Duration::from_millis(50);

    pub fn anonymous(cluster: &Arc<Cluster>) -> Client {
        let http = client_within(Duration::from_secs(Client::TRY_S_MAX));
        Client { cluster: cluster.clone(), http, token: None, turn: Arc::default() }
    }

    async fn log_in(self, username: &str) -> Client {
        let body = json!({"username": username, "password": Persona::PASSWORD});
        let session =
            self.ask(Service::Api, |http, base| http.post(format!("{base}/api/sessions")).json(&body));
        let session = session.await.answer.expect(200).json();
        Client { token: Some(session["token"].as_str().unwrap().to_owned()), ..self }
    }

    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Until somebody answers with anything but a 503. What the processes may never say fails the test.
    pub async fn ask(
        &self,
        service: Service,
        request: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Done {
        let began = Instant::now();
        let mut in_doubt = Vec::new();
        loop {
            let waited_s = began.elapsed().as_secs();
            assert!(waited_s < Client::ANSWER_S_MAX, "no {} answered in {waited_s} s", service.name());
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if let Some(base) = self.cluster.living(service, turn) {
                match self.try_once(request(&self.http, &base)).await {
                    Ok(answer) if answer.status != 503 => return Done { answer, in_doubt },
                    Ok(answer) => in_doubt.push(String::from_utf8_lossy(&answer.body).into_owned()),
                    // Nobody was there to do anything.
                    Err(error) if error.is_connect() => {}
                    Err(error) => in_doubt.push(format!("{error:?}")),
                }
            }
            tokio::time::sleep(Client::PAUSE).await;
        }
    }

    /// One try at one process; the answer keeps the rules that hold in any weather.
    pub async fn try_once(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await?.to_vec() };
        assert!(status < 500 || status == 503, "{status}: {}", String::from_utf8_lossy(&answer.body));
        assert!(
            status != 503 || answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0),
            "{answer:?}"
        );
        Ok(answer)
    }

    pub async fn get(&self, service: Service, path: &str) -> Done {
        self.ask(service, |http, base| http.get(format!("{base}{path}"))).await
    }
}

/// What a client knows of its upload.
pub struct Uploaded {
    pub id: String,
    pub done: Done,
}

impl Client {
    const READY_S_MAX: u64 = 600;

    /// A new video, waiting for its upload.
    pub async fn create(&self, title: &str) -> String {
        let body = json!({"title": title});
        let key = self.new_key();
        let created = self.ask(Service::Api, |http, base| {
            http.post(format!("{base}/api/videos")).header("Idempotency-Key", &key).json(&body)
        });
        created.await.answer.expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    /// Creates a video and sends it its bytes, as often as it takes.
    pub async fn upload(&self, bytes: &[u8]) -> Uploaded {
        let id = self.create("film").await;
        let path = format!("/stream/videos/{id}");
        let done = self.ask(Service::Streamserver, |http, base| {
            let request = http.post(format!("{base}{path}")).header("Content-Type", "video/mp4");
            request.body(bytes.to_vec())
        });
        let done = done.await;
        match done.answer.status {
            201 => assert_eq!(done.answer.json()["crc64nvme"], clips::crc64nvme(bytes)),
            // An earlier try was stored, though nobody said so.
            409 if !done.in_doubt.is_empty() => {}
            _ => panic!("{:?}", done.answer),
        }
        Uploaded { id, done }
    }

    /// `playable` is what `ready` is too.
    pub async fn until(&self, id: &str, state: &str) -> Value {
        let path = format!("/api/videos/{id}");
        let waited = Instant::now();
        loop {
            let video = self.get(Service::Api, &path).await.answer.expect(200).json();
            if video["state"] == state || state == "playable" && video["state"] == "ready" {
                return video;
            }
            let ended = ["rejected", "failed", "expired"].iter().any(|ended| video["state"] == *ended);
            assert!(!ended && waited.elapsed().as_secs() < Client::READY_S_MAX, "wanted {state}: {video:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Names one effect, however often it is asked for.
    pub fn new_key(&self) -> String {
        format!("key-{}", self.turn.fetch_add(1, Ordering::Relaxed))
    }
}
