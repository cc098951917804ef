//! Limits of the protocol, all in one place: two nodes with different ones would keep different records, or hang up on each
//! other. What a node may choose for itself is in [`super::config`].

use std::time::Duration;

use super::address_block::Share;

/// Largest signed record, bytes on the wire. Published server.json documents reach 39 KB.
pub const RECORD_BYTES_MAX: usize = 48 * 1024;
/// Longest description, bytes of UTF-8.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
/// Longest text of the words of skills, bytes of UTF-8. All words of nine skills of a published card take 1.4 KiB.
pub const SKILLS_BYTES_MAX: usize = 4 * 1024;
/// Largest input or output schema, bytes of JSON text.
pub const SCHEMA_BYTES_MAX: usize = 16 * 1024;
/// Most tags, and most capabilities, of one card.
pub const LABELS_MAX: usize = 64;
/// Longest title or original name, and longest of the other short texts of a document, bytes of UTF-8. server.json allows names
/// of 200 and versions of 255 characters.
pub const SHORT_TEXT_BYTES_MAX: usize = 1024;
/// Longest tag or capability, bytes of UTF-8.
pub const LABEL_TEXT_BYTES_MAX: usize = 128;
/// Most endpoints of one card.
pub const ENDPOINTS_MAX: usize = 64;
/// Deepest nesting of CBOR that is decoded.
pub const CBOR_DEPTH_MAX: usize = 16;
/// Longest chain of grants.
pub const GRANTS_MAX: usize = 6;
/// Longest network name, bytes.
pub const NETWORK_BYTES_MAX: usize = 63;
/// Slots of a shelf, numbered from 0: what one host may keep in a zone for one owner.
pub const SLOTS: u16 = 20_000;
/// Where a host begins that does not know what stands on its shelf: nothing that it kept below is displaced.
pub const SLOTS_UNKNOWN_FROM: u16 = 10_000;
/// What the public records of one zone may weigh; beyond it those that come first in the order of slots stay. One number
/// for a network: with different ones registries never become equal.
pub const ZONE_WEIGHT_MAX: usize = 256 * 1024 * 1024;
/// What a record weighs beside its bytes: its entries in the tables of whoever holds it.
pub const RECORD_WEIGHT: usize = 768;
/// The same of a tombstone, which is in no index, and must weigh less than the card it replaces.
pub const TOMBSTONE_WEIGHT: usize = 512;
/// What a byte of the texts by which a card is found weighs more: a word that no other card has is hardly shorter than five
/// bytes with what cuts it off, and takes some 40 of an index.
pub const SEARCHED_BYTE_WEIGHT: usize = 6;
/// What a tag or capability weighs more: it is a filter and words, so it stands in two places.
pub const LABEL_WEIGHT: usize = 32;
/// Largest tombstone, bytes on the wire: six grants fit.
pub const TOMBSTONE_BYTES_MAX: usize = 2 * 1024;
/// Largest revocation, bytes on the wire: the owner signs it, so it travels without grants.
pub const REVOCATION_BYTES_MAX: usize = 1024;
/// Authors whose versions are tracked in a zone.
pub const AUTHORS_MAX: usize = 65_536;
/// Ranges kept beyond the gap-free prefix of one author.
pub const VERSION_RANGES_MAX: usize = 64;

/// Longest life of a card, from its stamp.
pub const CARD_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How long an expired record stays before it is dropped; it is hidden at once.
pub const EXPIRED_KEPT: Duration = Duration::from_secs(300);
/// Life of a tombstone, exactly: whatever it buries has expired before it does.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(7 * 86_400 + 300);
/// Life of a tombstone that raises the generation, and of a revocation, exactly: a grant may live 90 days, and a card 7.
pub const TOMBSTONE_LIFE_LONG: Duration = Duration::from_secs(97 * 86_400 + 300);
/// Longest life of a delegation: a zone that nobody serves any more is named for so long.
pub const DELEGATION_LIFE: Duration = Duration::from_secs(3_600);
/// Life of the tombstone of a delegation, exactly. With that of other kinds the zones that come and go below a large one would
/// fill it with what buries them.
pub const DELEGATION_TOMBSTONE_LIFE: Duration = Duration::from_secs(3_600 + 300);
/// Addresses of a gateway in its delegation.
pub const DELEGATION_ADDRESSES_MAX: usize = 4;
/// Longest of them, bytes: an IPv6 address with port and transport takes 26, and a name of 60 letters fits.
pub const DELEGATION_ADDRESS_BYTES_MAX: usize = 72;
/// Largest question to another zone, bytes.
pub const QUESTION_BYTES_MAX: usize = 4 * 1024;
/// Largest answer, bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Addresses of a node that somebody names.
pub const CONTACT_ADDRESSES_MAX: usize = DELEGATION_ADDRESSES_MAX;
/// Longest text of a search that is asked elsewhere, bytes; as much as counts.
pub const ASKED_TEXT_BYTES_MAX: usize = 1024;
/// Tags, and capabilities, of a search that is asked elsewhere.
pub const ASKED_LABELS_MAX: usize = 16;
/// Names of one question: a bare name stands for one in each zone from the home zone up to the root.
pub const ASKED_NAMES_MAX: usize = 9;
/// Hosts of agents that an answer says how to dial.
pub const ANSWER_HOSTS_MAX: usize = 16;
/// Bytes of records in an answer.
pub const ANSWER_RECORDS_BYTES_MAX: usize = 128 * 1024;
/// Records in an answer: more than hosts of as many agents as a page may have take room for.
pub const ANSWER_RECORDS_MAX: usize = 2_048;
/// Zones that an answer names because they are not fine; beyond it they are counted.
pub const COVER_NAMED_MAX: usize = 64;
/// Delegations that an answer brings to prove the keys of its zones; of more zones its records are on the next page.
pub const PROOFS_MAX: usize = 64;
/// Zones of a tree that an answer describes.
pub const TREE_ZONES_MAX: usize = 512;
/// Zones that an answer leaves to whoever asks.
pub const REFERRALS_MAX: usize = 32;
/// Messages of one client's question to zones that it was referred to.
pub const REFERRED_ASKS_MAX: usize = 32;
/// How old what was answered to somebody else may be by default: with it nothing is answered that is older than a round of
/// comparisons and a moment.
pub const ANSWER_AGE: Duration = Duration::from_secs(25);
/// How long a local client waits for what other nodes are asked.
pub const ASK_TIME: Duration = Duration::from_secs(2);
/// The longest time that a question may leave whoever is asked.
pub const ASK_TIME_MAX: Duration = Duration::from_secs(10);
/// Questions under way at once, own ones and those of peers.
pub const QUESTIONS_MAX: usize = 1_024;
/// Gateways that an answer names.
pub const WAY_GATEWAYS_MAX: usize = 3;
/// Delegations on the way to a zone in one answer: the newest of each of the zones between.
pub const WAY_RECORDS_MAX: usize = 32;
/// Delegations of what lies below the zone that is looked for, in one answer.
pub const WAY_BELOW_MAX: usize = 64;
/// Slots that a grant of a zone's key gives where it names no number.
pub const GRANT_SLOTS: u16 = 64;
/// Longest life of a grant.
pub const GRANT_LIFE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// How far ahead of the local clock a stamp may be.
pub const STAMP_AHEAD_MAX: Duration = Duration::from_secs(60);

/// Largest batch an author puts into one gossip message, bytes of records.
pub const BATCH_BYTES_MAX: usize = 48 * 1024;
/// Largest gossip message, bytes: one record of full size, or a batch, and its frame.
pub const GOSSIP_BYTES_MAX: usize = 56 * 1024;
/// Longest name of a node for people, bytes.
pub const NODE_NAME_BYTES_MAX: usize = 63;
/// Largest beacon, bytes.
pub const BEACON_BYTES_MAX: usize = 2 * 1024;
/// Largest frame of a sync stream, bytes.
pub const SYNC_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Most records in one message of any kind: their signatures take the receiver some 5 ms, in which it does nothing else.
pub const MESSAGE_RECORDS_MAX: usize = 64;
/// Requests of one sync that may wait for their answers at once: with small records an answer is full long before
/// [`SYNC_ANSWER_BYTES`], and a link of 100 ms is to be kept busy all the same.
pub const SYNC_WINDOW: usize = 8;
/// Requests one sync may make; a registry of full size with no record in common needs fewer.
pub const SYNC_ASKS_MAX: usize = 20_000;
/// Records that one answer of a sync looks at, and hashes for its tree: some milliseconds, however keys were chosen. What is
/// left waits for the next request.
pub const SYNC_LOOKED_MAX: usize = 4_096;
/// Answers of one sync that may bring nothing but the place where to go on: whole stretches of keys may have ended. More than
/// all records of a zone of full size lie in so many.
pub const SYNC_EMPTY_PAGES_MAX: usize = 256;
/// Records that a peer may list and then not have: some end or are replaced between the two.
pub const SYNC_UNDELIVERED_MAX: usize = 1_024;
/// Most records that a zone can hold, for none weighs less.
pub const ZONE_RECORDS_MAX: usize = ZONE_WEIGHT_MAX / TOMBSTONE_WEIGHT;
/// The longest wait that a sync sits out when a peer says that it is busy; for a longer one it ends and begins anew later.
pub const SYNC_BUSY_MAX: Duration = Duration::from_secs(5);
/// Members of a zone whose beacons are remembered; those not heard longest go first.
pub const MEMBERS_MAX: usize = 65_536;
/// Longest interval that a member may announce between its beacons, before jitter: three missed ones are gone within four
/// minutes, in a zone of any size. Where members then send more than a node wants to hear, receivers drop.
pub const BEACON_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// What the jitter of 20 % makes of an interval at most; members announce it, so that nobody counts a slow one as missed.
pub const BEACON_JITTER_MAX: f64 = 1.2;
/// Beacons of one author are at least this far apart in the long run: half of the shortest honest interval.
pub const BEACON_SPACING: Duration = Duration::from_secs(10);
/// Beacons of one author that may come at once: at a start, to its first peer, a goodbye, and again after a restart.
pub const BEACONS_AT_ONCE: u32 = 4;
/// The same for all strangers of a zone together, who have neither a live record nor a connection: two a second, and as many
/// at once as come in ten seconds.
pub const STRANGER_SPACING: Duration = Duration::from_millis(500);
/// See there.
pub const STRANGERS_AT_ONCE: u32 = 20;
/// Strangers whose beacons are remembered: more than two a second within the three longest intervals that one may miss.
pub const STRANGERS_MAX: usize = 512;
/// Peers waiting for a sync.
pub const CATCH_UP_MAX: usize = 64;
/// Bytes of records a responder puts into one sync answer before it asks the caller to come again.
pub const SYNC_ANSWER_BYTES: usize = 128 * 1024;
/// Names whose owner is remembered: more than the agents that one host calls by name, at some 200 bytes each. Beyond it those
/// that were only called make room, the one not called longest first, and the operator's do not.
pub const OWNERS_MAX: usize = 4_096;

/// Largest input and largest output of a call, bytes of JSON: an image inline fits, and a hundred calls fit in memory.
pub const CALL_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Largest frame of a call but for its two documents: a full name, or a message of [`CALL_MESSAGE_BYTES_MAX`].
pub const CALL_FRAME_BYTES_MAX: usize = 8 * 1024;
/// Longest message of a failure or of a report of progress that travels, bytes of UTF-8; longer ones are cut.
pub const CALL_MESSAGE_BYTES_MAX: usize = 2 * 1024;
/// Calls that lead to one another, each made by the agent of the one before.
pub const CALL_CHAIN_MAX: usize = 8;
/// Longest word for where data stays that can be demanded, bytes.
pub const RESIDENCY_BYTES_MAX: usize = 64;
/// Such words that one call demands, with those in whose course it is made. A card says one, so two are met by nobody already.
pub const RESIDENCIES_MAX: usize = 2;
/// Longest name of a conversation, bytes.
pub const CONVERSATION_BYTES_MAX: usize = 64;
/// Largest piece of output that is told before the work ends, bytes.
pub const CALL_PARTIAL_BYTES_MAX: usize = 4 * 1024;
/// Hosts to which one call is offered at once: a second while it waits at the first.
pub const CALL_OFFERS_AT_ONCE: usize = 2;
/// How long what a host said of its load counts.
pub const CALL_WORD_KEPT: Duration = Duration::from_secs(60);
/// Failed runs in a row, of whatever caller, after which an agent pauses at its host.
pub const CALL_FAILING_PAUSES: u32 = 5;
/// The last runs of an agent of which half must not have failed either.
pub const CALL_RUNS_COUNTED: u32 = 10;
/// Runs in a row that succeeded, after which an agent that paused is as good as any.
pub const CALL_PROVEN_RUNS: u32 = 3;
/// The first pause of an agent that fails, and the longest; it doubles.
pub const CALL_AGENT_PAUSE: Duration = Duration::from_secs(10);
/// See [`CALL_AGENT_PAUSE`].
pub const CALL_AGENT_PAUSE_MAX: Duration = Duration::from_secs(300);
/// The longest pause before the first repetition of a call, which is drawn; it doubles up to [`CALL_REPEAT_PAUSE_MAX`].
pub const CALL_REPEAT_PAUSE: Duration = Duration::from_millis(500);
/// See [`CALL_REPEAT_PAUSE`].
pub const CALL_REPEAT_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long work goes on whose stream was lost, and its caller tries to attach to it.
pub const CALL_ATTACH_KEPT: Duration = Duration::from_secs(10);
/// The same for a caller whose host fell silent, which it was for [`CALL_SILENCE_MAX`] by then.
pub const CALL_ATTACH_AFTER_SILENCE: Duration = Duration::from_secs(4);
/// How often in a row a host may be out of reach before its caller gives up to attach, but for calls that are detached.
pub const CALL_ATTACHES_MAX: u32 = 4;
/// What a host keeps for callers whose streams were lost: ends of calls, bytes of their outputs, and of these of one caller. The
/// oldest go first, those of a caller with too many before others.
pub const CALL_ENDS_KEPT_MAX: usize = 4_096;
/// See [`CALL_ENDS_KEPT_MAX`].
pub const CALL_OUTPUTS_KEPT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// See [`CALL_ENDS_KEPT_MAX`].
pub const CALL_ENDS_KEPT_PER_PEER_MAX: usize = 256;
/// See [`CALL_ENDS_KEPT_MAX`].
pub const CALL_OUTPUTS_KEPT_BYTES_PER_PEER_MAX: usize = 32 * 1024 * 1024;
/// Longest call that somebody waits for; `timeout` of a caller and what an agent's limits add up to stay within it.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(300);
/// Longest task: a call that nobody waits for.
pub const TASK_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Tasks of a node that have not ended; more are refused. Each is one future and, at work, one call.
pub const TASKS_OPEN_MAX: usize = 1_024;
/// Bytes of their inputs, JSON: parsed, the worst of them take a gigabyte.
pub const TASK_INPUTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Tasks that are kept, ended ones included: beyond it the oldest ended ones are forgotten.
pub const TASKS_MAX: usize = 4_096;
/// Bytes of the inputs and answers of all that are kept: beyond it the oldest ended ones are forgotten.
pub const TASK_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How long a task is kept after its end, for whoever asked for it to come and look.
pub const TASK_KEPT: Duration = Duration::from_secs(60 * 60);
/// How long a host may take to accept an offer, from the last byte of the offer. The opening of the stream is not
/// counted: a first dial takes longer than an exchange on an open connection.
pub const CALL_ACCEPT_PATIENCE: Duration = Duration::from_millis(250);
/// A far host gets twice the time the opening of its stream took, which is a round trip at least, but never more.
pub const CALL_ACCEPT_PATIENCE_MAX: Duration = Duration::from_secs(5);
/// Offers of a call that one host may leave unanswered, each with twice the patience of the one before: 1.75 s in all are
/// more than a busy process or a garbage-collecting machine stands still for.
pub const CALL_OFFERS_MAX: u32 = 3;
/// How long one opening of a call's stream may take. A wish to dial may get lost when two come at once, so another try comes
/// well before [`CALL_OPEN_DEADLINE`].
pub const CALL_OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long streams of a call are opened at one host until one is served: a dial, a handshake, and lost wishes.
pub const CALL_OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// Hosts of one agent that a call may be offered to, the best of them.
pub const CALL_REPLICAS_MAX: usize = 16;
/// How long a host that could not be reached is asked after others; it doubles with each failure that follows.
pub const CALL_PAUSE: Duration = Duration::from_secs(1);
/// And never longer than that.
pub const CALL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Hosts of which is remembered how far they are and whether they were reached, beside those with calls under way.
pub const CALL_HOSTS_KNOWN_MAX: usize = 4_096;
/// How often a host says that it still has a call, from its acceptance to its end.
pub const CALL_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After how long without a word a host counts as lost: two of its words may be late or missing.
pub const CALL_SILENCE_MAX: Duration = Duration::from_secs(15);
/// So long before the caller's deadline a host ends the work, so that its word on that arrives in time.
pub const CALL_ENDS_AHEAD: Duration = Duration::from_millis(50);
/// How long a call waits for a place of its agent at most, in mean times of its work.
pub const CALL_WAIT_WORKS: u32 = 4;
/// And that long in any case.
pub const CALL_WAIT_LEAST: Duration = Duration::from_secs(1);
/// A call that waited for its place has at least so much time left, or gets none: its work would end in vain.
pub const CALL_WORK_LEAST: Duration = Duration::from_millis(100);
/// Calls beyond its places whose inputs an agent has under way at most, where its work is shorter than their way.
pub const CALL_PLACES_AHEAD_MAX: usize = 64;
/// Streams opened for a call at one host. A loss in a burst is a few per cent each time.
pub const CALL_OPENINGS_MAX: u32 = 5;
/// The wait before a stream is opened again, milliseconds: drawn, so that a burst spreads out.
pub const CALL_REOPEN_MS: std::ops::Range<u64> = 5..50;
/// How long a host is looked for. A walk through the DHT takes a few round trips.
pub const CALL_SEARCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Calls of other hosts' agents that one node makes at once, waiting ones included: more than its surfaces let in.
pub const CALLS_MADE_MAX: usize = 16_384;
/// How long a host remembers the id of a call after its deadline.
pub const CALL_ID_KEPT: Duration = Duration::from_secs(60);
/// Ids of ended calls that a host remembers, 12 MiB of them. Beyond it the first to lapse go, and retries are told that
/// nothing is known of them.
pub const CALL_IDS_MAX: usize = 65_536;
/// Inbound calls at work at once.
pub const CALLS_AT_WORK_MAX: usize = 1_024;
/// Of these places, those that only callers get of whom a call was answered before: a crowd of new keys does not take them.
pub const CALLS_KEPT_FOR_KNOWN: usize = 256;
/// Of the other places, those that only calls with a small input get: they are over soonest.
pub const CALLS_KEPT_FOR_SMALL: usize = 128;
/// An input up to this many bytes is small: most are far below.
pub const CALL_SMALL_BYTES_MAX: usize = 64 * 1024;
/// Callers that are known by a call that was answered. Who comes later stays unknown, so that nobody is pushed out.
pub const CALLERS_KNOWN_MAX: usize = 1_024;
/// Calls at work at once of one address, and of one block.
pub const CALLS_SHARE: Share = Share { per_address: 256, per_block: 384 };
/// How long an input may take to begin with: round trips, a lost packet, a busy machine.
pub const CALL_INPUT_PATIENCE: Duration = Duration::from_secs(2);
/// And the bytes for which it gets another second: a slow link of half a megabit.
pub const CALL_INPUT_BYTES_PER_SECOND: usize = 64 * 1024;
/// How long an accepted call may wait for its input before another may get its place, where there are no others.
pub const CALL_INPUT_KEPT: Duration = Duration::from_secs(1);
/// Inbound calls of one peer at work at once: more than the [`CALLS_PER_HOST_MAX`] an honest one has open, because it
/// knows earlier than the host that one has ended.
pub const CALLS_PER_PEER_MAX: usize = 144;
/// Calls one caller has open at one host; more wait. Both directions and all other streams share the 256 streams of a
/// connection, which breaks when there are more.
pub const CALLS_PER_HOST_MAX: usize = 112;
/// Of these, calls of one agent: those that wait for a slow one keep no others from their host.
pub const CALLS_PER_AGENT_MAX: usize = 48;
/// Bytes of inputs and outputs of inbound calls held at once, inputs counted [`CALL_INPUT_WEIGHT`] times: a gigabyte of
/// memory for the worst of them.
pub const CALL_BYTES_AT_WORK_MAX: usize = 128 * 1024 * 1024;
/// Of these, the bytes that only known callers and small inputs get.
pub const CALL_BYTES_KEPT: usize = 32 * 1024 * 1024;
/// Of all, the bytes of the calls of one address, and of one block.
pub const CALL_BYTES_SHARE: Share = Share { per_address: 64 * 1024 * 1024, per_block: 96 * 1024 * 1024 };
/// Of all, the bytes of one peer's calls.
pub const CALL_BYTES_PER_PEER_MAX: usize = 32 * 1024 * 1024;
/// How much more an input counts than an output, which is bytes and no more: JSON may take some forty times its length in
/// memory once it is parsed, though most takes three or four.
pub const CALL_INPUT_WEIGHT: usize = 4;
