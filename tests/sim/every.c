/* SPDX-License-Identifier: Apache-2.0 */
/* One short course, and after every single write that became durable, at either site: what if the
 * primary were lost now, the vault's power failed, and any stores, up to w - k of them, were lost
 * too? Each choice of stores, both with all and with nothing of what was on its way to the disks.
 * The swarm draws such moments; here none is left out. `every` tries all, `every NAME [POINT]` one
 * course, or one moment of it. */
#include "world.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 16 };

static struct world world;
static const char *program, *course;
static uint64_t point, only, tried; /* moments, the one that is asked for, failovers */

/* ---- the failover, in a process of its own ---- */
static void report(uint32_t lost, enum fate fate)
{
	for (unsigned i = world.log_next > 40 ? world.log_next - 40 : 0; i < world.log_next; i++)
		printf("  %s\n", world.log[i % LOG_LINES]);
	printf("commit %s\nFAILED: %s\nwithout stores %#x, what was on its way is %s\n"
	       "replay: %s \"%s\" %llu\n",
	       sim_commit, world.failure, lost, fate == FATE_LOST ? "lost" : "written", program,
	       course, (unsigned long long)point);
	fflush(stdout);
}

static void failover(uint32_t lost, enum fate fate)
{
	struct command result;
	world.branched = true;
	world.fate = fate;
	site_crash(&world, SITE_PRIMARY, CRASH_PROCESS);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++)
		if (lost >> i & 1)
			site_lose_store(&world, i);
	site_start(&world, SITE_VAULT);
	world_run(&world, world.now + 3 * NS_PER_S, NULL);
	int outcome = site_promote(&world, false, &result);
	if (outcome < 0 && !world.failed)
		world_fail(&world, "promotion refused (%d): %s", outcome, result.text);
	if (!world.failed)
		client_check_all(&world, OWED_ALL);
	if (world.failed)
		report(lost, fate);
	_exit(world.failed);
}

static void try_failover(uint32_t lost, enum fate fate)
{
	int status;
	fflush(stdout);
	pid_t child = fork();
	must(child >= 0, "a failover has a process");
	if (child == 0)
		failover(lost, fate);
	must(waitpid(child, &status, 0) == child, "a failover ends");
	tried++;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		world_fail(&world, "the failover after durable write %llu failed: see above",
			   (unsigned long long)point);
}

static void every_loss(void)
{
	unsigned n = geometry_n(world.options.geometry);
	unsigned spare = world.options.quorum - world.options.geometry.k;
	for (uint32_t lost = 0; lost < 1u << n && !world.failed; lost++)
		if ((unsigned)__builtin_popcount(lost) <= spare) {
			try_failover(lost, FATE_LOST);
			try_failover(lost, FATE_WHOLE);
		}
}

/* ---- every moment ---- */
static bool (*awaited)(struct world *);

static bool moment(struct world *w)
{
	static uint64_t seen;
	if (w->hardened != seen && w->site[SITE_VAULT].alive) {
		seen = w->hardened;
		point++;
		if (!only || only == point)
			every_loss();
	}
	return w->failed || awaited(w);
}

static void until(bool (*done)(struct world *))
{
	awaited = done;
	world_run(&world, world.now + 30 * NS_PER_S, moment);
	if (!world.failed && !done(&world))
		world_fail(&world, "the course does not go on");
}

static bool replicating(struct world *w)
{
	site_status(w, SITE_PRIMARY, &w->status);
	return strcmp(w->status.group[0].state, "replicating") == 0;
}

static bool none_waits(struct world *w)
{
	return w->in_flight == 0;
}

static bool some_stored(struct world *w)
{
	site_status(w, SITE_VAULT, &w->status);
	return w->status.group[0].durable + 2 >= w->status.group[0].lsn;
}

/* ---- the course ---- */
static void asks(unsigned kind, uint64_t block, uint64_t blocks)
{
	uint64_t sectors = world.options.block_bytes / SECTOR_BYTES;
	const struct op what = {
		.kind = (uint8_t)kind, .sector = block * sectors, .count = blocks * sectors};
	if (!world.failed)
		client_ask(&world, &what);
}

/* Whole blocks and parts, one over the other, and zeros. */
static void round_of_writes(uint64_t from)
{
	const struct op part = {.kind = OP_WRITE, .sector = from * 16 + 3, .count = 7};
	asks(OP_WRITE, from, 3);
	asks(OP_WRITE, from + 1, 3);
	client_ask(&world, &part);
	asks(OP_ZERO, from + 2, 1);
}

static void restarts(unsigned site, enum crash kind)
{
	if (world.failed)
		return;
	world.fate = FATE_EACH;
	site_crash(&world, site, kind);
	site_start(&world, site);
}

static bool is_folded(struct world *w)
{
	site_status(w, SITE_VAULT, &w->status);
	return w->status.group[0].fold && w->status.group[0].store[0].image_point;
}

static void tell(void)
{
	until(replicating);
	round_of_writes(0);
	until(none_waits);
	round_of_writes(4);
	until(some_stored);
	restarts(SITE_PRIMARY, CRASH_POWER);
	until(replicating);
	round_of_writes(2);
	until(some_stored);
	restarts(SITE_VAULT, CRASH_POWER);
	until(replicating);
	round_of_writes(8);
	until(none_waits);
	for (unsigned i = 0; i < 8 && !world.failed && !is_folded(&world); i++) {
		asks(OP_WRITE, 0, BLOCKS);
		until(none_waits);
	}
	until(is_folded);
}

/* ---- rows ---- */
static const struct row {
	const char *name;
	struct geometry geometry;
	uint8_t quorum;
} rows[] = {
	{"2+2, w = 3", {2, 2}, 3},
	{"2+2, w = 4", {2, 2}, 4},
	{"1+2, w = 2", {1, 2}, 2},
};

static void row_begin(const struct row *row)
{
	const struct options options = {.seed = 1,
					.geometry = row->geometry,
					.quorum = row->quorum,
					.ack = ACK_DURABLE,
					.volumes = 1,
					.paths = 1,
					.block_bytes = 2 * PAGE_BYTES,
					.blocks = BLOCKS,
					.datagram_bytes = 8972,
					.segment_bytes = 128 * 1024,
					.segments = 4,
					.delay_least = 100 * NS_PER_US,
					.delay_most = NS_PER_MS,
					.disk_least = 100 * NS_PER_US,
					.disk_most = 2 * NS_PER_MS,
					.slow_stores = 2,
					.slow_most = 4 * NS_PER_MS,
					.aead = AEAD_OPENSSL};
	course = row->name;
	point = 0;
	world_init(&world, &options);
	site_start(&world, SITE_VAULT);
	site_start(&world, SITE_PRIMARY);
}

static bool row_holds(const struct row *row)
{
	row_begin(row);
	tell();
	bool holds = !world.failed;
	if (!holds)
		printf("FAILED  %s: %s\n", row->name, world.failure);
	else
		printf("ok      %s: %llu moments\n", row->name, (unsigned long long)point);
	world_fini(&world);
	return holds;
}

int main(int argc, char **argv)
{
	unsigned passed = 0, failed = 0;
	program = argv[0];
	only = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		if (argc > 1 && strcmp(argv[1], rows[i].name) != 0)
			continue;
		if (row_holds(&rows[i]))
			passed++;
		else
			failed++;
	}
	printf("%llu failovers\n%u passed, %u failed, 0 skipped\n", (unsigned long long)tried,
	       passed, failed);
	return failed || !passed;
}
