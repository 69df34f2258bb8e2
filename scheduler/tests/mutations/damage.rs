//! What is done to a film, by seed.

use std::ops::Range;

use crate::films::{Container, Film};
use crate::parts::{Part, mend_pages, parts_of};

/// SplitMix64: the same for the same seed.
pub struct Points(u64);

impl Points {
    pub fn new(seed: u64) -> Points {
        Points(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Bytes of a stretch that is cut out, copied or blanked, at most.
const STRETCH_BYTES_MAX: usize = 600;

/// The film of this number, damaged in one to three ways.
pub fn damaged(films: &[Film], seed: u64, number: u64) -> (&Film, Vec<u8>) {
    let film = &films[(number % films.len() as u64) as usize];
    let mut points = Points::new(Points::new(seed).next() ^ number);
    let mut bytes = film.bytes.clone();
    for _ in 0..=points.below(3) {
        damage(&mut bytes, film.container, films, &mut points);
    }
    if film.container == Container::Pages && !points.one_in(4) {
        mend_pages(&mut bytes);
    }
    (film, bytes)
}

fn damage(bytes: &mut Vec<u8>, container: Container, films: &[Film], points: &mut Points) {
    let parts = parts_of(container, bytes);
    match points.below(12) {
        0 => bytes.truncate(points.below(bytes.len())),
        1 => flip(bytes, points),
        2 => splice(bytes, films, points),
        3 => stretch(bytes, points),
        _ if parts.is_empty() => flip(bytes, points),
        4 => bytes.truncate(points.of(&parts).whole.end),
        way => in_parts(bytes, container, &parts, way, films, points),
    }
}

fn flip(bytes: &mut [u8], points: &mut Points) {
    if bytes.is_empty() {
        return;
    }
    let within = if points.one_in(2) { bytes.len() } else { bytes.len().min(1000) };
    for _ in 0..=points.below(16) {
        bytes[points.below(within)] ^= 1 << points.below(8);
    }
}

fn some_stretch(length: usize, points: &mut Points) -> Range<usize> {
    let start = points.below(length);
    start..(start + 1 + points.below(STRETCH_BYTES_MAX)).min(length)
}

/// A stretch of another film in place of one of this.
fn splice(bytes: &mut Vec<u8>, films: &[Film], points: &mut Points) {
    let other = points.of(films);
    let from = some_stretch(other.bytes.len(), points);
    let to = some_stretch(bytes.len(), points);
    bytes.splice(to, other.bytes[from].iter().copied());
}

fn stretch(bytes: &mut Vec<u8>, points: &mut Points) {
    let stretch = some_stretch(bytes.len(), points);
    let copy = bytes[stretch.clone()].to_vec();
    match points.below(4) {
        0 => drop(bytes.drain(stretch)),
        1 => drop(bytes.splice(stretch.start..stretch.start, copy)),
        2 => bytes[stretch].fill(0),
        _ => bytes[stretch].fill(0xff),
    }
}

fn in_parts(
    bytes: &mut Vec<u8>,
    container: Container,
    parts: &[Part],
    way: usize,
    films: &[Film],
    points: &mut Points,
) {
    let heads: Vec<&Part> = parts.iter().filter(|part| part.is_head).collect();
    let part = if heads.is_empty() || points.one_in(4) { points.of(parts) } else { *points.of(&heads) };
    match way {
        5 => set(bytes, &part.size, points),
        6 => {
            let name = bytes[points.of(parts).name.clone()].to_vec();
            match name.len() == part.name.len() && !points.one_in(4) {
                true => bytes[part.name.clone()].copy_from_slice(&name),
                false => set(bytes, &part.name, points),
            }
        }
        7 => replace(bytes, container, parts, part, &[]),
        8 => {
            let copy = bytes[part.whole.clone()].to_vec();
            let twice = [copy.as_slice(), &copy].concat();
            replace(bytes, container, parts, part, &twice);
        }
        9 => {
            // One that belongs to another film of the kind.
            let others: Vec<&Film> = films.iter().filter(|film| film.container == container).collect();
            let other = points.of(&others);
            let theirs = parts_of(container, &other.bytes);
            let graft = other.bytes[points.of(&theirs).whole.clone()].to_vec();
            replace(bytes, container, parts, part, &graft);
        }
        _ => {
            // Most of what counts and measures stands at a multiple of four, and at the start.
            let payload = part.payload.clone();
            let within = if points.one_in(2) { payload.len() } else { payload.len().min(32) };
            let width = *points.of(&[1, 2, 4, 4, 4, 8]);
            let at = payload.start + points.below(within) / width * width;
            set(bytes, &(at..(at + width).min(payload.end)), points);
        }
    }
}

/// Numbers at which counting and measuring goes wrong.
fn set(bytes: &mut [u8], at: &Range<usize>, points: &mut Points) {
    let at = at.start..at.end.min(at.start + 8).min(bytes.len());
    if at.is_empty() {
        return;
    }
    let old = bytes[at.clone()].iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let top = 1_u64 << (8 * at.len() - 1);
    let random = points.next();
    let new = match points.below(11) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => top,
        4 => top - 1,
        5 => old.wrapping_add(1),
        6 => old.wrapping_sub(1),
        7 => old.wrapping_mul(2),
        8 => old ^ 1 << (random % (8 * at.len() as u64)),
        9 => 1 << (random % (8 * at.len() as u64)),
        _ => random,
    };
    let new = new.to_be_bytes();
    let length = at.len();
    bytes[at].copy_from_slice(&new[8 - length..]);
}

/// The parts around it grow or shrink with it, where that can be said.
fn replace(bytes: &mut Vec<u8>, container: Container, parts: &[Part], part: &Part, by: &[u8]) {
    let grown = by.len() as i64 - part.whole.len() as i64;
    for around in part.around.iter().map(|&place| &parts[place]) {
        let field = &mut bytes[around.size.clone()];
        match container {
            Container::Boxes => {
                let size = u32::from_be_bytes(field.try_into().unwrap());
                field.copy_from_slice(&(i64::from(size) + grown).to_be_bytes()[4..]);
            }
            Container::Chunks => {
                let size = u32::from_le_bytes(field.try_into().unwrap());
                field.copy_from_slice(&(i64::from(size) + grown).to_le_bytes()[..4]);
            }
            Container::Elements => {
                let mut size = [0; 8];
                let length = field.len();
                size[8 - length..].copy_from_slice(field);
                let size = u64::from_be_bytes(size).wrapping_add_signed(grown).to_be_bytes();
                field.copy_from_slice(&size[8 - length..]);
            }
            Container::Packets | Container::Packs | Container::Tags | Container::Pages => {}
        }
    }
    bytes.splice(part.whole.clone(), by.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same_damage() {
        let films = [Film { name: "noise", container: Container::Boxes, bytes: vec![7; 2000] }];
        for number in 0..50 {
            assert_eq!(damaged(&films, 1, number).1, damaged(&films, 1, number).1);
        }
    }
}
