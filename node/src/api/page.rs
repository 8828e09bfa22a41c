//! The page of the node: what `node/ui/dist` holds, carried in the binary.
//!
//! Names under `assets/` say what is in them, so a browser keeps those for ever and asks each time for
//! `index.html` alone. A path without a dot is a place within the page and gets `index.html`. What is large is
//! carried compressed, and decompressed for who does not take it so.
//!
//! A build that is not optimised reads the files from the source tree, so that they can be worked on.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rust_embed::Embed;

use super::documents::ErrorDocument;
use super::failure::ApiFailure;
use super::guard::is_page;
use crate::exit::ErrorCode;

const INDEX: &str = "index.html";
/// What the name of a compressed file ends with; nobody asks for it under that name.
const COMPRESSED: &str = ".br";

#[derive(Embed)]
#[folder = "ui/dist"]
struct Files;

/// A file as it is carried.
struct File {
    bytes: Cow<'static, [u8]>,
    hash: [u8; 32],
    compressed: bool,
}

impl File {
    fn find(name: &str) -> Option<Self> {
        if name.ends_with(COMPRESSED) {
            return None;
        }
        let read = |name: &str, compressed| {
            let file = Files::get(name)?;
            Some(Self { hash: file.metadata.sha256_hash(), bytes: file.data, compressed })
        };
        read(name, false).or_else(|| read(&format!("{name}{COMPRESSED}"), true))
    }
}

/// The answer to a request for the page; none when it asks for something else.
pub(super) fn serve(request: &Request) -> Option<Response> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !is_page(path) {
        return None;
    }
    let name = path.trim_start_matches('/');
    let is_place = !name.contains(['.', '%']);
    let name = if is_place { INDEX } else { name };
    File::find(name).map(|file| answer(name, file, request.headers()))
}

fn answer(name: &str, file: File, headers: &HeaderMap) -> Response {
    let as_is = file.compressed && takes_brotli(headers);
    let etag = etag(&file.hash, as_is);
    let mut response = if is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if file.compressed && !as_is {
        match decompressed(&file.bytes) {
            Ok(bytes) => bytes.into_response(),
            Err(error) => return broken(name, &error),
        }
    } else {
        match file.bytes {
            Cow::Borrowed(bytes) => bytes.into_response(),
            Cow::Owned(bytes) => bytes.into_response(),
        }
    };
    let known = response.headers_mut();
    known.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    let keep = if name == INDEX { "no-cache" } else { "public, max-age=31536000, immutable" };
    known.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        known.insert(ETAG, etag);
    }
    if file.compressed {
        known.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    if as_is {
        known.insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    response
}

fn decompressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    brotli_decompressor::BrotliDecompress(&mut &*bytes, &mut whole).map(|()| whole)
}

fn broken(name: &str, error: &std::io::Error) -> Response {
    let message = format!("this program carries `{name}` damaged: {error}");
    let error = ErrorDocument::new(ErrorCode::Failed, message).hint("install wattle anew");
    ApiFailure::with_status(StatusCode::INTERNAL_SERVER_ERROR, error).into_response()
}

/// Two forms of one file have two tags.
fn etag(hash: &[u8; 32], compressed: bool) -> String {
    let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}{}\"", if compressed { "-br" } else { "" })
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

/// Whether an answer may be compressed with brotli: named, and not with a weight of nothing.
fn takes_brotli(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("br"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight.is_none_or(|weight| weight > 0.0)
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
