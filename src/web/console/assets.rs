//! The style sheet, the script and the icon: parts of the binary, each under a name that changes with its content, so
//! that browsers keep them for good and never mix two releases.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::replica::ids::{hex, sha256};

/// Bytes of the content's SHA-256 that a name has.
const NAME_BYTES: usize = 6;
/// A year, the longest that caches heed.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

struct Asset {
    path: String,
    mime: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(name: &str, ending: &str, mime: &'static str, bytes: &'static [u8]) -> Self {
        let digest = hex(&sha256(&[bytes])[..NAME_BYTES]);
        Self { path: format!("/assets/{name}-{digest}.{ending}"), mime, bytes }
    }
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("console", "css", "text/css; charset=utf-8", include_bytes!("assets/console.css")),
        Asset::new("console", "js", "text/javascript; charset=utf-8", include_bytes!("assets/console.js")),
        Asset::new("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

/// Address of the style sheet.
pub fn css() -> &'static str {
    &ASSETS[0].path
}

/// Address of the script.
pub fn js() -> &'static str {
    &ASSETS[1].path
}

/// Address of the icon.
pub fn icon() -> &'static str {
    &ASSETS[2].path
}

/// `/assets/{name}`: one of three names, or nothing. There are no folders to climb out of.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let found = ASSETS.iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(name.as_str()));
    match found {
        Some(asset) => ([(CONTENT_TYPE, asset.mime), (CACHE_CONTROL, FOR_GOOD)], asset.bytes).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_names_of_this_release_are_served() {
        for known in ASSETS.iter() {
            let name = known.path.trim_start_matches("/assets/").to_owned();
            let answer = asset(Path(name)).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()[CACHE_CONTROL], FOR_GOOD);
        }
        for name in ["console.css", "../console.css", "console-000000000000.css", ""] {
            assert_eq!(asset(Path(name.to_owned())).await.status(), StatusCode::NOT_FOUND, "{name}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for asset in ASSETS.iter() {
            let text = std::str::from_utf8(asset.bytes).unwrap().replace("http://www.w3.org/2000/svg", "");
            for way in ["http:", "https:", "@import", "url("] {
                assert!(!text.contains(way), "{} has {way}", asset.path);
            }
        }
    }
}
