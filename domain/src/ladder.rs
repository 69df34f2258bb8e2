//! Which renditions a source gets, and how large they are (`media.md`, "The ladder").

use crate::RenditionName;

/// A picture size in pixels as it is shown: rotation and sample aspect ratio applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// One encoded rendition: its name, its size, and the ceiling of its bit rate.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rung {
    pub name: RenditionName,
    pub size: Size,
    /// Constant rate factor of x264.
    pub crf: f64,
    /// VBV ceiling, in bit/s.
    pub bitrate_bps_max: u64,
}

impl Size {
    pub fn shorter_side(self) -> u32 {
        self.width.min(self.height)
    }

    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The same shape with the shorter side at most `shorter_side_max`, both sides even and at least 2.
    /// Never larger than `self` but for the last odd row or column, which is rounded down where it can be.
    pub fn fitted(self, shorter_side_max: u32) -> Size {
        let scale = (f64::from(shorter_side_max) / f64::from(self.shorter_side().max(1))).min(1.0);
        let even = |side: u32| {
            let scaled = f64::from(side) * scale;
            let nearest = 2 * (scaled / 2.0).round() as u32;
            let down = side & !1;
            nearest.min(down).max(2)
        };
        Size { width: even(self.width), height: even(self.height) }
    }
}

/// The encoded rungs below `original`, best first; empty for small sources. `crf` as in the settings.
pub fn ladder(source: Size, crf: f64) -> Vec<Rung> {
    let (medium, low) = match source.shorter_side() {
        1080.. => (Some(720), Some(360)),
        720..=1079 => (Some(480), Some(360)),
        480..=719 => (Some(360), Some(240)),
        360..=479 => (None, Some(240)),
        _ => (None, None),
    };
    let rung = |name, shorter_side: u32| Rung {
        name,
        size: source.fitted(shorter_side),
        crf,
        bitrate_bps_max: rung_bitrate_bps_max(shorter_side),
    };
    let medium = medium.map(|side| rung(RenditionName::Medium, side));
    let low = low.map(|side| rung(RenditionName::Low, side));
    medium.into_iter().chain(low).collect()
}

/// The cap by rung, in bit/s, for 16:9 at up to 30 frames a second.
fn rung_bitrate_bps_max(shorter_side: u32) -> u64 {
    match shorter_side {
        720.. => 2_800_000,
        480..=719 => 1_400_000,
        360..=479 => 800_000,
        _ => 400_000,
    }
}

/// The cap for an `original` that has to be encoded, in bit/s.
pub(crate) const ORIGINAL_BITRATE_BPS_MAX: u64 = 16_000_000;

impl Rung {
    /// `original` where browsers cannot play the source as it is: its own size up to 2160, CRF 20.
    pub fn original(source: Size) -> Rung {
        Rung {
            name: RenditionName::Original,
            size: source.fitted(2160),
            crf: 20.0,
            bitrate_bps_max: ORIGINAL_BITRATE_BPS_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(width: u32, height: u32) -> Vec<(RenditionName, u32, u32)> {
        ladder(Size { width, height }, 23.0)
            .into_iter()
            .map(|r| (r.name, r.size.width, r.size.height))
            .collect()
    }

    #[test]
    fn follows_the_table() {
        use RenditionName::{Low, Medium};
        assert_eq!(sizes(1920, 1080), [(Medium, 1280, 720), (Low, 640, 360)]);
        assert_eq!(sizes(720, 1280), [(Medium, 480, 854), (Low, 360, 640)]);
        assert_eq!(sizes(640, 480), [(Medium, 480, 360), (Low, 320, 240)]);
        assert_eq!(sizes(768, 432), [(Low, 426, 240)]);
        assert_eq!(sizes(320, 240), []);
        assert_eq!(sizes(1, 1), []);
    }

    proptest! {
        #[test]
        fn never_upscales_and_stays_even(width in 2u32..9000, height in 2u32..9000) {
            let source = Size { width, height };
            for rung in ladder(source, 23.0).into_iter().chain([Rung::original(source)]) {
                prop_assert!(rung.size.width <= width && rung.size.height <= height, "{rung:?}");
                prop_assert!(rung.size.width % 2 == 0 && rung.size.height % 2 == 0, "{rung:?}");
            }
        }
    }
}
