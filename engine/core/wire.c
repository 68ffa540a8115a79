/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding of the data plane's datagrams (docs/protocol.md "Datagrams"). A cursor
 * walks each text; a text that is too short, too long or has a value out of its range is refused
 * here and nowhere else. */
#include "wire.h"

#include <errno.h>

/* ---- a cursor over a text: reading past the end sets bad and gives zeros ---- */
struct cursor {
	const uint8_t *in;
	uint8_t *out;
	uint32_t at, end;
	bool bad;
};

static const uint8_t *read_bytes(struct cursor *c, uint32_t count)
{
	static const uint8_t zeros[64];
	must(count <= sizeof zeros, "a field is short");
	if (c->end - c->at < count) {
		c->bad = true;
		c->at = c->end;
		return zeros;
	}
	c->at += count;
	return c->in + c->at - count;
}

static uint8_t read_u8(struct cursor *c)
{
	return get_u8(read_bytes(c, 1));
}
static uint16_t read_u16(struct cursor *c)
{
	return get_u16(read_bytes(c, 2));
}
static uint32_t read_u32(struct cursor *c)
{
	return get_u32(read_bytes(c, 4));
}
static uint64_t read_u64(struct cursor *c)
{
	return get_u64(read_bytes(c, 8));
}
static void read_copy(struct cursor *c, void *to, uint32_t count)
{
	memcpy(to, read_bytes(c, count), count);
}
static uint8_t read_flag(struct cursor *c)
{
	uint8_t flag = read_u8(c);
	if (flag > 1)
		c->bad = true;
	return flag;
}
/* docs/protocol.md "Datagrams": 32 bytes, the rest zero, at least one. */
static void read_name(struct cursor *c, char name[NAME_BYTES_MAX])
{
	read_copy(c, name, NAME_BYTES_MAX);
	size_t letters = strnlen(name, NAME_BYTES_MAX - 1);
	for (size_t i = letters; i < NAME_BYTES_MAX; i++)
		if (name[i])
			c->bad = true;
	name[NAME_BYTES_MAX - 1] = 0;
}
static void read_span(struct cursor *c, struct span *span)
{
	const uint8_t *bytes = read_bytes(c, SPAN_ENCODED_BYTES);
	if (c->bad || span_decode(span, bytes) < 0)
		c->bad = true;
}

static uint8_t *write_bytes(struct cursor *c, uint32_t count)
{
	must(c->end - c->at >= count, "a text has room for what we say");
	c->at += count;
	return c->out + c->at - count;
}
static void write_u8(struct cursor *c, uint8_t v)
{
	put_u8(write_bytes(c, 1), v);
}
static void write_u16(struct cursor *c, uint16_t v)
{
	put_u16(write_bytes(c, 2), v);
}
static void write_u32(struct cursor *c, uint32_t v)
{
	put_u32(write_bytes(c, 4), v);
}
static void write_u64(struct cursor *c, uint64_t v)
{
	put_u64(write_bytes(c, 8), v);
}
static void write_copy(struct cursor *c, const void *from, uint32_t count)
{
	memcpy(write_bytes(c, count), from, count);
}

static struct cursor writer(uint8_t *out, enum wire_type type)
{
	struct cursor c = {.out = out, .end = WIRE_TEXT_BYTES_MAX};
	write_u8(&c, (uint8_t)type);
	return c;
}

static struct cursor reader(const uint8_t *text, uint32_t length, enum wire_type type)
{
	struct cursor c = {.in = text, .end = length};
	if (read_u8(&c) != type)
		c.bad = true;
	return c;
}

static int finish(const struct cursor *c)
{
	return c->bad || c->at != c->end ? -EBADMSG : 0;
}

/* ---- the clear header ---- */
void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_BYTES])
{
	put_u8(out, WIRE_VERSION);
	put_u8(out + 1, header->type);
	put_u8(out + 2, header->slot);
	put_u8(out + 3, header->path);
	put_u16(out + 4, header->text_bytes);
	put_u16(out + 6, 0);
	put_u64(out + 8, header->session);
	put_u64(out + 16, header->number);
}

int wire_header_decode(struct wire_header *header, const uint8_t *in, uint32_t length)
{
	if (length < WIRE_HEADER_BYTES + TAG_BYTES || in[0] != WIRE_VERSION || get_u16(in + 6) != 0)
		return -EBADMSG;
	header->type = in[1];
	header->slot = in[2];
	header->path = in[3];
	header->text_bytes = get_u16(in + 4);
	header->session = get_u64(in + 8);
	header->number = get_u64(in + 16);
	if (header->type < WIRE_SHARD || header->type > WIRE_TAGS || header->path >= PATHS_MAX)
		return -EBADMSG;
	if (header->text_bytes == 0 || header->text_bytes > WIRE_TEXT_BYTES_MAX ||
	    header->text_bytes > length - WIRE_HEADER_BYTES - TAG_BYTES)
		return -EBADMSG;
	bool payload = length > (uint32_t)WIRE_HEADER_BYTES + TAG_BYTES + header->text_bytes;
	return payload && header->type != WIRE_SHARD ? -EBADMSG : 0;
}

/* ---- shards ---- */
void wire_shard_encode(const struct wire_shard *shard, uint8_t out[WIRE_SHARD_TEXT_BYTES])
{
	const struct record *record = &shard->record;
	must(shard->cut_bytes % WIRE_CUT_UNIT_BYTES == 0, "a cut is a multiple of its unit");
	memset(out, 0, WIRE_SHARD_TEXT_BYTES);
	put_u8(out, WIRE_SHARD);
	put_u8(out + 1, record->kind);
	put_u8(out + 2, record->shard);
	put_u8(out + 3, record->geometry.k);
	put_u8(out + 4, record->geometry.m);
	put_u8(out + 5, shard->group);
	put_u8(out + 6, shard->volume);
	put_u32(out + 8, record->identity.generation);
	memcpy(out + 12, record->span.bytes, UUID_BYTES);
	memcpy(out + 28, record->identity.span.bytes, UUID_BYTES);
	put_u64(out + 44, record->lsn);
	put_u64(out + 52, record->identity.lsn);
	put_u64(out + 60, record->block);
	memcpy(out + 68, record->tag, TAG_BYTES);
	put_u32(out + 84, record->block_crc);
	put_u32(out + 88, shard->offset);
	put_u16(out + 92, (uint16_t)(shard->cut_bytes / WIRE_CUT_UNIT_BYTES));
	put_u64(out + 96, record->wall_ns);
	put_u32(out + 104, record->block_bytes);
}

int wire_shard_decode(struct wire_shard *shard, const uint8_t *in, uint32_t length)
{
	if (length != WIRE_SHARD_TEXT_BYTES || in[0] != WIRE_SHARD)
		return -EBADMSG;
	struct record *record = &shard->record;
	memset(shard, 0, sizeof *shard);
	record->kind = in[1];
	record->shard = in[2];
	record->geometry = (struct geometry){.k = in[3], .m = in[4]};
	shard->group = in[5];
	shard->volume = in[6];
	record->identity.generation = get_u32(in + 8);
	memcpy(record->span.bytes, in + 12, UUID_BYTES);
	memcpy(record->identity.span.bytes, in + 28, UUID_BYTES);
	record->lsn = get_u64(in + 44);
	record->identity.lsn = get_u64(in + 52);
	record->block = get_u64(in + 60);
	memcpy(record->tag, in + 68, TAG_BYTES);
	record->block_crc = get_u32(in + 84);
	shard->offset = get_u32(in + 88);
	shard->cut_bytes = get_u16(in + 92) * WIRE_CUT_UNIT_BYTES;
	record->wall_ns = get_u64(in + 96);
	record->block_bytes = get_u32(in + 104);
	bool known = record->kind >= RECORD_DATA && record->kind <= RECORD_END;
	bool sane = record->geometry.k >= 1 && record->geometry.k <= DATA_SHARDS_MAX &&
		    record->geometry.m <= PARITY_SHARDS_MAX &&
		    record->shard < geometry_n(record->geometry) && record->lsn > 0;
	return known && sane && shard->group < 8 && shard->volume < VOLUMES_PER_GROUP_MAX
		       ? 0
		       : -EBADMSG;
}

/* ---- messages ---- */
uint32_t wire_alive_encode(const struct wire_alive *alive, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_ALIVE);
	write_copy(&c, alive->instance.bytes, UUID_BYTES);
	write_u64(&c, alive->sent_ns);
	write_u64(&c, alive->echo_ns);
	write_u64(&c, alive->echo_age_ns);
	write_u8(&c, alive->bye);
	return c.at;
}

int wire_alive_decode(struct wire_alive *alive, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_ALIVE);
	read_copy(&c, alive->instance.bytes, UUID_BYTES);
	alive->sent_ns = read_u64(&c);
	alive->echo_ns = read_u64(&c);
	alive->echo_age_ns = read_u64(&c);
	alive->bye = read_flag(&c);
	return finish(&c);
}

uint32_t wire_hello_encode(const struct wire_hello *hello, uint8_t *out)
{
	must(hello->volume_count <= VOLUMES_PER_GROUP_MAX, "a group has eight volumes at most");
	struct cursor c = writer(out, WIRE_HELLO);
	write_u8(&c, hello->group);
	write_copy(&c, hello->name, NAME_BYTES_MAX);
	write_copy(&c, hello->instance.bytes, UUID_BYTES);
	write_u32(&c, hello->greeting);
	write_copy(&c, hello->set.bytes, UUID_BYTES);
	write_u8(&c, hello->geometry.k);
	write_u8(&c, hello->geometry.m);
	write_u8(&c, hello->quorum);
	write_u32(&c, hello->generation);
	write_u8(&c, hello->volume_count);
	for (unsigned i = 0; i < hello->volume_count; i++) {
		const struct wire_volume *volume = &hello->volume[i];
		write_copy(&c, volume->name, NAME_BYTES_MAX);
		write_copy(&c, volume->id.bytes, UUID_BYTES);
		write_u64(&c, volume->size);
		write_u32(&c, volume->block_bytes);
		write_copy(&c, volume->wrapped_key, sizeof volume->wrapped_key);
		write_copy(&c, volume->key_check, sizeof volume->key_check);
	}
	return c.at;
}

int wire_hello_decode(struct wire_hello *hello, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_HELLO);
	memset(hello, 0, sizeof *hello);
	hello->group = read_u8(&c);
	read_name(&c, hello->name);
	read_copy(&c, hello->instance.bytes, UUID_BYTES);
	hello->greeting = read_u32(&c);
	read_copy(&c, hello->set.bytes, UUID_BYTES);
	hello->geometry.k = read_u8(&c);
	hello->geometry.m = read_u8(&c);
	hello->quorum = read_u8(&c);
	hello->generation = read_u32(&c);
	hello->volume_count = read_u8(&c);
	if (hello->volume_count > VOLUMES_PER_GROUP_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < hello->volume_count; i++) {
		struct wire_volume *volume = &hello->volume[i];
		read_name(&c, volume->name);
		read_copy(&c, volume->id.bytes, UUID_BYTES);
		volume->size = read_u64(&c);
		volume->block_bytes = read_u32(&c);
		read_copy(&c, volume->wrapped_key, sizeof volume->wrapped_key);
		read_copy(&c, volume->key_check, sizeof volume->key_check);
	}
	return finish(&c);
}

uint32_t wire_state_encode(const struct wire_state *state, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_STATE);
	write_u8(&c, state->group);
	write_u32(&c, (uint32_t)state->result);
	write_copy(&c, state->instance.bytes, UUID_BYTES);
	write_u32(&c, state->greeting);
	write_copy(&c, state->set.bytes, UUID_BYTES);
	write_u32(&c, state->generation);
	write_u8(&c, state->has_span);
	if (state->has_span)
		span_encode(&state->span, write_bytes(&c, SPAN_ENCODED_BYTES));
	write_u64(&c, state->durable);
	write_u64(&c, state->consistent);
	write_u64(&c, state->highest);
	return c.at;
}

int wire_state_decode(struct wire_state *state, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_STATE);
	memset(state, 0, sizeof *state);
	state->group = read_u8(&c);
	state->result = (int32_t)read_u32(&c);
	read_copy(&c, state->instance.bytes, UUID_BYTES);
	state->greeting = read_u32(&c);
	read_copy(&c, state->set.bytes, UUID_BYTES);
	state->generation = read_u32(&c);
	state->has_span = read_flag(&c);
	if (state->has_span)
		read_span(&c, &state->span);
	state->durable = read_u64(&c);
	state->consistent = read_u64(&c);
	state->highest = read_u64(&c);
	return finish(&c);
}

uint32_t wire_open_encode(const struct wire_open *open, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_OPEN);
	write_u8(&c, open->group);
	span_encode(&open->span, write_bytes(&c, SPAN_ENCODED_BYTES));
	return c.at;
}

int wire_open_decode(struct wire_open *open, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_OPEN);
	open->group = read_u8(&c);
	read_span(&c, &open->span);
	return finish(&c);
}

uint32_t wire_opened_encode(const struct wire_opened *opened, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_OPENED);
	write_u8(&c, opened->group);
	write_u32(&c, (uint32_t)opened->result);
	write_copy(&c, opened->span.bytes, UUID_BYTES);
	return c.at;
}

int wire_opened_decode(struct wire_opened *opened, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_OPENED);
	opened->group = read_u8(&c);
	opened->result = (int32_t)read_u32(&c);
	read_copy(&c, opened->span.bytes, UUID_BYTES);
	return finish(&c);
}

uint32_t wire_head_encode(const struct wire_head *head, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_HEAD);
	write_u8(&c, head->group);
	write_copy(&c, head->span.bytes, UUID_BYTES);
	write_u64(&c, head->last);
	return c.at;
}

int wire_head_decode(struct wire_head *head, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_HEAD);
	head->group = read_u8(&c);
	read_copy(&c, head->span.bytes, UUID_BYTES);
	head->last = read_u64(&c);
	return finish(&c);
}

uint32_t wire_points_encode(const struct wire_points *points, uint8_t *out)
{
	must(points->nack_count <= WIRE_NACKS_MAX, "points name so many missing records");
	struct cursor c = writer(out, WIRE_POINTS);
	write_u8(&c, points->group);
	write_copy(&c, points->span.bytes, UUID_BYTES);
	write_u64(&c, points->received);
	write_u64(&c, points->durable);
	write_u64(&c, points->consistent);
	write_u64(&c, points->credit);
	write_u8(&c, points->nack_count);
	for (unsigned i = 0; i < points->nack_count; i++) {
		write_u64(&c, points->nack[i].lsn);
		write_u32(&c, points->nack[i].columns);
		write_u16(&c, points->nack[i].fragment);
		write_u16(&c, points->nack[i].count);
	}
	return c.at;
}

int wire_points_decode(struct wire_points *points, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_POINTS);
	points->group = read_u8(&c);
	read_copy(&c, points->span.bytes, UUID_BYTES);
	points->received = read_u64(&c);
	points->durable = read_u64(&c);
	points->consistent = read_u64(&c);
	points->credit = read_u64(&c);
	points->nack_count = read_u8(&c);
	if (points->nack_count > WIRE_NACKS_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < points->nack_count; i++) {
		points->nack[i].lsn = read_u64(&c);
		points->nack[i].columns = read_u32(&c);
		points->nack[i].fragment = read_u16(&c);
		points->nack[i].count = read_u16(&c);
	}
	return finish(&c);
}

uint32_t wire_compare_encode(const struct wire_compare *compare, uint8_t *out)
{
	struct cursor c = writer(out, WIRE_COMPARE);
	write_u8(&c, compare->group);
	write_u8(&c, compare->volume);
	write_u32(&c, compare->ask);
	write_u64(&c, compare->block);
	write_u32(&c, compare->count);
	return c.at;
}

int wire_compare_decode(struct wire_compare *compare, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_COMPARE);
	compare->group = read_u8(&c);
	compare->volume = read_u8(&c);
	compare->ask = read_u32(&c);
	compare->block = read_u64(&c);
	compare->count = read_u32(&c);
	return finish(&c);
}

uint32_t wire_tags_encode(const struct wire_tags *tags, uint8_t *out)
{
	must(tags->count <= WIRE_TAGS_MAX, "an answer has so many tags");
	struct cursor c = writer(out, WIRE_TAGS);
	write_u8(&c, tags->group);
	write_u8(&c, tags->volume);
	write_u32(&c, tags->ask);
	write_u64(&c, tags->block);
	write_u32(&c, (uint32_t)tags->result);
	write_u8(&c, tags->count);
	for (unsigned i = 0; i < tags->count; i++) {
		const struct wire_tag *tag = &tags->tag[i];
		write_u8(&c, tag->kind);
		write_copy(&c, tag->identity.span.bytes, UUID_BYTES);
		write_u64(&c, tag->identity.lsn);
		write_u32(&c, tag->identity.generation);
		write_copy(&c, tag->tag, TAG_BYTES);
	}
	return c.at;
}

int wire_tags_decode(struct wire_tags *tags, const uint8_t *text, uint32_t length)
{
	struct cursor c = reader(text, length, WIRE_TAGS);
	tags->group = read_u8(&c);
	tags->volume = read_u8(&c);
	tags->ask = read_u32(&c);
	tags->block = read_u64(&c);
	tags->result = (int32_t)read_u32(&c);
	tags->count = read_u8(&c);
	if (tags->count > WIRE_TAGS_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < tags->count; i++) {
		struct wire_tag *tag = &tags->tag[i];
		tag->kind = read_u8(&c);
		read_copy(&c, tag->identity.span.bytes, UUID_BYTES);
		tag->identity.lsn = read_u64(&c);
		tag->identity.generation = read_u32(&c);
		read_copy(&c, tag->tag, TAG_BYTES);
	}
	return finish(&c);
}
