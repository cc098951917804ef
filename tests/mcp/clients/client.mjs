// One run of the official TypeScript client, of its 2.x (`@modelcontextprotocol/client`) or its 1.x line
// (`@modelcontextprotocol/sdk`), against a node.
//
// Takes the line and its plan as JSON, and prints one JSON line of findings per check. What the findings must be is
// decided by the test, which starts a copy of this script beside the installed packages.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/** Milliseconds that all of a run may take; what waits longer is broken. */
const PATIENCE = 60_000;
/** Milliseconds between two looks at a file that another process writes. */
const TICK = 20;

const [line, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);

const tell = (check, findings = {}) => console.log(JSON.stringify({ check, ...findings }));

/** A box for notifications: `next` waits for one that came since. */
function box() {
  let waiting = [];
  let full = 0;
  return {
    put: () => (waiting.length ? waiting.shift()() : (full += 1)),
    next: () => (full ? Promise.resolve((full -= 1)) : new Promise((take) => waiting.push(take))),
  };
}

async function modern() {
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const client = new Client(
    { name: 'aop-test', version: '1' },
    { versionNegotiation: { mode: plan.era } },
  );
  return { client, StreamableHTTPClientTransport, StdioClientTransport, changed: 'notifications/tools/list_changed' };
}

async function handshake() {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { StdioClientTransport } = await import('@modelcontextprotocol/sdk/client/stdio.js');
  const { ToolListChangedNotificationSchema: changed } = await import('@modelcontextprotocol/sdk/types.js');
  return { client: new Client({ name: 'aop-test', version: '1' }), StreamableHTTPClientTransport, StdioClientTransport, changed };
}

const { client, StreamableHTTPClientTransport, StdioClientTransport, changed } = await (line === '2' ? modern() : handshake());
const notified = box();
client.setNotificationHandler(changed, () => void notified.put());
const transport = plan.command
  ? new StdioClientTransport({ command: plan.command[0], args: plan.command.slice(1) })
  : new StreamableHTTPClientTransport(new URL(plan.url));
const expired = setTimeout(() => {
  console.error('out of patience');
  process.exit(1);
}, PATIENCE);

/** The second line follows the pages by itself, the first does not. */
async function allTools() {
  const names = [];
  let pages = 0;
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor }, { cacheMode: 'bypass' });
    names.push(...page.tools.map((tool) => tool.name));
    pages += 1;
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return { names, pages };
}

async function call(tool, args, options) {
  const result = await client.callTool({ name: tool, arguments: args }, ...(line === '2' ? [options] : [undefined, options]));
  const text = result.content.map((block) => block.text ?? '').join('');
  return { error: result.isError === true, structured: result.structuredContent ?? null, text };
}

async function cancel({ tool, arguments: args, started }) {
  const stop = new AbortController();
  const running = call(tool, args, { signal: stop.signal }).then(
    (answer) => ({ answer }),
    (error) => ({ error }),
  );
  while (!existsSync(started)) {
    const early = await Promise.race([running, pause(TICK)]);
    if (early) throw new Error(`the call ended before its work started: ${JSON.stringify(early)} ${early.error}`);
  }
  stop.abort('the test cancels');
  const ended = (await running).error !== undefined;
  // While the client is still there: its leaving would end the work as well.
  return { ended, gone: await isGone(Number(readFileSync(started, 'utf8'))) };
}

async function isGone(pid) {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
    await pause(TICK);
  }
}

async function addAgent({ path, text, tool }) {
  const modernEra = line === '2' && client.getProtocolEra() === 'modern';
  const subscription = modernEra ? await client.listen({ toolsListChanged: true }) : undefined;
  writeFileSync(path, text);
  let events = 0;
  let seen = [];
  while (!seen.includes(tool)) {
    await notified.next();
    events += 1;
    seen = (await allTools()).names;
  }
  await subscription?.close();
  return { events };
}

await client.connect(transport);
const version = line === '2' ? client.getNegotiatedProtocolVersion() : transport.protocolVersion;
tell('connect', { version: version ?? null, server: client.getServerVersion()?.name });
tell('list', await allTools());
for (const { check, tool, arguments: args } of plan.calls) tell(check, await call(tool, args));
try {
  await call('no_such_tool', {});
  tell('unknown', { code: null });
} catch (error) {
  tell('unknown', { code: error.code ?? null, message: String(error) });
}
const reports = [];
const onprogress = ({ progress, total }) => reports.push([progress, total]);
const slow = await call(plan.slow.tool, plan.slow.arguments, { onprogress });
tell('progress', { reports, ...slow });
tell('cancel', await cancel(plan.lingering));
const { resources } = await client.listResources();
const contents = resources.length ? (await client.readResource({ uri: resources[0].uri })).contents : [];
tell('resources', { uris: resources.map((resource) => resource.uri), contents });
tell('changed', await addAgent(plan.added));
await client.close();
tell('end');
clearTimeout(expired);
