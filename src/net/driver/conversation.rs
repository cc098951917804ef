//! A conversation with a peer, beside the driver: it waits for answers, which the driver never does.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tracing::Span;

use crate::net::streams::RequestClient;
use crate::net::verifier::Verifier;
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Protocol};
use crate::proto::record::SignedRecord;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;

/// The bytes of an answer, and the records in it where they were judged.
pub(super) type Answer = (Vec<u8>, Vec<SignedRecord>);

/// One comparison in a hundred is part of a trace: they come all the time, and mostly find nothing.
pub(super) fn is_traced(protocol: Protocol, conversation: ConversationId) -> bool {
    protocol == Protocol::Sync && conversation.0.is_multiple_of(100)
}

/// What a conversation carried; the span that it is led in is told at its end.
#[derive(Default)]
struct Exchanged {
    questions: u64,
    sent: u64,
    received: u64,
}

impl Exchanged {
    fn asked(&mut self, question: &[u8], counted: Option<&Metrics>) {
        self.questions += 1;
        self.sent += question.len() as u64;
        counted.into_iter().for_each(|metrics| metrics.exchanged("out", question.len()));
    }

    fn answered(&mut self, answer: &[u8], counted: Option<&Metrics>) {
        self.received += answer.len() as u64;
        counted.into_iter().for_each(|metrics| metrics.exchanged("in", answer.len()));
    }
}

impl Drop for Exchanged {
    fn drop(&mut self) {
        names::synced(&Span::current(), self.questions, self.sent, self.received);
    }
}

/// One conversation with a peer: questions go out in order, answers come back in order, `None` says that it broke. Records of
/// answers are judged by `verifier` on the way; what is carried is counted if that is asked for.
pub(super) async fn converse(
    client: RequestClient,
    peer: PeerKey,
    conversation: ConversationId,
    mut questions: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<(ConversationId, Option<Answer>)>,
    verifier: Option<Verifier>,
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
    let mut exchanged = Exchanged::default();
    let mut waiting = FuturesOrdered::new();
    loop {
        let answer = tokio::select! {
            // A full pipeline leaves questions in their queue, which the node keeps short.
            question = questions.recv(), if waiting.len() < stream.pipeline_max() => match question {
                Some(question) => {
                    exchanged.asked(&question, counted.as_deref());
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
            exchanged.answered(answer, counted.as_deref());
        }
        // What is still under way is lost with the stream, and one failure tells the node so.
        let broke = answer.is_err();
        if let Err(error) = &answer {
            tracing::debug!(%peer, %error, "stream broke");
        }
        let answer = match (answer, &verifier) {
            (Ok(answer), Some(verifier)) => Some(verifier.judge_answer(peer, answer).await),
            (Ok(answer), None) => Some((answer, Vec::new())),
            (Err(_), _) => None,
        };
        if answers.send((conversation, answer)).await.is_err() || broke {
            return;
        }
    }
}
