//! Bad weather for tests, by seed or by choice: calls that fail before or after they took effect, reads that break off.

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

/// How one call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing has happened.
    Before,
    /// It has happened, and fails all the same: the answer was lost on the way.
    After,
}

/// Another store under [`Weather`]. The same seed and the same order of calls bring the same faults.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    sky: Arc<Sky>,
}

type Choice = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

struct Sky {
    weather: Weather,
    state: AtomicU64,
    choice: Option<Choice>,
}

impl<S: Store> Faulty<S> {
    pub fn new(inner: S, seed: u64, weather: Weather) -> Self {
        Faulty { inner, sky: Arc::new(Sky { weather, state: AtomicU64::new(seed), choice: None }) }
    }

    /// `choice` is asked once a call, by its name, whether and how it is to go wrong. In a batch of deletions each
    /// path is a call.
    pub fn chosen(inner: S, choice: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let (weather, state) = (Weather::default(), AtomicU64::new(0));
        Faulty { inner, sky: Arc::new(Sky { weather, state, choice: Some(Box::new(choice)) }) }
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

    /// A call that changes nothing.
    fn ask(&self, name: &'static str) -> Result<(), StoreError> {
        // A lost answer and a lost question are the same then.
        self.call(name).and_then(Call::answered)
    }

    fn call(&self, name: &'static str) -> Result<Call<'_>, StoreError> {
        let fault = self.choice.as_ref().and_then(|choice| choice(name));
        if fault == Some(Fault::Before) || self.chance(self.weather.fails_before) {
            return Err(StoreError::transient("the call was lost"));
        }
        Ok(Call { sky: self, lost: fault == Some(Fault::After) })
    }

    fn space(&self) -> Result<(), StoreError> {
        if self.chance(self.weather.out_of_space) { Err(StoreError::OutOfSpace) } else { Ok(()) }
    }
}

/// A call that was not lost on its way there.
struct Call<'a> {
    sky: &'a Sky,
    lost: bool,
}

impl Call<'_> {
    /// Of a call that changes nothing.
    fn answered(self) -> Result<(), StoreError> {
        if self.lost { Err(StoreError::transient("the answer was lost")) } else { Ok(()) }
    }

    /// Of a call that took effect.
    fn answer<T>(self, value: T) -> Result<T, StoreError> {
        let lost = self.lost || self.sky.chance(self.sky.weather.fails_after);
        if lost { Err(StoreError::transient("the answer was lost")) } else { Ok(value) }
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.sky.ask("create")?;
        let inner = self.inner.create(key).await?;
        Ok(Box::new(FaultyWriter { inner, sky: self.sky.clone() }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.sky.ask("read")?;
        let blocks = self.inner.read(key, range).await?;
        if !self.sky.chance(self.sky.weather.breaks_off) {
            return Ok(blocks);
        }
        let end = stream::once(future::ready(Err(StoreError::transient("the read broke off"))));
        Ok(blocks.take(1).chain(end).boxed())
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.sky.ask("head")?;
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.sky.ask("list")?;
        self.inner.list(prefix, after, limit).await
    }

    async fn list_unfinished(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.sky.ask("list_unfinished")?;
        self.inner.list_unfinished(after, limit).await
    }

    async fn remove_unfinished(&self, name: &str) -> Result<(), StoreError> {
        let call = self.sky.call("remove_unfinished")?;
        self.inner.remove_unfinished(name).await?;
        call.answer(())
    }

    /// Each path has its own luck, as in a batch that partly fails.
    async fn delete(&self, paths: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            let answer = match self.sky.call("delete") {
                Ok(call) => match self.inner.delete(std::slice::from_ref(path)).await.pop() {
                    Some((_, Ok(()))) => call.answer(()),
                    Some((_, failed)) => failed,
                    None => Err(StoreError::permanent("the store gave no answer for a path")),
                },
                Err(lost) => Err(lost),
            };
            answers.push((path.clone(), answer));
        }
        answers
    }

    async fn fetch(&self, key: &ObjectKey, to: &Path) -> Result<u64, StoreError> {
        self.sky.ask("fetch")?;
        self.inner.fetch(key, to).await
    }

    async fn put_file(&self, key: &ObjectKey, from: &Path) -> Result<Stored, StoreError> {
        let call = self.sky.call("put_file")?;
        self.sky.space()?;
        let stored = self.inner.put_file(key, from).await?;
        call.answer(stored)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.sky.ask("probe")?;
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
        self.sky.ask("write")?;
        self.sky.space()?;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
        let FaultyWriter { inner, sky } = *self;
        let call = match sky.call("finish").and_then(|call| sky.space().map(|()| call)) {
            Ok(call) => call,
            Err(error) => {
                inner.abort().await;
                return Err(error);
            }
        };
        let stored = inner.finish().await?;
        call.answer(stored)
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}
