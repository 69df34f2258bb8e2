//! When the frames of a stream are shown, worked out from the timestamps of its packets alone.

/// One packet of the video stream, in the order of the file.
#[derive(Debug, Clone, Copy)]
pub struct VideoPacket {
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub duration: i64,
    pub key: bool,
    /// Decoded but not shown: cut away by an edit list.
    pub hidden: bool,
    pub corrupt: bool,
}

/// All times are timestamps of the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct VideoTimes {
    /// Of the frames that can be shown, ascending.
    pub shown: Vec<i64>,
    pub last_duration: i64,
    /// Keyframes without leading pictures, ascending.
    pub clean_keyframes: Vec<i64>,
    /// All keyframes that are shown, ascending.
    pub entries: Vec<i64>,
    pub ranked: bool,
    pub hidden: u64,
    /// Frames with the time of another one: a player shows one of them.
    pub doubled: u64,
    pub constant_rate: bool,
}

impl VideoTimes {
    /// `decoded`: timestamps of the first frames that came out of the decoder. `declared_end`: where the header
    /// says that the last frame ends.
    pub fn new(
        packets: &[VideoPacket],
        decoded: &[i64],
        interlaced: bool,
        declared_end: Option<i64>,
    ) -> Self {
        // Nothing before the first keyframe can be decoded; some containers mark none.
        let first_key = packets.iter().position(|packet| packet.key).unwrap_or(0);
        let packets = &packets[first_key.min(packets.len())..];
        let ranked = packets.iter().any(|packet| packet.pts.is_none());
        let time = |packet: &VideoPacket| if ranked { packet.dts.or(packet.pts) } else { packet.pts };
        // Leading pictures of the first keyframe refer to what is not there.
        let start = packets.first().and_then(time).unwrap_or(i64::MIN);
        let mut timed: Vec<(i64, i64)> = packets
            .iter()
            .filter(|packet| !packet.hidden)
            .filter_map(|packet| Some((time(packet).filter(|&t| t >= start)?, packet.duration)))
            .collect();
        timed.sort_unstable();
        let declared_last = timed.last().map_or(0, |&(_, duration)| duration);
        let mut shown: Vec<i64> = timed.into_iter().map(|(time, _)| time).collect();
        let all = shown.len();
        shown.dedup();
        let doubled = (all - shown.len()) as u64;
        let paired = interlaced && packets_per_frame(&shown, decoded) > 1.5;
        if paired {
            shown = first_fields(&shown);
        }
        let last_duration = last_duration(&shown, declared_last, declared_end, paired);
        VideoTimes {
            last_duration,
            clean_keyframes: if ranked { Vec::new() } else { clean_keyframes(packets) },
            entries: if ranked { Vec::new() } else { entries(packets) },
            ranked,
            doubled,
            hidden: packets.iter().filter(|packet| packet.hidden).count() as u64,
            constant_rate: is_constant(&shown),
            shown,
        }
    }
}

/// How long the last frame is shown. Some demuxers make durations up from a wrong frame rate, and too short is the
/// way they fail; the header's end is good where it lies within a few frames. Two frames far apart say nothing.
fn last_duration(shown: &[i64], of_packet: i64, declared_end: Option<i64>, paired: bool) -> i64 {
    let Some(typical) = median_step(shown) else { return of_packet.max(1) };
    let last = shown[shown.len() - 1];
    let by_header = declared_end.map_or(0, |end| end.saturating_sub(last));
    let alone = shown.len() == 2 && of_packet > 0;
    if !paired && (alone || of_packet * 2 > typical) {
        of_packet
    } else if by_header * 2 > typical && by_header < typical * 3 {
        by_header
    } else {
        typical.max(1)
    }
}

/// Keyframes that no later packet precedes on the screen.
fn clean_keyframes(packets: &[VideoPacket]) -> Vec<i64> {
    let mut clean = Vec::new();
    let mut group = packets.iter().enumerate().filter(|(_, packet)| packet.key).map(|(at, _)| at).peekable();
    while let Some(at) = group.next() {
        let end = group.peek().copied().unwrap_or(packets.len());
        let Some(key_time) = packets[at].pts.filter(|_| !packets[at].hidden) else { continue };
        let leads = packets[at + 1..end].iter().any(|packet| packet.pts.is_some_and(|pts| pts < key_time));
        if !leads {
            clean.push(key_time);
        }
    }
    clean.sort_unstable();
    clean.dedup();
    clean
}

fn entries(packets: &[VideoPacket]) -> Vec<i64> {
    let keyframes = packets.iter().filter(|packet| packet.key && !packet.hidden);
    let mut entries: Vec<i64> = keyframes.filter_map(|packet| packet.pts).collect();
    entries.sort_unstable();
    entries.dedup();
    entries
}

/// Two where each field of an interlaced picture is a packet of its own.
fn packets_per_frame(shown: &[i64], decoded: &[i64]) -> f64 {
    let (Some(&first), Some(&last)) = (decoded.iter().min(), decoded.iter().max()) else { return 1.0 };
    let packets = shown.iter().filter(|&&time| first <= time && time < last).count();
    packets as f64 / (decoded.len() - 1).max(1) as f64
}

/// Keeps the first field of each pair; a picture of one packet lasts as long as a pair.
fn first_fields(shown: &[i64]) -> Vec<i64> {
    let field = median_step(shown).unwrap_or(0);
    let mut first = Vec::with_capacity(shown.len() / 2 + 1);
    let mut second_at = None;
    for &time in shown {
        if second_at.is_some_and(|second: i64| (time - second).abs() * 4 <= field) {
            second_at = None;
        } else {
            first.push(time);
            second_at = Some(time + field);
        }
    }
    first
}

fn median_step(times: &[i64]) -> Option<i64> {
    let mut steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = steps.len() / 2;
    (!steps.is_empty()).then(|| *steps.select_nth_unstable(middle).1)
}

/// Every frame lies where an even pace puts it, to a tenth of a frame or a tick and a half of rounding.
fn is_constant(times: &[i64]) -> bool {
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return true };
    let step = (last - first) as f64 / (times.len() - 1).max(1) as f64;
    let slack = (step / 10.0).max(1.5);
    times.iter().enumerate().all(|(n, &time)| ((time - first) as f64 - step * n as f64).abs() <= slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pts: i64, key: bool) -> VideoPacket {
        VideoPacket { pts: Some(pts), dts: None, duration: 10, key, hidden: false, corrupt: false }
    }

    #[test]
    fn leading_pictures_of_the_first_keyframe_are_not_shown_and_later_ones_make_it_unclean() {
        let packets: Vec<VideoPacket> = [
            (5, false),
            (30, true),
            (10, false),
            (20, false),
            (40, false),
            (60, true),
            (50, false),
            (70, true),
        ]
        .map(|(pts, key)| packet(pts, key))
        .to_vec();
        let times = VideoTimes::new(&packets, &[30, 40], false, None);
        assert_eq!(times.shown, [30, 40, 50, 60, 70]);
        assert_eq!(times.clean_keyframes, [70]);
        assert_eq!(times.entries, [30, 60, 70]);
        assert!(times.constant_rate && !times.ranked);
    }

    #[test]
    fn fields_are_paired() {
        let packets: Vec<VideoPacket> = (0..10).map(|n| packet(n * 10, n == 0)).collect();
        let times = VideoTimes::new(&packets, &[0, 20, 40], true, None);
        assert_eq!(times.shown, [0, 20, 40, 60, 80]);
        assert_eq!(times.last_duration, 20);
        assert_eq!(VideoTimes::new(&packets, &[0, 10, 20], true, None).shown.len(), 10);
    }

    #[test]
    fn edit_lists_and_missing_timestamps() {
        let mut packets: Vec<VideoPacket> = (0..4).map(|n| packet(n * 10 - 10, n == 0)).collect();
        packets[0].hidden = true;
        let times = VideoTimes::new(&packets, &[0, 10], false, None);
        assert_eq!((times.shown, times.hidden), (vec![0, 10, 20], 1));
        packets[2] = VideoPacket { pts: None, dts: Some(12), ..packets[2] };
        assert!(VideoTimes::new(&packets, &[0, 10], false, None).ranked);
        assert!(VideoTimes::new(&[], &[], false, None).shown.is_empty());
    }

    #[test]
    fn made_up_durations_are_not_believed() {
        let mut packets: Vec<VideoPacket> = (0..4).map(|n| packet(n * 33, n == 0)).collect();
        packets[3].duration = 1;
        let last = |packets: &[VideoPacket], declared_end| {
            VideoTimes::new(packets, &[0, 33], false, declared_end).last_duration
        };
        assert_eq!(last(&packets, None), 33);
        assert_eq!(last(&packets, Some(139)), 40);
        assert_eq!(last(&packets, Some(9_999)), 33);
        packets[3].duration = 500;
        assert_eq!(last(&packets, Some(139)), 500);
    }
}
