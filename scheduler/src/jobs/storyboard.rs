//! Draw the storyboard of a film that is ready.

use domain::task::{Outcome, Task};
use domain::{AttemptId, ObjectFile, ObjectKey, TrackKind, VideoCodec, VideoId};

use super::unexpected;
use crate::Scheduler;
use crate::failure::RunError;
use crate::workplace::Run;

pub async fn run(run: &Run<'_>) -> Result<(), RunError> {
    let (scheduler, lease) = (run.scheduler, run.lease);
    let plan = scheduler.catalog.plan(lease.job.video).await?;
    let expected = plan.ok_or_else(|| RunError::failed("the video has no plan"))?.expected;
    let track = smallest_track(scheduler, lease.job.video).await?;
    let source = run.source().await?;
    let place = run.begin().await?;
    let ((input, on_demand), starts_at_s) = match track {
        // Its time is the film's, which begins with the sound where that comes first.
        Some(track) => {
            ((place.fetch(&track).await?, false), -expected.audio_offset_s.unwrap_or(0.0).min(0.0))
        }
        None => (place.source_on_demand(&source).await?, 0.0),
    };
    let task = Task::Storyboard {
        input,
        on_demand,
        output: place.output(),
        limits: scheduler.config.media_limits(),
        starts_at_s,
        duration_s: expected.duration_s,
        sprite_url: sprite_url(place.attempt),
    };
    let files = match place.transcode(task, source.film.as_ref()).await? {
        Outcome::Storyboard { files } => files,
        other => return Err(unexpected(&other)),
    };
    let objects = place.store(&files.iter().collect::<Vec<_>>()).await?;
    scheduler.catalog.publish_storyboard(lease, place.attempt, &objects, scheduler.now()).await?;
    Ok(())
}

/// The smallest rung in H.264 has all that a storyboard needs: it is upright, with a keyframe every two seconds, and quick to
/// fetch and to decode. `None`: the film has no rungs.
async fn smallest_track(scheduler: &Scheduler, video: VideoId) -> Result<Option<ObjectKey>, RunError> {
    let stored = scheduler.catalog.objects_of(video, "rendition").await?;
    let tracks = stored.into_iter().filter_map(|object| match object.key.file {
        ObjectFile::Track(name, TrackKind::Video) if name.codec() == VideoCodec::H264 => {
            Some((name, object.key))
        }
        _ => None,
    });
    Ok(tracks.max_by_key(|(name, _)| *name).map(|(_, key)| key))
}

/// Relative to the cues, which the streamserver has at `/stream/videos/<video>/storyboard.vtt`.
fn sprite_url(attempt: AttemptId) -> String {
    format!("{attempt}/{}", ObjectFile::StoryboardSprite)
}
