//! How a picture is to be turned to stand upright, from the container's display matrix.

/// First mirrored left to right, then turned clockwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Orientation {
    /// 0, 90, 180 or 270.
    pub rotation_degrees: u32,
    pub mirrored: bool,
}

impl Orientation {
    /// `matrix` as in ISO/IEC 14496-12 §6.2.2; turns that are no quarter are rounded to the nearest.
    pub fn from_matrix(matrix: &[i32; 9]) -> Self {
        let [a, b, _, c, d, ..] = matrix.map(f64::from);
        let mirrored = a * d - b * c < 0.0;
        // A mirror is applied before the turn: it changes the sign of the picture's x axis.
        let (x, y) = if mirrored { (-a, -b) } else { (a, b) };
        if x == 0.0 && y == 0.0 {
            return Orientation::default();
        }
        let quarters = (y.atan2(x) / std::f64::consts::FRAC_PI_2).round() as i32;
        Orientation { rotation_degrees: quarters.rem_euclid(4) as u32 * 90, mirrored }
    }

    /// Width and height change places.
    pub fn is_sideways(self) -> bool {
        self.rotation_degrees % 180 == 90
    }

    /// FFmpeg filters that bake it in, each followed by a comma.
    pub fn filters(self) -> String {
        let mirror = if self.mirrored { "hflip," } else { "" };
        let turn = match self.rotation_degrees {
            90 => "transpose=clock,",
            180 => "hflip,vflip,",
            270 => "transpose=cclock,",
            _ => "",
        };
        format!("{mirror}{turn}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 1 << 16;

    fn of(a: i32, b: i32, c: i32, d: i32) -> Orientation {
        Orientation::from_matrix(&[a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
    }

    #[test]
    fn quarters_and_mirrors() {
        let plain = |rotation_degrees| Orientation { rotation_degrees, mirrored: false };
        assert_eq!(of(1, 0, 0, 1), plain(0));
        // What phones write when held upright.
        assert_eq!(of(0, 1, -1, 0), plain(90));
        assert_eq!(of(-1, 0, 0, -1), plain(180));
        assert_eq!(of(0, -1, 1, 0), plain(270));
        assert_eq!(of(-1, 0, 0, 1), Orientation { rotation_degrees: 0, mirrored: true });
        assert_eq!(of(0, 0, 0, 0), plain(0));
    }
}
