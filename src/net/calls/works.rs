//! Work of calls that this node takes. It goes on for a while when its stream is lost, so it is no part of the task that
//! serves the stream: that one passes on what the work tells, and sends its output.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::read_json;
use crate::agents::{Agents, Invocation, Place};
use crate::document::json;
use crate::proto::call::{CallFailure, InboundStream, Outcome, Report};
use crate::proto::code::Code;

/// What is at work, and outputs that were not taken yet, by the streams on which the calls were accepted. As much as the machine
/// of calls keeps. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Works(Arc<Mutex<BTreeMap<InboundStream, Work>>>);

#[derive(Default)]
struct Work {
    task: Option<AbortHandle>,
    /// While no stream passes it on.
    told: Option<mpsc::Receiver<Report>>,
    output: Arc<Vec<u8>>,
}

/// What a work tells, until that is dropped: then the next stream may pass it on.
pub(super) struct Told {
    works: Works,
    work: InboundStream,
    reports: Option<mpsc::Receiver<Report>>,
}

impl Works {
    /// A work begins that tells this.
    pub(super) fn begin(&self, work: InboundStream, told: mpsc::Receiver<Report>) {
        self.lock().insert(work, Work { told: Some(told), ..Work::default() });
    }

    /// The task that does it, for the case that it is to be stopped.
    pub(super) fn set_task(&self, work: InboundStream, task: AbortHandle) {
        match self.lock().get_mut(&work) {
            Some(work) => work.task = Some(task),
            // Stopped in between.
            None => task.abort(),
        }
    }

    /// What it came to; dropped if nobody asks for it any more.
    pub(super) fn end(&self, work: InboundStream, output: Vec<u8>) {
        if let Some(work) = self.lock().get_mut(&work) {
            work.output = Arc::new(output);
        }
    }

    pub(super) fn output(&self, work: InboundStream) -> Arc<Vec<u8>> {
        self.lock().get(&work).map(|work| work.output.clone()).unwrap_or_default()
    }

    /// What it tells, if no other stream passes that on.
    pub(super) fn told(&self, work: InboundStream) -> Option<Told> {
        let reports = self.lock().get_mut(&work)?.told.take()?;
        Some(Told { works: self.clone(), work, reports: Some(reports) })
    }

    /// It is ended, or forgotten.
    pub(super) fn stop(&self, work: InboundStream) {
        if let Some(Work { task: Some(task), .. }) = self.lock().remove(&work) {
            task.abort();
        }
    }

    /// All of it is ended.
    pub(super) fn stop_all(&self) {
        let works = std::mem::take(&mut *self.lock());
        works.into_values().filter_map(|work| work.task).for_each(|task| task.abort());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InboundStream, Work>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// The next report; waits for ever once there will be none.
    pub(super) async fn next(&mut self) -> Report {
        match &mut self.reports {
            Some(reports) => match reports.recv().await {
                Some(report) => report,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// What waits to be passed on.
    pub(super) fn try_next(&mut self) -> Option<Report> {
        self.reports.as_mut()?.try_recv().ok()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let reports = self.reports.take();
        if let Some(work) = self.works.lock().get_mut(&self.work) {
            work.told = reports;
        }
    }
}

/// Runs the agent on the input that has come.
pub(super) async fn run(
    agents: &Agents,
    place: Place,
    input: Vec<u8>,
    invocation: Invocation,
) -> Result<Vec<u8>, CallFailure> {
    let Some(input) = read_json(input).await else {
        // The machine counts the call as begun, yet the agent never saw anything of it.
        return Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, "the input is not JSON"));
    };
    Ok(json::bytes(&agents.call_placed(place, Invocation { input, ..invocation }).await?))
}
