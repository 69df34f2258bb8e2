//! Bad weather for tests, by seed or by choice: calls that fail before or after they took effect, reads that break off.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use domain::ObjectKey;
use futures::{StreamExt, TryStreamExt, future, stream};

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
    /// A read ends early, as if it were whole.
    pub truncates: f64,
    /// A read has one bit flipped in one of its bytes.
    pub flips: f64,
    /// A listing leaves an object out; each object has its own luck.
    pub lists_partially: f64,
    /// A listing is what the same question was answered with before, or nothing where it is new.
    pub lists_stale: f64,
}

impl Weather {
    /// Where nothing goes wrong.
    pub const FINE: Weather = Weather {
        fails_before: 0.0,
        fails_after: 0.0,
        out_of_space: 0.0,
        breaks_off: 0.0,
        truncates: 0.0,
        flips: 0.0,
        lists_partially: 0.0,
        lists_stale: 0.0,
    };
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
    /// The latest answers to listings, by their question.
    listed: Mutex<HashMap<Listing, ListPage>>,
}

/// Prefix, after, limit.
type Listing = (String, Option<String>, usize);

/// Questions that are remembered; tests have few.
const LISTINGS_MAX: usize = 1024;

impl<S: Store> Faulty<S> {
    pub fn new(inner: S, seed: u64, weather: Weather) -> Self {
        Faulty { inner, sky: Arc::new(Sky::new(seed, weather, None)) }
    }

    /// `choice` is asked once a call, by its name, whether and how it is to go wrong. In a batch of deletions each
    /// path is a call.
    pub fn chosen(inner: S, choice: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Faulty { inner, sky: Arc::new(Sky::new(0, Weather::FINE, Some(Box::new(choice)))) }
    }

    /// The store without its weather.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl Sky {
    fn new(seed: u64, weather: Weather, choice: Option<Choice>) -> Sky {
        Sky { weather, state: AtomicU64::new(seed), choice, listed: Mutex::default() }
    }

    fn chance(&self, probability: f64) -> bool {
        ((self.draw() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    /// Faults that came later than others: where they never happen they draw nothing, so that older seeds bring what
    /// they always brought.
    fn rare_chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.chance(probability)
    }

    /// SplitMix64: one step is one atomic addition, so that calls from many tasks need no lock.
    fn draw(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What a reader gets in place of `bytes` bytes.
    fn spoil(&self, blocks: ByteStream, bytes: u64) -> ByteStream {
        let mut blocks = blocks;
        if self.rare_chance(self.weather.flips) && bytes > 0 {
            blocks = flipped(blocks, self.draw() % bytes);
        }
        if self.rare_chance(self.weather.truncates) && bytes > 0 {
            blocks = truncated(blocks, self.draw() % bytes);
        }
        blocks
    }

    /// What a caller gets in place of a listing.
    fn outdate(&self, question: Listing, page: ListPage) -> ListPage {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rare_chance(self.weather.lists_stale) {
            return listed.get(&question).cloned().unwrap_or_default();
        }
        if self.weather.lists_stale > 0.0 && listed.len() < LISTINGS_MAX {
            listed.insert(question, page.clone());
        }
        let ListPage { mut objects, more } = page;
        objects.retain(|_| !self.rare_chance(self.weather.lists_partially));
        ListPage { objects, more }
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

fn flipped(blocks: ByteStream, at: u64) -> ByteStream {
    let mut offset = 0;
    let flip = move |block: Bytes| {
        let here = usize::try_from(at.wrapping_sub(offset)).ok().filter(|here| *here < block.len());
        offset += block.len() as u64;
        let Some(here) = here else { return block };
        let mut block = block.to_vec();
        block[here] ^= 1 << (at % 8);
        block.into()
    };
    blocks.map_ok(flip).boxed()
}

fn truncated(blocks: ByteStream, bytes: u64) -> ByteStream {
    let cut = move |left: &mut u64, block: Result<Bytes, StoreError>| {
        let block =
            block.map(|block| block.slice(..block.len().min(usize::try_from(*left).unwrap_or(usize::MAX))));
        *left -= block.as_ref().map_or(0, |block| block.len() as u64);
        future::ready(Some(block))
    };
    blocks.scan(bytes, cut).try_filter(|block| future::ready(!block.is_empty())).boxed()
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
        let bytes = range.end.saturating_sub(range.start);
        let blocks = self.sky.spoil(self.inner.read(key, range).await?, bytes);
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
        let page = self.inner.list(prefix, after, limit).await?;
        Ok(self.sky.outdate((prefix.to_owned(), after.map(str::to_owned), limit), page))
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

    fn is_local(&self) -> bool {
        self.inner.is_local()
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

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.inner.free_bytes().await
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
