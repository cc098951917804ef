//! How the last hour or day went, in the words of the API.

use std::collections::BTreeMap;

use super::bad_request;
use crate::api::{self, ApiError};
use crate::host::monitor::Monitor;
use crate::telemetry::history::{AGENT_SERIES, SERIES, Step, Told, ZONE_SERIES};

/// What is kept of what is asked for.
pub(in crate::host) fn history(
    monitor: &Monitor,
    query: &api::HistoryQuery,
) -> Result<api::History, ApiError> {
    let nothing = |of: &str| bad_request(format!("of: nothing is kept of {}", of.escape_debug()));
    match (&query.of, query.step) {
        (Some(of), _) => {
            let zone = of.strip_prefix("zone:").map(|name| (monitor.zone(name), &ZONE_SERIES[..]));
            let agent = || of.strip_prefix("agent:").map(|name| (monitor.agent(name), &AGENT_SERIES[..]));
            let Some((told, names)) = zone.or_else(agent) else {
                return Err(bad_request("of: `zone:NAME` or `agent:NAME@ZONE`".into()));
            };
            Ok(shown(told.ok_or_else(|| nothing(of))?, names))
        }
        (None, None | Some(10)) => Ok(shown(monitor.read(Step::Fine), &SERIES)),
        (None, Some(120)) => Ok(shown(monitor.read(Step::Coarse), &SERIES)),
        (None, Some(_)) => Err(bad_request("step: 10 or 120 (seconds)".into())),
    }
}

fn shown(told: Told, names: &[&str]) -> api::History {
    let series: BTreeMap<String, Vec<Option<f32>>> =
        names.iter().zip(told.values).map(|(name, values)| ((*name).to_owned(), values)).collect();
    api::History { step_s: told.step.as_secs(), end_ms: told.end.0, series }
}
