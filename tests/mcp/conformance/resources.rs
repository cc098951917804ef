//! Resources of the suite: a text, bytes, a template, and one that can be watched.

use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::tools::PNG;

/// May be subscribed to.
pub(crate) const WATCHED: &str = "test://watched-resource";
const TEXT: &str = "test://static-text";
const BYTES: &str = "test://static-binary";

pub(crate) fn list() -> Vec<Resource> {
    [(TEXT, "text/plain"), (BYTES, "image/png"), (WATCHED, "text/plain")]
        .map(|(uri, kind)| {
            Resource::new(uri, uri)
                .with_description("A fixture of the conformance suite.")
                .with_mime_type(kind)
        })
        .into()
}

pub(crate) fn templates() -> Vec<ResourceTemplate> {
    let template = ResourceTemplate::new("test://template/{id}/data", "template");
    vec![template.with_description("A fixture of the conformance suite.").with_mime_type("application/json")]
}

/// None if it is not of the suite.
pub(crate) fn read(uri: &str) -> Option<ReadResourceResult> {
    let contents = match uri {
        TEXT => ResourceContents::text("This is the content of the static text resource.", uri),
        BYTES => ResourceContents::blob(PNG, uri).with_mime_type("image/png"),
        WATCHED => ResourceContents::text("This resource can be watched.", uri),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            ResourceContents::text(data.to_string(), uri).with_mime_type("application/json")
        }
    };
    Some(ReadResourceResult::new(vec![contents]))
}
