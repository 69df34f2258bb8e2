//! What writers began and have not finished. A store names it after the key it will have: `videos`, the video,
//! the attempt.

use std::str::FromStr;

use domain::{AttemptId, VideoId};
use store::{Store, StoreError, Unfinished};

const PAGE_MAX: usize = 1000;

/// All that is unfinished in a store, page by page; what was listed may be removed meanwhile.
#[derive(Default)]
pub struct Pages {
    after: Option<String>,
    seen_all: bool,
}

impl Pages {
    /// `None` at the end.
    pub async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<Unfinished>>, StoreError> {
        if self.seen_all {
            return Ok(None);
        }
        let page = store.list_unfinished(self.after.as_deref(), PAGE_MAX).await?;
        self.seen_all = page.len() < PAGE_MAX;
        self.after = page.last().map(|last| last.name.clone());
        Ok(Some(page))
    }
}

pub fn video_of(name: &str) -> Option<VideoId> {
    part(name, 1)
}

pub fn attempt_of(name: &str) -> Option<AttemptId> {
    part(name, 2)
}

fn part<T: FromStr>(name: &str, position: usize) -> Option<T> {
    name.split(['~', '/']).nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{IdParts, Timestamp};

    #[test]
    fn an_unfinished_name_tells_its_video_and_its_attempt() {
        let now = Timestamp::from_unix_ms(1);
        let video = VideoId::from(IdParts { now, random: [1; 10] });
        let attempt = AttemptId::from(IdParts { now, random: [2; 10] });
        for name in [format!("videos~{video}~{attempt}~source~0"), format!("videos/{video}/{attempt}/source")]
        {
            assert_eq!((video_of(&name), attempt_of(&name)), (Some(video), Some(attempt)));
        }
        assert_eq!((video_of("probe~0"), attempt_of("probe~0")), (None, None));
    }
}
