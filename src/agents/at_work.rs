//! The calls that agents of this host work on, so that a call which one of them makes meanwhile is known to be part of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::call::{CallContext, CallId};
use crate::proto::name::FullName;

/// Calls that are known: beyond it further ones are not, and a call in their course counts as the first of its own chain. More
/// than all hosts of agents work on.
const CALLS_MAX: usize = 16_384;

/// By their ids, whose they are and what they are part of. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct CallsAtWork(Arc<Mutex<BTreeMap<CallId, (FullName, CallContext)>>>);

/// A call that is known as long as there is this.
pub(super) struct AtWork {
    calls: CallsAtWork,
    call: Option<CallId>,
}

impl CallsAtWork {
    /// An agent begins to work on a call.
    pub(super) fn begin(&self, call: CallId, agent: &FullName, context: &CallContext) -> AtWork {
        let mut calls = self.lock();
        // The id is its caller's choice: a second call under one id takes nothing from the first.
        let is_new = calls.len() < CALLS_MAX && !calls.contains_key(&call);
        if is_new {
            calls.insert(call, (agent.clone(), context.clone()));
        }
        AtWork { calls: self.clone(), call: is_new.then_some(call) }
    }

    /// Who works on a call, and what that is part of.
    pub(super) fn find(&self, call: CallId) -> Option<(FullName, CallContext)> {
        self.lock().get(&call).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CallId, (FullName, CallContext)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.calls.lock().remove(&call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::AgentId;

    #[test]
    fn a_call_is_known_while_it_is_worked_on_and_no_other_takes_its_id() {
        let calls = CallsAtWork::default();
        let (one, other) = ("one@.".parse().unwrap(), "other@.".parse().unwrap());
        let context = CallContext::default().within(CallId([7; 16]), AgentId([3; 20]));
        let work = calls.begin(CallId([1; 16]), &one, &context);
        let second = calls.begin(CallId([1; 16]), &other, &CallContext::default());
        drop(second);
        assert_eq!(calls.find(CallId([1; 16])), Some((one, context)));
        drop(work);
        assert_eq!(calls.find(CallId([1; 16])), None);
    }
}
