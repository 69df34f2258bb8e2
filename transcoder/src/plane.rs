//! Brightness as numbers, for what judges pictures.

use ffmpeg_next::frame::Video;

/// 0 to 255, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    pub width: usize,
    pub height: usize,
    pub values: Vec<f32>,
}

impl Plane {
    pub fn new(width: usize, height: usize) -> Plane {
        Plane { width, height, values: vec![0.0; width * height] }
    }

    /// Of a picture with eight bits and a plane of luma.
    pub fn luma(picture: &Video) -> Plane {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let rows = picture.data(0).chunks(picture.stride(0).max(1)).take(height);
        Plane { width, height, values: rows.flat_map(|row| &row[..width]).map(|&luma| luma.into()).collect() }
    }

    pub fn row(&self, y: usize) -> &[f32] {
        &self.values[y * self.width..(y + 1) * self.width]
    }

    pub fn row_mut(&mut self, y: usize) -> &mut [f32] {
        &mut self.values[y * self.width..(y + 1) * self.width]
    }

    /// Every `step`-th place of every `step`-th row, each a sum of its neighbourhood weighed by `taps` both ways.
    pub fn filtered(&self, taps: &[f32], step: usize) -> Plane {
        let radius = taps.len() / 2;
        let mut out = Plane::new(self.width.div_ceil(step), self.height.div_ceil(step));
        let mut column = vec![0.0; self.width + 2 * radius];
        for y in 0..out.height {
            column.fill(0.0);
            for (n, &tap) in taps.iter().enumerate() {
                let row = self.row(reflected((y * step + n) as isize - radius as isize, self.height));
                for (sum, &value) in column[radius..].iter_mut().zip(row) {
                    *sum += tap * value;
                }
            }
            for n in 1..=radius {
                column[radius - n] = column[radius + reflected(-(n as isize), self.width)];
                let beyond = self.width - 1 + n;
                column[radius + beyond] = column[radius + reflected(beyond as isize, self.width)];
            }
            for (x, place) in out.row_mut(y).iter_mut().enumerate() {
                let around = &column[x * step..x * step + taps.len()];
                *place = around.iter().zip(taps).map(|(value, tap)| value * tap).sum();
            }
        }
        out
    }

    /// Value by value.
    pub fn times(&self, other: &Plane) -> Plane {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a * b).collect();
        Plane { values, ..*self }
    }
}

/// An index as if the picture were mirrored at its edges: about the first value, and behind the last, as libvmaf does.
pub fn reflected(index: isize, length: usize) -> usize {
    let last = length as isize - 1;
    let index = if index < 0 { -index } else { index };
    let index = if index > last { 2 * last + 1 - index } else { index };
    index.clamp(0, last) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mirror_the_edges_and_skip() {
        let plane = Plane { width: 4, height: 1, values: vec![0.0, 4.0, 8.0, 12.0] };
        assert_eq!(plane.filtered(&[0.25, 0.5, 0.25], 1).values, [2.0, 4.0, 8.0, 11.0]);
        assert_eq!(plane.filtered(&[0.25, 0.5, 0.25], 2).values, [2.0, 8.0]);
        assert_eq!([-1, 0, 3, 4, 5].map(|index| reflected(index, 4)), [1, 0, 3, 3, 2]);
        assert_eq!([-3, 7].map(|index| reflected(index, 1)), [0, 0]);
    }
}
