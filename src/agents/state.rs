//! The life of an agent on its host (paper 6.1): states, events and the transition function as one table.

/// Paper eq. 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentState {
    /// Read from its file.
    Init,
    /// Offered to the world.
    Registered,
    /// Takes calls.
    Active,
    /// Takes calls, but all its places are taken: a call waits.
    Busy,
    /// Its last call failed. It takes calls.
    Error,
    /// Removed; what runs comes to its end.
    Terminated,
}

/// What happens to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentEvent {
    /// It becomes known to the world.
    Registration,
    /// It may be called.
    Start,
    /// An invocation took the last place.
    Full,
    /// A place is free again.
    Vacant,
    /// A call completed.
    Completion,
    /// A call failed through the agent.
    Failure,
    /// Its file is gone, or says something else.
    Removal,
}

impl AgentState {
    /// As metrics name it.
    pub fn text(self) -> &'static str {
        match self {
            AgentState::Init => "init",
            AgentState::Registered => "registered",
            AgentState::Active => "active",
            AgentState::Busy => "busy",
            AgentState::Error => "error",
            AgentState::Terminated => "terminated",
        }
    }

    /// Paper eq. 8: the state after `event`. What is not in the table changes nothing.
    pub(super) fn after(self, event: AgentEvent) -> AgentState {
        use AgentEvent::{Completion, Failure, Full, Registration, Removal, Start, Vacant};
        use AgentState::{Active, Busy, Error, Init, Registered, Terminated};
        match (self, event) {
            (Init, Registration) => Registered,
            (Registered, Start) => Active,
            (Active, Full) => Busy,
            (Busy, Vacant) => Active,
            (Active | Busy, Failure) => Error,
            (Error, Completion) => Active,
            (_, Removal) => Terminated,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AgentEvent::*;
    use super::AgentState::*;
    use super::*;

    #[test]
    fn the_table_of_the_paper_holds() {
        let events = [Registration, Start, Full, Vacant, Completion, Failure, Removal];
        let table = [
            (Init, [Registered, Init, Init, Init, Init, Init, Terminated]),
            (Registered, [Registered, Active, Registered, Registered, Registered, Registered, Terminated]),
            (Active, [Active, Active, Busy, Active, Active, Error, Terminated]),
            (Busy, [Busy, Busy, Busy, Active, Busy, Error, Terminated]),
            (Error, [Error, Error, Error, Error, Active, Error, Terminated]),
            (Terminated, [Terminated; 7]),
        ];
        for (state, row) in table {
            let after = events.map(|event| state.after(event));
            assert_eq!(after, row, "{state:?}");
        }
    }

    #[test]
    fn an_agent_lives_from_its_file_to_its_end() {
        let life = [Registration, Start, Full, Vacant, Failure, Full, Completion, Removal, Completion];
        let states: Vec<AgentState> = life
            .iter()
            .scan(Init, |state, event| {
                *state = state.after(*event);
                Some(*state)
            })
            .collect();
        let expected = [Registered, Active, Busy, Active, Error, Error, Active, Terminated, Terminated];
        assert_eq!(states, expected);
    }
}
