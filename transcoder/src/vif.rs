//! How much of what a picture tells is left in its large shapes: visual information fidelity (Sheikh and Bovik, 2006), as
//! VMAF v0.6.1 has it in its feature `vif_scale3`.

use crate::plane::Plane;

/// Noise of the eye, in squares of brightness.
const NOISE: f64 = 2.0;
const GAIN_MAX: f64 = 100.0;

/// A picture an eighth as wide and high.
pub struct Shapes {
    picture: Plane,
    mean: Plane,
    mean_square: Plane,
}

impl Shapes {
    pub fn of(picture: &Plane) -> Shapes {
        let picture =
            picture.filtered(&gaussian::<9>(), 2).filtered(&gaussian::<5>(), 2).filtered(&gaussian::<3>(), 2);
        let mean = picture.filtered(&gaussian::<3>(), 1);
        let mean_square = picture.times(&picture).filtered(&gaussian::<3>(), 1);
        Shapes { picture, mean, mean_square }
    }

    /// 1: all of it.
    pub fn kept_in(&self, after: &Shapes) -> f64 {
        let both = self.picture.times(&after.picture).filtered(&gaussian::<3>(), 1);
        let (mut kept, mut told) = (0.0, 0.0);
        for n in 0..both.values.len() {
            let of = |plane: &Plane| f64::from(plane.values[n]);
            let (mean, mean_after) = (of(&self.mean), of(&after.mean));
            let variance = (of(&self.mean_square) - mean * mean).max(0.0);
            let variance_after = (of(&after.mean_square) - mean_after * mean_after).max(0.0);
            let (part, whole) = information(variance, variance_after, of(&both) - mean * mean_after);
            kept += part;
            told += whole;
        }
        kept / told
    }
}

/// Of one place: what is kept, and what there was, in bits.
fn information(variance: f64, variance_after: f64, covariance: f64) -> (f64, f64) {
    const NOTHING: f64 = 1e-10;
    if variance < NOISE {
        // Flat: whatever came is noise.
        return (1.0 - variance_after * 4.0 / (255.0 * 255.0), 1.0);
    }
    let whole = (1.0 + variance / NOISE).log2();
    if covariance < 0.0 || variance_after < NOTHING {
        return (0.0, whole);
    }
    let gain = covariance / variance;
    let added = (variance_after - gain * covariance).max(NOTHING);
    let gain = gain.min(GAIN_MAX);
    ((1.0 + gain * gain * variance / (added + NOISE)).log2(), whole)
}

/// As wide as a fifth of its taps.
fn gaussian<const TAPS: usize>() -> [f32; TAPS] {
    let deviation = TAPS as f64 / 5.0;
    let tap = |n: usize| (-((n as f64 - (TAPS / 2) as f64) / deviation).powi(2) / 2.0).exp();
    let sum: f64 = (0..TAPS).map(tap).sum();
    std::array::from_fn(|n| (tap(n) / sum) as f32)
}
