//! Query strings: repeated parameters, clamped limits, and a suggestion where a parameter is misspelt.

use std::time::Duration;

use form_urlencoded::parse;

use super::failure::Failure;
use crate::api::{CallState, CallsQuery, FindQuery, HistoryQuery};
use crate::host::TASK_WAIT_MAX;
use crate::proto::call::Conversation;
use crate::proto::card::{Balance, Residency};
use crate::proto::code::Code;

/// Largest `limit`; more is clamped (the cursor leads on).
pub(super) const LIMIT_MAX: usize = 1000;
/// `limit` of a list of agents when none is given.
const PAGE_LIMIT: usize = 100;

/// A page of the list of agents.
#[derive(Debug, PartialEq)]
pub(super) struct PageQuery {
    /// Only this zone.
    pub(super) zone: Option<String>,
    /// 1 … [`LIMIT_MAX`].
    pub(super) limit: usize,
    /// Where an earlier page stopped.
    pub(super) cursor: Option<String>,
}

const FIND_PARAMETERS: [&str; 10] =
    ["q", "zone", "tag", "capability", "residency", "limit", "cursor", "local", "why", "max_age_ms"];

/// The parameters of `/v1/find`.
pub(super) fn find(raw: Option<&str>) -> Result<FindQuery, Failure> {
    let mut query = FindQuery::default();
    // By hand: `tag` may come several times, and a misspelt name must not be passed over.
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "q" => query.q = value.into_owned(),
            "zone" => query.zone = given(&value),
            "tag" => query.tag.push(value.into_owned()),
            "capability" => query.capability.push(value.into_owned()),
            // Empty is a mistake, and no search of everything.
            "residency" => query.residency = Some(value.into_owned()),
            "limit" => query.limit = Some(limit(&value)?),
            "cursor" => query.cursor = given(&value),
            "local" => query.local = switch("local", &value)?,
            "why" => query.why = switch("why", &value)?,
            "max_age_ms" => query.max_age_ms = Some(max_age_ms(&value)?),
            _ => return Err(unknown(&name, &FIND_PARAMETERS)),
        }
    }
    Ok(query)
}

/// The parameters of `/v1/history`.
pub(super) fn history(raw: Option<&str>) -> Result<HistoryQuery, Failure> {
    let mut query = HistoryQuery::default();
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            // What is no number is no step either.
            "step" => query.step = Some(value.parse().unwrap_or(0)),
            "of" => query.of = given(&value),
            _ => return Err(unknown(&name, &["step", "of"])),
        }
    }
    Ok(query)
}

/// The parameters of `/v1/calls`.
pub(super) fn calls(raw: Option<&str>) -> Result<CallsQuery, Failure> {
    let mut query = CallsQuery::default();
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "limit" => query.limit = Some(limit(&value)?),
            "agent" => query.agent = given(&value),
            "outcome" => query.outcome = Some(outcome(&value)?),
            _ => return Err(unknown(&name, &["limit", "agent", "outcome"])),
        }
    }
    Ok(query)
}

fn outcome(value: &str) -> Result<CallState, Failure> {
    CallState::ALL.iter().copied().find(|state| state.text() == value).ok_or_else(|| {
        let states: Vec<_> = CallState::ALL.iter().map(|state| state.text()).collect();
        Failure::new(
            Code::BadRequest,
            format!("no call stands as `{}`", value.escape_debug()),
            format!("outcome is one of {}", states.join(", ")),
        )
    })
}

/// The parameters of `/v1/agents`.
pub(super) fn page(raw: Option<&str>) -> Result<PageQuery, Failure> {
    let mut query = PageQuery { zone: None, limit: PAGE_LIMIT, cursor: None };
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "zone" => query.zone = given(&value),
            "limit" => query.limit = limit(&value)?,
            "cursor" => query.cursor = given(&value),
            _ => return Err(unknown(&name, &["zone", "limit", "cursor"])),
        }
    }
    Ok(query)
}

/// How documents are registered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RegisterQuery {
    /// Where, unless they say it.
    pub(super) zone: Option<String>,
    /// Whether they take the place of another agent or of a newer version, too.
    pub(super) replace: bool,
}

/// The parameters of a registration.
pub(super) fn register(raw: Option<&str>) -> Result<RegisterQuery, Failure> {
    let mut query = RegisterQuery::default();
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "zone" => query.zone = given(&value),
            "replace" => query.replace = switch("replace", &value)?,
            _ => return Err(unknown(&name, &["zone", "replace"])),
        }
    }
    Ok(query)
}

/// Whether a status has the version vectors.
pub(super) fn vector(raw: Option<&str>) -> Result<bool, Failure> {
    let mut vector = false;
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "vector" => vector = switch("vector", &value)?,
            _ => return Err(unknown(&name, &["vector"])),
        }
    }
    Ok(vector)
}

/// How a call is made.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CallQuery {
    /// Its bounds are the node's to judge.
    pub(super) timeout: Option<Duration>,
    /// Whether it becomes a task.
    pub(super) is_async: bool,
    /// The conversation that it is part of.
    pub(super) conversation: Option<Conversation>,
    /// Which of the calls that wait goes first.
    pub(super) priority: i8,
    /// In which order hosts are asked, if not as the agent says.
    pub(super) balance: Option<Balance>,
    /// What its hosts must say of where data stays.
    pub(super) residency: Option<Residency>,
}

/// Those of a batch hold for each of its calls.
const EACH_CALL_PARAMETERS: [&str; 5] = ["timeout", "conversation", "priority", "balance", "residency"];
const CALL_PARAMETERS: [&str; 6] = ["timeout", "async", "conversation", "priority", "balance", "residency"];

/// The parameters of a call.
pub(super) fn call(raw: Option<&str>) -> Result<CallQuery, Failure> {
    let mut query = CallQuery::default();
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "async" => query.is_async = switch("async", &value)?,
            _ => query.take(&name, &value, &CALL_PARAMETERS)?,
        }
    }
    Ok(query)
}

/// The parameters of a batch.
pub(super) fn batch(raw: Option<&str>) -> Result<CallQuery, Failure> {
    let mut query = CallQuery::default();
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        query.take(&name, &value, &EACH_CALL_PARAMETERS)?;
    }
    Ok(query)
}

impl CallQuery {
    fn take(&mut self, name: &str, value: &str, known: &[&str]) -> Result<(), Failure> {
        match name {
            "timeout" => self.timeout = Some(seconds("timeout", value)?),
            "conversation" => self.conversation = Some(conversation(value)?),
            "priority" => self.priority = priority(value)?,
            "balance" => self.balance = Some(balance(value)?),
            "residency" => self.residency = Some(residency(value)?),
            _ => return Err(unknown(name, known)),
        }
        Ok(())
    }
}

/// A page of the list of tasks.
pub(super) fn tasks(raw: Option<&str>) -> Result<PageQuery, Failure> {
    let mut query = PageQuery { zone: None, limit: PAGE_LIMIT, cursor: None };
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "limit" => query.limit = limit(&value)?,
            "cursor" => query.cursor = given(&value),
            _ => return Err(unknown(&name, &["limit", "cursor"])),
        }
    }
    Ok(query)
}

/// How long the end of a task is waited for.
pub(super) fn wait(raw: Option<&str>) -> Result<Option<Duration>, Failure> {
    let mut wait = None;
    for (name, value) in parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "wait" => wait = Some(seconds("wait", &value)?),
            _ => return Err(unknown(&name, &["wait"])),
        }
    }
    let most = TASK_WAIT_MAX.as_secs();
    match wait {
        Some(wait) if wait > TASK_WAIT_MAX => Err(Failure::new(
            Code::BadRequest,
            format!("`wait` is more than {most} s"),
            format!("wait={most}, and again while the task has not ended"),
        )),
        _ => Ok(wait),
    }
}

fn conversation(value: &str) -> Result<Conversation, Failure> {
    value.parse().map_err(|error| {
        Failure::new(Code::BadRequest, format!("`conversation`: {error}"), "conversation=session-7")
    })
}

fn priority(value: &str) -> Result<i8, Failure> {
    value.parse().map_err(|_| {
        let message = format!("`priority={value}` is not a whole number from -128 to 127");
        Failure::new(Code::BadRequest, message, "priority=10; the default is 0")
    })
}

fn balance(value: &str) -> Result<Balance, Failure> {
    value.parse().map_err(|_| {
        let known = Balance::ALL.map(Balance::text).join(", ");
        Failure::new(
            Code::BadRequest,
            format!("`balance={value}` is no order of hosts"),
            format!("one of {known}"),
        )
    })
}

fn residency(value: &str) -> Result<Residency, Failure> {
    value.parse().map_err(|error| {
        Failure::new(
            Code::BadRequest,
            format!("`residency={}`: {error}", value.escape_debug()),
            "residency=eu",
        )
    })
}

fn seconds(name: &str, value: &str) -> Result<Duration, Failure> {
    // `from_secs_f64` would panic on what is negative, infinite or too large.
    let seconds = value.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| {
        Failure::new(
            Code::BadRequest,
            format!("`{name}={value}` is not a number of seconds"),
            format!("{name}=30"),
        )
    })
}

fn given(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_string())
}

fn limit(value: &str) -> Result<usize, Failure> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // Digits that do not fit a number are more than the limit, too.
    match value.parse::<usize>() {
        Ok(0) => Err(bad_limit(value)),
        Ok(number) => Ok(number.min(LIMIT_MAX)),
        Err(_) if digits => Ok(LIMIT_MAX),
        Err(_) => Err(bad_limit(value)),
    }
}

fn max_age_ms(value: &str) -> Result<u64, Failure> {
    value.parse().map_err(|_| {
        Failure::new(
            Code::BadRequest,
            format!("`max_age_ms={value}` is not a number of milliseconds"),
            "max_age_ms=0, which asks others for what they know now",
        )
    })
}

fn bad_limit(value: &str) -> Failure {
    Failure::new(
        Code::BadRequest,
        format!("`limit={value}` is not a number from 1"),
        format!("1 … {LIMIT_MAX}"),
    )
}

fn switch(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        // The name alone says yes.
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Failure::new(
            Code::BadRequest,
            format!("`{name}={value}` is neither true nor false"),
            format!("{name}=true"),
        )),
    }
}

fn unknown(name: &str, known: &[&str]) -> Failure {
    let near =
        known.iter().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    // Lower than elsewhere: in a short name one wrong letter already costs much likeness.
    let fix = match near.filter(|near| strsim::jaro_winkler(name, near) > 0.7) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Failure::new(Code::BadRequest, format!("there is no parameter `{}`", name.escape_debug()), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_parameters_add_up() {
        let query = find(Some("q=a+b%21&tag=x&tag=y&capability=z&zone=acme.org&local=true&limit=7")).unwrap();
        assert_eq!(
            (query.q.as_str(), query.tag.as_slice()),
            ("a b!", &["x".to_string(), "y".to_string()][..])
        );
        assert_eq!((query.zone.as_deref(), query.limit, query.local), (Some("acme.org"), Some(7), true));
        assert_eq!(find(None).unwrap(), FindQuery::default());
    }

    #[test]
    fn an_age_is_a_number_of_milliseconds() {
        assert_eq!(find(Some("q=a")).unwrap().max_age_ms, None);
        assert_eq!(find(Some("max_age_ms=0")).unwrap().max_age_ms, Some(0));
        for bad in ["max_age_ms=", "max_age_ms=-1", "max_age_ms=soon"] {
            find(Some(bad)).unwrap_err();
        }
    }

    #[test]
    fn how_a_call_is_made_is_read_and_what_is_out_of_range_is_refused() {
        let query =
            call(Some("timeout=1.5&async=true&conversation=c-7&priority=-128&balance=latency&residency=EU"))
                .unwrap();
        let conversation = Some("c-7".parse().unwrap());
        let timeout = Some(Duration::from_millis(1_500));
        let balance = Some(Balance::Latency);
        let residency = Some("eu".parse().unwrap());
        let priority = -128;
        assert_eq!(query, CallQuery { timeout, is_async: true, conversation, priority, balance, residency });
        batch(Some("async=true")).unwrap_err();
        let numbers = ["priority=128", "priority=high", "timeout=x"];
        let texts =
            ["conversation=a+b", "conversation=", "async=maybe", "asnc=1", "balance=fastest", "balance="];
        for bad in numbers.into_iter().chain(texts) {
            call(Some(bad)).unwrap_err();
        }
        assert_eq!(wait(Some("wait=55")).unwrap(), Some(Duration::from_secs(55)));
        for bad in ["wait=55.1", "wait=-1", "wait=1e300", "wait=long", "limit=1"] {
            wait(Some(bad)).unwrap_err();
        }
    }

    #[test]
    fn a_limit_is_clamped_above_and_refused_below_one() {
        assert_eq!(find(Some("limit=5000")).unwrap().limit, Some(1000));
        assert_eq!(page(Some("limit=99999999999999999999999")).unwrap().limit, 1000);
        assert_eq!(page(None).unwrap().limit, 100);
        for bad in ["limit=0", "limit=", "limit=-1", "limit=ten"] {
            assert!(find(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_right_one() {
        let failure = format!("{:?}", find(Some("capabilty=x")).unwrap_err());
        assert!(failure.contains("did you mean `capability`?"), "{failure}");
    }
}
