/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD connection without sockets: dialogues of options and commands as tables, fed in pieces
 * of every size; and a random stream against a RAM disk that answers in any order. */
#include "front/nbd.h"

#include "nbd_script.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { MEMORY_BYTES = 40 << 20, CAPTURE_BYTES = 1 << 20, VOLUME_BYTES = 1 << 20 };

/* A connection and what it said. */
struct rig {
	struct nbd_shared shared;
	struct nbd_connection nbd;
	uint8_t said[CAPTURE_BYTES];
	size_t said_bytes;
	uint8_t *memory;
};

static void rig_connect(struct rig *rig)
{
	rig->said_bytes = 0;
	nbd_init(&rig->nbd, &rig->shared);
}

static struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof *rig);
	static const struct nbd_export export[] = {
		{"vol0", VOLUME_BYTES, false, true},
		{"vol1", 10 * GIB, true, true},
		{"off", 4096, false, false},
	};

	assert_non_null(rig);
	rig->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(rig->memory, MAP_FAILED);
	nbd_memory_init(&rig->shared.memory, rig->memory, MEMORY_BYTES);
	memcpy(rig->shared.export, export, sizeof export);
	rig->shared.export_count = ARRAY_COUNT(export);
	rig_connect(rig);
	return rig;
}

static void rig_free(struct rig *rig)
{
	nbd_fini(&rig->nbd);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	munmap(rig->memory, MEMORY_BYTES);
	free(rig);
}

/* Sends all there is, at most so many bytes at a time. */
static void rig_send(struct rig *rig, size_t piece_bytes)
{
	struct iovec piece[8];
	unsigned count;

	while ((count = nbd_send_pieces(&rig->nbd, piece, ARRAY_COUNT(piece)))) {
		size_t sent = 0;
		for (unsigned i = 0; i < count && sent < piece_bytes; i++) {
			size_t bytes = min_u64(piece[i].iov_len, piece_bytes - sent);
			assert_true(bytes > 0 && rig->said_bytes + bytes <= CAPTURE_BYTES);
			memcpy(rig->said + rig->said_bytes, piece[i].iov_base, bytes);
			rig->said_bytes += bytes;
			sent += bytes;
		}
		nbd_sent(&rig->nbd, sent);
	}
}

/* Gives bytes, at most so many at a time, and says how many were wanted. */
static size_t rig_feed(struct rig *rig, const uint8_t *bytes, size_t length, size_t piece_bytes)
{
	size_t at = 0;

	while (at < length) {
		struct iovec piece[2];
		unsigned count = nbd_receive_pieces(&rig->nbd, piece);
		size_t given = 0, limit = min_u64(piece_bytes, length - at);
		if (count == 0)
			break;
		for (unsigned i = 0; i < count && given < limit; i++) {
			size_t part = min_u64(piece[i].iov_len, limit - given);
			memcpy(piece[i].iov_base, bytes + at + given, part);
			given += part;
		}
		nbd_received(&rig->nbd, given);
		at += given;
	}
	return at;
}

static void rig_say(struct rig *rig, const char *script)
{
	uint8_t bytes[16384];
	size_t length = script_bytes(script, bytes);

	assert_int_equal(rig_feed(rig, bytes, length, length), length);
	rig_send(rig, SIZE_MAX);
}

/* The handshake up to commands: export of vol0, with structured replies and base:allocation. */
static void rig_go(struct rig *rig, const char *name, bool structured)
{
	char script[256];

	rig_say(rig, "d3");
	if (structured) {
		rig_say(rig, "O d8 d0");
		snprintf(script, sizeof script, "O d10 d31 d%zu '%s d1 d15 'base:allocation",
			 strlen(name), name);
		assert_int_equal(strlen(name), 4);
		rig_say(rig, script);
	}
	snprintf(script, sizeof script, "O d7 d%zu d%zu '%s w0", 6 + strlen(name), strlen(name),
		 name);
	rig_say(rig, script);
	assert_int_equal(rig->nbd.phase, NBD_PHASE_COMMAND);
	rig->said_bytes = 0;
}

/* ---- options ---- */

#define GREETING     "q0x4e42444d41474943 O w3 "
#define BLOCK_SIZES  "d3 d14 w3 d1 d4096 d0x2000000 "
#define VOL0	     "w0 q0x100000 "
#define VOL1	     "w0 q0x280000000 "
#define FLAGS_RW     "w3437 "
#define FLAGS_RW_DF  "w3565 "
#define FLAGS_RO     "w1295 "
#define CONTEXT_NAME "'base:allocation "

static const struct {
	int row;
	const char *what;
	const char *in;
	const char *out; /* after the greeting */
	enum nbd_phase phase;
} dialogue[] = {
	{1, "list", "d3 O d3 d0", "R d3 d2 d8 d4 'vol0 R d3 d2 d8 d4 'vol1 R d3 d1 d0",
	 NBD_PHASE_OPTION},
	{2, "list with data", "d3 O d3 d1 'x", "R d3 e3 *", NBD_PHASE_OPTION},
	{3, "abort", "d3 O d2 d0", "R d2 d1 d0", NBD_PHASE_LEAVING},
	{4, "starttls", "d3 O d5 d0 O d3 d1 'x", "R d5 e1 * R d3 e3 *", NBD_PHASE_OPTION},
	{5, "unknown option, then another", "d3 O d99 d5 'hello O d2 d0", "R d99 e1 * R d2 d1 d0",
	 NBD_PHASE_LEAVING},
	{6, "option 0 and 4", "d3 O d0 d0 O d4 d0", "R d0 e1 * R d4 e1 *", NBD_PHASE_OPTION},
	{7, "go", "d3 O d7 d10 d4 'vol0 w0",
	 "R d7 d3 d12 " VOL0 FLAGS_RW "R d7 " BLOCK_SIZES "R d7 d1 d0", NBD_PHASE_COMMAND},
	{8, "go after structured", "d3 O d8 d0 O d7 d10 d4 'vol0 w0",
	 "R d8 d1 d0 R d7 d3 d12 " VOL0 FLAGS_RW_DF "R d7 " BLOCK_SIZES "R d7 d1 d0",
	 NBD_PHASE_COMMAND},
	{9, "info with name and block size", "d3 O d6 d14 d4 'vol1 w2 w1 w3",
	 "R d6 d3 d12 " VOL1 FLAGS_RO "R d6 d3 d6 w1 'vol1 R d6 " BLOCK_SIZES "R d6 d1 d0",
	 NBD_PHASE_OPTION},
	{10, "go to the default with two ready: the first", "d3 O d7 d6 d0 w0",
	 "R d7 d3 d12 " VOL0 FLAGS_RW "R d7 " BLOCK_SIZES "R d7 d1 d0", NBD_PHASE_COMMAND},
	{11, "go to nowhere, then somewhere", "d3 O d7 d8 d2 'xx w0 O d7 d10 d4 'vol0 w0",
	 "R d7 e6 * R d7 d3 d12 " VOL0 FLAGS_RW "R d7 " BLOCK_SIZES "R d7 d1 d0",
	 NBD_PHASE_COMMAND},
	{12, "go to one that is not ready", "d3 O d7 d9 d3 'off w0", "R d7 e6 *", NBD_PHASE_OPTION},
	{13, "go: name longer than the data", "d3 O d7 d10 d5 'vol0 w0", "R d7 e3 *",
	 NBD_PHASE_OPTION},
	{14, "go: length of name wraps", "d3 O d7 d10 d0xffffffff 'vol0 w0", "R d7 e3 *",
	 NBD_PHASE_OPTION},
	{15, "go: fewer kinds than counted", "d3 O d7 d12 d4 'vol0 w2 w3", "R d7 e3 *",
	 NBD_PHASE_OPTION},
	{16, "go: more data than counted", "d3 O d7 d14 d4 'vol0 w1 w3 w3", "R d7 e3 *",
	 NBD_PHASE_OPTION},
	{17, "go: no data at all", "d3 O d7 d0", "R d7 e3 *", NBD_PHASE_OPTION},
	{18, "structured with data", "d3 O d8 d1 'x", "R d8 e3 *", NBD_PHASE_OPTION},
	{19, "export name", "d3 O d1 d4 'vol0", "q0x100000 " FLAGS_RW, NBD_PHASE_COMMAND},
	{20, "export name with zeroes", "d1 O d1 d4 'vol1", "q0x280000000 " FLAGS_RO "z124",
	 NBD_PHASE_COMMAND},
	{21, "export name by an old client", "d0 O d1 d4 'vol0", "q0x100000 " FLAGS_RW "z124",
	 NBD_PHASE_COMMAND},
	{22, "export name unknown: hang up", "d3 O d1 d2 'xx", "", NBD_PHASE_LEAVING},
	{23, "export name not ready: hang up", "d3 O d1 d3 'off", "", NBD_PHASE_LEAVING},
	{24, "old client with a new option: hang up", "d0 O d3 d0", "", NBD_PHASE_LEAVING},
	{25, "unknown client flag: hang up", "d4 O d3 d0", "", NBD_PHASE_LEAVING},
	{26, "bad option magic: hang up", "d3 q1 d3 d0", "", NBD_PHASE_LEAVING},
	{27, "option beyond reason: hang up", "d3 O d7 d0x100001", "", NBD_PHASE_LEAVING},
	{28, "option too big: skipped", "d3 O d7 d8193 z8193 O d2 d0", "R d7 e9 * R d2 d1 d0",
	 NBD_PHASE_LEAVING},
	{29, "option as big as can be", "d3 O d77 d8192 z8192 O d2 d0", "R d77 e1 * R d2 d1 d0",
	 NBD_PHASE_LEAVING},
	{30, "set context before structured", "d3 O d10 d31 d4 'vol0 d1 d15 " CONTEXT_NAME,
	 "R d10 e3 *", NBD_PHASE_OPTION},
	{31, "set context", "d3 O d8 d0 O d10 d31 d4 'vol0 d1 d15 " CONTEXT_NAME,
	 "R d8 d1 d0 R d10 d4 d19 d1 " CONTEXT_NAME "R d10 d1 d0", NBD_PHASE_OPTION},
	{32, "set context: the name space alone chooses none",
	 "d3 O d8 d0 O d10 d21 d4 'vol0 d1 d5 'base:", "R d8 d1 d0 R d10 d1 d0", NBD_PHASE_OPTION},
	{33, "set context: several queries",
	 "d3 O d8 d0 O d10 d40 d4 'vol0 d2 d5 'x:foo d15 " CONTEXT_NAME,
	 "R d8 d1 d0 R d10 d4 d19 d1 " CONTEXT_NAME "R d10 d1 d0", NBD_PHASE_OPTION},
	{34, "list contexts without a query", "d3 O d9 d12 d4 'vol0 d0",
	 "R d9 d4 d19 d0 " CONTEXT_NAME "R d9 d1 d0", NBD_PHASE_OPTION},
	{35, "list contexts of the name space", "d3 O d9 d21 d4 'vol0 d1 d5 'base:",
	 "R d9 d4 d19 d0 " CONTEXT_NAME "R d9 d1 d0", NBD_PHASE_OPTION},
	{36, "list contexts of another name space",
	 "d3 O d9 d21 d4 'vol0 d1 d5 'qemu:", "R d9 d1 d0", NBD_PHASE_OPTION},
	{37, "set context of no export", "d3 O d8 d0 O d10 d10 d2 'xx d0", "R d8 d1 d0 R d10 e6 *",
	 NBD_PHASE_OPTION},
	{38, "set context: more queries than there are",
	 "d3 O d8 d0 O d10 d21 d4 'vol0 d2 d5 'base:", "R d8 d1 d0 R d10 e3 *", NBD_PHASE_OPTION},
	{39, "set context: 2^32-1 queries", "d3 O d8 d0 O d10 d12 d4 'vol0 d0xffffffff",
	 "R d8 d1 d0 R d10 e3 *", NBD_PHASE_OPTION},
	{40, "set context: query beyond the data",
	 "d3 O d8 d0 O d10 d21 d4 'vol0 d1 d6 'base:", "R d8 d1 d0 R d10 e3 *", NBD_PHASE_OPTION},
};

static void options_by_table(void **state)
{
	static const size_t piece_bytes[] = {1, 2, 3, 5, 7, 16, 20, 31, 100, 65536};
	uint8_t in[16384];
	char expected[1024];

	for (size_t i = 0; i < ARRAY_COUNT(dialogue); i++)
		for (size_t j = 0; j < ARRAY_COUNT(piece_bytes); j++) {
			struct rig *rig = rig_new();
			size_t length = script_bytes(dialogue[i].in, in);
			for (size_t at = 0; at < length;) {
				size_t fed = rig_feed(rig, in + at, length - at, piece_bytes[j]);
				rig_send(rig, piece_bytes[j]);
				at += fed;
				if (fed == 0)
					break; /* hung up */
			}
			rig_send(rig, piece_bytes[j]);
			snprintf(expected, sizeof expected, GREETING "%s", dialogue[i].out);
			if (!script_matches(expected, rig->said, rig->said_bytes) ||
			    rig->nbd.phase != dialogue[i].phase)
				fail_msg("row %d (%s), pieces of %zu: phase %d, %zu bytes",
					 dialogue[i].row, dialogue[i].what, piece_bytes[j],
					 rig->nbd.phase, rig->said_bytes);
			assert_int_equal(nbd_finished(&rig->nbd),
					 dialogue[i].phase == NBD_PHASE_LEAVING);
			rig_free(rig);
		}
}

static void default_export_is_the_only_ready_one(void **state)
{
	struct rig *rig = rig_new();

	rig->shared.export[0].ready = false;
	rig_say(rig, "d3 O d7 d6 d0 w0");
	assert_int_equal(rig->nbd.phase, NBD_PHASE_COMMAND);
	assert_int_equal(rig->nbd.export, 1);
	nbd_fini(&rig->nbd);
	rig->shared.export[1].ready = false;
	rig_connect(rig);
	rig_say(rig, "d3");
	rig->said_bytes = 0;
	rig_say(rig, "O d7 d6 d0 w0");
	assert_true(script_matches("R d7 e6 *", rig->said, rig->said_bytes));
	rig_free(rig);
}

static void context_of_another_export_does_not_count(void **state)
{
	struct rig *rig = rig_new();

	rig_say(rig, "d3 O d8 d0 O d10 d31 d4 'vol0 d1 d15 " CONTEXT_NAME "O d7 d10 d4 'vol1 w0");
	rig->said_bytes = 0;
	rig_say(rig, "Q w0 w7 q1 q0 d4096");
	assert_true(script_matches("C w1 w0x8001 q1 d6 d22 w0", rig->said, rig->said_bytes));
	rig_free(rig);
}

/* A client that asks and asks and never reads: no more is taken than can be answered. */
static void options_unread_block(void **state)
{
	struct rig *rig = rig_new();
	uint8_t in[64];
	size_t length = script_bytes("O d3 d0", in), rounds = 0;

	rig_say(rig, "d3");
	rig->said_bytes = 0;
	while (rig_feed(rig, in, length, length) == length)
		rounds++;
	assert_in_range(rounds, 1, 200);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_OUTPUT);
	rig_send(rig, 1000);
	assert_int_equal(rig->nbd.blocked, NBD_FLOWING);
	assert_int_equal(rig->said_bytes % (20 + 8 + 20 + 8 + 20), 0);
	rig_free(rig);
}

/* ---- commands ---- */

/* Takes the next request, as the lane would. */
static struct request *rig_take(struct rig *rig)
{
	return request_list_pop(&rig->shared.ready);
}

static const struct {
	int row;
	const char *what;
	const char *export;
	uint32_t flags, command;
	uint64_t offset;
	uint32_t length, payload_bytes;
	int error; /* -1: goes to core */
} rule[] = {
	{1, "read", "vol0", 0, 0, 0, 4096, 0, -1},
	{2, "read, unaligned", "vol0", 0, 0, 1, 1, 0, -1},
	{3, "read to the end", "vol0", 0, 0, VOLUME_BYTES - 1, 1, 0, -1},
	{4, "read over the end", "vol0", 0, 0, VOLUME_BYTES - 1, 2, 0, NBD_EINVAL},
	{5, "read, wrapping", "vol0", 0, 0, UINT64_MAX, 2, 0, NBD_EINVAL},
	{6, "read of 32 MiB", "vol1", 0, 0, 4095, 32 << 20, 0, -1},
	{7, "read of more", "vol1", 0, 0, 0, (32 << 20) + 1, 0, NBD_EINVAL},
	{8, "read of nothing", "vol0", 0, 0, 0, 0, 0, 0},
	{9, "read with DF", "vol0", 4, 0, 0, 512, 0, -1},
	{10, "read with FUA", "vol0", 1, 0, 0, 512, 0, -1},
	{11, "read with NO_HOLE", "vol0", 2, 0, 0, 512, 0, NBD_EINVAL},
	{12, "read with an unknown flag", "vol0", 0x8000, 0, 0, 512, 0, NBD_EINVAL},
	{13, "write", "vol0", 0, 1, 4095, 3, 3, -1},
	{14, "write with FUA", "vol0", 1, 1, 0, 4096, 4096, -1},
	{15, "write over the end", "vol0", 0, 1, VOLUME_BYTES - 1, 2, 2, NBD_ENOSPC},
	{16, "write beyond the end", "vol0", 0, 1, UINT64_MAX, 2, 2, NBD_ENOSPC},
	{17, "write with DF", "vol0", 4, 1, 0, 512, 512, NBD_EINVAL},
	{18, "write of nothing", "vol0", 0, 1, 0, 0, 0, 0},
	{19, "write, read-only", "vol1", 0, 1, 0, 512, 512, NBD_EPERM},
	{20, "flush", "vol0", 0, 3, 0, 0, 0, -1},
	{21, "flush with a range", "vol0", 0, 3, 0, 512, 0, NBD_EINVAL},
	{22, "flush with FUA", "vol0", 1, 3, 0, 0, 0, -1},
	{23, "flush, read-only", "vol1", 0, 3, 0, 0, 0, 0},
	{24, "trim", "vol0", 0, 4, 100, 5000, 0, -1},
	{25, "trim, read-only", "vol1", 0, 4, 100, 5000, 0, NBD_EPERM},
	{26, "trim over the end", "vol0", 0, 4, 1, VOLUME_BYTES, 0, NBD_EINVAL},
	{27, "cache", "vol1", 0, 5, 0, 0xfffffff0u, 0, -1},
	{28, "zeroes with all its flags", "vol0", 1 | 2 | 16, 6, 0, VOLUME_BYTES, 0, -1},
	{29, "zeroes over the end", "vol0", 0, 6, 1, VOLUME_BYTES, 0, NBD_ENOSPC},
	{30, "zeroes, read-only", "vol1", 0, 6, 1, 1, 0, NBD_EPERM},
	{31, "zeroes with DF", "vol0", 4, 6, 1, 1, 0, NBD_EINVAL},
	{32, "status", "vol1", 0, 7, 0, 0xffffffffu, 0, -1},
	{33, "status of one", "vol0", 8, 7, 5, 7, 0, -1},
	{34, "status of nothing", "vol0", 0, 7, 0, 0, 0, NBD_EINVAL},
	{35, "no such command", "vol0", 0, 8, 0, 0, 0, NBD_EINVAL},
	{36, "no such command either", "vol0", 0, 0xffff, 0, 9, 0, NBD_EINVAL},
};

/* The reply to a command without data: simple, or a chunk where those are used. */
static void expect_reply(struct rig *rig, uint16_t command, uint64_t cookie, int error)
{
	char script[128];
	bool chunked = command == NBD_COMMAND_READ || command == NBD_COMMAND_BLOCK_STATUS;

	if (!chunked)
		snprintf(script, sizeof script, "S d%d q%llu", error, (unsigned long long)cookie);
	else if (error)
		snprintf(script, sizeof script, "C w1 w0x8001 q%llu d6 d%d w0",
			 (unsigned long long)cookie, error);
	else
		snprintf(script, sizeof script, "C w1 w0 q%llu d0", (unsigned long long)cookie);
	if (!script_matches(script, rig->said, rig->said_bytes))
		fail_msg("%zu bytes said, not: %s", rig->said_bytes, script);
	rig->said_bytes = 0;
}

static void check_request(const struct rig *rig, const struct request *request, size_t i)
{
	const uint8_t *end = rig->memory + MEMORY_BYTES;

	assert_int_equal(request->offset, rule[i].offset);
	assert_int_equal(request->length, rule[i].length);
	assert_int_equal(request->export, rule[i].export[3] - '0');
	if (request->kind == REQUEST_READ || request->kind == REQUEST_WRITE) {
		assert_int_equal((uintptr_t)request->data % PAGE_BYTES,
				 request->offset % PAGE_BYTES);
		assert_true(request->data >= rig->memory + PAGE_BYTES);
		assert_true(request->data + request->length + PAGE_BYTES <= end);
	}
	if (request->kind == REQUEST_STATUS)
		assert_int_equal(request->extent_count,
				 rule[i].flags & 8 ? 1 : NBD_STATUS_EXTENTS_MAX);
	if (request->kind == REQUEST_WRITE)
		for (uint32_t at = 0; at < request->length; at++)
			assert_int_equal(request->data[at], 0x5a);
}

static void commands_by_table(void **state)
{
	uint8_t in[8192];
	char script[128];

	for (size_t i = 0; i < ARRAY_COUNT(rule); i++)
		for (size_t piece_bytes = 1; piece_bytes < 100; piece_bytes += 9) {
			struct rig *rig = rig_new();
			rig_go(rig, rule[i].export, true);
			snprintf(script, sizeof script, "Q w%u w%u q%zu q%llu d%u", rule[i].flags,
				 rule[i].command, i, (unsigned long long)rule[i].offset,
				 rule[i].length);
			size_t length = script_bytes(script, in);
			memset(in + length, 0x5a, rule[i].payload_bytes);
			length += rule[i].payload_bytes;
			assert_int_equal(rig_feed(rig, in, length, piece_bytes), length);
			struct request *request = rig_take(rig);
			if ((request != NULL) != (rule[i].error < 0))
				fail_msg("row %d (%s): to core or not", rule[i].row, rule[i].what);
			if (request) {
				check_request(rig, request, i);
				request->result = -EIO;
				nbd_answer(request);
			}
			rig_send(rig, piece_bytes);
			expect_reply(rig, (uint16_t)rule[i].command, i,
				     rule[i].error < 0 ? NBD_EIO : rule[i].error);
			assert_int_equal(rig->nbd.phase, NBD_PHASE_COMMAND);
			rig_free(rig);
		}
}

static void errors_by_table(void **state)
{
	static const struct {
		int row, result, error;
	} error[] = {
		{1, 0, 0},
		{2, -EPERM, NBD_EPERM},
		{3, -EACCES, NBD_EPERM},
		{4, -EROFS, NBD_EPERM},
		{5, -ENOMEM, NBD_ENOMEM},
		{6, -EINVAL, NBD_EINVAL},
		{7, -ENOSPC, NBD_ENOSPC},
		{8, -EDQUOT, NBD_ENOSPC},
		{9, -EFBIG, NBD_ENOSPC},
		{10, -EOVERFLOW, NBD_EOVERFLOW},
		{11, -ENOTSUP, NBD_ENOTSUP},
		{12, -ESHUTDOWN, NBD_ESHUTDOWN},
		{13, -EBADMSG, NBD_EIO},
		{14, -ECANCELED, NBD_EIO},
	};
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	for (size_t i = 0; i < ARRAY_COUNT(error); i++) {
		rig_say(rig, "Q w0 w6 q77 q0 d4096");
		struct request *request = rig_take(rig);
		assert_non_null(request);
		request->result = error[i].result;
		nbd_answer(request);
		rig_send(rig, SIZE_MAX);
		expect_reply(rig, NBD_COMMAND_WRITE_ZEROES, 77, error[i].error);
	}
	rig_free(rig);
}

static void read_replies(void **state)
{
	for (int structured = 0; structured < 2; structured++) {
		struct rig *rig = rig_new();
		rig_go(rig, "vol0", structured);
		rig_say(rig, "Q w0 w0 q9 q4093 d5");
		struct request *request = rig_take(rig);
		memcpy(request->data, "bytes", 5);
		nbd_answer(request);
		rig_send(rig, 1);
		assert_true(script_matches(structured ? "C w1 w1 q9 d13 q4093 'bytes"
						      : "S d0 q9 'bytes",
					   rig->said, rig->said_bytes));
		rig->said_bytes = 0;
		rig_say(rig, "Q w0 w0 q10 q0 d5 Q w0 w0 q11 q0xffffffff d5");
		request = rig_take(rig);
		request->result = -EIO;
		nbd_answer(request);
		rig_send(rig, SIZE_MAX);
		assert_true(script_matches(
			structured ? "C w1 w0x8001 q11 d6 d22 w0 C w1 w0x8001 q10 d6 d5 w0"
				   : "S d22 q11 S d5 q10",
			rig->said, rig->said_bytes));
		rig->said_bytes = 0;
		rig_say(rig, "Q w4 w0 q12 q0 d5"); /* DF is not offered without structured */
		assert_int_equal(rig->nbd.in_core, structured);
		if (structured)
			nbd_answer(rig_take(rig));
		rig_free(rig);
	}
}

static void status_replies(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w7 q5 q4096 d20000");
	struct request *request = rig_take(rig);
	request->extent[0] = (struct extent){4096, 0};
	request->extent[1] = (struct extent){8192, 3};
	request->extent[2] = (struct extent){1 << 20, 2}; /* more than was asked for */
	request->extent[3] = (struct extent){1, 1};
	request->extent_count = 4;
	nbd_answer(request);
	rig_send(rig, 3);
	assert_true(script_matches("C w1 w5 q5 d28 d1 d4096 d0 d8192 d3 d7712 d2", rig->said,
				   rig->said_bytes));
	rig_free(rig);
}

/* ---- the unkind ---- */

static void bad_magic_ends_after_the_answers(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 d0 w0 w3 q1 q0 d0");
	assert_int_equal(rig->nbd.phase, NBD_PHASE_LEAVING);
	assert_int_equal(rig->shared.counts.bad_streams, 1);
	assert_false(nbd_finished(&rig->nbd));
	nbd_answer(rig_take(rig));
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 1, 0);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void disconnect_waits_for_the_answers(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 Q w0 w2 q2 q0 d0");
	assert_false(nbd_finished(&rig->nbd));
	assert_int_equal(nbd_receive_pieces(&rig->nbd, (struct iovec[2]){0}), 0);
	nbd_answer(rig_take(rig));
	assert_false(nbd_finished(&rig->nbd));
	rig_send(rig, SIZE_MAX);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void oversized_write_is_drained(void **state)
{
	struct rig *rig = rig_new();
	size_t length = (32 << 20) + 1;
	uint8_t *payload = calloc(1, length);

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w1 q1 q0 d0x2000001");
	assert_int_equal(rig_feed(rig, payload, length, 60000), length);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_WRITE, 1, NBD_EINVAL);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	rig_say(rig, "Q w0 w3 q2 q0 d0");
	nbd_answer(rig_take(rig));
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 2, 0);
	free(payload);
	rig_free(rig);
}

static void client_that_dies_mid_write(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w0 q1 q0 d65536 Q w0 w0 q2 q0 d4096 Q w0 w1 q3 q0 d8192 'half");
	struct request *first = rig_take(rig), *second = rig_take(rig);
	assert_null(rig_take(rig));
	nbd_answer(first);
	nbd_abandon(&rig->nbd);
	assert_int_equal(nbd_in_core(&rig->nbd), 1);
	memset(second->data, 1, second->length); /* still core's */
	nbd_answer(second);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	rig_send(rig, SIZE_MAX);
	assert_int_equal(rig->said_bytes, 0);
	rig_free(rig);
}

static void shutdown_answers_what_was_read(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 Q w0 w3 q2 q0 d0");
	struct request *taken = rig_take(rig);
	rig->shared.export[0].ready = false;
	nbd_withdraw(&rig->shared, 0);
	nbd_shutdown(&rig->nbd);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 2, NBD_ESHUTDOWN);
	assert_false(nbd_finished(&rig->nbd));
	nbd_answer(taken);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 1, 0);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

/* ---- back-pressure ---- */

static void slots_bound_what_is_in_flight(void **state)
{
	struct rig *rig = rig_new();
	uint8_t in[28 * 100];
	size_t length = 0;

	rig_go(rig, "vol0", true);
	for (unsigned i = 0; i < 100; i++)
		length += script_bytes("Q w0 w3 q1 q0 d0", in + length);
	assert_int_equal(rig_feed(rig, in, length, length), length); /* buffered, not parsed */
	assert_int_equal(nbd_in_core(&rig->nbd), NBD_SLOTS);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_SLOT);
	for (unsigned answered = 0; answered < 100; answered++) {
		nbd_answer(rig_take(rig));
		rig_send(rig, SIZE_MAX);
	}
	assert_int_equal(rig->said_bytes, 1600);
	assert_int_equal(rig->nbd.blocked, NBD_FLOWING);
	/* and shut down while blocked: what was buffered is answered too */
	rig_feed(rig, in, length, length);
	nbd_shutdown(&rig->nbd);
	for (unsigned answered = 0; answered < NBD_SLOTS; answered++) {
		nbd_answer(rig_take(rig));
		rig_send(rig, SIZE_MAX);
	}
	assert_int_equal(rig->said_bytes, 3200);
	unsigned refused = 0;
	for (size_t at = 1600; at < 3200; at += 16)
		refused += get_be32(rig->said + at + 4) == NBD_ESHUTDOWN;
	assert_int_equal(refused, 100 - NBD_SLOTS);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void memory_makes_requests_wait(void **state)
{
	struct rig *rig = rig_new();
	struct rig *other = rig_new();

	rig_go(rig, "vol1", true);
	rig_say(rig, "Q w0 w0 q1 q1 d0x2000000 Q w0 w0 q2 q0 d0x2000000");
	struct request *first = rig_take(rig);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_MEMORY);
	assert_null(rig_take(rig));
	/* who waits longest is served first, though less would fit */
	nbd_fini(&other->nbd);
	rig->shared.memory.reserved_for = &rig->nbd;
	assert_null(nbd_memory_take(&rig->shared.memory, 1, &other->nbd));
	rig->shared.memory.reserved_for = NULL;
	nbd_resume(&rig->nbd);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_MEMORY);
	first->result = -EIO; /* spares the capture 32 MiB */
	nbd_answer(first);
	rig_send(rig, SIZE_MAX);
	nbd_resume(&rig->nbd);
	assert_int_equal(rig->nbd.blocked, NBD_FLOWING);
	struct request *second = rig_take(rig);
	second->result = -EIO;
	nbd_answer(second);
	rig_connect(other);
	rig_free(other);
	rig_free(rig);
}

static void memory_against_a_plain_model(void **state)
{
	enum { UNITS = 200, HELD_MAX = 64 };
	static uint8_t region[NBD_UNIT_BYTES * UNITS] __attribute__((aligned(4096)));
	static struct nbd_memory memory;
	uint8_t owner[UNITS] = {0};
	struct {
		uint8_t *at;
		uint64_t bytes;
	} held[HELD_MAX] = {0};
	unsigned seed = 7;

	nbd_memory_init(&memory, region, sizeof region);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned i = (unsigned)rand_r(&seed) % HELD_MAX;
		uint64_t first = (uint64_t)(held[i].at - region) / NBD_UNIT_BYTES;
		if (held[i].at) {
			nbd_memory_give(&memory, held[i].at, held[i].bytes);
			memset(owner + first, 0, div_up(held[i].bytes, NBD_UNIT_BYTES));
			held[i].at = NULL;
			continue;
		}
		held[i].bytes = 1 + (uint64_t)rand_r(&seed) % (NBD_UNIT_BYTES * 20);
		held[i].at = nbd_memory_take(&memory, held[i].bytes, NULL);
		unsigned count = (unsigned)div_up(held[i].bytes, NBD_UNIT_BYTES), run = 0, at = 0;
		while (at < UNITS && run < count)
			run = owner[at++] ? 0 : run + 1;
		if (run < count) {
			assert_null(held[i].at);
			continue;
		}
		assert_ptr_equal(held[i].at, region + (uint64_t)(at - count) * NBD_UNIT_BYTES);
		memset(owner + at - count, 1, count);
	}
}

/* ---- a random stream against a RAM disk that answers in any order ---- */

enum { STREAM_COMMANDS = 400, STREAM_BYTES_MAX = 70000 };

struct expected_reply {
	uint16_t command;
	uint32_t length;
	uint8_t *data; /* of a read */
	bool seen;
};

static void ram_do(uint8_t *disk, struct request *request)
{
	uint8_t *at = disk + request->offset;

	if (request->kind == REQUEST_READ)
		memcpy(request->data, at, request->length);
	else if (request->kind == REQUEST_WRITE)
		memcpy(at, request->data, request->length);
	else if (request->kind == REQUEST_ZERO || request->kind == REQUEST_DISCARD)
		memset(at, 0, request->length);
}

/* One command at the end of the stream, done at once to the model. */
static size_t stream_command(uint8_t *out, struct expected_reply *expected, uint8_t *model,
			     uint64_t cookie, unsigned *seed)
{
	static const uint16_t commands[] = {0, 0, 1, 1, 1, 3, 4, 6};
	uint16_t command = commands[(unsigned)rand_r(seed) % ARRAY_COUNT(commands)];
	uint32_t length =
		1 + (uint32_t)rand_r(seed) % (rand_r(seed) % 4 ? 300u : (unsigned)STREAM_BYTES_MAX);
	uint64_t offset = (uint64_t)rand_r(seed) % (VOLUME_BYTES - length);
	uint8_t *at = model + offset;

	if (command == NBD_COMMAND_FLUSH)
		offset = length = 0;
	put_be32(out, NBD_REQUEST_MAGIC);
	put_be32(out + 4, command);
	put_be64(out + 8, cookie);
	put_be64(out + 16, offset);
	put_be32(out + 24, length);
	*expected = (struct expected_reply){.command = command, .length = length};
	if (command == NBD_COMMAND_READ) {
		expected->data = malloc(length);
		memcpy(expected->data, at, length);
	} else if (command == NBD_COMMAND_WRITE) {
		for (uint32_t i = 0; i < length; i++)
			out[28 + i] = at[i] = (uint8_t)rand_r(seed);
		return 28 + length;
	} else if (command != NBD_COMMAND_FLUSH) {
		memset(at, 0, length);
	}
	return 28;
}

/* Reads what was said so far; gives the number of whole replies. */
static unsigned stream_check(struct rig *rig, struct expected_reply *expected)
{
	size_t at = 0;
	unsigned count = 0;

	while (rig->said_bytes - at >= 16) {
		const uint8_t *p = rig->said + at;
		struct expected_reply *reply = &expected[get_be64(p + 8)];
		bool read = reply->command == NBD_COMMAND_READ;
		size_t whole = read ? 28 + reply->length : 16;
		if (rig->said_bytes - at < whole)
			break;
		assert_false(reply->seen);
		reply->seen = true;
		assert_int_equal(get_be32(p),
				 read ? NBD_STRUCTURED_REPLY_MAGIC : NBD_SIMPLE_REPLY_MAGIC);
		if (read)
			assert_memory_equal(p + 28, reply->data, reply->length);
		free(reply->data);
		at += whole;
		count++;
	}
	memmove(rig->said, rig->said + at, rig->said_bytes - at);
	rig->said_bytes -= at;
	return count;
}

static void random_stream(unsigned seed)
{
	struct rig *rig = rig_new();
	static struct expected_reply expected[STREAM_COMMANDS];
	static uint8_t disk[VOLUME_BYTES], model[VOLUME_BYTES];
	uint8_t *stream = malloc((size_t)STREAM_COMMANDS * (STREAM_BYTES_MAX + 28));
	struct request *pending[NBD_SLOTS];
	unsigned pending_count = 0, replies = 0, idle = 0;
	size_t length = 0, at = 0;

	memset(disk, 0, sizeof disk);
	memset(model, 0, sizeof model);
	rig_go(rig, "vol0", true);
	for (unsigned i = 0; i < STREAM_COMMANDS; i++)
		length += stream_command(stream + length, &expected[i], model, i, &seed);
	while (replies < STREAM_COMMANDS) {
		size_t some = 1 + (size_t)rand_r(&seed) % 100000;
		size_t fed = rig_feed(rig, stream + at, min_u64(length - at, some),
				      1 + (size_t)rand_r(&seed) % 40000);
		at += fed;
		for (struct request *request; (request = rig_take(rig));) {
			ram_do(disk, request);
			pending[pending_count++] = request;
		}
		for (unsigned n = (unsigned)rand_r(&seed) % 80; n > 0 && pending_count > 0; n--) {
			unsigned i = (unsigned)rand_r(&seed) % pending_count;
			nbd_answer(pending[i]);
			pending[i] = pending[--pending_count];
		}
		rig_send(rig, 1 + (size_t)rand_r(&seed) % 5000);
		nbd_resume(&rig->nbd);
		unsigned more = stream_check(rig, expected);
		replies += more;
		idle = more || fed ? 0 : idle + 1;
		if (idle > 100)
			fail_msg("seed %u: stuck after %u replies", seed, replies);
	}
	assert_int_equal(rig->said_bytes, 0);
	assert_memory_equal(disk, model, VOLUME_BYTES);
	free(stream);
	rig_free(rig);
}

static void random_streams(void **state)
{
	for (unsigned seed = 1; seed <= 10; seed++)
		random_stream(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_by_table),
		cmocka_unit_test(default_export_is_the_only_ready_one),
		cmocka_unit_test(context_of_another_export_does_not_count),
		cmocka_unit_test(options_unread_block),
		cmocka_unit_test(commands_by_table),
		cmocka_unit_test(errors_by_table),
		cmocka_unit_test(read_replies),
		cmocka_unit_test(status_replies),
		cmocka_unit_test(bad_magic_ends_after_the_answers),
		cmocka_unit_test(disconnect_waits_for_the_answers),
		cmocka_unit_test(oversized_write_is_drained),
		cmocka_unit_test(client_that_dies_mid_write),
		cmocka_unit_test(shutdown_answers_what_was_read),
		cmocka_unit_test(slots_bound_what_is_in_flight),
		cmocka_unit_test(memory_makes_requests_wait),
		cmocka_unit_test(memory_against_a_plain_model),
		cmocka_unit_test(random_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
