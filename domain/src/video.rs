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
    /// What pictures are encoded with. H.264 is shown by everything; the others come on top of it.
    VideoCodec { H264 = "h264", Hevc = "hevc", Av1 = "av1" }
);

closed_enum!(
    /// What is being done for a video on its way to `ready`.
    Stage {
        /// Nothing runs: it waits for its turn.
        Waiting = "waiting",
        /// The file is judged, made playable and planned.
        Checking = "checking",
        Encoding = "encoding",
        /// The chunks are joined, verified and published.
        Assembling = "assembling",
    }
);

closed_enum!(
    /// A rendition of the ladder, best first, those in H.264 before all others. `original`, `medium` and `low` are the
    /// contract's words; the others are there where the settings ask for them.
    RenditionName {
        Original = "original",
        Highest = "highest",
        High = "high",
        Medium = "medium",
        Low = "low",
        Lowest = "lowest",
        HighestHevc = "highest-hevc",
        HighHevc = "high-hevc",
        MediumHevc = "medium-hevc",
        LowHevc = "low-hevc",
        LowestHevc = "lowest-hevc",
        HighestAv1 = "highest-av1",
        HighAv1 = "high-av1",
        MediumAv1 = "medium-av1",
        LowAv1 = "low-av1",
        LowestAv1 = "lowest-av1",
    }
);

impl RenditionName {
    /// The names a rung can have, best first.
    pub const RUNGS: [RenditionName; 5] = [
        RenditionName::Highest,
        RenditionName::High,
        RenditionName::Medium,
        RenditionName::Low,
        RenditionName::Lowest,
    ];

    /// Of `original` too: what is not H.264 is encoded.
    pub fn codec(self) -> VideoCodec {
        let named = self.as_str().split_once('-').and_then(|(_, codec)| codec.parse().ok());
        named.unwrap_or(VideoCodec::H264)
    }

    /// The same rung in H.264.
    pub fn in_h264(self) -> RenditionName {
        let rung = self.as_str().split_once('-').and_then(|(rung, _)| rung.parse().ok());
        rung.unwrap_or(self)
    }

    /// The same rung in another codec; `None` for `original`, which is what it is.
    pub fn in_codec(self, codec: VideoCodec) -> Option<RenditionName> {
        let rung = self.in_h264();
        RenditionName::ALL
            .iter()
            .copied()
            .find(|name| rung != RenditionName::Original && name.in_h264() == rung && name.codec() == codec)
    }
}

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
    fn a_rung_has_a_name_in_each_codec() {
        for rung in RenditionName::RUNGS {
            for &codec in VideoCodec::ALL {
                let name = rung.in_codec(codec).unwrap();
                assert_eq!((name.in_h264(), name.codec()), (rung, codec));
                assert!(name.as_str().starts_with(rung.as_str()), "{name}");
            }
        }
        assert_eq!(RenditionName::Original.in_codec(VideoCodec::Av1), None);
        assert_eq!(RenditionName::ALL.len(), 1 + RenditionName::RUNGS.len() * VideoCodec::ALL.len());
        assert!(RenditionName::ALL.is_sorted_by_key(|name| (name.codec(), *name)), "H.264 first");
    }

    #[test]
    fn words_round_trip() {
        for &state in VideoState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("nonsense".parse::<VideoState>().is_err());
    }
}
