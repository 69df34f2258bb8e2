//! What was sent and what was said, and what must follow from it.

use std::time::Duration;

use bytes::Bytes;
use domain::{ObjectFile, ObjectKey, UploadId, VideoId, Visibility};
use futures::future::join;
use http::Method;
use sql::{Acquire, NewDeletion, NewVideo};
use store::Store;

use super::client::{Answer, Asking, Sum, broken, hanging, whole};
use super::world::{Fault, World};
use crate::fuzzing::Choices;

/// After a fault an upload is at rest at the latest by then: a holder that does not hear is passed over in a second.
const SETTLE_TRIES_MAX: usize = 200;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// What a request is given until its bytes are written.
const WRITTEN_TRIES_MAX: usize = 20;
/// Of a step: one call of it goes wrong.
const IN_BAD_WEATHER: u8 = 0xc0;
const HOUR_MS: i64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    /// Given up, expired, or its video came in another way or is gone.
    Ended,
}

/// Between two steps `said` is how far it is.
#[derive(Debug)]
struct Upload {
    path: String,
    kind: Kind,
    seed: u8,
    length: Option<u64>,
    /// Lengths that a request said whose answer was not a yes.
    lengths_tried: Vec<u64>,
    said: u64,
    /// No byte beyond was ever sent.
    sent: u64,
    state: State,
    /// Somebody asked for its end, and the answer was not a yes.
    perhaps_ended: bool,
    /// It cannot have expired earlier than counted from here, nor live longer than counted from `asked_ms`.
    touched_ms: i64,
    asked_ms: i64,
}

impl Upload {
    fn id(&self) -> UploadId {
        self.path.rsplit('/').next().and_then(|id| id.parse().ok()).expect("an address ends in the id")
    }

    fn bytes(&self, from: u64, bytes: u64) -> Vec<u8> {
        bytes_of(self.seed, from, bytes)
    }

    fn rest(&self) -> Option<u64> {
        self.length.map(|length| length - self.said)
    }
}

fn bytes_of(seed: u8, from: u64, bytes: u64) -> Vec<u8> {
    (from..from + bytes).map(|at| seed ^ (at as u8).wrapping_mul(31) ^ (at >> 8) as u8).collect()
}

/// What must never become part of a file.
fn garbage(bytes: u64) -> Vec<u8> {
    b"GARBAGE!".iter().copied().cycle().take(bytes as usize).collect()
}

pub struct Sequence<'a> {
    world: &'a World,
    video: VideoId,
    uploads: Vec<Upload>,
    /// The video's file, once it is there.
    source: Option<Vec<u8>>,
    /// Files of which nobody heard whether they became the video's.
    perhaps: Vec<Vec<u8>>,
    deleted: bool,
    /// A call of this step goes wrong.
    rough: bool,
}

impl<'a> Sequence<'a> {
    pub async fn begin(world: &'a World) -> Sequence<'a> {
        let video = world.id();
        let new = NewVideo {
            id: video,
            author: world.author,
            title: "Sea".into(),
            description: String::new(),
            tags: Vec::new(),
            visibility: Visibility::Public,
            quota: Default::default(),
        };
        world
            .catalog
            .create_video(&new, world.clock.now())
            .await
            .expect("a row")
            .expect("its author is there");
        let uploads = Vec::new();
        Sequence { world, video, uploads, source: None, perhaps: Vec::new(), deleted: false, rough: false }
    }

    pub async fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        self.rough = step >= IN_BAD_WEATHER;
        if self.rough {
            let fault = if choices.coin() { Fault::After } else { Fault::Before };
            self.world.faults.arm(choices.byte() % 48, fault);
        }
        let upload = self.choose(choices).await;
        match (step % 24, upload) {
            (0..=2, _) | (_, None) => self.create(choices).await,
            (3..=8, Some(upload)) => self.append(upload, choices).await,
            (9, Some(upload)) => self.append_elsewhere(upload, choices).await,
            (10, Some(upload)) => self.append_too_much(upload, choices).await,
            (11, Some(upload)) => self.append_until_the_line_breaks(upload, choices).await,
            (12, Some(upload)) => self.append_two_at_once(upload, choices).await,
            (13 | 14, Some(upload)) => self.take_over(upload, choices).await,
            (15, Some(upload)) => self.die_holding(upload).await,
            (16, Some(upload)) => self.give_up(upload, choices).await,
            (17, _) => self.wait(choices),
            (18 | 19, _) => self.join(choices).await,
            (20, _) if choices.byte() < 32 => self.delete_video().await,
            (20 | 21, _) => self.world.sweep().await,
            (_, Some(upload)) => self.look(upload, choices).await,
        }
        if std::mem::take(&mut self.rough) {
            self.world.faults.disarm();
            self.find_source().await;
            for upload in 0..self.uploads.len() {
                self.settle(upload).await;
            }
        }
    }

    /// One of those that there are, and what is known of it is so.
    async fn choose(&mut self, choices: &mut Choices<'_>) -> Option<usize> {
        if self.uploads.is_empty() {
            return None;
        }
        let upload = choices.below(self.uploads.len());
        if self.may_have_expired(upload) && !self.rough {
            self.settle(upload).await;
        }
        Some(upload)
    }

    fn now_ms(&self) -> i64 {
        self.world.clock.now().unix_ms()
    }

    fn may_have_expired(&self, upload: usize) -> bool {
        self.now_ms() - self.uploads[upload].touched_ms >= self.world.expires_ms
    }

    fn must_have_expired(&self, upload: usize) -> bool {
        self.now_ms() - self.uploads[upload].asked_ms >= self.world.expires_ms
    }

    /// A status that this request may have: those without a fault, or what is said when there was one.
    fn expect(&self, answer: &Answer, statuses: &[u16]) {
        let known = statuses.contains(&answer.status)
            || self.rough && [409, 410, 413, 423, 500, 503].contains(&answer.status);
        assert!(known, "{answer:?}, not {statuses:?}; rough {}; {:?}", self.rough, self.uploads);
    }

    async fn create(&mut self, choices: &mut Choices<'_>) {
        let (kind, server) = (if choices.coin() { Kind::Partial } else { Kind::Whole }, choices.below(2));
        let length = match choices.byte() {
            byte if byte % 4 == 0 => None,
            byte => Some(u64::from(byte - 1).max(u64::from(kind == Kind::Whole))),
        };
        let first = choices.coin().then(|| u64::from(choices.byte()).min(length.unwrap_or(u64::MAX)));
        let sum = if first.is_some() { Sum::of(choices.byte()) } else { Sum::None };
        let (seed, now_ms) = (choices.byte(), self.now_ms());

        let asking = Asking::creation(self.world, server, self.video);
        let asking = match length {
            Some(length) => asking.with("upload-length", length),
            None => asking.with("upload-defer-length", 1),
        };
        let asking = if kind == Kind::Partial { asking.with("upload-concat", "partial") } else { asking };
        let bytes = bytes_of(seed, 0, first.unwrap_or_default());
        let is_all = kind == Kind::Whole && length == first;
        if is_all && sum.refusal().is_none() {
            self.perhaps.push(bytes.clone());
        }
        let answer = if first.is_some() {
            let bytes = if sum.refusal().is_some() { garbage(bytes.len() as u64) } else { bytes.clone() };
            let (asking, body) = sum.dress(asking.of_bytes(), &bytes, choices.below(4));
            asking.send(body).await
        } else {
            asking.ask().await
        };
        let expected = match (self.deleted, &self.source, sum.refusal()) {
            (true, ..) => 404,
            (_, Some(_), _) => 409,
            (.., Some(status)) => status,
            _ => 201,
        };
        // A part without bytes takes none, and needs none to vouch for.
        let is_nothing = length == Some(0) && first == Some(0);
        // What a fault keeps from being stored can be sent after the creation.
        if !(self.rough && answer.status == 201) {
            let expected = [expected];
            self.expect(&answer, if is_nothing { &[201, 400, 404, 409, 413, 460] } else { &expected });
        }
        if answer.status != 201 {
            return;
        }
        let sent = if sum.refusal().is_none() { first.unwrap_or_default() } else { 0 };
        let said = answer.offset.unwrap_or_default();
        assert!(said <= sent && (self.rough || said == sent), "{answer:?} to {sent} bytes");
        let state = if length == Some(said) { State::Complete } else { State::Open };
        self.uploads.push(Upload {
            path: answer.location.expect("201 says where"),
            kind,
            seed,
            length,
            lengths_tried: Vec::new(),
            said,
            sent,
            state,
            perhaps_ended: false,
            touched_ms: now_ms,
            asked_ms: now_ms,
        });
        if state == State::Complete && kind == Kind::Whole && !self.rough {
            self.became(bytes).await;
        }
    }

    /// What comes next, perhaps with a checksum, perhaps with the length that was not known before.
    async fn append(&mut self, number: usize, choices: &mut Choices<'_>) {
        let server = choices.below(2);
        let upload = &self.uploads[number];
        let bytes = u64::from(choices.byte()).min(upload.rest().unwrap_or(u64::MAX));
        let (sum, pieces) = (Sum::of(choices.byte()), choices.below(4));
        let says_length = upload.length.is_none() && choices.coin();
        let more = if choices.coin() { choices.byte() } else { 0 };
        let length = (upload.said + bytes + u64::from(more)).max(u64::from(upload.kind == Kind::Whole));
        self.patch(number, server, bytes, sum, pieces, says_length.then_some(length)).await;
    }

    async fn patch(
        &mut self,
        number: usize,
        server: usize,
        bytes: u64,
        sum: Sum,
        pieces: usize,
        length: Option<u64>,
    ) -> Answer {
        let now_ms = self.now_ms();
        let upload = &mut self.uploads[number];
        let asking = Asking::patch(self.world, server, &upload.path, upload.said);
        let asking = length.map_or(asking, |length| {
            upload.lengths_tried.push(length);
            Asking::patch(self.world, server, &upload.path, upload.said).with("upload-length", length)
        });
        let good = sum.refusal().is_none();
        let content = if good { upload.bytes(upload.said, bytes) } else { garbage(bytes) };
        if good {
            upload.sent = upload.sent.max(upload.said + bytes);
        }
        upload.asked_ms = now_ms;
        let (asking, body) = match sum {
            Sum::None => (asking, whole(&content, pieces)),
            sum => sum.dress(asking, &content, pieces),
        };
        let answer = asking.send(body).await;
        let upload = &mut self.uploads[number];
        match upload.state {
            State::Ended => self.expect(&answer, &[404, 410]),
            // Nothing more is right; whether it is nothing shows in a body of unknown length only as it is read.
            State::Complete => self.expect(&answer, &[204, 413]),
            State::Open => match sum.refusal() {
                Some(status) => self.expect(&answer, &[status]),
                None => {
                    self.expect(&answer, &[204]);
                    self.appended(number, bytes, length, &answer).await;
                }
            },
        }
        answer
    }

    async fn appended(&mut self, number: usize, bytes: u64, length: Option<u64>, answer: &Answer) {
        if answer.status != 204 {
            return;
        }
        let now_ms = self.now_ms();
        let upload = &mut self.uploads[number];
        upload.said += bytes;
        assert_eq!(answer.offset, Some(upload.said), "{upload:?}");
        upload.length = upload.length.or(length);
        upload.touched_ms = now_ms;
        if upload.length == Some(upload.said) {
            upload.state = State::Complete;
            if upload.kind == Kind::Whole {
                let source = upload.bytes(0, upload.said);
                self.became(source).await;
            }
        }
    }

    async fn append_elsewhere(&mut self, number: usize, choices: &mut Choices<'_>) {
        let (server, by, bytes) =
            (choices.below(2), i64::from(choices.byte()) - 128, u64::from(choices.byte()));
        let (pieces, now_ms) = (choices.below(4), self.now_ms());
        let upload = &mut self.uploads[number];
        let Some(offset) = upload.said.checked_add_signed(by).filter(|&offset| offset != upload.said) else {
            return;
        };
        upload.asked_ms = now_ms;
        let asking = Asking::patch(self.world, server, &upload.path, offset);
        let answer = asking.send(whole(&garbage(bytes), pieces)).await;
        match upload.state {
            State::Ended => self.expect(&answer, &[404, 410]),
            State::Open | State::Complete => {
                let said = upload.said;
                self.expect(&answer, &[409]);
                if answer.status == 409 && !self.rough {
                    assert_eq!(answer.offset, Some(said), "{:?}", self.uploads[number]);
                    self.look_at(number, server).await;
                }
            }
        }
    }

    async fn append_too_much(&mut self, number: usize, choices: &mut Choices<'_>) {
        let (server, more, pieces) = (choices.below(2), 1 + u64::from(choices.byte()), choices.below(4));
        let now_ms = self.now_ms();
        let upload = &mut self.uploads[number];
        let Some(rest) = upload.rest() else { return };
        upload.asked_ms = now_ms;
        let asking = Asking::patch(self.world, server, &upload.path, upload.said);
        let answer = asking.send(whole(&garbage(rest + more), pieces)).await;
        match upload.state {
            State::Ended => self.expect(&answer, &[404, 410]),
            State::Open | State::Complete => {
                self.expect(&answer, &[413]);
                if !self.rough {
                    self.look_at(number, server).await;
                }
            }
        }
    }

    /// What came is kept, if nothing has to vouch for it.
    async fn append_until_the_line_breaks(&mut self, number: usize, choices: &mut Choices<'_>) {
        let (server, bytes, pieces) = (choices.below(2), u64::from(choices.byte()), choices.below(4));
        let (vouched, now_ms) = (choices.coin(), self.now_ms());
        let upload = &mut self.uploads[number];
        if upload.state != State::Open {
            return;
        }
        let bytes = bytes.min(upload.rest().unwrap_or(u64::MAX));
        upload.asked_ms = now_ms;
        let asking = Asking::patch(self.world, server, &upload.path, upload.said);
        let (asking, content) = if vouched {
            (asking.with("trailer", "Upload-Checksum"), garbage(bytes))
        } else {
            upload.sent = upload.sent.max(upload.said + bytes);
            (asking, upload.bytes(upload.said, bytes))
        };
        let expected = upload.said + if vouched { 0 } else { bytes };
        let answer = asking.send(broken(&content, pieces)).await;
        self.expect(&answer, &[503]);
        if !self.rough {
            self.settle(number).await;
            assert_eq!(self.uploads[number].said, expected, "what came before is kept");
        }
    }

    async fn append_two_at_once(&mut self, number: usize, choices: &mut Choices<'_>) {
        let bytes = 1 + u64::from(choices.byte());
        let (servers, pieces) = ([choices.below(2), choices.below(2)], choices.below(4));
        let now_ms = self.now_ms();
        let upload = &mut self.uploads[number];
        let bytes = bytes.min(upload.rest().unwrap_or(u64::MAX));
        if upload.state != State::Open || bytes == 0 {
            return;
        }
        upload.sent = upload.sent.max(upload.said + bytes);
        upload.asked_ms = now_ms;
        let before = upload.said;
        let content = upload.bytes(upload.said, bytes);
        let ask = |server: usize| {
            Asking::patch(self.world, server, &upload.path, before).send(whole(&content, pieces))
        };
        let (first, second) = join(ask(servers[0]), ask(servers[1])).await;
        // Whoever comes later to an upload that just became complete finds it so.
        for answer in [&first, &second] {
            self.expect(answer, &[204, 409, 423]);
        }
        let through = [&first, &second].iter().filter(|answer| answer.status == 204).count();
        assert!(through <= 1, "{first:?} {second:?}");
        if !self.rough {
            self.settle(number).await;
            let said = self.uploads[number].said;
            assert!(through == 0 || said == before + bytes, "{first:?} {second:?} {said}");
        }
    }

    /// A request hangs with a part of its bytes sent, and another comes for the same upload.
    async fn take_over(&mut self, number: usize, choices: &mut Choices<'_>) {
        let (servers, bytes) = ([choices.below(2), choices.below(2)], 1 + u64::from(choices.byte()));
        let (taker, now_ms) = (choices.below(4), self.now_ms());
        let upload = &mut self.uploads[number];
        let bytes = bytes.min(upload.rest().unwrap_or(u64::MAX));
        if upload.state != State::Open || bytes == 0 {
            return;
        }
        let late = bytes.min(upload.rest().unwrap_or(u64::MAX) - bytes);
        upload.sent = upload.sent.max(upload.said + bytes + late);
        upload.asked_ms = now_ms;
        let (line, body) = hanging();
        let late = upload.bytes(upload.said + bytes, late);
        let _ = line.unbounded_send(upload.bytes(upload.said, bytes).into());
        let first = Asking::patch(self.world, servers[0], &upload.path, upload.said).send(body);
        let (path, said) = (upload.path.clone(), upload.said);
        let same = whole(&upload.bytes(upload.said, bytes), 2);
        if taker == 3 {
            // Nobody comes: the client is just gone.
            tokio::select! {
                _ = first => {}
                () = self.until_written(bytes) => {}
            }
        } else {
            let second = async {
                self.until_written(bytes).await;
                let asking = match taker {
                    0 => Asking::new(self.world, servers[1], Method::HEAD, &path).ask().await,
                    1 => Asking::patch(self.world, servers[1], &path, said).send(same).await,
                    _ => Asking::new(self.world, servers[1], Method::DELETE, &path).ask().await,
                };
                // Too late, unless it was this one that came first: then they are right.
                let _ = line.unbounded_send(Bytes::from(late));
                drop(line);
                asking
            };
            let (first, second) = join(first, second).await;
            self.expect(&first, &[204, 404, 409, 410, 423]);
            match taker {
                0 => self.expect(&second, &[200]),
                1 => self.expect(&second, &[204, 409]),
                _ => self.expect(&second, &[204]),
            }
            if taker == 2 {
                self.ends(number, &second);
            }
            if taker == 0 && second.status == 200 {
                let offset = second.offset.expect("200 says it");
                assert!((said..=said + bytes).contains(&offset), "{second:?} after {said} and {bytes}");
                self.uploads[number].said = offset;
            }
        }
        if !self.rough {
            self.settle(number).await;
        }
    }

    async fn until_written(&self, bytes: u64) {
        for _ in 0..WRITTEN_TRIES_MAX {
            let unfinished = self.world.store.list_unfinished(None, 10).await.expect("a list");
            if unfinished.iter().map(|unfinished| unfinished.bytes).sum::<u64>() >= bytes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// As a process that was killed while it wrote.
    async fn die_holding(&mut self, number: usize) {
        let (now, upload) = (self.world.clock.now(), &mut self.uploads[number]);
        if upload.state != State::Open || self.rough {
            return;
        }
        let expires_at = now.plus_ms(self.world.expires_ms);
        let acquired = self.world.catalog.acquire_resumable(upload.id(), true, expires_at, now).await;
        assert!(matches!(acquired, Ok(Acquire::Held(..))), "{acquired:?}");
        (upload.touched_ms, upload.asked_ms) = (now.unix_ms(), now.unix_ms());
    }

    async fn give_up(&mut self, number: usize, choices: &mut Choices<'_>) {
        let (server, upload) = (choices.below(2), &self.uploads[number]);
        let answer = Asking::new(self.world, server, Method::DELETE, &upload.path).ask().await;
        match upload.state {
            State::Ended => self.expect(&answer, &[404, 410]),
            State::Open | State::Complete => self.expect(&answer, &[204]),
        }
        self.ends(number, &answer);
    }

    fn ends(&mut self, number: usize, answer: &Answer) {
        let upload = &mut self.uploads[number];
        upload.perhaps_ended = answer.status != 204;
        if answer.status == 204 {
            upload.state = State::Ended;
        }
    }

    fn wait(&mut self, choices: &mut Choices<'_>) {
        let ms = [31_000, HOUR_MS, 23 * HOUR_MS, 25 * HOUR_MS][choices.below(4)];
        self.world.clock.advance_ms(ms);
    }

    async fn look(&mut self, number: usize, choices: &mut Choices<'_>) {
        let server = choices.below(2);
        if self.rough {
            let upload = &mut self.uploads[number];
            upload.asked_ms = self.world.clock.now().unix_ms();
            let answer = Asking::new(self.world, server, Method::HEAD, &upload.path).ask().await;
            self.expect(&answer, &[200, 404, 410]);
        } else {
            self.look_at(number, server).await;
        }
    }

    /// It is as far as it was.
    async fn look_at(&mut self, number: usize, server: usize) {
        let now_ms = self.now_ms();
        let upload = &mut self.uploads[number];
        upload.asked_ms = now_ms;
        let answer = Asking::new(self.world, server, Method::HEAD, &upload.path).ask().await;
        match upload.state {
            State::Ended => assert!([404, 410].contains(&answer.status), "{answer:?} {upload:?}"),
            State::Open | State::Complete => {
                assert_eq!((answer.status, answer.offset), (200, Some(upload.said)), "{upload:?}");
                assert_eq!(answer.length, upload.length, "{upload:?}");
                upload.touched_ms = now_ms;
            }
        }
    }

    /// What has become of it, where that is not certain: it has lost nothing, and has nothing that was not sent.
    async fn settle(&mut self, number: usize) {
        for server in 0..SETTLE_TRIES_MAX {
            let now_ms = self.now_ms();
            let may_have_expired = self.may_have_expired(number);
            let must_have_expired = self.must_have_expired(number);
            let upload = &mut self.uploads[number];
            let answer = Asking::new(self.world, server, Method::HEAD, &upload.path).ask().await;
            match answer.status {
                200 => {
                    assert!(upload.state != State::Ended, "{answer:?} {upload:?}");
                    assert!(upload.state == State::Complete || !must_have_expired, "{answer:?} {upload:?}");
                    (upload.touched_ms, upload.asked_ms) = (now_ms, now_ms);
                    return self.settled(number, &answer).await;
                }
                404 | 410 => {
                    let ended = upload.state == State::Ended || upload.perhaps_ended || may_have_expired;
                    assert!(ended || self.deleted || self.source.is_some(), "{answer:?} {upload:?}");
                    upload.state = State::Ended;
                    return;
                }
                423 | 503 => tokio::time::sleep(SETTLE_PAUSE).await,
                _ => panic!("{answer:?} {upload:?}"),
            }
        }
        panic!("never at rest: {:?}", self.uploads[number]);
    }

    async fn settled(&mut self, number: usize, answer: &Answer) {
        let upload = &mut self.uploads[number];
        let offset = answer.offset.expect("200 says it");
        assert!((upload.said..=upload.sent).contains(&offset), "{answer:?} {upload:?}");
        upload.said = offset;
        if upload.length != answer.length {
            let length = answer.length.expect("a length stays");
            assert!(
                upload.length.is_none() && upload.lengths_tried.contains(&length),
                "{answer:?} {upload:?}"
            );
            upload.length = Some(length);
        }
        if upload.state == State::Open && upload.length == Some(offset) {
            upload.state = State::Complete;
        }
        if upload.state == State::Complete && upload.kind == Kind::Whole && self.source.is_none() {
            let source = upload.bytes(0, offset);
            self.became(source).await;
        }
    }

    /// Parts that are complete, or some that are not, become the video.
    async fn join(&mut self, choices: &mut Choices<'_>) {
        let (server, turn, all) = (choices.below(2), choices.byte(), choices.coin());
        let mut parts: Vec<usize> = (0..self.uploads.len()).filter(|&part| self.is_part(part, all)).collect();
        if parts.is_empty() {
            return;
        }
        let turn = usize::from(turn) % parts.len();
        parts.rotate_left(turn);
        self.join_parts(&parts, server).await;
    }

    fn is_part(&self, number: usize, also_open: bool) -> bool {
        let upload = &self.uploads[number];
        let ready = upload.state == State::Complete || also_open && upload.state == State::Open;
        upload.kind == Kind::Partial && ready && !self.may_have_expired(number)
    }

    async fn join_parts(&mut self, parts: &[usize], server: usize) {
        let paths: Vec<_> = parts.iter().map(|&part| self.uploads[part].path.as_str()).collect();
        let asking = Asking::creation(self.world, server, self.video);
        let asking = asking.with("upload-concat", format!("final;{}", paths.join(" ")));
        let whole: Vec<_> = parts
            .iter()
            .flat_map(|&part| {
                let upload = &self.uploads[part];
                upload.bytes(0, upload.said)
            })
            .collect();
        let complete = parts.iter().all(|&part| self.uploads[part].state == State::Complete);
        if complete && !whole.is_empty() {
            self.perhaps.push(whole.clone());
        }
        let now_ms = self.now_ms();
        let answer = asking.ask().await;
        for &part in parts {
            self.uploads[part].asked_ms = now_ms;
        }
        match (self.deleted, &self.source) {
            (true, _) => self.expect(&answer, &[404, 410]),
            // The answer may have been lost, and the same is asked for again.
            (_, Some(_)) => self.expect(&answer, &[201, 400, 409, 410]),
            _ if complete && !whole.is_empty() => self.expect(&answer, &[201]),
            _ => self.expect(&answer, &[400]),
        }
        if answer.status == 201 && self.source.is_none() {
            self.became(whole).await;
        }
    }

    async fn delete_video(&mut self) {
        let now = self.world.clock.now();
        let deletion = NewDeletion {
            video: self.video,
            requested_by: "alice".into(),
            due_at: now,
            id: self.world.id(),
            job: self.world.id(),
        };
        self.world.catalog.delete_video(&deletion, now).await.expect("a tombstone");
        self.deleted = true;
        for upload in &mut self.uploads {
            upload.state = State::Ended;
        }
    }

    /// The video is this; what else was on its way for it has ended.
    async fn became(&mut self, source: Vec<u8>) {
        let found = self.read_source().await.expect("the video has a source");
        assert!(found == source, "the video is {found:?}, not {source:?}");
        self.source = Some(source);
        for upload in self.uploads.iter_mut().filter(|upload| upload.state == State::Open) {
            upload.state = State::Ended;
        }
    }

    /// A request whose answer was lost may have made it.
    async fn find_source(&mut self) {
        if self.source.is_some() || self.deleted {
            return;
        }
        let Some(found) = self.read_source().await else { return };
        let mut files = std::mem::take(&mut self.perhaps);
        files.extend(self.uploads.iter().filter(|upload| upload.kind == Kind::Whole).filter_map(|upload| {
            let length = upload.length.or(upload.lengths_tried.last().copied())?;
            (upload.sent >= length).then(|| upload.bytes(0, length))
        }));
        assert!(files.contains(&found), "the video is {found:?}, of {:?}", self.uploads);
        for upload in self.uploads.iter_mut().filter(|upload| upload.state == State::Open) {
            let is_it = upload.kind == Kind::Whole && upload.bytes(0, found.len() as u64) == found;
            if !is_it {
                upload.state = State::Ended;
            }
        }
        self.source = Some(found);
    }

    async fn read_source(&self) -> Option<Vec<u8>> {
        let source = self.world.catalog.source(self.video).await.expect("an answer")?;
        let key = ObjectKey { video: self.video, attempt: source.attempt, file: ObjectFile::Source };
        Some(self.read(&key, source.bytes).await)
    }

    async fn read(&self, key: &ObjectKey, bytes: u64) -> Vec<u8> {
        let blocks = self.world.store.read(key, 0..bytes).await.expect("what a row says is there");
        let blocks: Vec<Bytes> = futures::TryStreamExt::try_collect(blocks).await.expect("it is whole");
        blocks.concat()
    }

    /// All is as it was said, nothing needed is swept, and what is open can be gone on with to its end.
    pub async fn end(mut self) {
        self.world.faults.disarm();
        for number in 0..self.uploads.len() {
            self.settle(number).await;
        }
        self.world.sweep().await;
        for number in 0..self.uploads.len() {
            self.is_durable(number).await;
        }
        if !self.deleted && self.source.is_none() {
            self.finish().await;
        }
        self.world.sweep().await;
        if let Some(source) = self.source.as_ref().filter(|_| !self.deleted) {
            assert_eq!(self.read_source().await.as_ref(), Some(source), "it stays");
        }
    }

    /// As the database and the store would have it after every process had been killed.
    async fn is_durable(&mut self, number: usize) {
        let upload = &self.uploads[number];
        if upload.state != State::Open {
            return;
        }
        let (now, id) = (self.world.clock.now(), upload.id());
        let acquired = self.world.catalog.acquire_resumable(id, true, now, now).await.expect("an answer");
        let Acquire::Held(row, pieces) = acquired else { panic!("{acquired:?} {upload:?}") };
        assert_eq!(row.offset_bytes, upload.said, "{upload:?}");
        let mut kept = Vec::new();
        for piece in &pieces {
            let key = ObjectKey { video: self.video, attempt: piece.attempt, file: ObjectFile::Source };
            kept.extend(self.read(&key, piece.bytes).await);
        }
        assert!(kept == upload.bytes(0, upload.said), "{kept:?} {upload:?}");
        self.world.catalog.release_resumable(id, row.token, now).await.expect("it is released");
    }

    async fn finish(&mut self) {
        let open = |sequence: &Self, kind| {
            (0..sequence.uploads.len())
                .filter(|&number| sequence.uploads[number].kind == kind)
                .filter(|&number| sequence.uploads[number].state == State::Open)
                .collect::<Vec<_>>()
        };
        if let Some(&last) = open(self, Kind::Whole).last() {
            self.finish_one(last).await;
            assert!(self.source.is_some(), "{:?}", self.uploads[last]);
            return;
        }
        for part in open(self, Kind::Partial) {
            self.finish_one(part).await;
        }
        let parts: Vec<usize> = (0..self.uploads.len()).filter(|&part| self.is_part(part, false)).collect();
        if !parts.is_empty() {
            self.join_parts(&parts, 0).await;
        }
    }

    async fn finish_one(&mut self, number: usize) {
        let upload = &self.uploads[number];
        let length = upload.length.unwrap_or(upload.said + 3);
        let (bytes, says) = (length - upload.said, upload.length.is_none().then_some(length));
        let answer = self.patch(number, number, bytes, Sum::None, 0, says).await;
        assert_eq!((answer.status, answer.offset), (204, Some(length)), "{:?}", self.uploads[number]);
    }
}
