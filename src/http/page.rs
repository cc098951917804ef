//! The page at `/`: one document with its script and style inside, which works without any other site.
//!
//! It holds nothing secret, so it is served without the token; what it shows it asks for with the token. A browser runs
//! only the script and style whose hashes the policy names, sends nothing elsewhere, and refuses to make markup from text.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    // Hashed from the text that is served, so policy and page cannot drift apart.
    let (script, style) = (hash_inside("<script>", "</script>"), hash_inside("<style>", "</style>"));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
});

/// Hash of the page's one element between `open` and `close`.
fn hash_inside(open: &str, close: &str) -> String {
    // Without the element it is the hash of nothing, and the browser runs nothing.
    let inside = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(it, _)| it);
    BASE64.encode(&Sha256::digest(inside))
}

/// `GET /`.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Asked for again each time: the page must fit the API of the node that serves it.
        (header::CACHE_CONTROL, "no-cache"),
        (header::LINK, "</.well-known/ard.json>; rel=\"ard\""),
    ];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        for (tag, count) in [("<script", 1), ("<style", 1), (" src=", 0), ("@import", 0), (" style=", 0)] {
            assert_eq!(PAGE.matches(tag).count(), count, "{tag}");
        }
        assert!(
            !PAGE.contains("innerHTML") && !PAGE.contains("https://"),
            "text only, nothing from elsewhere"
        );
    }

    #[tokio::test]
    async fn the_policy_names_hashes_and_allows_nothing_unnamed() {
        let response = page().await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"));
        assert!(!policy.contains(&BASE64.encode(&Sha256::digest(""))), "both elements were found");
    }
}
