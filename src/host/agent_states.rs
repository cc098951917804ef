//! Where the agents of this host are in their lives, told to watchers (paper eq. 7).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::broadcast;

use super::Handle;
use crate::agents::AgentState;
use crate::net::driver::Event;
use crate::proto::name::FullName;

/// How long a state lasts at least that is told, or an agent with one place would tell of each call.
const LASTING: Duration = Duration::from_secs(1);

/// Tells which agents are in another state than they were, until the node stops.
pub(super) async fn tell(handle: Handle, events: broadcast::Sender<Event>) {
    let mut known = BTreeMap::new();
    loop {
        tokio::select! {
            () = handle.local_agents().moved() => tokio::time::sleep(LASTING).await,
            () = handle.stopped() => return,
        }
        let states = handle.local_agents().states();
        for (name, state) in changes(&known, &states) {
            // Nobody may be watching.
            let _unheard = events.send(Event::AgentState(name.clone(), state));
        }
        known = states;
    }
}

/// One that was not there before takes calls as any other: that is told when it is offered.
fn changes<'a>(
    before: &'a BTreeMap<FullName, AgentState>,
    now: &'a BTreeMap<FullName, AgentState>,
) -> impl Iterator<Item = (&'a FullName, AgentState)> {
    let is_changed =
        |name: &FullName, state: AgentState| before.get(name).copied().unwrap_or(AgentState::Active) != state;
    now.iter().map(|(name, state)| (name, *state)).filter(move |(name, state)| is_changed(name, *state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_well_is_not_told_and_what_changes_is() {
        use AgentState::{Active, Busy, Error};
        let states = |states: &[(&str, AgentState)]| -> BTreeMap<FullName, AgentState> {
            states.iter().map(|(name, state)| (name.parse().unwrap(), *state)).collect()
        };
        let before = states(&[("a@.", Active), ("b@.", Error), ("c@.", Busy)]);
        let now = states(&[("a@.", Error), ("b@.", Active), ("c@.", Busy), ("d@.", Active), ("e@.", Busy)]);
        let told: Vec<(String, AgentState)> =
            changes(&before, &now).map(|(name, state)| (name.to_string(), state)).collect();
        let expected = [("a@.", Error), ("b@.", Active), ("e@.", Busy)];
        assert_eq!(told, expected.map(|(name, state)| (name.to_owned(), state)));
    }
}
