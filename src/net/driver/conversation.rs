//! A conversation with a peer, beside the driver: it waits for answers, which the driver never does.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use crate::net::streams::RequestClient;
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Protocol};
use crate::telemetry::metrics::Metrics;

/// One comparison in a hundred is part of a trace: they come all the time, and mostly find nothing.
pub(super) fn is_traced(protocol: Protocol, conversation: ConversationId) -> bool {
    protocol == Protocol::Sync && conversation.0.is_multiple_of(100)
}

/// One conversation with a peer: questions go out in order, answers come back in order, `None` says that it broke. What it
/// carries is counted if that is asked for.
pub(super) async fn converse(
    client: RequestClient,
    peer: PeerKey,
    conversation: ConversationId,
    mut questions: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<(ConversationId, Option<Vec<u8>>)>,
    counted: Option<Arc<Metrics>>,
) {
    // A driver that is gone needs no answer.
    let stream = match client.open(peer).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%peer, %error, "stream not opened");
            let _gone = answers.send((conversation, None)).await;
            return;
        }
    };
    let count = |direction, frame: &[u8]| {
        if let Some(metrics) = &counted {
            metrics.exchanged(direction, frame.len());
        }
    };
    let mut waiting = FuturesOrdered::new();
    loop {
        let answer = tokio::select! {
            // A full pipeline leaves questions in their queue, which the node keeps short.
            question = questions.recv(), if waiting.len() < stream.pipeline_max() => match question {
                Some(question) => {
                    count("out", &question);
                    waiting.push_back(stream.request(question));
                    continue;
                }
                // The node ended the conversation, so answers that are still to come are for nobody.
                None => return,
            },
            // With nothing under way this yields `None`, and the branch is off until a question went out.
            Some(answer) = waiting.next() => answer,
        };
        if let Ok(answer) = &answer {
            count("in", answer);
        }
        // What is still under way is lost with the stream, and one failure tells the node so.
        let broke = answer.is_err();
        if let Err(error) = &answer {
            tracing::debug!(%peer, %error, "stream broke");
        }
        if answers.send((conversation, answer.ok())).await.is_err() || broke {
            return;
        }
    }
}
