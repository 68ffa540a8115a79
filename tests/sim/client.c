/* SPDX-License-Identifier: Apache-2.0 */
/* The client, and the only memory of what it was told: every sector's bytes name the operation that
 * wrote them, so a read tells which write it sees, and the history of operations tells whether it
 * may. Nothing here looks inside the product. */
#include "world.h"

#include <errno.h>
#include <stdlib.h>

enum { OP_FREE, OP_IN_FLIGHT, OP_ACKNOWLEDGED, OP_UNKNOWN };
enum { OP_SECTORS_MAX = 160, OPS_IN_FLIGHT_MAX = 12 };

static const char canary[16] = "CANARY-plaintext";

static uint64_t sectors_of(const struct world *world)
{
	return (uint64_t)world->options.blocks * world->options.block_bytes / SECTOR_BYTES;
}

static void sector_fill(uint8_t *to, uint64_t id, unsigned volume, uint64_t sector)
{
	for (unsigned at = 0; at < SECTOR_BYTES; at += 32) {
		memcpy(to + at, canary, 16);
		put_u64(to + at + 16, id);
		put_u64(to + at + 24, sector << 8 | volume);
	}
}

/* ---- the history of each sector ---- */
static void sector_add(struct world *world, unsigned volume, uint64_t sector, unsigned op)
{
	unsigned **list = &world->sector_ops[volume][sector];
	unsigned count = *list ? (*list)[0] : 0;
	if (count % 16 == 0)
		*list = realloc(*list, (count + 17) * sizeof(unsigned));
	(*list)[++count] = op;
	(*list)[0] = count;
}

/* ---- what an adopted device held before ---- */
static struct file *device_of(struct world *world, unsigned volume)
{
	const struct core_group *group = &world->start[SITE_PRIMARY].group[0];
	return &world->site[SITE_PRIMARY].file[group->volume[volume].device];
}

static void given(struct world *world, unsigned volume, uint64_t sector, uint64_t count)
{
	struct op *op = &world->op[world->op_count];
	struct file *device = device_of(world, volume);
	*op = (struct op){.id = ++world->op_count,
			  .kind = OP_WRITE,
			  .volume = (uint8_t)volume,
			  .state = OP_ACKNOWLEDGED,
			  .given = true,
			  .sector = sector,
			  .count = count,
			  .issued = ++world->clock,
			  .ended = ++world->clock};
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = (sector + i) * SECTOR_BYTES;
		sector_fill(device->cached + at, op->id, volume, sector + i);
		memcpy(device->durable + at, device->cached + at, SECTOR_BYTES);
		sector_add(world, volume, sector + i, (unsigned)(op->id - 1));
	}
}

static void device_given(struct world *world)
{
	uint64_t stretch = OP_SECTORS_MAX / 2, sectors = sectors_of(world);
	for (unsigned v = 0; v < world->options.volumes; v++)
		for (uint64_t s = 0; s < sectors; s += stretch)
			if (chance_permille(&world->chance, 800))
				given(world, v, s, min_u64(stretch, sectors - s));
}

/* From now on the vault has to have it too. */
static void device_copied(struct world *world)
{
	if (world->copied)
		return;
	world->copied = true;
	for (unsigned i = 0; i < world->op_count; i++)
		world->op[i].firm |= world->op[i].given;
}

void client_init(struct world *world)
{
	world->op = calloc(OPERATIONS_MAX, sizeof *world->op);
	for (unsigned v = 0; v < world->options.volumes; v++)
		world->sector_ops[v] = calloc(sectors_of(world), sizeof(unsigned *));
	if (world->options.adopted)
		device_given(world);
	world->in_flight_max = 1 + (unsigned)chance_below(&world->chance, OPS_IN_FLIGHT_MAX);
	world_event(world, world->now + NS_PER_MS, EVENT_CLIENT, 0, NULL, 0);
}

void client_fini(struct world *world)
{
	for (unsigned v = 0; v < world->options.volumes; v++) {
		for (uint64_t s = 0; s < sectors_of(world); s++)
			free(world->sector_ops[v][s]);
		free(world->sector_ops[v]);
	}
	for (unsigned i = 0; i < world->op_count; i++)
		free(world->op[i].buffer);
	free(world->op);
}

/* ---- what a read may see ---- */
static bool shows(const struct op *op, uint64_t id, bool zeros)
{
	return zeros ? op->kind == OP_ZERO : op->kind == OP_WRITE && op->id == id;
}

/* Whether this operation must be seen, or something later: acknowledged before the reader asked;
 * after a failover only what is firm. */
static struct {
	bool all;	/* all that is firm */
	uint64_t since; /* and was asked for after this */
	uint64_t until; /* and all that was acknowledged before this: write order */
} owed_after_failover;

static bool owed(const struct op *op, const struct op *reader)
{
	if (op->state != OP_ACKNOWLEDGED)
		return false;
	if (reader)
		return op->ended < reader->issued;
	bool firm = op->firm && op->issued > owed_after_failover.since;
	return (owed_after_failover.all && firm) || op->ended < owed_after_failover.until;
}

static bool sector_allowed(struct world *world, unsigned volume, uint64_t sector, uint64_t id,
			   bool zeros, const struct op *reader, const struct op **missing)
{
	const unsigned *list = world->sector_ops[volume][sector];
	uint64_t newest_owed = 0;
	for (unsigned i = 1; list && i <= list[0]; i++) {
		const struct op *op = &world->op[list[i]];
		if (owed(op, reader) && op->issued > newest_owed) {
			newest_owed = op->issued;
			*missing = op;
		}
	}
	if (zeros && !newest_owed)
		return true;
	for (unsigned i = 1; list && i <= list[0]; i++) {
		const struct op *op = &world->op[list[i]];
		uint64_t ended = op->state == OP_IN_FLIGHT ? UINT64_MAX : op->ended;
		if (shows(op, id, zeros) && ended > newest_owed)
			return true;
	}
	return false;
}

void client_check_read(struct world *world, unsigned volume, uint64_t sector, uint64_t count,
		       const uint8_t *bytes, const struct op *reader)
{
	for (uint64_t i = 0; i < count && !world->failed; i++) {
		const uint8_t *at = bytes + i * SECTOR_BYTES;
		static const uint8_t zero[SECTOR_BYTES];
		uint8_t expected[SECTOR_BYTES];
		bool zeros = memcmp(at, zero, SECTOR_BYTES) == 0;
		uint64_t id = get_u64(at + 16);
		sector_fill(expected, id, volume, sector + i);
		const struct op *missing = NULL;
		if (!zeros && memcmp(at, expected, SECTOR_BYTES) != 0)
			world_fail(world, "volume %u sector %llu: bytes that nobody wrote there",
				   volume, (unsigned long long)(sector + i));
		else if (!sector_allowed(world, volume, sector + i, id, zeros, reader, &missing))
			world_fail(world,
				   "volume %u sector %llu (block %llu): sees %s %llu, but "
				   "operation %llu was "
				   "acknowledged (%s)",
				   volume, (unsigned long long)(sector + i),
				   (unsigned long long)((sector + i) * SECTOR_BYTES /
							world->options.block_bytes),
				   zeros ? "zeros" : "operation",
				   (unsigned long long)(zeros ? 0 : id),
				   (unsigned long long)(missing ? missing->id : 0),
				   !reader	? "after the failover"
				   : reader->id ? "read at the primary"
						: "on the device after a crash");
	}
}

/* ---- issuing ---- */
static void op_request(struct world *world, struct op *op)
{
	struct request *request = &op->request;
	uint64_t bytes = op->count * SECTOR_BYTES, offset = op->sector * SECTOR_BYTES;
	uint64_t lead = offset % PAGE_BYTES;
	*request = (struct request){
		.export = op->volume, .offset = offset, .length = (uint32_t)bytes, .front = op};
	if (op->kind == OP_FLUSH) {
		request->kind = REQUEST_FLUSH;
		request->offset = request->length = 0;
		return;
	}
	if (op->kind == OP_ZERO) {
		request->kind =
			chance_permille(&world->chance, 500) ? REQUEST_ZERO : REQUEST_DISCARD;
		request->flags = chance_permille(&world->chance, 500) ? REQUEST_NO_HOLE : 0;
	} else {
		request->kind = op->kind == OP_WRITE ? REQUEST_WRITE : REQUEST_READ;
		uint64_t room = align_up(lead + bytes, PAGE_BYTES);
		op->buffer = aligned_alloc(PAGE_BYTES, room);
		memset(op->buffer, 0xdb, room);
		request->data = op->buffer + lead;
	}
	op->fua = op->kind != OP_READ && chance_permille(&world->chance, 150);
	if (op->fua)
		request->flags |= REQUEST_FUA;
	for (uint64_t i = 0; op->kind == OP_WRITE && i < op->count; i++)
		sector_fill(request->data + i * SECTOR_BYTES, op->id, op->volume, op->sector + i);
}

static void op_draw(struct world *world, struct op *op)
{
	op->volume = (uint8_t)chance_below(&world->chance, world->options.volumes);
	op->count = 1 + chance_below(&world->chance,
				     chance_permille(&world->chance, 300) ? OP_SECTORS_MAX : 16);
	uint64_t sectors = sectors_of(world);
	op->count = min_u64(op->count, sectors);
	op->sector = chance_below(&world->chance, sectors - op->count + 1);
	/* A part of the volume is hot: blocks are written over and over. */
	if (chance_permille(&world->chance, 400))
		op->sector = chance_below(&world->chance, min_u64(sectors - op->count, 64) + 1);
	if (chance_permille(&world->chance, 250)) {
		uint64_t block = world->options.block_bytes / SECTOR_BYTES;
		op->sector = align_down(op->sector, block);
		op->count = min_u64(block * (1 + chance_below(&world->chance, 3)),
				    sectors - op->sector);
	}
}

struct op *client_ask(struct world *world, const struct op *what)
{
	must(world->op_count < OPERATIONS_MAX, "operations are counted");
	struct op *op = &world->op[world->op_count];
	*op = *what;
	op->id = ++world->op_count;
	op->state = OP_IN_FLIGHT;
	op_request(world, op);
	op->issued = ++world->clock;
	if (op->kind == OP_WRITE || op->kind == OP_ZERO)
		for (uint64_t i = 0; i < op->count; i++)
			sector_add(world, op->volume, op->sector + i, (unsigned)(op->id - 1));
	world->in_flight++;
	site_submit(world, SITE_PRIMARY, &op->request);
	return op;
}

bool client_answered_op(const struct op *op)
{
	return op->state == OP_ACKNOWLEDGED;
}

static void op_issue(struct world *world)
{
	uint64_t dice = chance_below(&world->chance, 100);
	struct op op = {.kind = dice < 60   ? OP_WRITE
				: dice < 70 ? OP_ZERO
				: dice < 92 ? OP_READ
					    : OP_FLUSH};
	op_draw(world, &op);
	client_ask(world, &op);
}

void client_turn(struct world *world)
{
	struct site *site = &world->site[SITE_PRIMARY];
	bool read_only;
	while (site->alive && !world->failed && world->in_flight < world->in_flight_max &&
	       world->op_count < world->issued_target &&
	       core_export_ready(site->core, 0, &read_only) && chance_permille(&world->chance, 800))
		op_issue(world);
	ns_t pause = chance_between(&world->chance, 20 * NS_PER_US, 3 * NS_PER_MS);
	world_event(world, world->now + pause, EVENT_CLIENT, 0, NULL, 0);
}

/* ---- answers ---- */
static void flush_answered(struct world *world, const struct op *flush)
{
	for (unsigned i = 0; i < world->op_count; i++) {
		struct op *op = &world->op[i];
		if (op->state == OP_ACKNOWLEDGED && op->ended < flush->issued)
			op->firm = true;
	}
}

void client_answered(struct world *world, struct request *request)
{
	struct op *op = request->front;
	if (!op) { /* one of the checker's own reads */
		request->pending = UINT32_MAX;
		return;
	}
	must(op->state == OP_IN_FLIGHT, "a request is answered once");
	world->in_flight--;
	op->ended = ++world->clock;
	if (request->result < 0) {
		op->state = OP_UNKNOWN;
		if (world->errors) {
			world_say(world, "error %d", request->result);
			return;
		}
		world_fail(world, "operation %llu was answered with error %d",
			   (unsigned long long)op->id, request->result);
		return;
	}
	op->state = OP_ACKNOWLEDGED;
	if (op->kind == OP_WRITE || op->kind == OP_ZERO)
		device_copied(world); /* none is taken before */
	world->acks++;
	op->firm = !world->options.sync_flush || op->fua;
	world->firm_acks += op->kind != OP_READ && (op->firm || op->kind == OP_FLUSH);
	if (op->kind == OP_FLUSH)
		flush_answered(world, op);
	if (op->kind == OP_READ) {
		world->reads++;
		client_check_read(world, op->volume, op->sector, op->count, request->data, op);
	}
	free(op->buffer);
	op->buffer = NULL;
}

void client_crashed(struct world *world, enum crash kind)
{
	world->clock++;
	for (unsigned i = 0; i < world->op_count; i++) {
		struct op *op = &world->op[i];
		bool lost_cache = kind == CRASH_POWER && op->state == OP_ACKNOWLEDGED &&
				  !op->firm && !op->given;
		if (op->state != OP_IN_FLIGHT && !lost_cache)
			continue;
		if (op->state == OP_IN_FLIGHT)
			op->ended = world->clock;
		op->state = OP_UNKNOWN;
	}
	world->in_flight = 0;
}

/* ---- the device itself ---- */
/* docs/semantics.md "intents": after an unclean stop the device is never behind an acknowledgement.
 */
void client_check_device(struct world *world)
{
	const struct op anybody = {.issued = ++world->clock};
	for (unsigned v = 0; v < world->options.volumes && !world->failed; v++)
		client_check_read(world, v, 0, sectors_of(world), device_of(world, v)->cached,
				  &anybody);
}

void client_remember_device(struct world *world)
{
	for (unsigned v = 0; v < world->options.volumes; v++) {
		const struct file *file = device_of(world, v);
		world->device_copy[v] = malloc(file->size);
		memcpy(world->device_copy[v], file->cached, file->size);
	}
	world->converged = true;
	device_copied(world);
}

/* ---- after a promotion ---- */
static bool checker_answered(struct world *world)
{
	return world->op[OPERATIONS_MAX - 1].request.pending == UINT32_MAX ||
	       !world->site[SITE_VAULT].alive;
}

/* What the vault shows of a volume. */
struct shown {
	unsigned volume;
	uint8_t *bytes;
	uint8_t *block; /* whether it is shown at all */
};

struct stretch {
	unsigned volume;
	uint64_t offset, length;
	uint8_t *to;
};

/* 0, or the error that was answered. */
static int checker_ask(struct world *world, const struct stretch *stretch)
{
	struct request *request = &world->op[OPERATIONS_MAX - 1].request;
	*request = (struct request){.kind = REQUEST_READ,
				    .export = (uint16_t)stretch->volume,
				    .offset = stretch->offset,
				    .length = (uint32_t)stretch->length,
				    .data = stretch->to};
	site_submit(world, SITE_VAULT, request);
	world_run(world, world->now + 60 * NS_PER_S, checker_answered);
	if (!world->failed && !checker_answered(world))
		world_fail(world, "a read of the vault never ended");
	return request->result;
}

/* Where too much is lost an error is the right answer, for that block: nothing is shown of it. */
static void checker_read(struct world *world, struct shown *shown)
{
	uint64_t block = world->options.block_bytes, blocks = world->options.blocks;
	struct stretch all = {shown->volume, 0, blocks * block, shown->bytes};
	int result = checker_ask(world, &all);
	memset(shown->block, result == 0, blocks);
	if (result == 0 || world->failed)
		return;
	if (!world->beyond) {
		world_fail(world, "a read of the vault failed with %d", result);
		return;
	}
	world->refused++;
	for (uint64_t i = 0; i < blocks && !world->failed; i++) {
		struct stretch one = {shown->volume, i * block, block, shown->bytes + i * block};
		shown->block[i] = checker_ask(world, &one) == 0;
	}
}

static bool sector_shown(const struct world *world, const struct shown *shown, uint64_t sector)
{
	return shown->block[sector * SECTOR_BYTES / world->options.block_bytes];
}

/* The newest that is there: all that was acknowledged before it was asked for is there too. */
static uint64_t newest_shown(const struct world *world, const struct shown *shown)
{
	uint64_t newest = 0;
	for (uint64_t i = 0; i < sectors_of(world); i++) {
		const uint8_t *at = shown->bytes + i * SECTOR_BYTES;
		uint64_t id = get_u64(at + 16);
		if (sector_shown(world, shown, i) && memcmp(at, canary, sizeof canary) == 0 &&
		    id >= 1 && id <= world->op_count)
			newest = max_u64(newest, world->op[id - 1].issued);
	}
	return newest;
}

/* What was asked for in this life of the vault, and acknowledged, it has received; and with it all
 * that was acknowledged before that was asked for. */
static uint64_t newest_received(const struct world *world)
{
	uint64_t newest = 0;
	for (unsigned i = 0; i < world->op_count; i++) {
		const struct op *op = &world->op[i];
		bool writes = op->kind == OP_WRITE || op->kind == OP_ZERO;
		if (writes && op->state == OP_ACKNOWLEDGED && op->firm &&
		    op->issued > world->vault_crashed)
			newest = max_u64(newest, op->issued);
	}
	return newest;
}

static void check_equal(struct world *world, const struct shown *shown)
{
	for (uint64_t i = 0; i < sectors_of(world) && !world->failed; i++) {
		const uint8_t *vault = shown->bytes + i * SECTOR_BYTES;
		const uint8_t *device = world->device_copy[shown->volume] + i * SECTOR_BYTES;
		if (sector_shown(world, shown, i) && memcmp(vault, device, SECTOR_BYTES) != 0)
			world_fail(
				world,
				"volume %u sector %llu: the sites were equal, now the vault serves "
				"operation %llu and the device has %llu",
				shown->volume, (unsigned long long)i,
				(unsigned long long)get_u64(vault + 16),
				(unsigned long long)get_u64(device + 16));
	}
}

static void check_shown(struct world *world, const struct shown *shown)
{
	uint64_t sectors = world->options.block_bytes / SECTOR_BYTES;
	for (uint64_t i = 0; i < world->options.blocks; i++)
		if (shown->block[i])
			client_check_read(world, shown->volume, i * sectors, sectors,
					  shown->bytes + i * world->options.block_bytes, NULL);
}

void client_check_all(struct world *world, enum owed owed)
{
	uint64_t bytes = sectors_of(world) * SECTOR_BYTES;
	struct shown shown[VOLUMES_PER_GROUP_MAX];
	owed_after_failover.all = owed >= OWED_RECEIVED;
	owed_after_failover.since = owed == OWED_RECEIVED ? world->vault_crashed : 0;
	owed_after_failover.until = owed == OWED_RECEIVED ? newest_received(world) : 0;
	world->received += owed == OWED_RECEIVED && owed_after_failover.until;
	for (unsigned v = 0; v < world->options.volumes; v++) {
		shown[v] = (struct shown){v, aligned_alloc(PAGE_BYTES, align_up(bytes, PAGE_BYTES)),
					  calloc(1, world->options.blocks)};
		if (!world->failed)
			checker_read(world, &shown[v]);
		if (owed != OWED_NOTHING)
			owed_after_failover.until =
				max_u64(owed_after_failover.until, newest_shown(world, &shown[v]));
	}
	for (unsigned v = 0; v < world->options.volumes; v++) {
		check_shown(world, &shown[v]);
		if (world->converged && owed != OWED_NOTHING)
			check_equal(world, &shown[v]);
		free(shown[v].bytes);
		free(shown[v].block);
	}
}
