//! How much a new upload may bring: of what its author may have, and of what the store can take.

use chassis::Problem;
use domain::VideoId;
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
        self.longest_beside(video, 0).await
    }

    /// As [`StreamServer::longest_unsaid`], of one that goes on.
    pub(crate) async fn longest_of(&self, upload: &Resumable) -> Result<Longest, Problem> {
        self.longest_beside(upload.video, upload.offset_bytes).await
    }

    /// Of what its author has and the store has taken, so many bytes are its own.
    async fn longest_beside(&self, video: VideoId, own_bytes: u64) -> Result<Longest, Problem> {
        let room = self.room().await?;
        let left = self.catalog.room_left(video, &room, self.clock.now()).await.map_err(failure::sql)?;
        let bounds = [(left.user_bytes, Bound::User), (left.store_bytes, Bound::Store)];
        let bounds = bounds
            .into_iter()
            .filter_map(|(left, bound)| Some(Longest { bytes: left?.saturating_add(own_bytes), bound }));
        Ok(bounds.fold(self.longest(), |least, other| if other.bytes < least.bytes { other } else { least }))
    }
}
