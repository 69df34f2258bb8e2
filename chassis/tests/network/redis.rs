//! Limits and ended sessions, shared through a real Redis (`SLUICE_TEST_REDIS`), and on one's own when it goes away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chassis::settings::ServiceName;
use chassis::{Clock, Ids, RateLimiter, Settings, Shared, SigningKey, Tokens};
use domain::{Role, SessionId, UserId};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

/// Its address, or nothing, said aloud.
#[allow(clippy::disallowed_methods, reason = "the run names its servers from outside")]
fn redis() -> Option<SocketAddr> {
    let url = std::env::var("SLUICE_TEST_REDIS").ok();
    if url.is_none() {
        eprintln!(
            "SLUICE_TEST_REDIS is not set: nothing was shared through a real Redis; see scripts/servers"
        );
    }
    url.map(|url| url.trim_start_matches("redis://").trim_end_matches('/').parse().unwrap())
}

fn instance(address: SocketAddr) -> Option<Shared> {
    let env = [("REDIS_URL".to_owned(), format!("redis://{address}"))];
    Shared::of(&Settings::load(ServiceName::Api, None, env).unwrap()).unwrap()
}

fn limiter(shared: &Option<Shared>) -> RateLimiter {
    RateLimiter::new("login", 3, Duration::from_secs(3600)).sharing(shared)
}

/// How many of ten requests go through.
async fn granted(limiter: &RateLimiter, client: &str) -> usize {
    let mut granted = 0;
    for _ in 0..10 {
        granted += usize::from(limiter.check(&client).await.is_ok());
    }
    granted
}

/// A name that no test before has used in this Redis.
fn client(name: &str) -> String {
    let ids = Ids::system();
    let unique: UserId = ids.next(Clock::system().now());
    format!("{name}-{unique}")
}

#[tokio::test]
async fn instances_count_together() {
    let Some(address) = redis() else { return };
    let (here, there) = (limiter(&instance(address)), limiter(&instance(address)));
    let client = client("a");
    here.check(&client).await.unwrap();
    let headers = there.check(&client).await.unwrap();
    assert_eq!(headers["ratelimit"].to_str().unwrap().split(';').nth(1), Some("r=1"), "{headers:?}");
    assert_eq!(granted(&here, &client).await + granted(&there, &client).await, 1);
    let refused = there.check(&client).await.unwrap_err();
    assert_eq!(refused.status(), 429);
}

#[tokio::test]
async fn without_redis_each_counts_for_itself_and_with_it_together_again() {
    let Some(address) = redis() else { return };
    let mut line = Line::to(address).await;
    let (here, there) = (limiter(&instance(line.address)), limiter(&instance(address)));
    let client = client("b");
    assert_eq!(granted(&there, &client).await, 3);
    assert_eq!(granted(&here, &client).await, 0);
    line.cut();
    // Its own bucket was never touched.
    assert_eq!(granted(&here, &client).await, 3);
    line.mend().await;
    let mended = Instant::now();
    while here.check(&client).await.unwrap_err().status() == 429 && shared_again(&here).await.is_none() {
        assert!(mended.elapsed() < PATIENCE, "still on its own");
    }
}

/// A fresh client, used up by somebody else, is refused here too.
async fn shared_again(limiter: &RateLimiter) -> Option<()> {
    let other = self::limiter(&instance(redis()?));
    let client = client("c");
    assert_eq!(granted(&other, &client).await, 3);
    (granted(limiter, &client).await == 0).then_some(())
}

#[tokio::test]
async fn nowhere_is_like_away() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(granted(&limiter(&instance(closed)), "d").await, 3);
    let env = [("REDIS_URL".to_owned(), "redis:/nonsense".to_owned())];
    let settings = Settings::load(ServiceName::Api, None, env).unwrap();
    assert!(Shared::of(&settings).is_err());
}

#[tokio::test]
async fn the_end_of_a_session_is_heard_at_once() {
    let Some(address) = redis() else { return };
    let (ids, clock, shutdown) = (Ids::system(), Clock::system(), CancellationToken::new());
    let key = SigningKey::generate(&ids).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let instance_of = |asked: Arc<AtomicU64>| {
        let lookup = move |_: SessionId, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(true) }
        };
        Tokens::new(key.verifying(), clock.clone(), lookup).sharing(instance(address), &shutdown)
    };
    let (here, there) = (instance_of(Arc::default()), instance_of(asked.clone()));
    let now = clock.now();
    let session: SessionId = ids.next(now);
    let token = key.session_token(ids.next::<UserId>(now), session, Role::User, now, now.plus_s(60));
    // What is cached lasts half a second; news must be quicker, at least once in a few tries on a busy machine.
    let mut quickest = PATIENCE;
    for _ in 0..5 {
        asked.store(0, Ordering::SeqCst);
        let cached = Instant::now();
        while asked.load(Ordering::SeqCst) == 0 {
            there.caller(&token).await.unwrap();
        }
        here.forget(Some(session)).await;
        while asked.load(Ordering::SeqCst) < 2 {
            there.caller(&token).await.unwrap();
            tokio::task::yield_now().await;
            assert!(cached.elapsed() < PATIENCE);
        }
        quickest = quickest.min(cached.elapsed());
    }
    assert!(quickest < Duration::from_millis(250), "{quickest:?}");
    shutdown.cancel();
}

/// A wire to Redis that can be cut.
struct Line {
    to: SocketAddr,
    address: SocketAddr,
    whole: CancellationToken,
}

impl Line {
    async fn to(to: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = CancellationToken::new();
        tokio::spawn(carry(listener, to, whole.clone()));
        Line { to, address, whole }
    }

    fn cut(&mut self) {
        self.whole.cancel();
    }

    async fn mend(&mut self) {
        self.whole = CancellationToken::new();
        let listener = TcpListener::bind(self.address).await.unwrap();
        tokio::spawn(carry(listener, self.to, self.whole.clone()));
    }
}

async fn carry(listener: TcpListener, to: SocketAddr, whole: CancellationToken) {
    while let Some(Ok((mut near, _))) = whole.run_until_cancelled(listener.accept()).await {
        let whole = whole.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            whole.run_until_cancelled(tokio::io::copy_bidirectional(&mut near, &mut far)).await;
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.whole.cancel();
    }
}
