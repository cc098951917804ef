// One run of the official JavaScript SDK of A2A as a client of agents.
//
// Takes its exchanges as JSON and prints one JSON line of findings for each. What the findings must be is decided by the
// test, which starts a copy of this script beside the installed packages.

import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { Message, TaskState } from '@a2a-js/sdk';
import { ClientFactory, ClientFactoryOptions } from '@a2a-js/sdk/client';

/** Milliseconds that all of a run may take; what waits longer is broken. */
const PATIENCE = 60_000;

const exchanges = JSON.parse(process.argv[2]);
const expired = setTimeout(() => {
  console.error('out of patience');
  process.exit(1);
}, PATIENCE);

const stateOf = (status) => TaskState[status.state].replace('TASK_STATE_', '').toLowerCase();
const textOf = (parts) =>
  parts.map(({ content }) => (content.$case === 'text' ? content.value : JSON.stringify(content.value))).join('');
const textOfAll = (artifacts) => artifacts.map(({ parts }) => textOf(parts)).join('');

/** What an agent says to one message, piece by piece. */
function listener(go) {
  const whole = new Map();
  const heard = { kinds: [], pieces: [], state: null, message: null };
  const hearArtifact = ({ artifactId, parts }, append) => {
    const text = textOf(parts);
    heard.pieces.push(text);
    whole.set(artifactId, append ? (whole.get(artifactId) ?? '') + text : text);
    // The agent waits for it with the rest: a stream that is kept back until its end never gets there.
    if (go && heard.pieces.length === 1) writeFileSync(go, '');
  };
  const hearStatus = (status) => {
    heard.state = stateOf(status);
    heard.message = textOf(status.message?.parts ?? []);
  };
  const hear = {
    task(task) {
      heard.task = task.id;
      task.artifacts.forEach((artifact) => hearArtifact(artifact, false));
      hearStatus(task.status);
    },
    artifactUpdate: ({ artifact, append }) => hearArtifact(artifact, append),
    statusUpdate: ({ status }) => hearStatus(status),
  };
  return {
    hear(kind, said) {
      heard.kinds.push(kind.replace('Update', ''));
      hear[kind](said);
    },
    told: () => ({ ...heard, text: [...whole.values()].join('') }),
  };
}

async function exchange(asked, heard) {
  const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, { preferredTransports: [asked.binding] });
  // It resolves the card against the address: without the slash it would ask one step higher.
  const client = await new ClientFactory(options).createFromUrl(`${asked.agent}/`);
  const part = asked.document ? { data: asked.document } : { text: asked.text };
  const message = Message.fromJSON({ messageId: randomUUID(), role: 'ROLE_USER', parts: [part] });
  if (asked.stream) {
    for await (const { payload } of client.sendMessageStream({ message })) heard.hear(payload.$case, payload.value);
  } else {
    heard.hear('task', await client.sendMessage({ message }));
  }
  const again = await client.getTask({ id: heard.told().task });
  return [stateOf(again.status), textOfAll(again.artifacts)];
}

for (const asked of exchanges) {
  const heard = listener(asked.go);
  const outcome = await exchange(asked, heard).then(
    (again) => ({ again }),
    (error) => ({ error: String(error) }),
  );
  console.log(JSON.stringify({ check: asked.check, ...heard.told(), ...outcome }));
}
clearTimeout(expired);
