/* SPDX-License-Identifier: Apache-2.0 */
/* The vault's surroundings in memory. An operation of a disk is carried out when it is submitted
 * and told in the next turn, in order or shuffled. */
#include "vault_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/keys.h"

enum { FILE_SUPERBLOCK, FILE_JOURNAL, FILE_IMAGE, FILE_SLOTS = FILE_IMAGE + RIG_VOLUMES };
enum { SEGMENT_COUNT = 8, TURNS_MAX = 20000 };
static const uint64_t volume_blocks[RIG_VOLUMES] = {RIG_BLOCKS_MAX, 20};
static const uint32_t volume_block_bytes[RIG_VOLUMES] = {16384, 32768};

static uint64_t rig_random(struct rig *rig)
{
	rig->random = rig->random * 6364136223846793005ull + 1442695040888963407ull;
	return rig->random >> 33;
}

static void *memory_of(uint64_t bytes)
{
	void *memory = aligned_alloc(PAGE_BYTES, align_up(bytes, PAGE_BYTES));
	must(memory, "a test has memory");
	memset(memory, 0, align_up(bytes, PAGE_BYTES));
	return memory;
}

/* ---- files ---- */
struct rig_file *rig_file(struct rig *rig, uint16_t number)
{
	must(number < RIG_FILES && rig->file[number].bytes, "the file was made");
	return &rig->file[number];
}

static void file_make(struct rig *rig, unsigned number, uint64_t length)
{
	free(rig->file[number].bytes);
	rig->file[number] = (struct rig_file){memory_of(length), length};
}

static void io_transfer(struct rig_file *file, const struct io *io)
{
	uint64_t at = io->offset;
	must(io->offset + io->length <= file->length, "operations are inside the file");
	if (io->kind == IO_DISCARD || io->kind == IO_ZERO) {
		memset(file->bytes + at, 0, io->length);
		return;
	}
	for (unsigned i = 0; i < io->piece_count; i++) {
		const struct iovec *piece = &io->piece[i];
		if (io->kind == IO_READ)
			memcpy(piece->iov_base, file->bytes + at, piece->iov_len);
		else
			memcpy(file->bytes + at, piece->iov_base, piece->iov_len);
		at += piece->iov_len;
	}
	must(at == io->offset + io->length, "the pieces make the length");
}

static bool no_room(const struct rig *rig, const struct io *io)
{
	unsigned store = io->file / RIG_FILES_PER_STORE % RIG_STORES_MAX;
	unsigned file = io->file % RIG_FILES_PER_STORE;
	bool there = rig->full_slots ? file >= FILE_SLOTS : file >= FILE_IMAGE && file < FILE_SLOTS;
	return rig->full >> store & 1 && io->kind == IO_WRITE && there;
}

static void disk_take(struct rig *rig)
{
	for (struct io *io; (io = io_list_pop(&rig->fx.disk));) {
		must(rig->io_count < RIG_IO_MAX, "the disk has room for operations");
		if (io->kind != IO_SYNC && !no_room(rig, io))
			io_transfer(rig_file(rig, io->file), io);
		rig->io[rig->io_count++] = io;
	}
}

/* The memory of a write is the disk's until it is told: nobody changes it meanwhile. */
static void write_check(struct rig *rig, const struct io *io)
{
	uint64_t at = io->offset;
	if ((io->kind != IO_WRITE && io->kind != IO_WRITE_DURABLE) || no_room(rig, io))
		return;
	for (unsigned i = 0; i < io->piece_count; at += io->piece[i++].iov_len)
		must(memcmp(rig_file(rig, io->file)->bytes + at, io->piece[i].iov_base,
			    io->piece[i].iov_len) == 0,
		     "memory that a disk may still read is left alone");
}

static void io_tell(struct rig *rig, struct io *io, int fate)
{
	bool transfer = io->kind == IO_READ || io->kind == IO_WRITE || io->kind == IO_WRITE_DURABLE;
	write_check(rig, io);
	io->done(io, fate ? fate : transfer ? (int32_t)io->length : 0, &rig->fx);
}

static void disk_tell(struct rig *rig)
{
	static struct io *told[2 * RIG_IO_MAX];
	unsigned count = rig->hanging_count;
	memcpy(told, rig->hanging, count * sizeof told[0]);
	memcpy(told + count, rig->io, rig->io_count * sizeof told[0]);
	count += rig->io_count;
	rig->io_count = rig->hanging_count = 0;
	for (unsigned i = 0; i < count; i++) {
		unsigned other = rig->shuffle ? i + (unsigned)(rig_random(rig) % (count - i)) : i;
		struct io *io = told[other];
		told[other] = told[i];
		int fate = no_room(rig, io) ? rig->full_err : rig->fate ? rig->fate(rig, io) : 0;
		if (rig->stuck && io->file == rig->stuck)
			fate = RIG_HANGS;
		if (fate == RIG_HANGS) {
			must(rig->hanging_count < RIG_IO_MAX, "the disk has room");
			rig->hanging[rig->hanging_count++] = io;
		} else {
			io_tell(rig, io, fate);
		}
	}
}

void rig_fill(struct rig *rig, uint32_t stores, int err)
{
	must(!rig->io_count, "what is under way was tried before");
	rig->full = stores;
	rig->full_err = err;
}

/* ---- formatting ---- */
static struct store_group group_of(const struct rig *rig)
{
	struct store_group group = {.set = {{7}},
				    .geometry = rig->geometry,
				    .quorum = rig->config.quorum,
				    .volume_count = RIG_VOLUMES};
	snprintf(group.name, sizeof group.name, "%s", "group0");
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		group.incarnation[i] = 1;
	for (unsigned i = 0; i < RIG_VOLUMES; i++) {
		struct store_volume *volume = &group.volume[i];
		snprintf(volume->name, sizeof volume->name, "%s", rig->config.volume[i].name);
		volume->size = rig->config.volume[i].size;
		volume->block_bytes = rig->config.volume[i].block_bytes;
	}
	return group;
}

static struct store_files files_from(unsigned first)
{
	struct store_files files = {.superblock = (uint16_t)(first + FILE_SUPERBLOCK),
				    .journal = (uint16_t)(first + FILE_JOURNAL)};
	for (unsigned i = 0; i < RIG_VOLUMES; i++) {
		files.image[i] = (uint16_t)(first + FILE_IMAGE + i);
		files.slots[i] = (uint16_t)(first + FILE_SLOTS + i);
	}
	return files;
}

static void store_format(struct rig *rig, unsigned store, uint32_t incarnation, unsigned first)
{
	struct store_group group = group_of(rig);
	struct uuid id = {{1, (uint8_t)store, (uint8_t)incarnation}};
	store_group_made(&group, (uint8_t)store, incarnation);
	file_make(rig, first + FILE_SUPERBLOCK, 2 * STORE_SUPERBLOCK_BYTES);
	for (unsigned i = 0; i < 2; i++)
		store_superblock_encode(&group, &id, (uint8_t)store, incarnation,
					rig->config.segment_bytes, SEGMENT_COUNT, i + 1,
					rig->file[first].bytes + i * STORE_SUPERBLOCK_BYTES);
	file_make(rig, first + FILE_JOURNAL, rig->config.segment_bytes * SEGMENT_COUNT);
	for (unsigned i = 0; i < RIG_VOLUMES; i++) {
		uint64_t size = rig->config.volume[i].size;
		uint32_t block_bytes = rig->config.volume[i].block_bytes;
		file_make(rig, first + FILE_IMAGE + i, store_image_file_bytes(size, rig->geometry));
		file_make(rig, first + FILE_SLOTS + i, store_slots_file_bytes(size, block_bytes));
		struct rig_file *slots = &rig->file[first + FILE_SLOTS + i];
		for (uint64_t page = 0; page < slots->length / PAGE_BYTES; page++)
			store_slots_format_page(page, size, block_bytes,
						slots->bytes + page * PAGE_BYTES);
	}
}

struct store_files rig_format_anew(struct rig *rig, unsigned store, uint32_t incarnation)
{
	unsigned first = (RIG_STORES_MAX + store) * RIG_FILES_PER_STORE;
	store_format(rig, store, incarnation, first);
	return files_from(first);
}

bool rig_is_of(const struct rig *rig, uint16_t file, unsigned store)
{
	uint16_t first = rig->config.store[store].files.superblock;
	return file >= first && file < first + RIG_FILES_PER_STORE;
}

struct rig *rig_new(struct geometry geometry, uint8_t quorum, uint64_t segment_bytes)
{
	struct rig *rig = memory_of(sizeof *rig);
	unsigned n = geometry_n(geometry);
	must(n <= RIG_STORES_MAX, "the rig has so many stores");
	rig->geometry = geometry;
	rig->random = 88172645463325252ull;
	rig->now = NS_PER_S;
	rig->config = (struct core_group){.role = ROLE_VAULT,
					  .geometry = geometry,
					  .quorum = quorum,
					  .ack = ACK_DURABLE,
					  .volume_count = RIG_VOLUMES,
					  .window_bytes = 8 * MIB,
					  .segment_bytes = segment_bytes,
					  .segment_count = SEGMENT_COUNT};
	snprintf(rig->config.name, sizeof rig->config.name, "%s", "group0");
	for (unsigned i = 0; i < RIG_VOLUMES; i++) {
		struct core_volume *volume = &rig->config.volume[i];
		snprintf(volume->name, sizeof volume->name, "vol%u", i);
		volume->block_bytes = volume_block_bytes[i];
		volume->size = volume_blocks[i] * volume_block_bytes[i];
		memset(rig->key[i], 0x40 + (int)i, KEY_BYTES);
		rig->volume_id[i] = (struct uuid){{0x30, (uint8_t)i}};
	}
	rig->instance = (struct uuid){{0x50}};
	for (unsigned i = 0; i < n; i++) {
		store_format(rig, i, 1, i * RIG_FILES_PER_STORE);
		rig->config.store[i].files = files_from(i * RIG_FILES_PER_STORE);
	}
	rig->shard = memory_of((uint64_t)n * BLOCK_BYTES_MAX);
	for (unsigned i = 0; i < RIG_APPENDS_MAX; i++)
		rig->append[i].rig = rig;
	rig->core = (struct core_config){.path_count = 1};
	rig->core.path[0].datagram_bytes_max = 9000;
	return rig;
}

void rig_free(struct rig *rig)
{
	rig_stop(rig);
	for (unsigned i = 0; i < RIG_FILES; i++) {
		free(rig->file[i].bytes);
		free(rig->saved[i].bytes);
	}
	for (unsigned i = 0; i < RIG_APPENDS_MAX; i++)
		free(rig->append[i].shard);
	free(rig->shard);
	free(rig);
}

/* ---- life ---- */
void rig_begin(struct rig *rig, uint32_t present)
{
	struct tools *tools = &rig->tools;
	memset(tools, 0, sizeof *tools);
	tools->aead = aead_new(AEAD_OPENSSL, NULL);
	must(tools->aead, "OpenSSL is always there");
	tools->kernel = stripe_kernel_best();
	memset(tools->entropy, 0x11 + (int)rig->generation, sizeof tools->entropy);
	seal_cache_init(&tools->seals, tools->aead);
	link_init(&tools->link, tools->aead, &tools->cells, &rig->core);
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		rig->config.store[i].present = present >> i & 1;
	rig->vault = vault_new(tools, &rig->config, 0, RIG_EXPORT_FIRST);
	must(rig->vault, "a test has memory");
	effects_init(&rig->fx, rig->now, 0);
	vault_start(rig->vault, &rig->fx);
}

void rig_start(struct rig *rig, uint32_t present)
{
	rig_begin(rig, present);
	for (unsigned i = 0; i < TURNS_MAX && rig->vault->state == VAULT_OPENING; i++)
		rig_turn(rig);
	must(rig->vault->state != VAULT_OPENING, "the stores are read in time");
	rig_settle(rig);
}

void rig_stop(struct rig *rig)
{
	if (!rig->vault)
		return;
	vault_fini(rig->vault);
	link_fini(&rig->tools.link);
	seal_cache_fini(&rig->tools.seals);
	aead_free(rig->tools.aead);
	tools_memory_free(&rig->tools);
	rig->vault = NULL;
	rig->io_count = rig->hanging_count = 0;
	rig->append_count = rig->append_done = 0;
}

static void files_copy(struct rig_file *to, const struct rig_file *from)
{
	for (unsigned i = 0; i < RIG_FILES; i++) {
		free(to[i].bytes);
		to[i] = (struct rig_file){NULL, from[i].length};
		if (!from[i].bytes)
			continue;
		to[i].bytes = memory_of(from[i].length);
		memcpy(to[i].bytes, from[i].bytes, from[i].length);
	}
}

void rig_save(struct rig *rig)
{
	files_copy(rig->saved, rig->file);
	memcpy(rig->saved_seed, rig->seed, sizeof rig->seed);
}

void rig_load(struct rig *rig)
{
	must(!rig->vault, "files change under no vault");
	files_copy(rig->file, rig->saved);
	memcpy(rig->seed, rig->saved_seed, sizeof rig->seed);
}

static void notes_take(struct rig *rig)
{
	for (unsigned i = 0; i < rig->fx.note_count; i++) {
		const struct note *note = &rig->fx.note[i];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(rig->last_note, sizeof rig->last_note, note->text, note->number[0],
			 note->number[1], note->number[2]);
#pragma GCC diagnostic pop
		rig->warnings += note->level == NOTE_WARNING;
		if (getenv("RIG_NOTES"))
			fprintf(stderr, "%s: %s\n", note->subject, rig->last_note);
	}
}

/* Replies and results are kept by who waits for them. */
void rig_turn(struct rig *rig)
{
	rig->now += NS_PER_MS;
	rig->turns++;
	disk_take(rig); /* of what happened since the last turn */
	effects_init(&rig->fx, rig->now, 0);
	disk_tell(rig);
	vault_turn(rig->vault, &rig->fx);
	disk_take(rig);
	notes_take(rig);
}

void rig_settle(struct rig *rig)
{
	unsigned quiet = 0;
	for (unsigned i = 0; i < TURNS_MAX && quiet < 8; i++) {
		rig_turn(rig);
		quiet = rig->io_count ? 0 : quiet + 1;
	}
	must(quiet == 8, "it comes to rest");
}

/* ---- the primary ---- */
static void say_hello(struct rig *rig)
{
	struct wire_hello hello = {.instance = rig->instance,
				   .set = {{7}},
				   .geometry = rig->geometry,
				   .quorum = rig->config.quorum,
				   .generation = rig->generation,
				   .volume_count = RIG_VOLUMES};
	snprintf(hello.name, sizeof hello.name, "%s", "group0");
	for (unsigned i = 0; i < RIG_VOLUMES; i++) {
		struct wire_volume *volume = &hello.volume[i];
		snprintf(volume->name, sizeof volume->name, "%s", rig->config.volume[i].name);
		volume->id = rig->volume_id[i];
		volume->size = rig->config.volume[i].size;
		volume->block_bytes = rig->config.volume[i].block_bytes;
		keys_check_value(rig->key[i], volume->key_check);
	}
	vault_hello_received(rig->vault, &hello, &rig->fx);
}

static void say_open(struct rig *rig)
{
	struct wire_open open = {.span = rig->span};
	for (unsigned i = 0; i < 2; i++) {
		vault_open_received(rig->vault, &open, &rig->fx);
		rig_settle(rig);
	}
	must(rig->vault->span_accepted, "the vault takes the span");
}

void rig_end_catch_up(struct rig *rig)
{
	rig_seal(rig, 0, 0, RECORD_END, 0, ++rig->lsn);
	struct wire_shard end = {.record = rig->record};
	vault_shard_received(rig->vault, &end, NULL, 0, &rig->fx);
	rig_settle(rig);
	must(rig->vault->durable == rig->lsn, "the end of the catch-up is durable");
	rig->catch_up = false;
	rig->span = (struct span){.id = {{0x61, (uint8_t)rig->lsn, (uint8_t)(rig->lsn >> 8)}},
				  .generation = rig->generation,
				  .kind = SPAN_IN_ORDER,
				  .first = rig->lsn + 1,
				  .parent = rig->span.id,
				  .parent_last = rig->lsn};
	say_open(rig);
}

static void greet(struct rig *rig)
{
	for (unsigned i = 0; i < 2; i++) {
		say_hello(rig);
		rig_settle(rig);
	}
}

void rig_resume_span(struct rig *rig)
{
	greet(rig);
	say_open(rig);
	rig->lsn = max_u64(rig->vault->durable, rig->vault->complete);
}

void rig_choose_span(struct rig *rig)
{
	struct vault *vault = rig->vault;
	const struct span *newest = spans_newest(&vault->meta.spans);
	rig->generation = (uint32_t)max_u64(rig->generation, 1);
	rig->instance.bytes[1]++;
	greet(rig);
	newest = spans_newest(&vault->meta.spans);
	rig->lsn = max_u64(rig->lsn, vault->highest);
	rig->span = (struct span){.id = {{0x60, (uint8_t)rig->lsn, (uint8_t)(rig->lsn >> 8)}},
				  .generation = rig->generation,
				  .kind = rig->catch_up ? SPAN_CATCH_UP : SPAN_IN_ORDER,
				  .first = rig->lsn + 1,
				  .parent_last = newest ? vault->consistent : 0};
	if (newest)
		rig->span.parent = newest->id;
}

void rig_open_span(struct rig *rig)
{
	rig_choose_span(rig);
	say_open(rig);
}

uint32_t rig_block_bytes(const struct rig *rig, uint8_t volume)
{
	return rig->config.volume[volume].block_bytes;
}

uint32_t rig_shard_bytes(const struct rig *rig, uint8_t volume)
{
	return shard_bytes_of(rig->geometry, rig_block_bytes(rig, volume));
}

void rig_plain(uint64_t seed, uint8_t *out, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t word = seed ? (seed + i) * 0x9e3779b97f4a7c15ull : 0;
		memcpy(out + i, &word, 8);
	}
}

void rig_seal(struct rig *rig, uint8_t volume, uint64_t block, uint8_t kind, uint64_t seed,
	      lsn_t lsn)
{
	static uint8_t plain[BLOCK_BYTES_MAX];
	uint32_t block_bytes = rig_block_bytes(rig, volume), bytes = rig_shard_bytes(rig, volume);
	unsigned n = geometry_n(rig->geometry);
	struct seal_identity identity = {rig->span.id, lsn, rig->span.generation};
	struct seal_context context = {identity, rig->volume_id[volume], block, block_bytes, kind};
	struct aead_piece piece = {plain, rig->shard, block_bytes};
	uint8_t *column[SHARDS_MAX], subkey[KEY_BYTES];
	struct aead_key key;
	rig->record = (struct record){.span = rig->span.id,
				      .lsn = lsn,
				      .identity = identity,
				      .volume = rig->volume_id[volume],
				      .block = block,
				      .kind = kind,
				      .geometry = rig->geometry,
				      .block_bytes = block_bytes};
	keys_span_subkey(rig->key[volume], &rig->span.id, subkey);
	aead_key_init(rig->tools.aead, &key, subkey);
	rig_plain(seed, plain, block_bytes);
	seal_block(rig->tools.aead, &key, &context, &piece, record_kind_has_payload(kind),
		   rig->record.tag);
	if (!record_kind_has_payload(kind))
		return;
	rig->record.shard_bytes = bytes;
	rig->record.block_crc = crc32c(rig->shard, block_bytes);
	for (unsigned i = 0; i < n; i++)
		column[i] = rig->shard + (uint64_t)i * bytes;
	static _Alignas(64) uint8_t memory[256 * 1024];
	must(stripe_bytes() <= sizeof memory, "a stripe fits");
	stripe_encode(stripe_init(memory, rig->geometry, STRIPE_PLAIN), column,
		      column + rig->geometry.k, bytes);
}

void rig_write(struct rig *rig, uint8_t volume, uint64_t block, uint8_t kind, uint32_t lost)
{
	uint64_t seed = record_kind_has_payload(kind) ? rig_random(rig) + 1 : 0;
	rig_seal(rig, volume, block, kind, seed, ++rig->lsn);
	rig->seed[volume][block] = seed;
	uint32_t bytes = rig->record.shard_bytes;
	struct wire_shard shard = {.record = rig->record, .volume = volume, .cut_bytes = bytes};
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++) {
		if (lost >> i & 1)
			continue;
		shard.record.shard = (uint8_t)i;
		vault_shard_received(rig->vault, &shard, rig->shard + (uint64_t)i * bytes, bytes,
				     &rig->fx);
	}
	rig_turn(rig);
}

struct rig *rig_ready(struct geometry geometry, uint8_t quorum, uint64_t segment_bytes)
{
	struct rig *rig = rig_new(geometry, quorum, segment_bytes);
	rig_start(rig, (1u << geometry_n(geometry)) - 1);
	rig_open_span(rig);
	return rig;
}

void rig_write_some(struct rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint8_t volume = i % 3 == 2;
		uint64_t block = (i * 7) % (volume ? 15 : 40);
		uint8_t kind = i % 11 == 5   ? RECORD_ZERO
			       : i % 13 == 7 ? RECORD_DISCARD
					     : RECORD_DATA;
		rig_write(rig, volume, block, kind, i % 4 == 1 ? 0x12 : 0);
	}
	rig_settle(rig);
	must(rig->vault->durable == rig->lsn, "all stores took them");
}

static void append_done(struct store_append *append, int result, struct effects *fx)
{
	container_of(append, struct rig_append, append)->rig->append_done++;
}

void rig_append(struct rig *rig, uint32_t mask, int liar)
{
	uint32_t bytes = rig->record.shard_bytes;
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++) {
		if (!(mask >> i & 1))
			continue;
		must(rig->append_count < RIG_APPENDS_MAX, "the rig has so many");
		struct rig_append *own = &rig->append[rig->append_count++];
		free(own->shard);
		own->shard = memory_of(max_u64(bytes, 1));
		memcpy(own->shard, rig->shard + (uint64_t)i * bytes, bytes);
		if ((int)i == liar)
			own->shard[17] ^= 0x20;
		own->append = (struct store_append){.record = rig->record, .done = append_done};
		own->append.record.shard = (uint8_t)i;
		own->append.record.shard_crc = bytes ? crc32c(own->shard, bytes) : 0;
		own->append.shard = bytes ? own->shard : NULL;
		must(store_append(rig->vault->store[i].store, &own->append) == 0, "it has room");
	}
	rig_settle(rig);
	must(rig->append_done == rig->append_count, "what was appended is told");
}

/* ---- clients and operators ---- */
int rig_read(struct rig *rig, uint8_t volume, uint64_t offset, uint32_t length, uint8_t *data)
{
	struct request request = {.kind = REQUEST_READ,
				  .export = (uint16_t)(RIG_EXPORT_FIRST + volume),
				  .offset = offset,
				  .length = length,
				  .data = data};
	effects_init(&rig->fx, rig->now, 0);
	vault_request(rig->vault, &request, &rig->fx);
	for (unsigned i = 0; i < TURNS_MAX; i++) {
		struct request *reply = request_list_pop(&rig->fx.replies);
		if (reply) {
			must(reply == &request, "the answer is of the question");
			return request.result;
		}
		rig_turn(rig);
	}
	must(false, "a read is answered");
	return -EIO;
}

unsigned rig_compare(struct rig *rig)
{
	static uint8_t want[BLOCK_BYTES_MAX];
	unsigned unequal = 0;
	for (uint8_t v = 0; v < RIG_VOLUMES; v++) {
		uint32_t bytes = rig_block_bytes(rig, v);
		uint8_t *data = memory_of(bytes);
		for (uint64_t block = 0; block < volume_blocks[v]; block++) {
			memset(data, 0xee, bytes);
			int result = rig_read(rig, v, block * bytes, bytes, data);
			rig_plain(rig->seed[v][block], want, bytes);
			unequal += result || memcmp(data, want, bytes) != 0;
		}
		free(data);
	}
	return unequal;
}

int rig_command(struct rig *rig, struct command *command)
{
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, command, &rig->fx);
	disk_take(rig);
	for (unsigned i = 0; i < TURNS_MAX * 4; i++) {
		if (rig->fx.results) {
			must(rig->fx.results == command && !command->next, "one answer");
			return command->result;
		}
		rig_turn(rig);
	}
	must(false, "an order is answered");
	return -EIO;
}

int rig_promote(struct rig *rig, struct command *command, bool accept_loss)
{
	*command = (struct command){.kind = COMMAND_PROMOTE, .accept_loss = accept_loss};
	memcpy(command->key, rig->key, sizeof rig->key);
	int result = rig_command(rig, command);
	for (size_t i = 0; i < sizeof command->key; i++)
		must(((const uint8_t *)command->key)[i] == 0, "the key is wiped on every exit");
	return result;
}

unsigned rig_damage(struct rig *rig, unsigned store, const uint8_t *shard, uint32_t bytes)
{
	unsigned places = 0;
	const struct store_files *files = &rig->config.store[store].files;
	for (unsigned i = FILE_JOURNAL; i < FILE_SLOTS; i++) {
		struct rig_file *file = &rig->file[files->superblock + i];
		for (uint64_t at = 0; at + bytes <= file->length; at += PAGE_BYTES)
			if (memcmp(file->bytes + at, shard, bytes) == 0) {
				file->bytes[at + 100] ^= 4;
				places++;
			}
	}
	return places;
}

void rig_damage_header(struct rig *rig, unsigned store, const uint8_t *shard, uint32_t bytes)
{
	struct rig_file *journal = rig_file(rig, rig->config.store[store].files.journal);
	for (uint64_t at = PAGE_BYTES; at + bytes <= journal->length; at += PAGE_BYTES)
		if (memcmp(journal->bytes + at, shard, bytes) == 0)
			journal->bytes[at - PAGE_BYTES + 256] ^= 4;
}
