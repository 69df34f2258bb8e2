//! Bad weather by seed, for tests: calls that fail before or after they took effect, reads that break off.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use domain::ObjectKey;
use futures::{StreamExt, future, stream};

use crate::{ByteStream, ListPage, ObjectMeta, ObjectWriter, Store, StoreError, Stored, Unfinished};

/// How often what goes wrong, each between 0 and 1. The default is fine weather.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// The call fails and nothing has happened.
    pub fails_before: f64,
    /// The call has happened, and fails all the same: the answer was lost on the way.
    pub fails_after: f64,
    /// A write or a finish finds no space.
    pub out_of_space: f64,
    /// A read breaks off after its first block.
    pub breaks_off: f64,
}

/// Another store under [`Weather`]. The same seed and the same order of calls bring the same faults.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    sky: Arc<Sky>,
}

struct Sky {
    weather: Weather,
    state: AtomicU64,
}

impl<S: Store> Faulty<S> {
    pub fn new(inner: S, seed: u64, weather: Weather) -> Self {
        Faulty { inner, sky: Arc::new(Sky { weather, state: AtomicU64::new(seed) }) }
    }

    /// The store without its weather.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl Sky {
    /// SplitMix64: one step is one atomic addition, so that calls from many tasks need no lock.
    fn chance(&self, probability: f64) -> bool {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        uniform < probability
    }

    fn before(&self) -> Result<(), StoreError> {
        self.storm(self.weather.fails_before, "the call was lost")
    }

    fn after<T>(&self, value: T) -> Result<T, StoreError> {
        self.storm(self.weather.fails_after, "the answer was lost").map(|()| value)
    }

    fn space(&self) -> Result<(), StoreError> {
        if self.chance(self.weather.out_of_space) { Err(StoreError::OutOfSpace) } else { Ok(()) }
    }

    fn storm(&self, probability: f64, reason: &'static str) -> Result<(), StoreError> {
        if self.chance(probability) { Err(StoreError::transient(reason)) } else { Ok(()) }
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.sky.before()?;
        let inner = self.inner.create(key).await?;
        Ok(Box::new(FaultyWriter { inner, sky: self.sky.clone() }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.sky.before()?;
        let blocks = self.inner.read(key, range).await?;
        if !self.sky.chance(self.sky.weather.breaks_off) {
            return Ok(blocks);
        }
        let end = stream::once(future::ready(Err(StoreError::transient("the read broke off"))));
        Ok(blocks.take(1).chain(end).boxed())
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.sky.before()?;
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.sky.before()?;
        self.inner.list(prefix, after, limit).await
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.sky.before()?;
        self.inner.list_unfinished(after, limit).await
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        self.sky.before()?;
        self.inner.remove_unfinished(name).await?;
        self.sky.after(())
    }

    /// Each path has its own luck, as in a batch that partly fails.
    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            let answer = match self.sky.before() {
                Ok(()) => match self.inner.delete(std::slice::from_ref(path)).await.pop() {
                    Some((_, Ok(()))) => self.sky.after(()),
                    Some((_, failed)) => failed,
                    None => Err(StoreError::permanent("the store gave no answer for a path")),
                },
                failed => failed,
            };
            answers.push((path.clone(), answer));
        }
        answers
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        self.sky.before()?;
        self.inner.fetch(key, to).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        self.sky.before()?;
        self.sky.space()?;
        let stored = self.inner.put_file(key, from).await?;
        self.sky.after(stored)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.sky.before()?;
        self.inner.probe().await
    }
}

struct FaultyWriter {
    inner: Box<dyn ObjectWriter>,
    sky: Arc<Sky>,
}

#[async_trait]
impl ObjectWriter for FaultyWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.sky.before()?;
        self.sky.space()?;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
        let FaultyWriter { inner, sky } = *self;
        if let Err(error) = sky.before().and_then(|()| sky.space()) {
            inner.abort().await;
            return Err(error);
        }
        let stored = inner.finish().await?;
        sky.after(stored)
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}
