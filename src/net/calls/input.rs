//! The caller's own look at an input: a document that is too large, or does not fit the schema of the card, never leaves
//! this node.
//!
//! The schema came from elsewhere: it is compiled and checked within the bounds of [`Schema`], on threads that may block,
//! a few at a time. One that cannot be used here is left to the host, which checks again.

use std::sync::LazyLock;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::AT_ONCE_BYTES;
use crate::agents::schema::{self, Schema};
use crate::document::json;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;
use crate::proto::limits::CALL_BYTES_MAX;

/// Schemas of others compiled at once; each may take a core for a second, and tens of megabytes.
const SCHEMAS_MAX: usize = 4;

static SCHEMAS: Semaphore = Semaphore::const_new(SCHEMAS_MAX);
/// The paper's schema, of the many agents that have no other.
static PAPER: LazyLock<Option<Schema>> =
    LazyLock::new(|| Schema::compile(&Value::Object((*schema::default_input()).clone())).ok());

/// The input as it travels, if it may.
pub(super) async fn prepare(schema: Option<String>, input: Value) -> Result<Vec<u8>, CallFailure> {
    let bytes = json::bytes(&input);
    // Before the schema, whose check takes the longer the more there is.
    if bytes.len() > CALL_BYTES_MAX {
        let message = format!("the input has {} bytes, more than {CALL_BYTES_MAX}", bytes.len());
        return Err(refused(Code::TooLarge, message));
    }
    let misfit = match schema {
        None if bytes.len() <= AT_ONCE_BYTES => misfit(None, &input),
        schema => {
            // No deadline here: that of the call stands around all of this.
            let permit = SCHEMAS.acquire().await;
            let checked = tokio::task::spawn_blocking(move || {
                // Held by the check itself: it goes on when whoever waits for it gave up.
                let _permit = permit;
                misfit(schema.as_deref(), &input)
            })
            .await;
            // A check that broke down says nothing against the input.
            checked.ok().flatten()
        }
    };
    match misfit {
        Some(why) => {
            Err(refused(Code::BadInput, format!("the input does not fit the agent's schema: {why}")))
        }
        None => Ok(bytes),
    }
}

fn misfit(schema: Option<&str>, input: &Value) -> Option<String> {
    let Some(text) = schema else { return PAPER.as_ref()?.check(input).err() };
    let schema = serde_json::from_str(text).ok()?;
    Schema::compile(&schema).ok()?.check(input).err()
}

fn refused(code: Code, message: String) -> CallFailure {
    CallFailure::new(code, Outcome::NotStarted, message)
}
