/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time, chance from one seed, and the queue of events. */
#include "world.h"

#include "core/crc.h"

#include <stdarg.h>
#include <stdlib.h>

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
uint64_t chance_mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t chance_next(struct chance *chance)
{
	return chance_mix(chance->state += 0x9e3779b97f4a7c15ull);
}

uint64_t chance_below(struct chance *chance, uint64_t limit)
{
	return limit ? chance_next(chance) % limit : 0;
}

uint64_t chance_between(struct chance *chance, uint64_t least, uint64_t most)
{
	return least + chance_below(chance, most - least + 1);
}

bool chance_permille(struct chance *chance, unsigned permille)
{
	return chance_below(chance, 1000) < permille;
}

void world_say(struct world *world, const char *form, ...)
{
	va_list list;
	char *line = world->log[world->log_next++ % LOG_LINES];
	int at = snprintf(line, 160, "%12.6f ms  ", (double)world->now / 1e6);
	va_start(list, form);
	vsnprintf(line + at, 160 - (size_t)at, form, list);
	va_end(list);
	world->trace = chance_mix(world->trace ^ crc32c(line, strlen(line)));
	if (world->hear)
		world->hear(world, line + at);
	if (world->options.verbose)
		fprintf(stderr, "%s\n", line);
}

void world_fail(struct world *world, const char *form, ...)
{
	va_list list;
	if (world->failed)
		return;
	world->failed = true;
	va_start(list, form);
	vsnprintf(world->failure, sizeof world->failure, form, list);
	va_end(list);
	world_say(world, "FAILED: %s", world->failure);
}

/* ---- the heap of events, earliest first, then in order of making ---- */
static bool event_before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void event_push(struct world *world, struct event event)
{
	if (world->heap_count == world->heap_room) {
		world->heap_room = world->heap_room ? world->heap_room * 2 : 1024;
		world->heap = realloc(world->heap, world->heap_room * sizeof *world->heap);
	}
	unsigned i = world->heap_count++;
	while (i && event_before(&event, &world->heap[(i - 1) / 2])) {
		world->heap[i] = world->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	world->heap[i] = event;
}

/* Gives each event the time that it has now: in another order, perhaps. */
static void heap_rebuild(struct world *world, void (*retime)(struct world *, struct event *),
			 unsigned site)
{
	struct event *old = world->heap;
	unsigned count = world->heap_count;
	world->heap = NULL;
	world->heap_count = world->heap_room = 0;
	for (unsigned i = 0; i < count; i++) {
		if (old[i].kind == EVENT_DATAGRAM && old[i].site == site)
			retime(world, &old[i]);
		event_push(world, old[i]);
	}
	free(old);
}

static void hold(struct world *world, struct event *event)
{
	struct datagram *datagram = event->what;
	datagram->held = true;
	event->at = world->now + 10 * NS_PER_S;
}

static void release(struct world *world, struct event *event)
{
	struct datagram *datagram = event->what;
	if (datagram->held)
		event->at = world->now + chance_below(&world->chance, 3 * NS_PER_MS);
	datagram->held = false;
}

void world_clog(struct world *world, unsigned site)
{
	heap_rebuild(world, hold, site);
}

void world_release(struct world *world)
{
	for (unsigned i = 0; i < SITES; i++)
		heap_rebuild(world, release, i);
}

void world_event(struct world *world, ns_t at, enum event_kind kind, unsigned site, void *what,
		 uint32_t number)
{
	event_push(world, (struct event){.at = max_u64(at, world->now),
					 .order = ++world->order,
					 .kind = (uint8_t)kind,
					 .site = (uint8_t)site,
					 .life = world->site[site].life,
					 .what = what,
					 .number = number});
}

static struct event event_pop(struct world *world)
{
	struct event first = world->heap[0], last = world->heap[--world->heap_count];
	unsigned i = 0;
	for (;;) {
		unsigned child = 2 * i + 1;
		if (child >= world->heap_count)
			break;
		if (child + 1 < world->heap_count &&
		    event_before(&world->heap[child + 1], &world->heap[child]))
			child++;
		if (!event_before(&world->heap[child], &last))
			break;
		world->heap[i] = world->heap[child];
		i = child;
	}
	if (world->heap_count)
		world->heap[i] = last;
	return first;
}

/* ---- running ---- */
static void event_happen(struct world *world, const struct event *event)
{
	struct site *site = &world->site[event->site];
	bool current = site->alive && event->life == site->life;
	switch (event->kind) {
	case EVENT_DATAGRAM: {
		struct datagram *datagram = event->what;
		bool cut = world->partitioned || world->path_cut[datagram->path];
		if (!site->alive || cut || site->packet_count == ARRAY_COUNT(site->packet)) {
			free(datagram);
			return;
		}
		site->packet[site->packet_count++] = (struct packet){.datagram = datagram->bytes,
								     .length = datagram->length,
								     .path = datagram->path};
		world->trace = chance_mix(world->trace ^ crc32c(datagram->bytes, datagram->length));
		world->altered = datagram->altered;
		site_step(world, event->site);
		world->altered = false;
		free(datagram);
		return;
	}
	case EVENT_DISK:
		if (!current)
			return;
		disk_complete(world, site, event->number);
		site_step(world, event->site);
		return;
	case EVENT_SENT:
		if (current)
			site->sent[site->sent_count++] = event->what;
		return;
	case EVENT_STEP:
		/* number 1: asked for from outside; else only the newest deadline counts */
		if (current && (event->number || event->at == site->next_step))
			site_step(world, event->site);
		return;
	case EVENT_REBUILD:
		world->rebuild_make(world);
		return;
	case EVENT_HAZARD:
		world->hazard(world);
		return;
	default:
		client_turn(world);
	}
}

void world_run(struct world *world, ns_t until, bool (*done)(struct world *))
{
	while (!world->failed && world->heap_count && world->heap[0].at <= until) {
		if (done && done(world))
			return;
		struct event event = event_pop(world);
		world->now = event.at;
		world->trace = chance_mix(world->trace ^ event.at ^ (uint64_t)event.kind << 56);
		event_happen(world, &event);
		sessions_meet(world);
	}
	if (!world->failed && (!done || !done(world)))
		world->now = max_u64(world->now, until);
}

/* ---- options ---- */
void options_draw(struct options *options, uint64_t seed)
{
	static const struct geometry geometries[] = {{1, 1}, {1, 2}, {2, 1}, {2, 2},
						     {4, 2}, {4, 1}, {2, 3}};
	struct chance chance = {seed * 0x2545f4914f6cdd1dull + 1};
	memset(options, 0, sizeof *options);
	options->seed = seed;
	options->geometry = geometries[chance_below(&chance, ARRAY_COUNT(geometries))];
	unsigned k = options->geometry.k, n = geometry_n(options->geometry);
	options->quorum =
		(uint8_t)(chance_permille(&chance, 600) ? quorum_default(options->geometry)
							: chance_between(&chance, k, n));
	options->ack = chance_permille(&chance, 800)   ? ACK_DURABLE
		       : chance_permille(&chance, 500) ? ACK_RECEIVED
						       : ACK_LOCAL;
	options->sync_flush = chance_permille(&chance, 200);
	options->volumes = (uint8_t)chance_between(&chance, 1, 2);
	options->paths = (uint8_t)chance_between(&chance, 1, 3);
	options->block_bytes = (uint32_t)(k * PAGE_BYTES) << chance_below(&chance, 2);
	options->blocks = (uint32_t)chance_between(&chance, 8, 48);
	options->datagram_bytes = chance_permille(&chance, 500)	  ? 8972
				  : chance_permille(&chance, 500) ? 1472
								  : 4000;
	options->segment_bytes = 128 * 1024;
	options->segments = (uint32_t)chance_between(&chance, 14, 20);
	options->loss = chance_permille(&chance, 400) ? 0 : (unsigned)chance_below(&chance, 150);
	options->duplicate =
		chance_permille(&chance, 500) ? 0 : (unsigned)chance_below(&chance, 200);
	options->corrupt = chance_permille(&chance, 500) ? 0 : (unsigned)chance_below(&chance, 50);
	options->reorder = chance_permille(&chance, 500) ? 0 : (unsigned)chance_below(&chance, 300);
	options->late = chance_permille(&chance, 500) ? 0 : (unsigned)chance_below(&chance, 30);
	options->delay_least = 20 * NS_PER_US;
	options->delay_most = options->delay_least + chance_below(&chance, 10 * NS_PER_MS);
	options->disk_least = 30 * NS_PER_US;
	options->disk_most = options->disk_least + chance_below(&chance, 4 * NS_PER_MS);
	options->slow_stores =
		chance_permille(&chance, 400) ? 0 : (unsigned)chance_below(&chance, n);
	options->slow_most = NS_PER_MS << chance_below(&chance, 7);
	options->operations = (unsigned)chance_between(&chance, 100, 300);
	options->crashes = (unsigned)chance_between(&chance, 4, 14);
	options->lose_stores = chance_permille(&chance, 800);
	options->lose_more = options->lose_stores && chance_permille(&chance, 250);
	options->vault_crash_at_end = chance_permille(&chance, 500);
	options->span_blocks =
		chance_permille(&chance, 700) ? 0 : (uint32_t)chance_between(&chance, 20, 200);
	/* Swarm testing (Groce and others, 2012): each seed leaves some kinds out. */
	options->faults = (uint32_t)chance_next(&chance) & ((1u << FAULTS) - 1);
	if (chance_permille(&chance, 700))
		options->faults |= 1u << FAULT_SCRUB;
	if (chance_permille(&chance, 700))
		options->faults |= 1u << FAULT_REBUILD;
	options->lost_writes = (unsigned)chance_between(&chance, 20, 300);
	options->misdirected = (unsigned)chance_between(&chance, 20, 300);
	options->misread = 1 + (unsigned)chance_below(&chance, 200);
	options->wounds = chance_permille(&chance, 500) ? 0 : (unsigned)chance_below(&chance, 400);
	options->orders = (unsigned)chance_between(&chance, 50, 500);
	options->hazard_pause = NS_PER_MS << chance_between(&chance, 5, 10);
	options->aead = chance_permille(&chance, 500) || !aead_backend_available(AEAD_IPSECMB)
				? AEAD_OPENSSL
				: AEAD_IPSECMB;
	options->adopted = chance_permille(&chance, 150);
	if (options->adopted) /* about half of what the journals hold, if nobody dies */
		options->blocks = 48;
}

static void faults_print(const struct options *options, FILE *out)
{
	static const char *const names[FAULTS] = {"fail",
						  "forget",
						  "lie",
						  "wander",
						  "gone",
						  "lost writes",
						  "misdirected writes",
						  "misreads",
						  "swap",
						  "old disk",
						  "rot of headers",
						  "rot of shards",
						  "rot of images",
						  "rot of slots",
						  "rot of superblocks",
						  "forged shards",
						  "unreadable pages",
						  "scrub",
						  "rebuild"};
	fprintf(out, "  faults:");
	for (unsigned i = 0; i < FAULTS; i++)
		if (options->faults >> i & 1)
			fprintf(out, " %s,", names[i]);
	fprintf(out,
		"\n  lost_writes=%u misdirected=%u misread=%u wounds=%u orders=%u per mille, "
		"hazards within %.0f ms\n",
		options->lost_writes, options->misdirected, options->misread, options->wounds,
		options->orders, (double)options->hazard_pause / 1e6);
}

void options_print(const struct options *options, FILE *out)
{
	fprintf(out,
		"seed %llu: %u+%u w=%u ack=%u sync=%s volumes=%u x %u blocks of %u, paths=%u "
		"datagram=%u\n"
		"  loss=%u dup=%u corrupt=%u reorder=%u late=%u per mille, delay %.2f-%.2f ms, "
		"disk "
		"%.2f-%.2f ms, %u slow stores by %.0f ms\n"
		"  journal %u x %u KiB, operations=%u crashes=%u lose_stores=%d lose_more=%d "
		"vault_crash_at_end=%d aead=%s%s\n",
		(unsigned long long)options->seed, options->geometry.k, options->geometry.m,
		options->quorum, options->ack, options->sync_flush ? "flush" : "write",
		options->volumes, options->blocks, options->block_bytes, options->paths,
		options->datagram_bytes, options->loss, options->duplicate, options->corrupt,
		options->reorder, options->late, (double)options->delay_least / 1e6,
		(double)options->delay_most / 1e6, (double)options->disk_least / 1e6,
		(double)options->disk_most / 1e6, options->slow_stores,
		(double)options->slow_most / 1e6, options->segments, options->segment_bytes / 1024,
		options->operations, options->crashes, options->lose_stores, options->lose_more,
		options->vault_crash_at_end, aead_backend_name(options->aead),
		options->adopted ? " adopted" : "");
	faults_print(options, out);
}

/* ---- making one ---- */
void world_init(struct world *world, const struct options *options)
{
	memset(world, 0, sizeof *world);
	world->options = *options;
	world->chance.state = options->seed ^ 0x6a09e667f3bcc908ull;
	world->now = NS_PER_S;
	world->fate = FATE_DRAWN;
	check_begin(world);
	for (unsigned i = 0; i < VOLUMES_PER_GROUP_MAX; i++)
		for (unsigned j = 0; j < KEY_BYTES; j++)
			world->volume_key[i][j] = (uint8_t)chance_next(&world->chance);
	for (unsigned i = 0; i < SITES; i++) {
		world->site[i].index = i;
		site_format(world, i);
	}
	client_init(world);
}

void world_fini(struct world *world)
{
	for (unsigned i = 0; i < SITES; i++) {
		struct site *site = &world->site[i];
		if (site->alive)
			site_crash(world, i, CRASH_POWER);
		for (unsigned f = 0; f < site->file_count; f++) {
			for (unsigned j = 0; j < site->file[f].unsynced_count; j++)
				free(site->file[f].unsynced[j].bytes);
			free(site->file[f].unsynced);
			free(site->file[f].unreadable);
			free(site->file[f].cached);
			free(site->file[f].durable);
		}
	}
	for (unsigned i = 0; i < world->heap_count; i++)
		if (world->heap[i].kind == EVENT_DATAGRAM)
			free(world->heap[i].what);
	for (unsigned i = 0; i < VOLUMES_PER_GROUP_MAX; i++)
		free(world->device_copy[i]);
	free(world->heap);
	client_fini(world);
}
