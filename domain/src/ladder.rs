//! Which renditions a source gets, and how large they are (`media.md`, "The ladder").

use crate::{RenditionName, VideoCodec};

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
    /// Constant rate factor, in the measure of the codec's encoder.
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

/// What an operator asks of the ladder.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LadderSettings {
    /// Constant rate factor of rungs that have none of their own, in x264's measure.
    pub crf: f64,
    /// Empty: those of `media.md`.
    pub rungs: RungSettings,
    /// In which every rung is made besides H.264.
    pub codecs: Vec<VideoCodec>,
}

/// One rung for every source that is at least as large; as text `name:shorter side[:crf[:cap in bit/s]]`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RungSetting {
    /// One of [`RenditionName::RUNGS`].
    pub name: RenditionName,
    /// In pixels.
    pub shorter_side: u32,
    pub crf: Option<f64>,
    pub bitrate_bps_max: Option<u64>,
}

/// Best first, each smaller than the one before; as text separated by commas.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct RungSettings(Vec<RungSetting>);

/// SVT-AV1 takes no smaller picture, and nobody wants one.
const SHORTER_SIDE_MIN: u32 = 64;
const SHORTER_SIDE_MAX: u32 = 4320;

impl LadderSettings {
    /// The encoded rungs below `original`, largest first, of one size those in H.264 first; none for small sources.
    pub fn rungs(&self, source: Size) -> Vec<Rung> {
        let rungs = if self.rungs.0.is_empty() { ladder(source, self.crf) } else { self.own_rungs(source) };
        let in_all_codecs = |rung: Rung| {
            let others: Vec<Rung> = self.codecs.iter().filter_map(|&codec| rung.in_codec(codec)).collect();
            [rung].into_iter().chain(others)
        };
        rungs.into_iter().flat_map(in_all_codecs).collect()
    }

    fn own_rungs(&self, source: Size) -> Vec<Rung> {
        let fitting = self.rungs.0.iter().filter(|rung| rung.shorter_side <= source.shorter_side());
        let rung = |rung: &RungSetting| Rung {
            name: rung.name,
            size: source.fitted(rung.shorter_side),
            crf: rung.crf.unwrap_or(self.crf),
            bitrate_bps_max: rung.bitrate_bps_max.unwrap_or(rung_bitrate_bps_max(rung.shorter_side)),
        };
        fitting.map(rung).collect()
    }
}

/// The encoded rungs below `original` where no others are asked for, best first; none for small sources.
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
        2160.. => 16_000_000,
        1440..=2159 => 9_000_000,
        1080..=1439 => 5_000_000,
        720..=1079 => 2_800_000,
        480..=719 => 1_400_000,
        360..=479 => 800_000,
        _ => 400_000,
    }
}

impl RungSettings {
    /// Whether the rung was given a factor of its own.
    pub fn fix_crf_of(&self, name: RenditionName) -> bool {
        self.0.iter().any(|rung| rung.name == name.in_h264() && rung.crf.is_some())
    }
}

impl std::str::FromStr for RungSetting {
    /// Says what is allowed.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || {
            let names = RenditionName::RUNGS.map(RenditionName::as_str).join(", ");
            format!(
                "`name:shorter side[:crf[:cap in bit/s]]`, e.g. medium:720:23:2800000; names are {names}, sides \
                 {SHORTER_SIDE_MIN} to {SHORTER_SIDE_MAX} pixels, crf 0 to 51"
            )
        };
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let [name, side, rates @ ..] = &parts[..] else { return Err(allowed()) };
        let (crf, cap) = match rates {
            [] => (None, None),
            [crf] => (Some(crf), None),
            [crf, cap] => (Some(crf), Some(cap)),
            _ => return Err(allowed()),
        };
        let rung = || {
            Some(RungSetting {
                name: name.parse().ok().filter(|name| RenditionName::RUNGS.contains(name))?,
                shorter_side: side
                    .parse()
                    .ok()
                    .filter(|side| (SHORTER_SIDE_MIN..=SHORTER_SIDE_MAX).contains(side))?,
                crf: match crf {
                    Some(crf) => Some(crf.parse().ok().filter(|crf| (0.0..=51.0).contains(crf))?),
                    None => None,
                },
                bitrate_bps_max: match cap {
                    Some(cap) => Some(cap.replace('_', "").parse().ok().filter(|&cap: &u64| cap > 0)?),
                    None => None,
                },
            })
        };
        rung().ok_or_else(allowed)
    }
}

impl std::str::FromStr for RungSettings {
    /// Says what is allowed.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let rungs: Vec<RungSetting> = items.map(str::parse).collect::<Result<_, _>>()?;
        let descends =
            |pair: &[RungSetting]| pair[0].name < pair[1].name && pair[0].shorter_side > pair[1].shorter_side;
        if rungs.windows(2).all(descends) {
            Ok(RungSettings(rungs))
        } else {
            let names = RenditionName::RUNGS.map(RenditionName::as_str).join(", ");
            Err(format!(
                "a list from the best to the least, each name once in the order {names}, each side smaller than the one before"
            ))
        }
    }
}

impl std::fmt::Display for RungSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl std::fmt::Display for RungSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.shorter_side)?;
        if let Some(crf) = self.crf {
            write!(f, ":{crf}")?;
        }
        if let Some(cap) = self.bitrate_bps_max {
            write!(f, ":{cap}")?;
        }
        Ok(())
    }
}

/// x265's factor gives about the quality of an x264 factor this much smaller.
const HEVC_CRF_ABOVE_X264: f64 = 3.0;
/// SVT-AV1's factor goes to 63 where x264's goes to 51, and is reached sooner.
const AV1_CRF_PER_X264: f64 = 1.5;
/// What the newer codecs need of the bits, at most.
const HEVC_BITRATE_SHARE: f64 = 0.75;
const AV1_BITRATE_SHARE: f64 = 0.65;

/// The cap for an `original` that has to be encoded, in bit/s.
pub(crate) const ORIGINAL_BITRATE_BPS_MAX: u64 = 16_000_000;

/// What gives about the quality of an x264 factor in the measure of another encoder.
fn crf_in(codec: VideoCodec, x264_crf: f64) -> f64 {
    match codec {
        VideoCodec::H264 => x264_crf,
        VideoCodec::Hevc => (x264_crf + HEVC_CRF_ABOVE_X264).min(51.0),
        VideoCodec::Av1 => (x264_crf * AV1_CRF_PER_X264).round().min(63.0),
    }
}

/// A factor chosen by content lies within these, in x264's measure: finer is seen by nobody, and coarser by everybody.
pub const CHOSEN_CRF_MIN: f64 = 18.0;
pub const CHOSEN_CRF_MAX: f64 = 32.0;

impl Rung {
    /// With the factor that was chosen for the film, in x264's measure; all else, the cap too, stays.
    pub fn at_chosen(&self, x264_crf: f64) -> Rung {
        let crf = x264_crf.clamp(CHOSEN_CRF_MIN, CHOSEN_CRF_MAX);
        Rung { crf: if crf.is_finite() { crf_in(self.name.codec(), crf) } else { self.crf }, ..self.clone() }
    }

    /// The same picture in another codec at about the same quality, with as much less under the cap; `None` where that
    /// codec is not for it.
    pub fn in_codec(&self, codec: VideoCodec) -> Option<Rung> {
        let share = match codec {
            VideoCodec::H264 => 1.0,
            VideoCodec::Hevc => HEVC_BITRATE_SHARE,
            VideoCodec::Av1 => AV1_BITRATE_SHARE,
        };
        Some(Rung {
            name: self.name.in_codec(codec)?,
            size: self.size,
            crf: crf_in(codec, self.crf),
            bitrate_bps_max: (self.bitrate_bps_max as f64 * share) as u64,
        })
    }

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

    fn settings(rungs: &str, codecs: &[VideoCodec]) -> LadderSettings {
        LadderSettings { crf: 23.0, rungs: rungs.parse().unwrap(), codecs: codecs.to_vec() }
    }

    #[test]
    fn an_operators_rungs_are_made_of_what_is_large_enough() {
        let own = settings("high:1080:21:6_000_000, medium:540, lowest:144:30", &[]);
        let rungs = own.rungs(Size { width: 608, height: 1080 });
        let found: Vec<_> = rungs.iter().map(|r| (r.name, r.size.height, r.crf, r.bitrate_bps_max)).collect();
        let expected =
            [(RenditionName::Medium, 960, 23.0, 1_400_000), (RenditionName::Lowest, 256, 30.0, 400_000)];
        assert_eq!(found, expected);
        let largest = &own.rungs(Size { width: 1920, height: 1080 })[0];
        assert_eq!(
            (largest.name, largest.crf, largest.bitrate_bps_max),
            (RenditionName::High, 21.0, 6_000_000)
        );
        assert_eq!(own.rungs.to_string(), "high:1080:21:6000000,medium:540,lowest:144:30");
        assert!(own.rungs.fix_crf_of(RenditionName::High) && !own.rungs.fix_crf_of(RenditionName::Medium));
        assert_eq!(settings("", &[]).rungs(Size { width: 1920, height: 1080 }).len(), 2);
    }

    #[test]
    fn other_codecs_stand_beside_h264_at_every_size() {
        let rungs =
            settings("", &[VideoCodec::Hevc, VideoCodec::Av1]).rungs(Size { width: 1280, height: 720 });
        let names: Vec<_> = rungs.iter().map(|rung| rung.name.as_str()).collect();
        assert_eq!(names, ["medium", "medium-hevc", "medium-av1", "low", "low-hevc", "low-av1"]);
        assert!(rungs.is_sorted_by_key(|rung| std::cmp::Reverse(rung.size.pixels())));
        assert!(rungs[2].crf.fract() == 0.0 && rungs[2].bitrate_bps_max < rungs[0].bitrate_bps_max);
    }

    #[test]
    fn a_chosen_factor_stays_within_its_bounds_and_leaves_the_cap() {
        let rungs = settings("", &[VideoCodec::Av1]).rungs(Size { width: 1280, height: 720 });
        let crfs = |crf| rungs.iter().map(|rung| rung.at_chosen(crf).crf).collect::<Vec<_>>();
        assert_eq!(crfs(26.0), [26.0, 39.0, 26.0, 39.0]);
        assert_eq!((crfs(1.0)[0], crfs(99.0)[0], crfs(f64::NAN)[0]), (CHOSEN_CRF_MIN, CHOSEN_CRF_MAX, 23.0));
        for rung in &rungs {
            assert_eq!(Rung { crf: rung.crf, ..rung.at_chosen(26.0) }, *rung);
        }
    }

    #[test]
    fn rungs_that_make_no_sense_are_refused() {
        for bad in [
            "medium",
            "medium:",
            "medium:32",
            "medium:9000",
            "original:720",
            "medium-av1:720",
            "best:720",
            "medium:720:52",
            "medium:720:nan",
            "medium:720:23:0",
            "medium:720:23:1:1",
            "low:360,medium:720",
            "medium:360,low:720",
            "low:360,low:240",
        ] {
            assert!(bad.parse::<RungSettings>().is_err(), "{bad}");
        }
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
