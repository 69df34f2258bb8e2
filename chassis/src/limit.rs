//! Limits: token buckets by key, and a bucket of places.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter as Governor};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::Taken;
use crate::{Problem, Shared};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Keys share this many buckets by their hash, so that memory stays bounded however many addresses appear. Two
/// clients in one bucket are rare and share its rate.
const SLOTS: u64 = 1 << 18;
/// Buckets that have filled up again are forgotten after this many checks.
const CHECKS_PER_SWEEP: u64 = 1 << 16;

type Buckets = Governor<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// A token bucket for each key.
#[derive(Clone)]
pub struct RateLimiter(Option<Arc<Limiter>>);

#[derive(Clone)]
struct Limiter {
    name: &'static str,
    /// Counts for all instances, while it can.
    shared: Option<Shared>,
    buckets: Arc<Buckets>,
    burst: u32,
    interval: Duration,
    hasher: RandomState,
    checks: Arc<AtomicU64>,
    policy: HeaderValue,
}

impl RateLimiter {
    /// `burst` at once, and as many again in `window`; a burst of 0 means no limit. `name` appears in the answers.
    pub fn new(name: &'static str, burst: u32, window: Duration) -> Self {
        let burst = NonZeroU32::new(burst);
        let quota = burst.and_then(|burst| Some((burst, Quota::with_period(window / burst.get())?)));
        RateLimiter(quota.map(|(burst, quota)| Arc::new(Limiter::new(name, burst, quota, window))))
    }

    /// `rate` a second in the long run, `burst` at once; a rate of 0 means no limit.
    pub fn per_second(name: &'static str, rate: u32, burst: u32) -> Self {
        if rate == 0 {
            return RateLimiter(None);
        }
        RateLimiter::new(name, burst, Duration::from_secs_f64(f64::from(burst) / f64::from(rate)))
    }

    /// One bucket for all instances, while Redis answers.
    pub fn sharing(self, shared: &Option<Shared>) -> Self {
        let shared = shared.clone();
        RateLimiter(self.0.map(|limiter| Arc::new(Limiter { shared, ..Limiter::clone(&limiter) })))
    }

    /// Takes a token. `Ok`: the headers that say how many are left; `Err`: 429 with `Retry-After`.
    pub async fn check(&self, key: &(impl Hash + Display)) -> Result<HeaderMap, Problem> {
        let Some(limiter) = &self.0 else { return Ok(HeaderMap::new()) };
        match limiter.take_shared(key).await {
            Some(taken) => limiter.answer(taken),
            None => limiter.answer(limiter.take_own(key)),
        }
    }
}

impl Limiter {
    fn new(name: &'static str, burst: NonZeroU32, quota: Quota, window: Duration) -> Limiter {
        let window_s = window.as_secs_f64().ceil().max(1.0) as u64;
        let policy = format!("\"{name}\";q={burst};w={window_s}");
        Limiter {
            name,
            shared: None,
            buckets: Arc::new(Governor::dashmap(quota.allow_burst(burst)).with_middleware()),
            burst: burst.get(),
            interval: window / burst.get(),
            hasher: RandomState::new(),
            checks: Arc::default(),
            policy: HeaderValue::try_from(policy).expect("names are plain words of ours"),
        }
    }

    async fn take_shared(&self, key: &impl Display) -> Option<Taken> {
        let shared = self.shared.as_ref()?;
        shared.take(&format!("sluice:limit:{}:{key}", self.name), self.interval, self.burst).await
    }

    fn take_own(&self, key: &impl Hash) -> Taken {
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_PER_SWEEP == CHECKS_PER_SWEEP - 1 {
            self.buckets.retain_recent();
        }
        match self.buckets.check_key(&(self.hasher.hash_one(key) % SLOTS)) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = self.burst.saturating_sub(remaining);
                Taken { granted: true, remaining, after: self.interval * missing }
            }
            Err(not_until) => {
                let after = not_until.wait_time_from(self.buckets.clock().now());
                Taken { granted: false, remaining: 0, after }
            }
        }
    }

    fn answer(&self, taken: Taken) -> Result<HeaderMap, Problem> {
        let after_s = taken.after.as_secs_f64().ceil() as u64;
        if taken.granted {
            return Ok(self.headers(taken.remaining, after_s));
        }
        let retry_after_s = after_s.max(1);
        metrics::counter!("sluice_rate_limited_total", "limit" => self.name).increment(1);
        let headers = self.headers(0, retry_after_s);
        let problem = Problem::rate_limited(retry_after_s);
        Err(headers
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .fold(problem, |problem, (name, value)| problem.with_header(name, value)))
    }

    fn headers(&self, remaining: u32, reset_s: u64) -> HeaderMap {
        let state = format!("\"{}\";r={remaining};t={reset_s}", self.name);
        let state = HeaderValue::try_from(state).expect("names are plain words of ours");
        HeaderMap::from_iter([(RATE_LIMIT, state), (RATE_LIMIT_POLICY, self.policy.clone())])
    }
}

/// A fixed number of places, for streams and uploads.
#[derive(Clone)]
pub struct ConcurrencyBucket {
    name: &'static str,
    places: Arc<Semaphore>,
}

/// A taken place; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    name: &'static str,
    _place: OwnedSemaphorePermit,
}

impl ConcurrencyBucket {
    const RETRY_AFTER_S: u64 = 2;

    /// `name` is the label `bucket` of the metric `sluice_active`.
    pub fn new(name: &'static str, places_max: usize) -> Self {
        ConcurrencyBucket { name, places: Arc::new(Semaphore::new(places_max.min(Semaphore::MAX_PERMITS))) }
    }

    pub fn try_acquire(&self) -> Option<Permit> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        metrics::gauge!("sluice_active", "bucket" => self.name).increment(1.0);
        Some(Permit { name: self.name, _place: place })
    }

    /// A place, or 503 `/problems/overloaded`.
    pub fn acquire(&self) -> Result<Permit, Problem> {
        self.try_acquire().ok_or_else(|| self.refusal())
    }

    fn refusal(&self) -> Problem {
        metrics::counter!("sluice_overloaded_total", "bucket" => self.name).increment(1);
        Problem::overloaded(Self::RETRY_AFTER_S)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metrics::gauge!("sluice_active", "bucket" => self.name).decrement(1.0);
    }
}

/// Places that users, or addresses, share. Who has some gets another one only while more are free than they have (the
/// dynamic threshold of Choudhury and Hahne, 1998): one alone has half of them at most, two have a third each, and
/// whoever comes next finds one.
#[derive(Clone)]
pub struct FairBucket<K> {
    places: ConcurrencyBucket,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// A taken place; dropping it gives it back.
#[derive(Debug)]
pub struct FairPermit<K: Hash + Eq> {
    /// `None`: somebody who stands for many.
    holder: Option<K>,
    taken: Arc<Mutex<HashMap<K, usize>>>,
    _place: Permit,
}

impl<K: Hash + Eq + Clone> FairBucket<K> {
    /// As [`ConcurrencyBucket::new`].
    pub fn new(name: &'static str, places_max: usize) -> Self {
        FairBucket { places: ConcurrencyBucket::new(name, places_max), taken: Arc::default() }
    }

    /// A place, or 503 `/problems/overloaded`. For `None`, who stands for many, any that is free.
    pub fn acquire(&self, holder: impl Into<Option<K>>) -> Result<FairPermit<K>, Problem> {
        let holder = holder.into();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = holder.as_ref().and_then(|holder| taken.get(holder)).copied().unwrap_or(0);
        if own > 0 && own >= self.places.places.available_permits() {
            return Err(self.places.refusal());
        }
        let place = self.places.acquire()?;
        if let Some(holder) = holder.clone() {
            taken.insert(holder, own + 1);
        }
        Ok(FairPermit { holder, taken: self.taken.clone(), _place: place })
    }

    /// Returns when a place is free, which it stays for the only one who takes any.
    pub(crate) async fn wait_for_place(&self) {
        drop(self.places.places.acquire().await);
    }
}

impl<K: Hash + Eq> Drop for FairPermit<K> {
    fn drop(&mut self) {
        let Some(holder) = self.holder.take() else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = taken.entry(holder) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use domain::UserId;

    #[tokio::test]
    async fn a_bucket_runs_dry_for_its_key_alone() {
        let limiter = RateLimiter::new("login", 3, Duration::from_secs(60));
        let mut left = Vec::new();
        for _ in 0..3 {
            left.push(limiter.check(&"a").await.unwrap()[RATE_LIMIT].clone());
        }
        assert_eq!(left, ["\"login\";r=2;t=20", "\"login\";r=1;t=40", "\"login\";r=0;t=60"]);
        let refused = limiter.check(&"a").await.unwrap_err().into_response();
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()[RATE_LIMIT_POLICY], "\"login\";q=3;w=60");
        let retry_after_s: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((19..=20).contains(&retry_after_s));
        assert!(limiter.check(&"b").await.is_ok());
    }

    #[tokio::test]
    async fn zero_means_no_limit() {
        let limiter = RateLimiter::per_second("client", 0, 1);
        for _ in 0..10_000 {
            assert!(limiter.check(&1).await.is_ok_and(|headers| headers.is_empty()));
        }
    }

    #[tokio::test]
    async fn keys_are_bounded() {
        let limiter = RateLimiter::new("client", 1, Duration::from_nanos(1));
        for key in 0..(CHECKS_PER_SWEEP * 2) {
            let _ = limiter.check(&key).await;
        }
        assert!(limiter.0.unwrap().buckets.len() < CHECKS_PER_SWEEP as usize);
    }

    #[test]
    fn nobody_takes_the_places_of_all() {
        let user = |number| {
            UserId::from(domain::IdParts { now: domain::Timestamp::from_unix_ms(0), random: [number; 10] })
        };
        let take = |bucket: &FairBucket<UserId>, number| {
            let mut taken = Vec::new();
            while let Ok(permit) = bucket.acquire(user(number)) {
                taken.push(permit);
            }
            taken
        };
        let bucket = FairBucket::new("uploads", 12);
        let greedy = take(&bucket, 1);
        assert_eq!(greedy.len(), 6);
        let second = take(&bucket, 2);
        assert_eq!(second.len(), 3);
        assert!(bucket.acquire(user(1)).is_err() && bucket.acquire(user(3)).is_ok());
        drop(greedy);
        assert_eq!(take(&bucket, 2).len(), 3, "six, with what it had");
        drop(second);
        assert!(bucket.taken.lock().unwrap().is_empty(), "who has none is forgotten");
        let only = FairBucket::new("uploads", 1);
        assert_eq!(take(&only, 1).len(), 1);
        let many: Vec<_> = std::iter::from_fn(|| bucket.acquire(None).ok()).collect();
        assert_eq!(many.len(), 12, "a proxy has as many as there are");
    }

    #[test]
    fn places_come_back() {
        let bucket = ConcurrencyBucket::new("uploads", 1);
        let permit = bucket.try_acquire().unwrap();
        assert_eq!(bucket.acquire().unwrap_err().status(), 503);
        drop(permit);
        assert!(bucket.try_acquire().is_some());
    }
}
