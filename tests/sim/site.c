/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated site: the files it was formatted with, the core that runs on them, and what the
 * core's effects become in this world. */
#include "world.h"

#include "core/tools.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static const ns_t session_interval_ns = 20 * NS_PER_MS;

/* ---- formatting ---- */
static void config_common(struct world *world, unsigned site)
{
	const struct options *options = &world->options;
	struct core_config *config = &world->start[site];
	config->group_count = 1;
	config->path_count = options->paths;
	config->aead = options->aead;
	config->kernel = (uint8_t)stripe_kernel_best();
	for (unsigned i = 0; i < options->paths; i++)
		config->path[i].datagram_bytes_max = options->datagram_bytes;
	struct core_group *group = &config->group[0];
	snprintf(group->name, sizeof group->name, "g");
	group->role = site == SITE_PRIMARY ? ROLE_PRIMARY : ROLE_VAULT;
	group->geometry = options->geometry;
	group->quorum = options->quorum;
	group->ack = options->ack;
	group->sync_flush = options->sync_flush;
	group->volume_count = options->volumes;
	group->window_bytes = 32 * options->block_bytes;
	group->span_bytes_max = options->span_blocks * (uint64_t)options->block_bytes;
	group->segment_bytes = options->segment_bytes;
	group->segment_count = options->segments;
	for (unsigned i = 0; i < options->volumes; i++) {
		snprintf(group->volume[i].name, NAME_BYTES_MAX, "v%u", i);
		group->volume[i].size = (uint64_t)options->blocks * options->block_bytes;
		group->volume[i].block_bytes = options->block_bytes;
	}
}

static struct uuid draw_uuid(struct world *world)
{
	struct uuid uuid;
	put_u64(uuid.bytes, chance_next(&world->chance));
	put_u64(uuid.bytes + 8, chance_next(&world->chance));
	return uuid;
}

static void file_fill(struct file *file, uint64_t offset, const void *bytes, uint64_t length)
{
	must(offset + length <= file->size, "a format fits its file");
	memcpy(file->cached + offset, bytes, length);
	memcpy(file->durable + offset, bytes, length);
}

static void format_primary(struct world *world)
{
	struct site *site = &world->site[SITE_PRIMARY];
	struct core_group *group = &world->start[SITE_PRIMARY].group[0];
	struct intent_config config = {.volume_count = group->volume_count};
	struct intent_identity identity = {.generation = 1, .volume_count = group->volume_count};
	for (unsigned i = 0; i < group->volume_count; i++) {
		const struct core_volume *volume = &group->volume[i];
		group->volume[i].device = (uint16_t)disk_file(site, "device", volume->size);
		config.volume[i].size = volume->size;
		config.volume[i].region_bytes =
			intent_region_bytes(volume->size, volume->block_bytes);
		identity.volume[i].id = draw_uuid(world);
		identity.volume[i].size = volume->size;
		identity.volume[i].block_bytes = volume->block_bytes;
		keys_check_value(world->volume_key[i], identity.volume[i].key_check);
	}
	uint64_t bytes = intent_format(&config, &identity, NULL);
	uint8_t *image = calloc(1, bytes);
	intent_format(&config, &identity, image);
	/* A log without pages: all of the device is intended. */
	if (world->options.adopted)
		memset(image + 2 * INTENT_HEADER_BYTES, 0, bytes - 2 * INTENT_HEADER_BYTES);
	group->intent_file = (uint16_t)disk_file(site, "intent", bytes);
	file_fill(&site->file[group->intent_file], 0, image, bytes);
	if (chance_permille(&world->chance, 500))
		site->file[group->intent_file].slow = world->options.slow_most;
	bool slow = chance_permille(&world->chance, 300);
	for (unsigned i = 0; slow && i < group->volume_count; i++)
		site->file[group->volume[i].device].slow = world->options.slow_most;
	free(image);
}

static void format_store(struct world *world, const struct store_group *meta, unsigned index)
{
	uint32_t incarnation = meta->incarnation[index];
	struct site *site = &world->site[SITE_VAULT];
	struct core_group *group = &world->start[SITE_VAULT].group[0];
	struct store_files *files = &group->store[index].files;
	struct uuid id = draw_uuid(world);
	static uint8_t superblock[STORE_SUPERBLOCK_BYTES];
	char name[48];
	group->store[index].present = true;
	snprintf(name, sizeof name, "store %u superblock", index);
	files->superblock = (uint16_t)disk_file(site, name, 2 * STORE_SUPERBLOCK_BYTES);
	for (unsigned copy = 0; copy < 2; copy++) {
		store_superblock_encode(meta, &id, (uint8_t)index, incarnation,
					group->segment_bytes, group->segment_count, copy,
					superblock);
		file_fill(&site->file[files->superblock], copy * STORE_SUPERBLOCK_BYTES, superblock,
			  STORE_SUPERBLOCK_BYTES);
	}
	snprintf(name, sizeof name, "store %u journal", index);
	files->journal =
		(uint16_t)disk_file(site, name, group->segment_bytes * group->segment_count);
	for (unsigned v = 0; v < group->volume_count; v++) {
		const struct core_volume *volume = &group->volume[v];
		snprintf(name, sizeof name, "store %u image %u", index, v);
		files->image[v] = (uint16_t)disk_file(
			site, name, store_image_file_bytes(volume->size, group->geometry));
		snprintf(name, sizeof name, "store %u slots %u", index, v);
		uint64_t bytes = store_slots_file_bytes(volume->size, volume->block_bytes);
		files->slots[v] = (uint16_t)disk_file(site, name, bytes);
		uint8_t page[PAGE_BYTES];
		for (uint64_t p = 0; p < bytes / PAGE_BYTES; p++) {
			store_slots_format_page(p, volume->size, volume->block_bytes, page);
			file_fill(&site->file[files->slots[v]], p * PAGE_BYTES, page, PAGE_BYTES);
		}
	}
}

/* What a store knows that was just made: nothing of the primary yet. */
static struct store_group meta_new(const struct core_group *group, struct uuid set)
{
	struct store_group meta = {.set = set,
				   .geometry = group->geometry,
				   .quorum = group->quorum,
				   .volume_count = group->volume_count};
	snprintf(meta.name, sizeof meta.name, "%s", group->name);
	for (unsigned i = 0; i < group->volume_count; i++) {
		memcpy(meta.volume[i].name, group->volume[i].name, NAME_BYTES_MAX);
		meta.volume[i].size = group->volume[i].size;
		meta.volume[i].block_bytes = group->volume[i].block_bytes;
	}
	for (unsigned i = 0; i < geometry_n(group->geometry); i++)
		meta.incarnation[i] = 1;
	return meta;
}

/* As engine/verbs.c does: the set, and the newest incarnation of this store that others know. */
void site_renew_store(struct world *world, unsigned index, const struct uuid *set,
		      uint32_t incarnation)
{
	struct store_group meta = meta_new(&world->start[SITE_VAULT].group[0], *set);
	store_group_made(&meta, (uint8_t)index, incarnation);
	format_store(world, &meta, index);
	world->store_gone[index] = false;
	world->wanders[index] = WANDER_HOME;
}

static void format_vault(struct world *world)
{
	struct core_group *group = &world->start[SITE_VAULT].group[0];
	struct store_group meta = meta_new(group, draw_uuid(world));
	unsigned slow = (unsigned)chance_below(&world->chance, geometry_n(group->geometry));
	for (unsigned i = 0; i < geometry_n(group->geometry); i++) {
		unsigned first = world->site[SITE_VAULT].file_count;
		format_store(world, &meta, i);
		bool slows = (i + slow) % geometry_n(group->geometry) < world->options.slow_stores;
		for (unsigned f = first; slows && f < world->site[SITE_VAULT].file_count; f++)
			if (f == group->store[i].files.journal ||
			    chance_permille(&world->chance, 500))
				world->site[SITE_VAULT].file[f].slow = world->options.slow_most;
	}
}

void site_format(struct world *world, unsigned site)
{
	config_common(world, site);
	if (site == SITE_PRIMARY)
		format_primary(world);
	else
		format_vault(world);
}

/* ---- memory ---- */
/* Cores come and go by the thousand, and use a small part of what they ask for: theirs is of fresh
 * pages, which cost nothing until they are touched. */
void *__wrap_tools_memory(struct tools *, uint64_t bytes);
void *__wrap_tools_memory(struct tools *tools, uint64_t bytes)
{
	bytes = align_up(max_u64(bytes, 1), PAGE_BYTES);
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED, "the simulated site has memory");
	must(tools->chunk_count < ARRAY_COUNT(tools->chunk), "the pieces of memory are counted");
	tools->memory_bytes += bytes;
	tools->chunk[tools->chunk_count].bytes = bytes;
	tools->chunk[tools->chunk_count++].memory = memory;
	return memory;
}

/* Freed by the same function, so of the same pages. */
void *__wrap_tools_key_memory(struct tools *, uint64_t bytes);
void *__wrap_tools_key_memory(struct tools *tools, uint64_t bytes)
{
	return __wrap_tools_memory(tools, bytes);
}

void __wrap_tools_memory_free(struct tools *);
void __wrap_tools_memory_free(struct tools *tools)
{
	while (tools->chunk_count) {
		tools->chunk_count--;
		munmap(tools->chunk[tools->chunk_count].memory,
		       tools->chunk[tools->chunk_count].bytes);
	}
}

/* ---- life ---- */
void site_start(struct world *world, unsigned index)
{
	struct site *site = &world->site[index];
	must(!site->alive, "a site is started once");
	struct core_config config = world->start[index];
	for (unsigned i = 0; i < sizeof config.entropy; i++)
		config.entropy[i] = (uint8_t)chance_next(&world->chance);
	if (index == SITE_PRIMARY)
		for (unsigned i = 0; i < config.group[0].volume_count; i++)
			memcpy(config.group[0].volume[i].key, world->volume_key[i], KEY_BYTES);
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		if (world->store_gone[i])
			config.group[0].store[i].present = false;
	uint64_t bytes = core_packet_memory_bytes(&config);
	/* Fresh pages: most cells are never used, and a branch copies what was touched. */
	site->packet_bytes = align_up(bytes, PAGE_BYTES);
	site->packet_memory = mmap(NULL, site->packet_bytes, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(site->packet_memory != MAP_FAILED, "the simulated site has memory for packets");
	site->core = core_new(&config, site->packet_memory);
	must(site->core, "the simulated site has memory");
	site->alive = true;
	site->life++;
	site->packet_count = site->completion_count = site->request_count = 0;
	site->sent_count = site->command_count = 0;
	site->session = NULL;
	site->next_step = NS_NEVER;
	world_say(world, "site %u starts (life %u)", index, site->life);
	site_step(world, index);
}

void site_crash(struct world *world, unsigned index, enum crash kind)
{
	struct site *site = &world->site[index];
	if (!site->alive)
		return;
	world_say(world, kind == CRASH_POWER ? "site %u loses power" : "site %u is killed", index);
	world->crashes++;
	world->kills += kind == CRASH_PROCESS;
	site->alive = false;
	site->life++;
	disk_crash(world, site, kind);
	/* A branch would copy all of it, only to wipe it. */
	if (!world->branched) {
		core_free(site->core);
		munmap(site->packet_memory, site->packet_bytes);
	}
	site->core = NULL;
	if (index == SITE_VAULT) {
		world->vault_crashed = ++world->clock;
		world->scrub.open = world->rebuild.open = world->removal.open = false;
		memset(world->store_deleted, 0, sizeof world->store_deleted);
		return;
	}
	client_crashed(world, kind);
	client_check_device(world);
}

void site_lose_store(struct world *world, unsigned index)
{
	world_say(world, "store %u is lost", index);
	world->stores_lost += !world->store_spent[index];
	world->store_gone[index] = world->store_spent[index] = true;
}

/* A session as a handshake would give it, when one side wants one and both can hear each other. */
void sessions_meet(struct world *world)
{
	struct site *a = &world->site[SITE_PRIMARY], *b = &world->site[SITE_VAULT];
	if (!a->alive || !b->alive || world->partitioned || a->session || b->session ||
	    world->now < world->session_at)
		return;
	if (!core_wants_session(a->core) && !core_wants_session(b->core))
		return;
	world->session_at = world->now + session_interval_ns;
	a->keys = (struct session_keys){.id_in = chance_next(&world->chance),
					.id_out = chance_next(&world->chance),
					.initiator = true};
	for (unsigned i = 0; i < SESSION_SECRET_BYTES; i++) {
		a->keys.secret_in[i] = (uint8_t)chance_next(&world->chance);
		a->keys.secret_out[i] = (uint8_t)chance_next(&world->chance);
	}
	b->keys = (struct session_keys){.id_in = a->keys.id_out, .id_out = a->keys.id_in};
	memcpy(b->keys.secret_in, a->keys.secret_out, SESSION_SECRET_BYTES);
	memcpy(b->keys.secret_out, a->keys.secret_in, SESSION_SECRET_BYTES);
	a->session = &a->keys;
	b->session = &b->keys;
	world->sessions++;
	world_event(world, world->now, EVENT_STEP, SITE_VAULT, NULL, 1);
	world_event(world, world->now + world->options.delay_least, EVENT_STEP, SITE_PRIMARY, NULL,
		    1);
}

/* ---- effects ---- */
static void datagram_send(struct world *world, unsigned from, const struct cell *cell)
{
	const struct options *options = &world->options;
	bool faults = !world->quiet;
	world->datagrams++;
	if (world->partitioned || world->path_cut[cell->path] ||
	    (world->drops && world->drops(world, from, cell)) ||
	    (faults && chance_permille(&world->chance, options->loss))) {
		world->lost++;
		return;
	}
	struct datagram *datagram = malloc(sizeof *datagram + cell->length);
	datagram->length = cell->length;
	datagram->path = cell->path;
	datagram->altered = datagram->held = false;
	memcpy(datagram->bytes, cell->datagram, cell->length);
	if (faults && chance_permille(&world->chance, options->corrupt)) {
		uint64_t bit = chance_below(&world->chance, (uint64_t)cell->length * 8);
		datagram->bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		datagram->altered = true;
		world->corrupted++;
	}
	ns_t at = world->now +
		  chance_between(&world->chance, options->delay_least, options->delay_most);
	ns_t *last = &world->site[from].path_free[cell->path];
	/* Some turn up when nobody waits for them any more, in another life of either side. */
	if (faults && chance_permille(&world->chance, options->late)) {
		at += chance_below(&world->chance, 3 * NS_PER_S);
		world->late++;
		world_event(world, at, EVENT_DATAGRAM, !from, datagram, 0);
		return;
	}
	if (!(faults && chance_permille(&world->chance, options->reorder)))
		at = max_u64(at, *last);
	*last = max_u64(*last, at);
	world_event(world, at, EVENT_DATAGRAM, !from, datagram, 0);
}

static void cell_sent(struct world *world, struct site *site, struct cell *cell)
{
	datagram_send(world, site->index, cell);
	if (!world->quiet && chance_permille(&world->chance, world->options.duplicate))
		datagram_send(world, site->index, cell);
	/* The port may read the cell a little longer. */
	ns_t hold = chance_below(&world->chance, 100 * NS_PER_US);
	world_event(world, world->now + hold, EVENT_SENT, site->index, cell, 0);
}

static void effects_happen(struct world *world, struct site *site)
{
	struct effects *fx = &site->effects;
	for (struct io *io; (io = io_list_pop(&fx->disk));)
		disk_take(world, site, io);
	for (struct cell *cell; (cell = cell_list_pop(&fx->packets));)
		cell_sent(world, site, cell);
	for (struct request *request; (request = request_list_pop(&fx->replies));)
		client_answered(world, request);
	for (struct command *command = fx->results, *next; command; command = next) {
		next = command->next;
		if (command == &world->command)
			world->command_done = true;
		else
			world->ordered(world, command);
	}
	for (unsigned i = 0; i < fx->note_count; i++) {
		char line[160];
		const struct note *note = &fx->note[i];
		char form[128];
		snprintf(form, sizeof form, "%s", note->text);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(line, sizeof line, form, note->number[0], note->number[1],
			 note->number[2]);
#pragma GCC diagnostic pop
		world_say(world, "site %u: %s", site->index, line);
	}
}

void site_step(struct world *world, unsigned index)
{
	struct site *site = &world->site[index];
	if (!site->alive || world->failed)
		return;
	struct events events = {.packet = site->packet,
				.packet_count = site->packet_count,
				.completion = site->completion,
				.completion_count = site->completion_count,
				.request = site->request,
				.request_count = site->request_count,
				.sent = site->sent,
				.sent_count = site->sent_count,
				.command = site->command,
				.command_count = site->command_count,
				.session = site->session};
	effects_init(&site->effects, world->now, world->now);
	world->steps++;
	core_step(site->core, &events, &site->effects);
	site->packet_count = site->completion_count = site->request_count = 0;
	site->sent_count = site->command_count = 0;
	site->session = NULL;
	effects_happen(world, site);
	ns_t deadline = max_u64(core_deadline(site->core), world->now + NS_PER_US);
	if (deadline < site->next_step || site->next_step <= world->now) {
		site->next_step = deadline;
		world_event(world, deadline, EVENT_STEP, index, NULL, 0);
	}
}

void site_submit(struct world *world, unsigned index, struct request *request)
{
	struct site *site = &world->site[index];
	site->request[site->request_count++] = request;
	site_step(world, index);
}

static bool command_ended(struct world *world)
{
	return world->command_done || !world->site[SITE_VAULT].alive;
}

void site_status(struct world *world, unsigned index, struct core_status *status)
{
	struct site *site = &world->site[index];
	world->command = (struct command){.kind = COMMAND_STATUS, .status = status};
	site->command[site->command_count++] = &world->command;
	world->command_done = false;
	site_step(world, index);
}

void site_order_begin(struct world *world, unsigned index, const struct command *command)
{
	struct site *site = &world->site[index];
	world->command = *command;
	site->command[site->command_count++] = &world->command;
	world->command_done = false;
	site_step(world, index);
}

void site_order(struct world *world, unsigned index, const struct command *command)
{
	site_order_begin(world, index, command);
	world_run(world, world->now + 60 * NS_PER_S, command_ended);
	if (!world->command_done && !world->failed)
		world_fail(world, "an order was never answered");
}

int site_promote(struct world *world, bool accept_loss, struct command *result)
{
	struct command command = {.kind = COMMAND_PROMOTE, .accept_loss = accept_loss};
	memcpy(command.key, world->volume_key, sizeof command.key);
	site_order(world, SITE_VAULT, &command);
	*result = world->command;
	return world->command.result;
}
