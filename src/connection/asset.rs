//! A file that is part of the binary.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Bytes of a digest that tell one version from another.
const TAG_BYTES: usize = 12;

/// A script for pages, with the tag of its version (RFC 9110, section 8.8.3). Browsers ask each time
/// whether theirs is the latest: it has to fit the gateway.
#[derive(Clone)]
pub(super) struct Script {
    text: &'static str,
    tag: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let part = digest.as_ref().get(..TAG_BYTES).unwrap_or_default();
        Self { text, tag: format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(part)) }
    }

    /// The script, unless the browser has it already. Pages of other origins may import it: it is the
    /// same for all.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let about = [
            (ETAG, self.tag.clone()),
            (CACHE_CONTROL, "no-cache".to_owned()),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
        ];
        if self.is_known(headers) {
            return (StatusCode::NOT_MODIFIED, about).into_response();
        }
        (about, [(CONTENT_TYPE, "text/javascript; charset=utf-8")], self.text).into_response()
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        // Proxies that compress make a tag a weak one, which means the same here.
        let known = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag;
        let texts = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).any(|tag| known(tag.trim()))
    }
}
