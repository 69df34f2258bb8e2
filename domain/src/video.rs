//! The video's life, its renditions, and why a file is refused.

use crate::closed_enum::closed_enum;

closed_enum!(Visibility {
    Public = "public",
    Unlisted = "unlisted",
    Private = "private",
});

closed_enum!(
    /// Where a video stands. Moves go one way; see [`VideoState::may_become`].
    VideoState {
        AwaitingUpload = "awaiting_upload",
        Uploading = "uploading",
        Expired = "expired",
        Uploaded = "uploaded",
        Processing = "processing",
        Rejected = "rejected",
        Failed = "failed",
        Playable = "playable",
        Ready = "ready",
        Deleted = "deleted",
    }
);

impl VideoState {
    /// The legal moves of `http-api` §2.
    pub fn may_become(self, next: VideoState) -> bool {
        use VideoState::*;
        match (self, next) {
            (from, Deleted) => from != Deleted,
            (AwaitingUpload, Uploading | Uploaded | Expired) => true,
            (Uploading, Uploaded | Expired) => true,
            (Uploaded, Processing | Rejected | Failed) => true,
            (Processing, Playable | Rejected | Failed) => true,
            // What can be watched stays so, whatever becomes of its other renditions.
            (Playable, Ready) => true,
            // An admin's retry of a dead job.
            (Failed, Processing) => true,
            _ => false,
        }
    }

    /// Others than the owner may see it, and it can be watched.
    pub fn is_watchable(self) -> bool {
        matches!(self, VideoState::Playable | VideoState::Ready)
    }

    /// Nothing more will happen by itself.
    pub fn is_terminal(self) -> bool {
        use VideoState::*;
        matches!(self, Expired | Rejected | Failed | Ready | Deleted)
    }
}

closed_enum!(
    /// A rendition of the ladder. More rungs are settings of a later day; these three are the contract's words.
    RenditionName { Original = "original", Medium = "medium", Low = "low" }
);

closed_enum!(RenditionState { Pending = "pending", Ready = "ready" });

closed_enum!(
    /// Why a file is refused, as in `/problems/media-…`. Never retried: the fault is in the file.
    MediaProblem {
        Unreadable = "unreadable",
        NoVideo = "no-video",
        UnsupportedCodec = "unsupported-codec",
        TooLong = "too-long",
        TooLarge = "too-large",
        TooManyPixels = "too-many-pixels",
        Truncated = "truncated",
        NotMedia = "not-media",
    }
);

impl MediaProblem {
    /// The problem type a client switches on.
    pub fn problem_type(self) -> String {
        format!("/problems/media-{}", self.as_str())
    }

    pub fn title(self) -> &'static str {
        match self {
            MediaProblem::Unreadable => "The file cannot be read",
            MediaProblem::NoVideo => "The file has no video track",
            MediaProblem::UnsupportedCodec => "This video's codec is not supported",
            MediaProblem::TooLong => "The video is too long",
            MediaProblem::TooLarge => "The file is too large",
            MediaProblem::TooManyPixels => "The picture is too large",
            MediaProblem::Truncated => "The file ends early",
            MediaProblem::NotMedia => "The file is not a video",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_only_end_in_deletion_or_an_admins_retry() {
        for &from in VideoState::ALL {
            for &to in VideoState::ALL {
                let allowed_from_the_end = to == VideoState::Deleted && from != VideoState::Deleted
                    || (from, to) == (VideoState::Failed, VideoState::Processing);
                if from.is_terminal() {
                    assert_eq!(from.may_become(to), allowed_from_the_end, "{from} → {to}");
                }
            }
            assert!(!from.may_become(from), "{from} → itself");
        }
    }

    #[test]
    fn what_can_be_watched_can_be_watched_until_it_is_deleted() {
        for from in VideoState::ALL.iter().filter(|state| state.is_watchable()) {
            for to in VideoState::ALL.iter().filter(|&&to| from.may_become(to)) {
                assert!(to.is_watchable() || *to == VideoState::Deleted, "{from} → {to}");
            }
        }
    }

    #[test]
    fn words_round_trip() {
        for &state in VideoState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("nonsense".parse::<VideoState>().is_err());
    }
}
