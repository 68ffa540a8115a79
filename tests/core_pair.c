/* SPDX-License-Identifier: Apache-2.0 */
/* The pair in memory. A datagram is opened in place, in its sender's cell: the sealed text is
 * spoilt by that, the payload is not, and a resend writes the text anew; so the cell goes back to
 * its sender once the other side has stepped. */
#include "core_pair.h"

#include "core/intent.h"
#include "core/keys.h"

#include <emmintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

const uint8_t pair_volume_key[KEY_BYTES] = "the key of the pair's one volume";
static const ns_t step_ns = 10 * NS_PER_US;

/* ---- disks ---- */
static uint16_t file_add(struct pair_site *site, uint64_t size, bool forgets)
{
	must(site->file_count < PAIR_FILES_MAX, "a site has room for its files");
	struct pair_file *file = &site->file[site->file_count];
	*file = (struct pair_file){.size = align_up(size, PAGE_BYTES)};
	if (!forgets) {
		file->bytes = aligned_alloc(PAGE_BYTES, file->size);
		must(file->bytes, "the pair has memory");
		memset(file->bytes, 0, file->size);
	}
	return (uint16_t)site->file_count++;
}

/* Past the caches, as a disk takes its data: else a meter would measure what the copies drove out.
 */
static void copy_past_caches(uint8_t *to, const uint8_t *from, size_t bytes)
{
	must(((uintptr_t)to | bytes) % sizeof(__m128i) == 0, "disks take whole pages");
	for (size_t at = 0; at < bytes; at += sizeof(__m128i))
		_mm_stream_si128((__m128i *)(void *)(to + at),
				 _mm_loadu_si128((const __m128i *)(const void *)(from + at)));
	_mm_sfence();
}

static int32_t transfer(struct pair_file *file, const struct io *io)
{
	uint64_t at = io->offset;
	must(io->offset % PAGE_BYTES == 0 && io->offset + io->length <= file->size,
	     "a transfer is pages inside its file");
	for (unsigned i = 0; i < io->piece_count; at += io->piece[i++].iov_len) {
		void *memory = io->piece[i].iov_base;
		if (io->kind == IO_READ && file->bytes)
			memcpy(memory, file->bytes + at, io->piece[i].iov_len);
		else if (io->kind == IO_READ)
			memset(memory, 0, io->piece[i].iov_len);
		else if (file->bytes)
			copy_past_caches(file->bytes + at, memory, io->piece[i].iov_len);
	}
	must(at == io->offset + io->length, "the pieces make the length");
	return (int32_t)io->length;
}

static int32_t carry_out(struct pair_file *file, const struct io *io)
{
	if (io->kind == IO_READ || io->kind == IO_WRITE || io->kind == IO_WRITE_DURABLE)
		return transfer(file, io);
	if (io->kind != IO_SYNC && file->bytes)
		memset(file->bytes + io->offset, 0, io->length);
	return 0;
}

void pair_disk(struct pair *pair, unsigned index)
{
	struct pair_site *site = &pair->site[index];
	if (site->disk_stands)
		return;
	for (struct io *io; (io = io_list_pop(&site->disk));) {
		must(site->completion_count < PAIR_QUEUE_MAX, "completions are taken in time");
		site->completion[site->completion_count++] = (struct completion){
			.io = io, .result = carry_out(&site->file[io->file], io)};
	}
}

/* ---- formatting ---- */
static struct uuid uuid_of(uint8_t number)
{
	return (struct uuid){{0xca, 0x5e, number}};
}

static void config_common(struct core_config *config, const struct pair_options *options)
{
	struct core_group *group = &config->group[0];
	uint32_t shard = options->block_bytes / options->geometry.k;
	*config = (struct core_config){.group_count = 1,
				       .path_count = 1,
				       .aead = options->aead,
				       .memory = options->memory,
				       .kernel = (uint8_t)stripe_kernel_best()};
	config->path[0].datagram_bytes_max = PAIR_DATAGRAM_BYTES_MAX;
	snprintf(group->name, sizeof group->name, "pair");
	group->geometry = options->geometry;
	group->quorum = quorum_default(options->geometry);
	group->ack = options->ack;
	group->sync_flush = options->sync_flush;
	group->volume_count = 1;
	snprintf(group->volume[0].name, NAME_BYTES_MAX, "volume");
	group->volume[0].block_bytes = options->block_bytes;
	group->volume[0].size = (uint64_t)options->blocks * options->block_bytes;
	group->window_bytes = (uint64_t)options->window * shard * geometry_n(options->geometry);
	group->segment_bytes = MIB;
	group->segment_count = (uint32_t)max_u64(8, 8ull * options->window * shard / MIB);
}

static void format_primary(struct pair *pair, struct core_config *config)
{
	struct pair_site *site = &pair->site[PAIR_PRIMARY];
	struct core_volume *volume = &config->group[0].volume[0];
	struct intent_config intent = {.volume_count = 1};
	struct intent_identity identity = {.generation = 1, .volume_count = 1};
	config->group[0].role = ROLE_PRIMARY;
	volume->device = file_add(site, volume->size, pair->options.forgetful);
	intent.volume[0].size = volume->size;
	intent.volume[0].region_bytes = intent_region_bytes(volume->size, volume->block_bytes);
	identity.volume[0].id = uuid_of(1);
	identity.volume[0].size = volume->size;
	identity.volume[0].block_bytes = volume->block_bytes;
	keys_check_value(pair_volume_key, identity.volume[0].key_check);
	config->group[0].intent_file =
		file_add(site, intent_format(&intent, &identity, NULL), false);
	intent_format(&intent, &identity, site->file[config->group[0].intent_file].bytes);
}

static void format_store(struct pair_site *site, struct core_group *group,
			 const struct store_group *meta, unsigned index)
{
	struct store_files *files = &group->store[index].files;
	const struct core_volume *volume = &group->volume[0];
	struct uuid id = uuid_of((uint8_t)(100 + index));
	group->store[index].present = true;
	files->superblock = file_add(site, 2 * STORE_SUPERBLOCK_BYTES, false);
	for (unsigned copy = 0; copy < 2; copy++)
		store_superblock_encode(
			meta, &id, (uint8_t)index, 1, group->segment_bytes, group->segment_count,
			copy, site->file[files->superblock].bytes + copy * STORE_SUPERBLOCK_BYTES);
	files->journal = file_add(site, group->segment_bytes * group->segment_count, false);
	files->image[0] =
		file_add(site, store_image_file_bytes(volume->size, group->geometry), false);
	uint64_t bytes = store_slots_file_bytes(volume->size, volume->block_bytes);
	files->slots[0] = file_add(site, bytes, false);
	for (uint64_t page = 0; page < bytes / PAGE_BYTES; page++)
		store_slots_format_page(page, volume->size, volume->block_bytes,
					site->file[files->slots[0]].bytes + page * PAGE_BYTES);
}

static void format_vault(struct pair *pair, struct core_config *config)
{
	struct core_group *group = &config->group[0];
	struct store_group meta = {.set = uuid_of(2),
				   .geometry = group->geometry,
				   .quorum = group->quorum,
				   .volume_count = 1,
				   .generation = 1};
	group->role = ROLE_VAULT;
	memcpy(meta.name, group->name, NAME_BYTES_MAX);
	memcpy(meta.volume[0].name, group->volume[0].name, NAME_BYTES_MAX);
	meta.volume[0].size = group->volume[0].size;
	meta.volume[0].block_bytes = group->volume[0].block_bytes;
	for (unsigned i = 0; i < geometry_n(group->geometry); i++)
		meta.incarnation[i] = 1;
	for (unsigned i = 0; i < geometry_n(group->geometry); i++)
		format_store(&pair->site[PAIR_VAULT], group, &meta, i);
}

/* ---- steps ---- */
static void packets_go(struct pair *pair, unsigned from)
{
	struct pair_site *site = &pair->site[from], *peer = &pair->site[!from];
	for (struct cell *cell; (cell = cell_list_pop(&site->effects.packets));) {
		if (pair->arrives && !pair->arrives(pair, from, cell)) {
			site->sent[site->sent_count++] = cell;
			continue;
		}
		must(peer->packet_count < PAIR_QUEUE_MAX, "datagrams are taken in time");
		peer->packet[peer->packet_count] = (struct packet){
			.datagram = cell->datagram, .length = cell->length, .path = cell->path};
		peer->carrier[peer->packet_count++] = cell;
	}
}

static void disk_wants(struct pair_site *site)
{
	struct io_list *fresh = &site->effects.disk;
	if (!fresh->head)
		return;
	if (site->disk.tail)
		site->disk.tail->next = fresh->head;
	else
		site->disk.head = fresh->head;
	site->disk.tail = fresh->tail;
}

static void carriers_return(struct pair *pair, unsigned index, unsigned count)
{
	struct pair_site *site = &pair->site[index], *peer = &pair->site[!index];
	must(peer->sent_count + count <= PAIR_QUEUE_MAX, "sent cells are taken in time");
	for (; count; count--) {
		struct cell *cell = site->carrier[site->packet_taken++];
		if (cell)
			peer->sent[peer->sent_count++] = cell;
	}
	if (site->packet_taken == site->packet_count)
		site->packet_taken = site->packet_count = 0;
}

void pair_step(struct pair *pair, unsigned index, unsigned packet_max,
	       struct request *const *request, unsigned request_count)
{
	struct pair_site *site = &pair->site[index];
	unsigned packets = (unsigned)min_u64(packet_max, site->packet_count - site->packet_taken);
	struct events events = {.packet = site->packet + site->packet_taken,
				.packet_count = packets,
				.completion = site->completion,
				.completion_count = site->completion_count,
				.request = request,
				.request_count = request_count,
				.sent = site->sent,
				.sent_count = site->sent_count,
				.session = site->keys_fresh ? &site->keys : NULL};
	pair->now += step_ns;
	effects_init(&site->effects, pair->now, pair->now);
	core_step(site->core, &events, &site->effects);
	site->completion_count = site->sent_count = 0;
	site->keys_fresh = false;
	carriers_return(pair, index, packets);
	packets_go(pair, index);
	disk_wants(site);
	for (struct request *done; (done = request_list_pop(&site->effects.replies));)
		request_list_push(&pair->answered, done);
	pair->notes += site->effects.note_count;
}

bool pair_waits(const struct pair *pair, unsigned index)
{
	const struct pair_site *site = &pair->site[index];
	return site->packet_count > site->packet_taken || site->completion_count || site->disk.head;
}

void pair_settle(struct pair *pair, ns_t time)
{
	ns_t until = pair->now + time;
	while (pair->now < until || pair_waits(pair, PAIR_PRIMARY) ||
	       pair_waits(pair, PAIR_VAULT)) {
		if (!pair_waits(pair, PAIR_PRIMARY) && !pair_waits(pair, PAIR_VAULT))
			pair->now += NS_PER_MS;
		for (unsigned i = 0; i < PAIR_SITES; i++) {
			pair_disk(pair, i);
			pair_step(pair, i, UINT32_MAX, NULL, 0);
		}
	}
}

/* ---- life ---- */
/* In huge pages where the kernel has some, as in service. */
static void site_start(struct pair *pair, struct pair_site *site)
{
	struct core_config *config = &site->config;
	uint64_t bytes = align_up(core_packet_memory_bytes(config), 2 * MIB);
	site->packet_memory = aligned_alloc(2 * MIB, bytes);
	must(site->packet_memory, "the pair has memory");
	(void)madvise(site->packet_memory, bytes, MADV_HUGEPAGE);
	memset(site->packet_memory, 0, bytes);
	config->entropy[0] = (uint8_t)config->group[0].role;
	config->entropy[1] = (uint8_t)++pair->lives;
	if (config->group[0].role == ROLE_PRIMARY)
		memcpy(config->group[0].volume[0].key, pair_volume_key, KEY_BYTES);
	site->core = core_new(config, site->packet_memory);
	must(site->core, "the pair has memory");
}

static void session_give(struct pair *pair)
{
	struct session_keys *a = &pair->site[PAIR_PRIMARY].keys, *b = &pair->site[PAIR_VAULT].keys;
	uint8_t life = (uint8_t)(pair->lives - PAIR_SITES);
	*a = (struct session_keys){
		.id_in = 11u + 100 * life, .id_out = 22u + 100 * life, .initiator = true};
	memset(a->secret_in, 1 + 2 * life, SESSION_SECRET_BYTES);
	memset(a->secret_out, 2 + 2 * life, SESSION_SECRET_BYTES);
	*b = (struct session_keys){.id_in = a->id_out, .id_out = a->id_in};
	memcpy(b->secret_in, a->secret_out, SESSION_SECRET_BYTES);
	memcpy(b->secret_out, a->secret_in, SESSION_SECRET_BYTES);
	pair->site[PAIR_PRIMARY].keys_fresh = pair->site[PAIR_VAULT].keys_fresh = true;
}

struct pair *pair_new(const struct pair_options *options)
{
	struct pair *pair = calloc(1, sizeof *pair);
	bool read_only;
	must(pair, "the pair has memory");
	pair->options = *options;
	pair->now = NS_PER_S;
	for (unsigned i = 0; i < PAIR_SITES; i++)
		config_common(&pair->site[i].config, options);
	format_primary(pair, &pair->site[PAIR_PRIMARY].config);
	format_vault(pair, &pair->site[PAIR_VAULT].config);
	for (unsigned i = 0; i < PAIR_SITES; i++)
		site_start(pair, &pair->site[i]);
	session_give(pair);
	for (unsigned tries = 0; tries < 1000; tries++)
		if (!core_export_ready(pair->site[PAIR_PRIMARY].core, 0, &read_only))
			pair_settle(pair, 10 * NS_PER_MS);
	must(core_export_ready(pair->site[PAIR_PRIMARY].core, 0, &read_only),
	     "the pair comes to replicate");
	pair_settle(pair, NS_PER_S);
	return pair;
}

void pair_free(struct pair *pair)
{
	for (unsigned i = 0; i < PAIR_SITES; i++) {
		struct pair_site *site = &pair->site[i];
		core_free(site->core);
		free(site->packet_memory);
		for (unsigned f = 0; f < site->file_count; f++)
			free(site->file[f].bytes);
	}
	free(pair);
}

void pair_run(struct pair *pair, ns_t time)
{
	for (ns_t until = pair->now + time; pair->now < until;) {
		if (!pair_waits(pair, PAIR_PRIMARY) && !pair_waits(pair, PAIR_VAULT))
			pair->now += 100 * NS_PER_US;
		for (unsigned i = 0; i < PAIR_SITES; i++) {
			pair_disk(pair, i);
			pair_step(pair, i, UINT32_MAX, NULL, 0);
		}
	}
}

void pair_restart(struct pair *pair, unsigned index)
{
	struct pair_site *site = &pair->site[index], *peer = &pair->site[!index];
	carriers_return(pair, index, site->packet_count - site->packet_taken);
	peer->packet_count = peer->packet_taken = 0;
	site->sent_count = site->completion_count = 0;
	site->disk = (struct io_list){0};
	core_free(site->core);
	free(site->packet_memory);
	site_start(pair, site);
	session_give(pair);
}

void pair_deliver(struct pair *pair, unsigned index, uint8_t *datagram, uint32_t length)
{
	struct pair_site *site = &pair->site[index];
	unsigned waiting = site->packet_count - site->packet_taken;
	must(waiting + 1 < PAIR_QUEUE_MAX, "datagrams are taken in time");
	memmove(site->packet + 1, site->packet + site->packet_taken,
		waiting * sizeof *site->packet);
	memmove(site->carrier + 1, site->carrier + site->packet_taken,
		waiting * sizeof(struct cell *));
	site->packet[0] = (struct packet){.datagram = datagram, .length = length};
	site->carrier[0] = NULL;
	site->packet_taken = 0;
	site->packet_count = waiting + 1;
}

void pair_status(struct pair *pair, unsigned index, struct core_status *status)
{
	struct command command = {.kind = COMMAND_STATUS, .status = status};
	struct command *const order = &command;
	struct pair_site *site = &pair->site[index];
	struct events events = {.command = &order, .command_count = 1};
	effects_init(&site->effects, pair->now, pair->now);
	core_step(site->core, &events, &site->effects);
	packets_go(pair, index);
	disk_wants(site);
	must(command.result == 0, "a status is told at once");
}
