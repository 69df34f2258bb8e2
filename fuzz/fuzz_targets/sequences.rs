//! Sequences in a time that runs faster: what waits a second for another process waits a twentieth of one here.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use streamserver::fuzzing::sequences::{self, World};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const TICK: Duration = Duration::from_micros(250);
const TICK_SEEMS: Duration = Duration::from_millis(5);
/// Then the database begins anew, and what it has is checked.
const SEQUENCES_PER_WORLD: usize = 500;

struct Fuzzer {
    runtime: Runtime,
    world: Option<World>,
    sequences: usize,
}

impl Fuzzer {
    fn new() -> Fuzzer {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let tick = Arc::new(Notify::new());
        let ticking = tick.clone();
        // While a blocking task runs, time stands still unless it is told to go on.
        runtime.spawn_blocking(move || {
            loop {
                std::thread::sleep(TICK);
                ticking.notify_one();
            }
        });
        runtime.spawn(async move {
            loop {
                tick.notified().await;
                tokio::time::advance(TICK_SEEMS).await;
            }
        });
        Fuzzer { runtime, world: None, sequences: 0 }
    }

    fn run(&mut self, choices: &[u8]) {
        self.runtime.block_on(async {
            if self.sequences.is_multiple_of(SEQUENCES_PER_WORLD) {
                if let Some(world) = self.world.replace(World::new().await) {
                    world.end().await;
                }
            }
            self.sequences += 1;
            sequences::run(self.world.as_ref().unwrap(), choices).await;
        });
    }
}

thread_local! {
    static FUZZER: RefCell<Fuzzer> = RefCell::new(Fuzzer::new());
}

libfuzzer_sys::fuzz_target!(|choices: &[u8]| FUZZER.with_borrow_mut(|fuzzer| fuzzer.run(choices)));
