/* SPDX-License-Identifier: MIT */
/*
 * The agent's Varlink interface, as text.
 */
#include "proto/interface.h"

#include <string.h>

#include "base/types.h"

static const struct {
	const char *name;
	enum firn_method method;
} methods[] = {
	{ FIRN_METHOD_FREEZE, FIRN_CALL_FREEZE },
	{ FIRN_METHOD_EVICT, FIRN_CALL_EVICT },
	{ FIRN_METHOD_THAW, FIRN_CALL_THAW },
	{ FIRN_METHOD_LIST, FIRN_CALL_LIST },
	{ FIRN_METHOD_SHOW, FIRN_CALL_SHOW },
	{ FIRN_METHOD_EXPLAIN, FIRN_CALL_EXPLAIN },
	{ FIRN_METHOD_RECLAIM, FIRN_CALL_RECLAIM },
	{ FIRN_METHOD_PRIORITY, FIRN_CALL_PRIORITY },
	{ FIRN_METHOD_RUN, FIRN_CALL_RUN },
	{ FIRN_METHOD_STATS, FIRN_CALL_STATS },
	{ FIRN_METHOD_MONITOR, FIRN_CALL_MONITOR },
	{ FIRN_METHOD_PING, FIRN_CALL_PING },
	{ FIRN_METHOD_STOP, FIRN_CALL_STOP },
	{ FIRN_METHOD_GET_INFO, FIRN_CALL_GET_INFO },
	{ FIRN_METHOD_GET_DESCRIPTION, FIRN_CALL_GET_DESCRIPTION },
};

enum firn_method firn_method_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (strcmp(methods[i].name, name) == 0)
			return methods[i].method;
	}
	return FIRN_CALL_UNKNOWN;
}

static const char agent_description[] =
"# Freezes and thaws the memory of live processes.\n"
"interface org.firn.Agent\n"
"\n"
"# What is acted upon. Exactly one is given: a process; or a group, which is frozen and thawed as one: a process with its\n"
"# descendants, a cgroup with those below it, a systemd unit, the processes of a name (a pattern), a container by its id.\n"
"type Selector (\n"
"  pid: ?int,\n"
"  tree: ?int,\n"
"  cgroup: ?string,\n"
"  unit: ?string,\n"
"  name: ?string,\n"
"  container: ?string\n"
")\n"
"\n"
"# What a target was frozen with.\n"
"type Group (id: int, selector: string)\n"
"\n"
"# Pages by their state now; total is what the eviction took.\n"
"type Pages (\n"
"  total: ?int,\n"
"  evicted: ?int,\n"
"  zero: ?int,\n"
"  filled: ?int,\n"
"  resident: ?int,\n"
"  removed: ?int,\n"
"  lost: ?int,\n"
"  workingSet: ?int,\n"
"  recorded: ?int\n"
")\n"
"\n"
"type Pack (\n"
"  path: ?string,\n"
"  place: ?(store, ram),\n"
"  moveAfter: ?int,\n"
"  bytes: ?int,\n"
"  blocks: ?int,\n"
"  raw: ?int,\n"
"  duplicates: ?int,\n"
"# The generation and bytes of an earlier pack, and how many bytes of memory were there already.\n"
"  base: ?int,\n"
"  baseBytes: ?int,\n"
"  reused: ?int,\n"
"  cipher: ?string,\n"
"  codec: ?string,\n"
"  generation: ?int\n"
")\n"
"\n"
"type Io (\n"
"  writeCalls: ?int,\n"
"  writeBytes: ?int,\n"
"  readCalls: ?int,\n"
"  readBytes: ?int,\n"
"  blocksRead: ?int,\n"
"  faults: ?int,\n"
"  faultP50Us: ?float,\n"
"  faultP99Us: ?float,\n"
"  faultMaxUs: ?float\n"
")\n"
"\n"
"# Private anonymous resident bytes of the target.\n"
"type Memory (before: ?int, after: ?int)\n"
"\n"
"# Milliseconds. run and whole: of a thaw, until the target ran and until all of it was back.\n"
"type Milliseconds (\n"
"  plan: ?float,\n"
"  stop: ?float,\n"
"  walk: ?float,\n"
"  gather: ?float,\n"
"  write: ?float,\n"
"  arm: ?float,\n"
"  drop: ?float,\n"
"  leave: ?float,\n"
"  total: ?float,\n"
"  run: ?float,\n"
"  whole: ?float\n"
")\n"
"\n"
"# code is the exit status that firn(1) documents.\n"
"type Trouble (code: int, reason: string, message: string)\n"
"\n"
"# How a frozen target is watched. leftOut: descriptors that cannot be; hidden: what it waits for and no descriptor shows;\n"
"# due: when a timeout of its own wakes it, Unix time in ms.\n"
"type Wake (watching: bool, descriptors: int, leftOut: int, hidden: int, due: ?int)\n"
"\n"
"# What woke it last. number: of the signal, or the PID of the child, the thread, or the other of its group.\n"
"type Woken (\n"
"  by: (connection, data, datagram, end, error, room, event, timer, file, process, child, signal, timeout, continued, group),\n"
"  at: int,\n"
"  fd: ?int,\n"
"  number: ?int,\n"
"  local: ?string,\n"
"  peer: ?string\n"
")\n"
"\n"
"type Target (\n"
"  id: ?string,\n"
"  pid: int,\n"
"  comm: ?string,\n"
"  state: ?(planned, stopping, frozen, evicted, thawing, resident, wedged, held),\n"
"  kind: ?(copied, direct),\n"
"  since: ?int,\n"
"  pages: ?Pages,\n"
"  pack: ?Pack,\n"
"  io: ?Io,\n"
"  memory: ?Memory,\n"
"  ratio: ?float,\n"
"  ms: ?Milliseconds,\n"
"  why: ?string,\n"
"  policy: ?Policy,\n"
"  refused: ?Trouble,\n"
"  group: ?Group,\n"
"  wake: ?Wake,\n"
"  woken: ?Woken,\n"
"  error: ?Trouble\n"
")\n"
"\n"
"# What the policy says of a process: what would be done now and why. place: in the queue of those that would give\n"
"# memory, from 1; gain: bytes of memory it would give, or take, coming back; cost: bytes that are written for it.\n"
"type Policy (\n"
"  uid: int,\n"
"  priority: int,\n"
"  rule: ?string,\n"
"  action: (none, evict, freeze, thaw),\n"
"  reason: string,\n"
"  text: string,\n"
"  place: int,\n"
"  gain: int,\n"
"  cost: int,\n"
"  private: int,\n"
"  shared: int,\n"
"  out: int,\n"
"  idleMs: int,\n"
"  awakeMs: int,\n"
"  cpuPermille: int,\n"
"  faultsPerSecond: int,\n"
"  wakeupsPerMinute: int,\n"
"  writtenToday: int\n"
")\n"
"\n"
"# Bytes. Of Explain the first part; of Reclaim and Run the second.\n"
"type Summary (\n"
"  automatic: ?bool,\n"
"  pressure: ?string,\n"
"  text: ?string,\n"
"  total: ?int,\n"
"  available: ?int,\n"
"  low: ?int,\n"
"  high: ?int,\n"
"  wanted: ?int,\n"
"  someHundredths: ?int,\n"
"  fullHundredths: ?int,\n"
"  budgetLeft: ?int,\n"
"  storeLeft: ?int,\n"
"  before: ?int,\n"
"  after: ?int,\n"
"  freed: ?int,\n"
"  written: ?int,\n"
"  cgroup: ?string\n"
")\n"
"\n"
"type Progress (pid: int, phase: string, done: int, total: int)\n"
"\n"
"# Called with more, the first three may send progress before their targets.\n"
"# kind: without, the agent's choice; place: store, ram, or ram,store; after: with the last, seconds after which a pack is moved;\n"
"# force: also what the never-list names.\n"
"method Freeze(targets: []Selector, dryRun: ?bool, kind: ?(copied, direct), place: ?string, after: ?int, wake: ?bool,\n"
"  force: ?bool)\n"
"  -> (targets: ?[]Target, progress: ?Progress)\n"
"method Evict(targets: []Selector, dryRun: ?bool, kind: ?(copied, direct), place: ?string, after: ?int, force: ?bool)\n"
"  -> (targets: ?[]Target, progress: ?Progress)\n"
"method Thaw(targets: ?[]Selector, all: ?bool, dryRun: ?bool)\n"
"  -> (targets: ?[]Target, progress: ?Progress)\n"
"# ramBytes: of all packs that are in memory; keptBytes: of those in the store that are kept of processes, for their\n"
"# next eviction.\n"
"method List() -> (targets: []Target, ramBytes: ?int, keptBytes: ?int)\n"
"method Show(pid: int) -> (targets: []Target)\n"
"# Without targets: all that the caller may act on, in the order in which they would give memory.\n"
"method Explain(targets: ?[]Selector) -> (targets: []Target, summary: ?Summary)\n"
"# bytes: that are to be available; timeout: milliseconds. error: it could not be done; the targets say what was.\n"
"method Reclaim(bytes: int, priority: ?int, timeout: ?int, dryRun: ?bool)\n"
"  -> (targets: ?[]Target, summary: ?Summary, error: ?Trouble, progress: ?Progress)\n"
"# Of a process, and with tree of its descendants, for as long as it lives.\n"
"method Priority(targets: []Selector, priority: int, dryRun: ?bool) -> (targets: []Target)\n"
"# For the caller, who is about to exec a command: a priority, a cgroup of its own, and memory.\n"
"method Run(priority: ?int, need: ?int, timeout: ?int, dryRun: ?bool)\n"
"  -> (targets: ?[]Target, summary: ?Summary, error: ?Trouble, progress: ?Progress)\n"
"method Stats(format: ?(json, openmetrics)) -> (text: string)\n"
"# Called with more: each event of the agent, from now on.\n"
"method Monitor() -> (event: ?object)\n"
"method Ping() -> (pid: int, version: string, keeper: ?int)\n"
"\n"
"# Thaws everything; then the agent ends.\n"
"method Stop() -> ()\n"
"\n"
"error Failed (code: int, reason: string, message: string)\n";

static const char service_description[] =
"# What every Varlink service offers.\n"
"interface org.varlink.service\n"
"\n"
"method GetInfo() -> (\n"
"  vendor: string,\n"
"  product: string,\n"
"  version: string,\n"
"  url: string,\n"
"  interfaces: []string\n"
")\n"
"method GetInterfaceDescription(interface: string) -> (description: string)\n"
"\n"
"error InterfaceNotFound (interface: string)\n"
"error MethodNotFound (method: string)\n"
"error MethodNotImplemented (method: string)\n"
"error InvalidParameter (parameter: string)\n";

const char *firn_interface_description(const char *interface)
{
	if (strcmp(interface, FIRN_INTERFACE) == 0)
		return agent_description;
	if (strcmp(interface, FIRN_INTERFACE_SERVICE) == 0)
		return service_description;
	return NULL;
}
