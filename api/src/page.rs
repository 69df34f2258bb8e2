//! The web page: files that Vite built, carried in the binary.

use std::sync::Arc;

use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use chassis::settings::Urls;
use chassis::{Policy, Routes};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::RustEmbed;
use tower_http::compression::CompressionLayer;

use crate::Api;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Files;

const INDEX: &str = "index.html";
/// Their names change with their contents.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Sluice</title>\
    <h1>Sluice is running; its web page is not part of this build.</h1>\
    <p>Build it with <code>make web/dist/index.html</code>, build Sluice again, and start it.\
    <p>The API is here all the same: <a href=/docs>/docs</a>, <a href=/openapi.json>/openapi.json</a>.";

/// One route for each file, so that everything else stays a 404.
pub(crate) fn add(routes: Routes<Arc<Api>>, urls: &Urls) -> Routes<Arc<Api>> {
    let policy = content_security_policy(urls);
    let index = {
        let policy = policy.clone();
        move |headers: HeaderMap| std::future::ready(index(&headers, &policy))
    };
    // `/setup` is a view of the same page.
    let routes = routes
        .unlisted(Policy::Anyone, "/", get(index.clone()).layer(CompressionLayer::new()))
        .unlisted(Policy::Anyone, "/setup", get(index).layer(CompressionLayer::new()));
    Files::iter().filter(|name| name != INDEX).fold(routes, |routes, name| {
        let path = format!("/{name}");
        let policy = policy.clone();
        let serve = move |headers: HeaderMap| std::future::ready(file(&name, &headers, &policy));
        routes.unlisted(Policy::Anyone, &path, get(serve).layer(CompressionLayer::new()))
    })
}

fn index(headers: &HeaderMap, policy: &HeaderValue) -> Response {
    if Files::get(INDEX).is_some() {
        return file(INDEX, headers, policy);
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(CONTENT_SECURITY_POLICY, policy.clone())], Html(NOT_BUILT))
        .into_response()
}

fn file(name: &str, headers: &HeaderMap, policy: &HeaderValue) -> Response {
    let Some(file) = Files::get(name) else { return StatusCode::NOT_FOUND.into_response() };
    // Weak: the same tag stands for the compressed and the plain form.
    let hash = file.metadata.sha256_hash();
    let tag = hash[..16].iter().fold("W/\"".to_owned(), |tag, byte| format!("{tag}{byte:02x}")) + "\"";
    let cache_control = if name.starts_with("assets/") { IMMUTABLE } else { REVALIDATED };
    let known = headers.get(IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let media_type = mime_guess::from_path(name).first_or_octet_stream();
    let described = [
        (ETAG, HeaderValue::try_from(tag).expect("a tag is made of hexadecimal digits")),
        (CACHE_CONTROL, cache_control),
        (CONTENT_SECURITY_POLICY, policy.clone()),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, described).into_response();
    }
    let media_type = if media_type.type_() == mime_guess::mime::TEXT {
        format!("{media_type}; charset=utf-8")
    } else {
        media_type.to_string()
    };
    (described, [(CONTENT_TYPE, media_type)], file.data.into_owned()).into_response()
}

/// Only our own files, and media from where answers say it is: the page may have been opened under another name of the
/// same server. hls.js runs its worker from a blob.
fn content_security_policy(urls: &Urls) -> HeaderValue {
    let media = origin(&urls.stream);
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' blob: {media}; \
         media-src 'self' blob: {media}; connect-src 'self' {media}; worker-src 'self' blob:; manifest-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    // The addresses in the settings were checked; one with other than ASCII in it leaves the policy to ourselves.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let end = url[host_at..].find('/').map_or(url.len(), |at| host_at + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_lets_media_come_from_where_it_is_served_and_nothing_else_in() {
        let urls = Urls { public: "https://v.example".into(), stream: "https://cdn.example:8443/x".into() };
        let policy = content_security_policy(&urls);
        let policy = policy.to_str().unwrap();
        assert!(policy.contains("media-src 'self' blob: https://cdn.example:8443;"), "{policy}");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    }
}
