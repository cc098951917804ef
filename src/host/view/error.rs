//! Errors: what, why and what to do.

use crate::agents::HostedAgent;
use crate::api::ApiError;
use crate::host::tasks::NotTaken;
use crate::net::client::Unanswered;
use crate::proto::code::Code;
use crate::proto::identity::AgentId;
use crate::proto::io::ZoneError;
use crate::proto::limits::CALL_TIME_MAX;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::query::{KnownOwner, OwnerError};
use crate::proto::record::Refusal;
use crate::proto::registration::WriteError;

/// Why a write was not made.
pub(in crate::host) fn write_error(error: &WriteError) -> ApiError {
    ApiError {
        code: error.code(),
        message: error.to_string(),
        fix: write_fix(error).into(),
        suggestions: Vec::new(),
    }
}

/// What to do about a write that was not made.
pub(in crate::host) fn write_fix(error: &WriteError) -> &'static str {
    match error {
        WriteError::NotFound(_) => "list what is registered with `aop agents`",
        WriteError::NotYours(..) => "run the command at its host, or with its owner's key",
        WriteError::ClockUnsafe(_) => "set the clock of this machine",
        WriteError::StampedAhead(_) => NEW_GRANT,
        WriteError::ZoneNotServed(_) => "`aop status` shows the zones that this node serves",
        WriteError::Superseded(_) | WriteError::BadGrant(_) | WriteError::GrantTooShort(_) => NEW_GRANT,
        WriteError::NameTaken(..) => "register it in another zone, or in place of the other with `--replace`",
        WriteError::OlderVersion { .. } => "go back to it with `--replace`",
        WriteError::QuotaExceeded => "deregister what is no longer used, then try again",
        WriteError::ZoneFull(_) => "`aop status` shows when the zone has room again",
        WriteError::Revoked(_) => NEW_GRANT,
        WriteError::Pending(_) => "wait until `aop status` shows a finished sync, then try again",
        WriteError::NotGranted(_) => {
            "whoever has the zone's key makes one with `aop keys grant --key FILE --to PEERID --zone ZONE`, PEERID as \
             `aop status` shows it here; name its file as `grant` in the agent's file"
        }
        WriteError::OpenZone(_) => "register it with the scope `public` or `node`",
        WriteError::StoreFailed(_) => {
            "free disk space or check the disk; `aop status` tells when it is well again"
        }
        WriteError::DuplicateIdentity => {
            "`aop keys new` makes a key; `aop status` names what is written twice"
        }
        WriteError::Refused(refusal) => match refusal {
            Refusal::TooLarge | Refusal::BadCard => {
                "shorten its description, its schemas or its lists of tags and capabilities"
            }
            Refusal::BadGrant | Refusal::BadLease | Refusal::BadGeneration | Refusal::BadAuthor => NEW_GRANT,
            Refusal::BadScope => "register it with the scope `public` or `node`",
            Refusal::Expired | Refusal::Future => "set the clock of this machine",
            Refusal::BadSlot => {
                "the slots that its grants give are taken: deregister what is no longer used, or ask for a grant of more \
                 (`aop keys grant --slots N`)"
            }
            Refusal::UnknownFormat
            | Refusal::Malformed
            | Refusal::ForeignNetwork
            | Refusal::ForeignZone
            | Refusal::BadRevocation
            | Refusal::BadDelegation
            | Refusal::BadSignature => "report it: a node does not write what it would refuse from others",
        },
    }
}

/// What a host needs that may no longer write for an owner.
const NEW_GRANT: &str = "ask the owner for a new grant (`aop keys grant`) and register the agent with it, or wait until its \
                         lease ends";

/// No such agent; names like it are suggested instead.
pub(in crate::host) fn not_found(text: &str, similar: &[FullName]) -> ApiError {
    let suggestions: Vec<String> = similar.iter().map(ToString::to_string).collect();
    let fix = match suggestions.first() {
        Some(first) => format!("did you mean {first}? Search with `aop find`"),
        None => "search with `aop find`".into(),
    };
    ApiError { code: Code::NotFound, message: format!("no agent `{text}` is known here"), fix, suggestions }
}

/// Nothing can be said yet.
pub(in crate::host) fn not_synced(text: &str) -> ApiError {
    ApiError {
        code: Code::Unavailable,
        message: format!("`{text}` is not held here, and no peer could be asked yet"),
        fix: "try again in a moment; `aop peers` shows the connections".into(),
        suggestions: Vec::new(),
    }
}

/// One name, and nothing says whose: some of the candidates by id.
pub(in crate::host) fn ambiguous(
    text: &str,
    candidates: &[AgentId],
    count: usize,
    known: Option<&KnownOwner>,
) -> ApiError {
    let ids: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let owners = if count == 1 { "one owner".into() } else { format!("{count} owners") };
    let message = match known {
        None => format!("`{text}` is registered by {owners}"),
        Some(known) => {
            format!("`{text}` means the agent of {} here, which is gone; {owners} took the name", known.owner)
        }
    };
    ApiError {
        code: Code::Ambiguous,
        message,
        fix: format!(
            "`aop show ID` says whose one is; use the id, or `aop owner trust NAME OWNER` for good: {}",
            ids.join(", ")
        ),
        suggestions: ids,
    }
}

/// Why the owner of a name was not changed.
pub(in crate::host) fn owner_error(error: &OwnerError) -> ApiError {
    let (code, fix) = match error {
        OwnerError::BadName(_) => (Code::BadName, "give a full name, `agent@zone`, or a bare name"),
        OwnerError::Unknown(_) => (Code::NotFound, "`aop owner list` shows the names whose owners are known"),
        OwnerError::StoreFailed(_) => {
            (Code::StoreFailed, "free disk space or check the disk; `aop status` tells when it is well again")
        }
        OwnerError::Full(_) => (Code::TooLarge, "forget one that is not needed with `aop owner forget NAME`"),
    };
    ApiError { code, message: error.to_string(), fix: fix.into(), suggestions: Vec::new() }
}

/// Why a zone was not joined or left.
pub(in crate::host) fn zone_error(error: &ZoneError) -> ApiError {
    let (code, fix) = match error {
        ZoneError::NotServed(_) => (Code::ZoneNotServed, "`aop zones` shows the zones that it takes part in"),
        ZoneError::OtherRole(_) => {
            (Code::Conflict, "`aop zones` shows in which; `aop zone leave ZONE` leaves it")
        }
        ZoneError::Home(_) => {
            (Code::Conflict, "put another zone first in its settings (`zones`, `--zone`) and start it again")
        }
    };
    ApiError { code, message: error.to_string(), fix: fix.into(), suggestions: Vec::new() }
}

/// More zones than are kept.
pub(in crate::host) fn too_many_zones(most: usize) -> ApiError {
    ApiError {
        code: Code::TooLarge,
        message: format!("{most} zones were joined while this node ran, and {most} are the most"),
        fix: "name zones in its settings (`zones`, `follow`), or leave one with `aop zone leave ZONE`".into(),
        suggestions: Vec::new(),
    }
}

/// There is no import of this registry.
pub(in crate::host) fn no_import(url: &str) -> ApiError {
    ApiError {
        code: Code::NotFound,
        message: format!("nothing is imported from {url}"),
        fix: "`aop import` lists the imports of the node".into(),
        suggestions: Vec::new(),
    }
}

/// An import keeps its zones.
pub(in crate::host) fn other_zones(url: &str, zones: &[ZoneName]) -> ApiError {
    let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
    ApiError {
        code: Code::Conflict,
        message: format!("{url} is imported into {} already", zones.join(", ")),
        fix: format!("leave the zones out; or `aop import {url} --remove`, and import it anew"),
        suggestions: Vec::new(),
    }
}

/// More imports than are kept.
pub(in crate::host) fn too_many_imports(most: usize) -> ApiError {
    ApiError {
        code: Code::TooLarge,
        message: format!("this node has {most} imports, and {most} are the most"),
        fix: "`aop import` lists them; take one away with `aop import URL --remove`".into(),
        suggestions: Vec::new(),
    }
}

/// The data folder takes no writes.
pub(in crate::host) fn import_unkept(error: &std::io::Error) -> ApiError {
    ApiError {
        code: Code::StoreFailed,
        message: format!("the import is not kept: the data folder takes no writes ({error})"),
        fix: "free disk space or check the disk, then give the same command again".into(),
        suggestions: Vec::new(),
    }
}

/// The data folder takes no writes, and what was asked for would not last.
pub(in crate::host) fn zone_unkept(what: &str, error: &std::io::Error) -> ApiError {
    ApiError {
        code: Code::StoreFailed,
        message: format!("{what}: the data folder takes no writes ({error})"),
        fix: "free disk space or check the disk, then give the same command again".into(),
        suggestions: Vec::new(),
    }
}

/// A file of this node says that there is this agent. Whoever may write here may read its place.
pub(in crate::host) fn of_file(name: &str, own: &HostedAgent) -> ApiError {
    let file = own.run_config.as_ref().and_then(|run_config| run_config.file.as_ref());
    let file = file.map_or_else(|| "a file of `agents`".into(), |file| file.display().to_string());
    ApiError {
        code: Code::Conflict,
        message: format!("{name} comes from {file}, which this node follows"),
        fix: "remove or change that file, and the agent follows at once".into(),
        suggestions: Vec::new(),
    }
}

/// A parameter that cannot be read.
pub(in crate::host) fn bad_request(message: String) -> ApiError {
    ApiError {
        code: Code::BadRequest,
        message,
        fix: "see /openapi.json for the parameters".into(),
        suggestions: Vec::new(),
    }
}

/// Nobody waits for a call that may take so long.
pub(in crate::host) fn too_long(what: String) -> ApiError {
    ApiError {
        code: Code::BadRequest,
        message: format!("{what}, and a call that is waited for has at most {} s", CALL_TIME_MAX.as_secs()),
        fix: "make it a task: `aop call --async`, or `?async=true`; or wait less long for it".into(),
        suggestions: Vec::new(),
    }
}

/// There is no task of this id.
pub(in crate::host) fn no_task(id: &str) -> ApiError {
    ApiError {
        code: Code::NotFound,
        message: format!("there is no task `{id}` here"),
        fix: "`aop task list` shows the tasks of this node; ended ones are kept for an hour".into(),
        suggestions: Vec::new(),
    }
}

/// This node runs no such agent.
pub(in crate::host) fn no_queue(text: &str) -> ApiError {
    ApiError {
        code: Code::NotFound,
        message: format!("this node runs no agent `{text}`, and only its own agents have queues here"),
        fix: "`aop queue show` lists them; those of another node are changed there: give it with --node"
            .into(),
        suggestions: Vec::new(),
    }
}

/// Several agents of this node have the name, in zones of their own.
pub(in crate::host) fn ambiguous_here(text: &str, names: &[&FullName]) -> ApiError {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    ApiError {
        code: Code::Ambiguous,
        message: format!("this node runs {} agents `{text}`", names.len()),
        fix: format!("name one in full: {}", names.join(", ")),
        suggestions: names,
    }
}

/// A task was not taken.
pub(in crate::host) fn not_taken(error: &NotTaken) -> ApiError {
    let (code, fix) = match error {
        NotTaken::Full(_) => {
            (Code::Busy, "wait until some have ended, or cancel some: `aop task list` shows them")
        }
        NotTaken::Unkept(_) => (Code::StoreFailed, "free disk space or check the disk of the data folder"),
    };
    ApiError { code, message: error.to_string(), fix: fix.into(), suggestions: Vec::new() }
}

/// The node took the question and gave no answer, or did not take it.
pub(in crate::host) fn unanswered(why: Unanswered) -> ApiError {
    match why {
        Unanswered::Stopped => stopped(),
        Unanswered::Busy(waiting) => ApiError {
            code: Code::Busy,
            message: format!("{waiting} requests wait for this node already; nothing was done"),
            fix: "try again in a moment, with fewer at once; or ask another node".into(),
            suggestions: Vec::new(),
        },
    }
}

/// The node answers no more.
pub(in crate::host) fn stopped() -> ApiError {
    ApiError {
        code: Code::Unavailable,
        message: "the node is stopping".into(),
        fix: "start it again with `aop node`".into(),
        suggestions: Vec::new(),
    }
}
