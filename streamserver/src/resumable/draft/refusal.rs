//! How refusals are told in the draft. For its clients any 4xx is the end of an upload, and after a 5xx they ask for the
//! offset and go on.

use chassis::Problem;
use http::{HeaderValue, StatusCode};

use super::headers::{ACCEPT_PATCH, INCOMPLETE, PARTIAL_UPLOAD, UPLOAD_COMPLETE, UPLOAD_LIMIT};
use crate::digest;
use crate::failure;
use crate::resumable::{checksum, refusal};

/// As the draft has them registered.
const MISMATCHING_OFFSET: &str = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
const INCONSISTENT_LENGTH: &str =
    "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
const COMPLETED: &str = "https://iana.org/assignments/http-problem-types#completed-upload";

/// What was refused, in the words of the draft. `limit` is what `Upload-Limit` says.
pub fn told(problem: Problem, limit: HeaderValue) -> Problem {
    match problem.kind() {
        refusal::WRONG_OFFSET => problem
            .with_kind(MISMATCHING_OFFSET, "The upload is somewhere else")
            .with_header(UPLOAD_COMPLETE, INCOMPLETE),
        // To a 413 they would send the same in smaller requests.
        refusal::OTHER_LENGTH | refusal::TOO_LONG => inconsistent_length(),
        refusal::IN_USE => problem.with_status(StatusCode::SERVICE_UNAVAILABLE),
        checksum::MISMATCH => digest::mismatch(),
        failure::TOO_LARGE => problem.with_header(UPLOAD_LIMIT, limit),
        _ => problem,
    }
}

/// 400
pub fn inconsistent_length() -> Problem {
    let detail = "The bytes of this request and the lengths that were said of the upload do not fit each other; nothing of \
                  the request was kept. Send what is missing, or begin another upload.";
    let title = "The lengths of the upload differ";
    Problem::new(StatusCode::BAD_REQUEST, INCONSISTENT_LENGTH, title, detail)
}

/// 400
pub fn completed() -> Problem {
    let detail = "This upload has all its bytes, and they are the video's; there is nothing to go on with.";
    Problem::new(StatusCode::BAD_REQUEST, COMPLETED, "The upload is complete", detail)
}

/// 400: a part must not be taken for the whole.
pub fn no_version() -> Problem {
    Problem::bad_request(
        "`Upload-Complete: ?0` says that more is to come, in a version of the draft that is not spoken here: send \
         `Upload-Draft-Interop-Version: 6` or `8`, or the whole file.",
    )
}

/// 415
pub fn other_type() -> Problem {
    Problem::unsupported_media_type("`application/partial-upload`").with_header(ACCEPT_PATCH, PARTIAL_UPLOAD)
}

/// 403: the other protocol puts it together.
pub fn is_of_tus() -> Problem {
    Problem::forbidden("This upload is one of several that tus puts together; go on with it by tus.")
}
