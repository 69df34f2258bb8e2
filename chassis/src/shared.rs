//! What instances share through Redis, or what speaks its protocol: token buckets, and news of ended sessions.
//!
//! It is a help, never a truth. While it is away every instance counts for itself and learns of ended sessions from
//! the database, which takes it half a second; both ways are told once, in the log and in `sluice_redis_up`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::SessionId;
use futures::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisError, RedisResult, Script};
use tokio_util::sync::CancellationToken;

use crate::{Failure, Settings, Tokens};

/// A request waits this long for Redis at most; then it is on its own.
const ANSWER_MAX: Duration = Duration::from_millis(100);
/// After a call that failed, this long nobody asks.
const AWAY: Duration = Duration::from_secs(1);
const CONNECT_MAX: Duration = Duration::from_secs(2);
const CHANNEL: &str = "sluice:ended-sessions";
/// Instead of one session's id.
const ALL: &str = "all";

/// GCRA over one key: the instant at which the bucket is full again, in microseconds of the server's clock.
/// Answers whether a token was taken, how many are left, and after how many microseconds the bucket is full, or the
/// next token there.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + interval
local free_at = full_at - interval * burst
if free_at > now then return {0, 0, free_at - now} end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return {1, math.floor((now - free_at) / interval), full_at - now}
";

/// The connection, and whether it works. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    client: Client,
    manager: ConnectionManager,
    take: Script,
    started: Instant,
    /// Milliseconds since `started` until which nobody asks; 0 while it answers.
    away_until_ms: AtomicU64,
}

/// What a shared bucket said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub granted: bool,
    pub remaining: u32,
    /// Granted: the bucket is full again; refused: the next token is there.
    pub after: Duration,
}

impl Shared {
    /// `None` where no `redis_url` is set. Connects when it is first used: Redis may come later than we.
    pub fn of(settings: &Settings) -> Result<Option<Shared>, Failure> {
        let Some(url) = &settings.redis_url else { return Ok(None) };
        let opened = Shared::open(url).map_err(|error| {
            let origin = settings.origin("redis_url");
            Failure::settings(format!(
                "REDIS_URL ({origin}) is no address of a Redis: {error}. Write redis://host:6379, or leave it out."
            ))
        });
        opened.map(Some)
    }

    fn open(url: &str) -> RedisResult<Shared> {
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(ANSWER_MAX))
            .set_number_of_retries(1);
        let manager = client.get_connection_manager_lazy(config)?;
        metrics::gauge!("sluice_redis_up").set(1.0);
        Ok(Shared(Arc::new(Inner {
            client,
            manager,
            take: Script::new(TAKE),
            started: Instant::now(),
            away_until_ms: AtomicU64::new(0),
        })))
    }

    /// Whether Redis is there right now.
    pub async fn answers(&self) -> bool {
        let mut manager = self.0.manager.clone();
        self.ask(async move { redis::cmd("PING").query_async::<String>(&mut manager).await }).await.is_some()
    }

    /// A token of the bucket `key`, which gets one back every `interval` and holds `burst`. `None`: Redis is away.
    pub(crate) async fn take(&self, key: &str, interval: Duration, burst: u32) -> Option<Taken> {
        let mut call = self.0.take.key(key);
        call.arg(interval.as_micros().max(1) as u64).arg(burst);
        let mut manager = self.0.manager.clone();
        let (granted, remaining, after_us): (u32, u32, u64) =
            self.ask(call.invoke_async(&mut manager)).await?;
        Some(Taken { granted: granted == 1, remaining, after: Duration::from_micros(after_us) })
    }

    /// Tells every instance that a session has ended; `None`: many have.
    pub(crate) async fn tell_ended(&self, session: Option<SessionId>) {
        let news = session.map_or_else(|| ALL.to_owned(), |session| session.to_string());
        let mut manager = self.0.manager.clone();
        let _told: Option<u64> = self.ask(manager.publish(CHANNEL, news)).await;
    }

    /// Hears what other instances tell, until `shutdown`.
    pub(crate) async fn follow(self, tokens: Tokens, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.listen(&tokens)).await.is_some() {
            if shutdown.run_until_cancelled(tokio::time::sleep(AWAY)).await.is_none() {
                return;
            }
        }
    }

    /// Until the connection breaks.
    async fn listen(&self, tokens: &Tokens) {
        let subscribed = tokio::time::timeout(CONNECT_MAX, async {
            let mut connection = self.0.client.get_async_pubsub().await?;
            connection.subscribe(CHANNEL).await?;
            Ok::<_, RedisError>(connection)
        });
        let Ok(Ok(connection)) = subscribed.await else { return self.say_away("it cannot be subscribed to") };
        self.say_back();
        // What was told before now was not heard.
        tokens.forget_here(None).await;
        let mut news = connection.into_on_message();
        while let Some(message) = news.next().await {
            let text: String = message.get_payload().unwrap_or_default();
            tokens.forget_here(text.parse().ok()).await;
        }
        self.say_away("the connection ended");
    }

    /// `None` when there is no answer in time, or there was none a moment ago.
    async fn ask<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if self.now_ms() < self.0.away_until_ms.load(Ordering::Relaxed) {
            return None;
        }
        match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(Ok(answer)) => {
                self.say_back();
                Some(answer)
            }
            Ok(Err(error)) => {
                self.say_away(&error.to_string());
                None
            }
            Err(_) => {
                self.say_away("no answer in time");
                None
            }
        }
    }

    fn now_ms(&self) -> u64 {
        // Never 0, which stands for an answer.
        self.0.started.elapsed().as_millis() as u64 + 1
    }

    fn say_away(&self, reason: &str) {
        let until_ms = self.now_ms() + AWAY.as_millis() as u64;
        if self.0.away_until_ms.swap(until_ms, Ordering::Relaxed) == 0 {
            metrics::gauge!("sluice_redis_up").set(0.0);
            tracing::warn!(
                reason,
                "Redis does not answer: limits and ended sessions are this process's own for now"
            );
        }
    }

    fn say_back(&self) {
        if self.0.away_until_ms.swap(0, Ordering::Relaxed) != 0 {
            metrics::gauge!("sluice_redis_up").set(1.0);
            tracing::info!("Redis answers again: limits and ended sessions are shared");
        }
    }
}
