/* SPDX-License-Identifier: Apache-2.0 */
/* A primary and what is said to it, without a vault: which words it takes for answers. No link:
 * what it says is lost. */
#include "core/primary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BLOCK_BYTES = 16384, BLOCKS = 64, DATAGRAM_BYTES = 1472 };
enum { FILE_DEVICE, FILE_INTENTS, FILES };

struct rig {
	struct tools tools;
	struct core_config core;
	struct core_group group;
	struct primary *primary;
	struct effects fx;
	ns_t now;
	uint8_t *file[FILES];
};

static void *memory_of(uint64_t bytes)
{
	void *memory = aligned_alloc(PAGE_BYTES, align_up(bytes, PAGE_BYTES));
	must(memory, "a test has memory");
	memset(memory, 0, align_up(bytes, PAGE_BYTES));
	return memory;
}

static void disk_carry_out(struct rig *rig)
{
	for (struct io *io; (io = io_list_pop(&rig->fx.disk));) {
		uint8_t *at = rig->file[io->file] + io->offset;
		for (unsigned i = 0; i < io->piece_count; at += io->piece[i++].iov_len)
			if (io->kind == IO_READ)
				memcpy(io->piece[i].iov_base, at, io->piece[i].iov_len);
			else
				memcpy(at, io->piece[i].iov_base, io->piece[i].iov_len);
		io->done(io, io->kind == IO_SYNC ? 0 : (int32_t)io->length, &rig->fx);
	}
}

static void rig_turn(struct rig *rig)
{
	rig->now += NS_PER_MS;
	effects_init(&rig->fx, rig->now, 0);
	primary_turn(rig->primary, &rig->fx);
	disk_carry_out(rig);
}

static void files_format(struct rig *rig)
{
	uint64_t size = rig->group.volume[0].size;
	struct intent_config config = {.volume_count = 1};
	struct intent_identity identity = {.generation = 1, .volume_count = 1};
	config.volume[0].size = size;
	config.volume[0].region_bytes = intent_region_bytes(size, BLOCK_BYTES);
	identity.volume[0].id = (struct uuid){{3}};
	identity.volume[0].size = size;
	identity.volume[0].block_bytes = BLOCK_BYTES;
	rig->file[FILE_DEVICE] = memory_of(size);
	rig->file[FILE_INTENTS] = memory_of(intent_format(&config, &identity, NULL));
	intent_format(&config, &identity, rig->file[FILE_INTENTS]);
}

/* Started, and greeting a vault of this instance. */
static struct rig *rig_greeting(uint8_t vault)
{
	struct rig *rig = memory_of(sizeof *rig);
	struct tools *tools = &rig->tools;
	rig->now = NS_PER_S;
	rig->group = (struct core_group){.name = "group",
					 .role = ROLE_PRIMARY,
					 .geometry = {4, 2},
					 .quorum = 5,
					 .ack = ACK_DURABLE,
					 .volume_count = 1,
					 .window_bytes = MIB,
					 .intent_file = FILE_INTENTS};
	rig->group.volume[0] = (struct core_volume){.name = "volume",
						    .size = BLOCKS * BLOCK_BYTES,
						    .block_bytes = BLOCK_BYTES,
						    .device = FILE_DEVICE};
	rig->core.path_count = 1;
	rig->core.path[0].datagram_bytes_max = DATAGRAM_BYTES;
	files_format(rig);
	tools->aead = aead_new(AEAD_OPENSSL, NULL);
	tools->kernel = stripe_kernel_best();
	seal_cache_init(&tools->seals, tools->aead);
	link_init(&tools->link, tools->aead, &tools->cells, &rig->core);
	tools->link.instance = (struct uuid){{0x77}};
	rig->primary = primary_new(tools, &rig->group, 0, 0, link_payload_bytes_max(&tools->link));
	must(rig->primary, "a test has memory");
	effects_init(&rig->fx, rig->now, 0);
	primary_start(rig->primary, &rig->fx);
	disk_carry_out(rig);
	tools->link.linked = true;
	tools->link.linked_since = rig->now;
	tools->link.peer_instance = (struct uuid){{vault}};
	rig_turn(rig);
	assert_int_equal(rig->primary->state, PRIMARY_GREETING);
	return rig;
}

static void rig_free(struct rig *rig)
{
	primary_fini(rig->primary);
	link_fini(&rig->tools.link);
	seal_cache_fini(&rig->tools.seals);
	aead_free(rig->tools.aead);
	tools_memory_free(&rig->tools);
	for (unsigned i = 0; i < FILES; i++)
		free(rig->file[i]);
	free(rig);
}

/* A vault that is new answers the greeting of this number. */
static void say_state(struct rig *rig, uint32_t greeting)
{
	struct wire_state state = {
		.instance = rig->tools.link.instance, .greeting = greeting, .set = {{7}}};
	primary_state_received(rig->primary, &state, &rig->fx);
}

/* docs/protocol.md "Restarts": what the vault said of itself in a former life, or before it was out
 * of hearing, answers a greeting that is over, even while nothing else was said in between. */
static void test_each_meeting_is_a_greeting(void **state)
{
	static const struct {
		bool restarted, linked_anew, taken;
	} rows[] = {
		{false, false, true},
		{true, false, false},
		{false, true, false},
		{true, true, false},
	};
	for (unsigned row = 0; row < ARRAY_COUNT(rows); row++) {
		struct rig *rig = rig_greeting(1);
		struct primary *primary = rig->primary;
		struct link *link = &rig->tools.link;
		uint32_t before = primary->greeting;
		if (rows[row].restarted)
			link->peer_instance = (struct uuid){{2}};
		if (rows[row].linked_anew)
			link->linked_since = rig->now;
		rig_turn(rig);
		assert_int_equal(primary->state, PRIMARY_GREETING);
		if (!rows[row].taken && primary->asked_at != rig->now)
			fail_msg("row %u: it is not greeted at once", row);
		say_state(rig, before);
		if ((primary->state == PRIMARY_SPANNING) != rows[row].taken)
			fail_msg("row %u: the former answer", row);
		say_state(rig, primary->greeting);
		assert_int_equal(primary->state, PRIMARY_SPANNING);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_meeting_is_a_greeting),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
