//! How much a new upload may bring: of what its author may have, and of what the store can take.

use chassis::Problem;
use domain::{UploadKind, VideoId};
use sql::{Resumable, Room};

use crate::{StreamServer, failure};

/// How long a file may be, and what to tell of one that is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest {
    pub bytes: u64,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Upload,
    User,
    Store,
}

impl Longest {
    pub fn problem(self) -> Problem {
        match self.bound {
            Bound::Upload => failure::upload_too_large(self.bytes),
            Bound::User => failure::longer_than_quota(self.bytes),
            Bound::Store => failure::out_of_space(self.bytes),
        }
    }
}

impl StreamServer {
    /// What a new upload is admitted to.
    pub(crate) async fn room(&self) -> Result<Room, Problem> {
        let free_bytes = self.store.free_bytes().await.map_err(failure::store)?;
        let store_bytes = free_bytes.map(|bytes| bytes.saturating_sub(self.limits.free_bytes_min));
        Ok(Room { quota: self.limits.quota(), store_bytes })
    }

    /// Of a file whose length was said when it was admitted.
    pub(crate) fn longest(&self) -> Longest {
        Longest { bytes: self.limits.upload_bytes_max, bound: Bound::Upload }
    }

    /// Of a file of this video that was promised nothing, because nobody had said how long it is.
    pub(crate) async fn longest_unsaid(&self, video: VideoId) -> Result<Longest, Problem> {
        self.longest_beside(video, 0, 0).await
    }

    /// As [`StreamServer::longest_unsaid`], of one that goes on. Only one upload becomes the video's file, so what it has
    /// is not among what its author has; parts are.
    pub(crate) async fn longest_of(&self, upload: &Resumable) -> Result<Longest, Problem> {
        let of_user = if upload.kind == UploadKind::Partial { upload.offset_bytes } else { 0 };
        self.longest_beside(upload.video, of_user, upload.offset_bytes).await
    }

    /// Of what the user has, and of what the store has, so many bytes are its own.
    async fn longest_beside(&self, video: VideoId, of_user: u64, of_store: u64) -> Result<Longest, Problem> {
        let room = self.room().await?;
        let left = self.catalog.room_left(video, &room, self.clock.now()).await.map_err(failure::sql)?;
        let bounds = [(left.user_bytes, of_user, Bound::User), (left.store_bytes, of_store, Bound::Store)];
        let bounds = bounds
            .into_iter()
            .filter_map(|(left, own, bound)| Some(Longest { bytes: left?.saturating_add(own), bound }));
        Ok(bounds.fold(self.longest(), |least, other| if other.bytes < least.bytes { other } else { least }))
    }
}
