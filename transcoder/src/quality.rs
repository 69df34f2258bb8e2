//! How good an encoded picture looks beside what went in, from 0 to 100: a straight line through the features of VMAF v0.6.1
//! (Netflix) in place of its trained model. Where films are watched, between 76 and 92, it keeps within half a point of it;
//! similarity and noise ratios miss it by five.

use crate::adm::Pyramid;
use crate::plane::Plane;
use crate::vif::Shapes;

/// Fitted to 15 clips at six factors; more of it in `bench/results/rates.md`.
const DETAIL: f64 = 215.9;
const SHAPES: f64 = 132.3;
const MOTION: f64 = 1.27;
const OFFSET: f64 = -251.2;
/// No clip had more.
const MOTION_MAX: f64 = 4.0;
/// Before two pictures are compared for motion.
const BLUR: [f32; 5] = [0.054_488_68, 0.244_201_35, 0.402_619_95, 0.244_201_35, 0.054_488_68];
/// Every other place of every other row tells as much.
const BLUR_STEP: usize = 2;

/// A picture that went in.
pub struct Reference {
    detail: Pyramid,
    shapes: Shapes,
    motion: f64,
}

impl Reference {
    /// With its neighbours in time.
    pub fn new(before: &Plane, picture: &Plane, after: &Plane) -> Reference {
        let blurred = [before, picture, after].map(|picture| picture.filtered(&BLUR, BLUR_STEP));
        let motion = difference(&blurred[0], &blurred[1]).min(difference(&blurred[1], &blurred[2]));
        Reference { detail: Pyramid::of(picture), shapes: Shapes::of(picture), motion }
    }

    /// Of what came out.
    pub fn score(&self, encoded: &Plane) -> f64 {
        let detail = self.detail.kept_in(&Pyramid::of(encoded));
        let shapes = self.shapes.kept_in(&Shapes::of(encoded));
        let score = DETAIL * detail + SHAPES * shapes + MOTION * self.motion.min(MOTION_MAX) + OFFSET;
        score.clamp(0.0, 100.0)
    }
}

fn difference(one: &Plane, other: &Plane) -> f64 {
    let sum: f64 = one.values.iter().zip(&other.values).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / one.values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (i64, i64) = (192, 108);

    /// Rings that get finer outwards, and move.
    fn drawn(x: i64, y: i64, time: i64) -> i64 {
        let wave = ((x * x + 2 * y * y) / 24 + 9 * time) % 512;
        (wave - 256).abs() * 255 / 256
    }

    /// Smeared, and in steps.
    fn spoilt(x: i64, y: i64, time: i64) -> i64 {
        let around = [-1, 0, 1].map(|by| drawn((x + by).clamp(0, SIZE.0 - 1), y, time));
        let mean = around.iter().sum::<i64>() / 3;
        if mean < 250 { mean / 6 * 6 + 3 } else { 250 }
    }

    fn plane(value: impl Fn(i64, i64) -> i64) -> Plane {
        let values = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        let values = values.map(|(x, y)| value(x, y) as f32).collect();
        Plane { width: SIZE.0 as usize, height: SIZE.1 as usize, values }
    }

    #[test]
    fn the_features_are_those_of_libvmaf() {
        let pictures = [0, 1, 2].map(|time| plane(|x, y| drawn(x, y, time)));
        let reference = Reference::new(&pictures[0], &pictures[1], &pictures[2]);
        let encoded = plane(|x, y| spoilt(x, y, 1));
        // As libvmaf 3.0 has them for the same pictures.
        let expected = [(0.985119, 0.0005), (0.997131, 0.0005), (8.301409, 0.2)];
        let found = [
            reference.detail.kept_in(&Pyramid::of(&encoded)),
            reference.shapes.kept_in(&Shapes::of(&encoded)),
            reference.motion,
        ];
        for (found, (expected, within)) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < within, "{found} and not {expected}");
        }
    }

    #[test]
    fn what_is_the_same_is_perfect_and_flat_pictures_have_a_score() {
        let picture = plane(|x, y| drawn(x, y, 0));
        let score = Reference::new(&picture, &picture, &picture).score(&picture);
        assert!((95.0..=100.0).contains(&score), "{score}");
        let flat = plane(|_, _| 16);
        let score = Reference::new(&flat, &flat, &flat).score(&flat);
        assert!((95.0..=100.0).contains(&score), "{score}");
    }
}
