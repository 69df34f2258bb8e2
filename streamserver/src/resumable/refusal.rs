//! What is answered where an upload does not go on. Upload clients in use take every 4xx but 409 and 423 for the end
//! of the upload, so a line that broke, a process that ends and a place that is taken are none.

use chassis::Problem;
use domain::UploadState;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};

use super::UPLOAD_OFFSET;

pub const WRONG_OFFSET: &str = "/problems/upload-offset";
pub const OTHER_LENGTH: &str = "/problems/upload-length";
pub const TOO_LONG: &str = "/problems/upload-too-long";
pub const IN_USE: &str = "/problems/upload-in-use";

const RETRY_AFTER_S: u64 = 1;

/// 409: the bytes do not begin where the upload ends.
pub fn wrong_offset(offset_bytes: u64, said_bytes: u64) -> Problem {
    let detail = format!(
        "The upload has {offset_bytes} bytes; send what follows them, with that number as `Upload-Offset`."
    );
    Problem::conflict(WRONG_OFFSET, "The upload is somewhere else", detail)
        .with_header(UPLOAD_OFFSET, HeaderValue::from(offset_bytes))
        .with_member("expected-offset", offset_bytes)
        .with_member("provided-offset", said_bytes)
}

/// 423: whoever writes to it has heard, and is not done yet.
pub fn held() -> Problem {
    locked("Another request is storing bytes of this upload; ask again in a moment.")
}

/// 423, to the one that had to let go. What it brought before is kept.
pub fn taken_over() -> Problem {
    locked("Another request has taken this upload over; ask for its offset and go on from there.")
}

/// 423, which is the one that clients ask again after.
pub fn ask_again() -> Problem {
    locked("What this upload has cannot be looked up at the moment; ask again.")
}

fn locked(detail: &str) -> Problem {
    let title = "The upload is in use";
    Problem::new(StatusCode::LOCKED, IN_USE, title, detail).with_retry_after_s(RETRY_AFTER_S)
}

/// 503: the body did not come to its end, or we do not wait for it.
pub fn interrupted() -> Problem {
    let detail =
        "Not all bytes came; those that did are kept. Ask for the upload's offset and go on from there.";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "/problems/upload-interrupted", "The upload was interrupted", detail)
        .with_retry_after_s(RETRY_AFTER_S)
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// 503, where bytes without their checksum are not kept.
pub fn interrupted_unverified() -> Problem {
    let detail = "Not all bytes came, so their checksum could not be verified and none of this request are kept. Send it \
                  again from the same offset.";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "/problems/upload-interrupted", "The upload was interrupted", detail)
        .with_retry_after_s(RETRY_AFTER_S)
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// 410: it was there and will not be again.
pub fn ended(state: UploadState) -> Problem {
    let detail = match state {
        UploadState::Terminated => "This upload was ended; begin another one.",
        _ => "This upload was left alone for too long and has expired; begin another one.",
    };
    gone(detail)
}

/// 410: its video was deleted, or has its file from somewhere else.
pub fn video_gone() -> Problem {
    gone("The video of this upload takes no bytes any more; create another video for another file.")
}

fn gone(detail: &str) -> Problem {
    Problem::new(StatusCode::GONE, "/problems/upload-gone", "The upload is over", detail)
}

/// 403: a final upload has the bytes of its partials and no others.
pub fn is_final() -> Problem {
    Problem::forbidden("This upload was put together from others; nothing can be added to it.")
}

/// 413: more than the upload was to have.
pub fn longer_than_said(length_bytes: u64) -> Problem {
    let detail = format!(
        "The upload was to have {length_bytes} bytes and this would be more; send what is missing, or begin another upload."
    );
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Problem::new(status, TOO_LONG, "More bytes than were announced", detail)
}

/// 400: a length may be said once, and is what comes.
pub fn other_length() -> Problem {
    let detail = "The length that is said differs from what was said before, or from the bytes that came. Send what is \
                  missing of that length, or begin another upload.";
    Problem::new(StatusCode::BAD_REQUEST, OTHER_LENGTH, "The lengths of the upload differ", detail)
}

/// 400
pub fn empty() -> Problem {
    Problem::bad_request("The file is empty; `Upload-Length` of a video is at least 1.")
}
