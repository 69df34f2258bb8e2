//! The OpenAPI document, and a page that shows it without any network.

use axum::Router;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

const DESCRIPTION: &str = "\
Takes videos in, makes them watchable everywhere, streams them, and deletes them for good.

Every error is `application/problem+json` (RFC 9457): switch on `type`, show `detail`, quote `request_id`. \
Ids are UUIDv7, times RFC 3339 in UTC, durations in seconds, sizes in bytes. \
Lists take `limit` (1 to 100) and the `cursor` that the page before gave.";

/// `/openapi.json` and `/docs`, for the merged document of whatever this process serves.
pub fn docs(mut document: OpenApi) -> Router {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    document.info = InfoBuilder::new()
        .title("Sluice")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
