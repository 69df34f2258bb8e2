//! The bytes of a request, into pieces of its upload. Whatever ends them, those that came are kept, unless the client
//! gave a checksum that they do not have.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use chassis::{FairPermit, Problem};
use domain::{UploadId, UploadKind, UserId};
use http_body::Frame;
use http_body_util::BodyExt;
use sql::Resumable;

use super::checksum::{Expected, Sums};
use super::hold::Held;
use super::piece::{self, OpenPiece};
use super::{finish, is_without_bytes, refusal};
use crate::attempt::Extending;
use crate::pace::Pace;
use crate::room::Longest;
use crate::{StreamServer, failure};

/// What a request brings.
pub struct Incoming {
    pub body: Body,
    pub checksum: Option<Expected>,
    /// Said now, where it had been deferred.
    pub length_bytes: Option<u64>,
    /// The upload ends with the body.
    pub completes: bool,
}

impl Incoming {
    pub fn announced(&self) -> Announced {
        Announced { length_bytes: self.length_bytes, body_bytes_min: self.body.size_hint().lower() }
    }
}

/// What is known of it before its body is read.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    length_bytes: Option<u64>,
    body_bytes_min: u64,
}

/// Why no more is read.
enum End {
    /// That was all.
    Whole,
    /// Somebody else wants the upload, or the process ends.
    Stopped,
    Broken(axum::Error),
    TooLong,
}

/// Appends what begins at this offset, and answers what the upload is then.
pub async fn append_at(
    server: &StreamServer,
    upload: &Resumable,
    offset_bytes: u64,
    incoming: Incoming,
) -> Result<Resumable, Problem> {
    if upload.kind == UploadKind::Final {
        return Err(refusal::is_final());
    }
    // It only rises: no need to disturb whoever writes.
    if offset_bytes < upload.offset_bytes {
        return Err(refusal::wrong_offset(upload.offset_bytes, offset_bytes));
    }
    let place = server.uploads.acquire(upload.author)?;
    let Some(held) = Held::acquire(server, upload.id).await? else {
        return after_the_end(server, upload.id, offset_bytes, is_without_bytes(&incoming.body)).await;
    };
    let fits = if offset_bytes == held.upload.offset_bytes {
        check_fits(&held, incoming.announced()).await
    } else {
        Err(refusal::wrong_offset(held.upload.offset_bytes, offset_bytes))
    };
    match fits {
        Ok(longest) => append_in_peace(held, incoming, longest, place).await,
        Err(problem) => {
            held.release().await;
            Err(problem)
        }
    }
}

/// More for an upload that is complete: nothing more is right, whose answer was lost.
async fn after_the_end(
    server: &StreamServer,
    id: UploadId,
    offset_bytes: u64,
    without_bytes: bool,
) -> Result<Resumable, Problem> {
    let found = server.catalog.resumable(id, server.clock.now()).await.map_err(failure::sql)?;
    let upload = found.ok_or_else(Problem::not_found)?;
    if offset_bytes != upload.offset_bytes {
        return Err(refusal::wrong_offset(upload.offset_bytes, offset_bytes));
    }
    if without_bytes { Ok(upload) } else { Err(refusal::longer_than_said(offset_bytes)) }
}

/// In a task of its own: a client that hangs up, and the handler with it, takes nothing away from what came.
pub async fn append_in_peace(
    mut held: Held,
    incoming: Incoming,
    longest: Longest,
    place: FairPermit<UserId>,
) -> Result<Resumable, Problem> {
    let tasks = held.server.tasks.clone();
    let appending = async move {
        let appended = append(&mut held, incoming, longest).await;
        let upload = held.upload.clone();
        held.release().await;
        drop(place);
        appended.map(|()| upload)
    };
    tasks.spawn(appending).await.map_err(Problem::internal)?
}

/// Appends, and completes the upload if that was the last of it.
async fn append(held: &mut Held, incoming: Incoming, longest: Longest) -> Result<(), Problem> {
    let Incoming { body, checksum, length_bytes, completes } = incoming;
    let length_bytes = length_bytes.filter(|_| held.upload.length_bytes.is_none());
    let mut sums = checksum.map(Sums::start).transpose()?;
    let lease = Extending::from(held.server.clock.now());
    let pace = Pace::start(held.server.limits.upload_bytes_per_s_max);
    let all_or_nothing = sums.is_some();
    let mut append =
        Append { held, length_bytes, longest, all_or_nothing, completes, open: None, lease, pace };
    let received = append.receive(body, &mut sums).await;
    append.settle(received, sums).await?;
    if held.has_all_bytes() { finish::finish(held).await } else { Ok(()) }
}

struct Append<'a> {
    held: &'a mut Held,
    length_bytes: Option<u64>,
    longest: Longest,
    /// The checksum decides, at the end, on all that the request brought.
    all_or_nothing: bool,
    completes: bool,
    open: Option<OpenPiece>,
    lease: Extending,
    pace: Pace,
}

impl Append<'_> {
    async fn receive(&mut self, mut body: Body, sums: &mut Option<Sums>) -> Result<End, Problem> {
        if !body.is_end_stream() {
            // Before the body is touched: who waits for a `100 Continue` hears of what is out of order.
            self.open = Some(OpenPiece::begin(self.held).await?);
        }
        let mut room_bytes = room_bytes(self.held, self.length_bytes, self.longest);
        loop {
            let frame = tokio::select! {
                biased;
                () = self.held.stopped() => return Ok(End::Stopped),
                frame = paced(&self.pace, &mut body) => frame,
            };
            let frame = match frame {
                None => return Ok(End::Whole),
                Some(Err(error)) => return Ok(End::Broken(error)),
                Some(Ok(frame)) => frame,
            };
            let bytes = match (frame.into_data(), &mut *sums) {
                (Ok(bytes), _) => bytes,
                (Err(frame), Some(sums)) => {
                    frame.trailers_ref().map_or(Ok(()), |trailers| sums.read_trailers(trailers))?;
                    continue;
                }
                (Err(_), None) => continue,
            };
            let Some(room_left) = room_bytes.checked_sub(bytes.len() as u64) else {
                return Ok(End::TooLong);
            };
            room_bytes = room_left;
            if let Some(sums) = sums {
                sums.update(&bytes).await?;
            }
            self.pace.passed(bytes.len() as u64);
            self.write(bytes).await?;
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(OpenPiece::begin(self.held).await?),
        };
        open.write(bytes).await?;
        if !self.all_or_nothing && open.is_due(self.held.server.clock.now()) {
            self.commit().await?;
        }
        self.lease.extend(self.held).await
    }

    /// Keeps what is to be kept of what was received.
    async fn settle(&mut self, received: Result<End, Problem>, sums: Option<Sums>) -> Result<(), Problem> {
        let (kept, outcome) = match received {
            Ok(End::Whole) => {
                self.check(sums).await.map_or_else(|problem| (false, Err(problem)), |()| (true, Ok(())))
            }
            Ok(End::Stopped | End::Broken(_)) if self.all_or_nothing => {
                (false, Err(refusal::interrupted_unverified()))
            }
            Ok(End::Stopped) if self.held.server.shutdown.is_cancelled() => {
                (true, Err(refusal::interrupted()))
            }
            Ok(End::Stopped) => (true, Err(refusal::taken_over())),
            Ok(End::Broken(error)) => (true, Err(refusal::interrupted().with_source(error))),
            Ok(End::TooLong) => {
                let all_bytes = self.held.upload.length_bytes.or(self.length_bytes);
                (false, Err(too_long(all_bytes, self.longest)))
            }
            Err(problem) => (false, Err(problem)),
        };
        if kept {
            self.commit().await?;
        } else if let Some(open) = self.open.take() {
            open.abandon().await;
        }
        outcome
    }

    /// All of it came, and must be what was said of it.
    async fn check(&mut self, sums: Option<Sums>) -> Result<(), Problem> {
        if let Some(sums) = sums {
            sums.verify().await?;
        }
        if !self.completes {
            return Ok(());
        }
        let received_bytes = self.open.as_ref().map_or(0, OpenPiece::received_bytes);
        let all_bytes = self.held.upload.offset_bytes + received_bytes;
        match self.held.upload.length_bytes.or(self.length_bytes) {
            Some(length_bytes) if length_bytes == all_bytes => Ok(()),
            Some(_) => Err(refusal::other_length()),
            None if all_bytes == 0 => Err(refusal::empty()),
            None => {
                self.length_bytes = Some(all_bytes);
                Ok(())
            }
        }
    }

    /// The piece that is open, and the length if it was said with this request.
    async fn commit(&mut self) -> Result<(), Problem> {
        let length_bytes = self.length_bytes.take();
        match self.open.take() {
            Some(open) if open.is_empty() => open.abandon().await,
            Some(open) => return open.commit(self.held, length_bytes).await,
            None => {}
        }
        if length_bytes.is_some() {
            piece::commit(self.held, false, None, length_bytes).await
        } else {
            Ok(())
        }
    }
}

/// Safe to drop: what was not answered was not read.
async fn paced(pace: &Pace, body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    pace.wait().await;
    body.frame().await
}

/// What can be told from its head: there is room for it, and a length that was said before is the same.
pub async fn check_fits(held: &Held, announced: Announced) -> Result<Longest, Problem> {
    let (server, upload) = (&held.server, &held.upload);
    let longest = match upload.length_bytes {
        Some(_) => server.longest(),
        None => server.longest_of(upload).await?,
    };
    if let Some(said) = announced.length_bytes {
        if upload.length_bytes.is_some_and(|before| before != said) || said < upload.offset_bytes {
            return Err(refusal::other_length());
        }
        if said > longest.bytes {
            return Err(longest.problem());
        }
        if said == 0 && upload.kind == UploadKind::Whole {
            return Err(refusal::empty());
        }
    }
    let all_bytes = upload.length_bytes.or(announced.length_bytes);
    if announced.body_bytes_min > room_bytes(held, announced.length_bytes, longest) {
        return Err(too_long(all_bytes, longest));
    }
    Ok(longest)
}

fn too_long(all_bytes: Option<u64>, longest: Longest) -> Problem {
    match all_bytes {
        Some(length_bytes) => refusal::longer_than_said(length_bytes),
        None => longest.problem(),
    }
}

/// What may still come.
fn room_bytes(held: &Held, said_now: Option<u64>, longest: Longest) -> u64 {
    let length_bytes = held.upload.length_bytes.or(said_now);
    let all_bytes = length_bytes.unwrap_or(longest.bytes);
    all_bytes.saturating_sub(held.upload.offset_bytes)
}
