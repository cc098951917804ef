//! Tasks.

use crate::api;
use crate::proto::task::{Task, TaskStage};

/// A task with its answer, if it has ended.
pub(in crate::host) fn task(task: &Task) -> api::Task {
    let answer = match &task.row.stage {
        // Written by this program: what cannot be read was another version's.
        TaskStage::Ended { answer, .. } => serde_json::from_slice::<api::CallAnswer>(answer).ok(),
        TaskStage::NotSent | TaskStage::Sent { .. } => None,
    };
    let of_answer = answer.as_ref().and_then(|answer| answer.served_by.clone());
    api::Task { served_by: of_answer.or(task.host.map(|host| host.to_string())), answer, ..head(task) }
}

/// A page of tasks; there are more after it if it has `limit`.
pub(in crate::host) fn task_page(tasks: &[Task], limit: usize) -> api::TaskPage {
    let last = tasks.last().filter(|_| tasks.len() == limit).map(Task::place);
    api::TaskPage {
        tasks: tasks.iter().map(head).collect(),
        cursor: last.map(|(submitted, task)| format!("{submitted}-{task}")),
    }
}

fn head(task: &Task) -> api::Task {
    let ended = match task.row.stage {
        TaskStage::Ended { at, .. } => Some(at.as_millis()),
        TaskStage::NotSent | TaskStage::Sent { .. } => None,
    };
    api::Task {
        task_id: task.row.task.to_string(),
        agent: task.row.agent.clone(),
        status: task.status,
        conversation: task.row.context.conversation.as_ref().map(ToString::to_string),
        submitted_ms: task.row.submitted.as_millis(),
        deadline_ms: task.row.deadline.as_millis(),
        ended_ms: ended,
        ahead: task.ahead,
        served_by: task.host.map(|host| host.to_string()),
        message: task.message.clone(),
        answer: None,
    }
}
