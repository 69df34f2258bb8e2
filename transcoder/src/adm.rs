//! How much of the detail of a picture is left: the detail loss metric (Li, Zhang, Ma and Ngan, 2011) with the constants
//! that VMAF v0.6.1 has it with, as its feature `adm2`.

use crate::plane::{Plane, reflected};

const SCALES: usize = 4;
/// Daubechies' second wavelet.
const LOW: [f32; 4] = [0.482_962_9, 0.836_516_3, 0.224_143_87, -0.129_409_52];
const HIGH: [f32; 4] = [-0.129_409_52, -0.224_143_87, 0.836_516_3, -0.482_962_9];
/// Of each side, which counts for nothing.
const BORDER: f64 = 0.1;
/// The cosine of a degree, squared: detail that only gained contrast is no loss.
const COS_DEGREE_SQUARED: f32 = 0.999_695_4;
const CONTRAST_GAIN_MAX: f32 = 100.0;
/// Pixels in a degree of what is seen at three heights of a picture of 1080 lines.
const PIXELS_PER_DEGREE: f64 = 3.0 * 1080.0 * std::f64::consts::PI / 180.0;
/// Watson's thresholds of luma in a 9/7 wavelet: amplitudes of its basis by scale, for horizontal and vertical detail, and
/// for diagonal.
const AMPLITUDES: [[f64; 2]; SCALES] =
    [[0.67234, 0.72709], [0.41317, 0.49428], [0.22727, 0.28688], [0.11792, 0.15214]];

/// A picture at all scales.
pub struct Pyramid(Vec<Bands>);

struct Bands {
    low: Plane,
    /// Horizontal, vertical, diagonal; row by row as in `low`.
    detail: Vec<[f32; 3]>,
}

impl Pyramid {
    pub fn of(picture: &Plane) -> Pyramid {
        let mut scales: Vec<Bands> = Vec::with_capacity(SCALES);
        for _ in 0..SCALES {
            let bands = Bands::of(scales.last().map_or(picture, |above| &above.low));
            scales.push(bands);
        }
        Pyramid(scales)
    }

    /// 1: all of it.
    pub fn kept_in(&self, after: &Pyramid) -> f64 {
        let scales = self.0.iter().zip(&after.0).enumerate();
        let sums = scales.map(|(scale, (before, after))| before.kept_in(after, scale));
        let (kept, there) = sums.fold((0.0, 0.0), |sum, scale| (sum.0 + scale.0, sum.1 + scale.1));
        kept / there
    }
}

impl Bands {
    fn of(picture: &Plane) -> Bands {
        let (width, height) = (picture.width.div_ceil(2), picture.height.div_ceil(2));
        let mut bands = Bands { low: Plane::new(width, height), detail: vec![[0.0; 3]; width * height] };
        // With the neighbours that the filters reach to on both sides.
        let (mut low, mut high) = (vec![0.0; 2 * width + 2], vec![0.0; 2 * width + 2]);
        for y in 0..height {
            let rows: [&[f32]; 4] =
                std::array::from_fn(|n| picture.row(reflected((2 * y + n) as isize - 1, picture.height)));
            let across = rows[0].iter().zip(rows[1]).zip(rows[2].iter().zip(rows[3]));
            for (((a, b), (c, d)), (low, high)) in across.zip(low[1..].iter_mut().zip(&mut high[1..])) {
                let around = [*a, *b, *c, *d];
                (*low, *high) = (dot(&around, &LOW), dot(&around, &HIGH));
            }
            for line in [&mut low, &mut high] {
                line[0] = line[1 + reflected(-1, picture.width)];
                for x in picture.width..=2 * width {
                    line[x + 1] = line[1 + reflected(x as isize, picture.width)];
                }
            }
            let detail = &mut bands.detail[y * width..(y + 1) * width];
            for (x, (low_place, detail)) in bands.low.row_mut(y).iter_mut().zip(detail).enumerate() {
                let (low, high) = (around(&low, x), around(&high, x));
                *low_place = dot(&low, &LOW);
                *detail = [dot(&high, &LOW), dot(&low, &HIGH), dot(&high, &HIGH)];
            }
        }
        bands
    }

    /// What is left of the detail that is seen, and what there was.
    fn kept_in(&self, after: &Bands, scale: usize) -> (f64, f64) {
        let Plane { width, height, .. } = self.low;
        let border = |length: usize| (length as f64 * BORDER - 0.5).max(0.0) as usize;
        let (left, top) = (border(width), border(height));
        let (right, bottom) = (width - left, height - top);
        let weights = weights(scale);
        let (restored, masking) = self.restored_in(after, weights);
        let (mut kept, mut there) = ([0.0; 3], [0.0; 3]);
        for y in top..bottom {
            let (above, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
            let [above, here, below] = [above, y, below].map(|y| masking.row(y));
            let column = |x: usize| above[x] + here[x] + below[x];
            for x in left..right {
                let (before, behind) = (x.saturating_sub(1), (x + 1).min(width - 1));
                let threshold = (column(before) + column(x) + column(behind) + here[x]) / 30.0;
                let (restored, whole) = (restored[y * width + x], self.detail[y * width + x]);
                for band in 0..3 {
                    let seen = (restored[band].abs() - threshold).max(0.0);
                    let whole = (whole[band] * weights[band]).abs();
                    kept[band] += f64::from(seen * seen * seen);
                    there[band] += f64::from(whole * whole * whole);
                }
            }
        }
        let floor = ((right - left) as f64 * (bottom - top) as f64 / 32.0).cbrt();
        let pooled = |bands: [f64; 3]| bands.iter().map(|sum| sum.cbrt() + floor).sum();
        (pooled(kept), pooled(there))
    }

    /// Of the detail in `after` that which was there before, weighed as the eye does; and how much was added, which hides it.
    fn restored_in(&self, after: &Bands, weights: [f32; 3]) -> (Vec<[f32; 3]>, Plane) {
        let mut restored = vec![[0.0; 3]; self.detail.len()];
        let mut masking = Plane::new(self.low.width, self.low.height);
        let places = restored.iter_mut().zip(&mut masking.values);
        for ((before, now), (restored, masking)) in self.detail.iter().zip(&after.detail).zip(places) {
            let only_contrast = is_only_contrast(*before, *now);
            for band in 0..3 {
                let same = restored_one(before[band], now[band], only_contrast);
                restored[band] = same * weights[band];
                *masking += ((now[band] - same) * weights[band]).abs();
            }
        }
        (restored, masking)
    }
}

/// What of `now` was there `before`.
fn restored_one(before: f32, now: f32, only_contrast: bool) -> f32 {
    let same = (now / (before + 1e-30)).clamp(0.0, 1.0) * before;
    if only_contrast && same > 0.0 {
        (same * CONTRAST_GAIN_MAX).min(now)
    } else if only_contrast && same < 0.0 {
        (same * CONTRAST_GAIN_MAX).max(now)
    } else {
        same
    }
}

fn dot(values: &[f32; 4], taps: &[f32; 4]) -> f32 {
    values[0] * taps[0] + values[1] * taps[1] + values[2] * taps[2] + values[3] * taps[3]
}

fn around(line: &[f32], x: usize) -> [f32; 4] {
    let line = &line[2 * x..2 * x + 4];
    [line[0], line[1], line[2], line[3]]
}

/// Horizontal and vertical detail point the same way in both.
fn is_only_contrast(before: [f32; 3], after: [f32; 3]) -> bool {
    let along = before[0] * after[0] + before[1] * after[1];
    let length = |[x, y, _]: [f32; 3]| x * x + y * y;
    along >= 0.0 && along * along >= COS_DEGREE_SQUARED * length(before) * length(after)
}

/// The reciprocal of the least that is seen, in each band.
fn weights(scale: usize) -> [f32; 3] {
    let weight = |band: usize| {
        let gain = [1.0, 0.534][band];
        let frequency = 2_f64.powi(scale as i32 + 1) * 0.401 * gain / PIXELS_PER_DEGREE;
        let step = 2.0 * 0.495 * 10_f64.powf(0.466 * frequency.log10().powi(2)) / AMPLITUDES[scale][band];
        step.recip() as f32
    };
    [weight(0), weight(0), weight(1)]
}
