/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD connection without sockets: dialogues of options and commands as tables, fed in pieces
 * of every size. */
#include "nbd_rig.h"

/* ---- options ---- */

#define GREETING     "q0x4e42444d41474943 O w3 "
#define BLOCK_SIZES  "d3 d14 w3 d1 d4096 d0x2000000 "
#define VOL0	     "w0 q0x100000 "
#define VOL1	     "w0 q0x280000000 "
#define FLAGS_RW     "w3437 "
#define FLAGS_RW_DF  "w3565 "
#define FLAGS_RO     "w1295 "
#define CONTEXT_NAME "'base:allocation "

static const struct dialogue {
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

/* Errors in a script of replies, but for e1: clients ask for what a server may lack. */
static unsigned errors_in(const char *script)
{
	unsigned count = 0;

	for (const char *at = script; (at = strstr(at, " e")); at += 2)
		count += at[2] != '1';
	return count;
}

static void refusals_were_counted(const struct rig *rig, const struct dialogue *row)
{
	unsigned errors = errors_in(row->out);

	if (row->out[0])
		assert_int_equal(rig->shared.counts.refused, errors);
	else
		assert_int_equal(rig->shared.counts.refused + rig->shared.counts.bad_streams, 1);
}

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
			refusals_were_counted(rig, &dialogue[i]);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
