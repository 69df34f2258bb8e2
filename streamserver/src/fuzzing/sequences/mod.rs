//! What clients do to resumable uploads, one thing after another, on two servers over one database and one store (Z4),
//! beside a model that knows what was sent and what was said:
//!
//! - an offset is said only for bytes that are durable, and it never falls;
//! - what an upload has are the bytes that were sent, and so is the video that it becomes;
//! - a wrong offset is a 409 and changes nothing, what ended is 404 or 410;
//! - without a fault of the store or the database there is no 5xx but for a body that broke off.

mod client;
mod model;
mod world;

pub use self::world::World;

use super::Choices;
use model::Sequence;

/// More would be the same again.
const STEPS_MAX: usize = 24;

/// One sequence, with a video of its own.
pub async fn run(world: &World, choices: &[u8]) {
    let mut choices = Choices(choices);
    let mut sequence = Sequence::begin(world).await;
    for _ in 0..STEPS_MAX {
        let Some(step) = choices.next() else { break };
        sequence.step(step, &mut choices).await;
    }
    sequence.end().await;
}
