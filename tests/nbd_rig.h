/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of the front with its memory, fed and read without sockets: for the tests. */
#ifndef CASEMATE_TESTS_NBD_RIG_H
#define CASEMATE_TESTS_NBD_RIG_H

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

static inline void rig_connect(struct rig *rig)
{
	rig->said_bytes = 0;
	nbd_init(&rig->nbd, &rig->shared);
}

static inline struct rig *rig_new(void)
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

static inline void rig_free(struct rig *rig)
{
	nbd_fini(&rig->nbd);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	munmap(rig->memory, MEMORY_BYTES);
	free(rig);
}

/* Sends all there is, at most so many bytes at a time. */
static inline void rig_send(struct rig *rig, size_t piece_bytes)
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
static inline size_t rig_feed(struct rig *rig, const uint8_t *bytes, size_t length,
			      size_t piece_bytes)
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

static inline void rig_say(struct rig *rig, const char *script)
{
	uint8_t bytes[16384];
	size_t length = script_bytes(script, bytes);

	assert_int_equal(rig_feed(rig, bytes, length, length), length);
	rig_send(rig, SIZE_MAX);
}

/* The handshake up to commands: export of vol0, with structured replies and base:allocation. */
static inline void rig_go(struct rig *rig, const char *name, bool structured)
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

/* Takes the next request, as the lane would. */
static inline struct request *rig_take(struct rig *rig)
{
	return request_list_pop(&rig->shared.ready);
}

/* The reply to a command without data: simple, or a chunk where those are used. */
static inline void expect_reply(struct rig *rig, uint16_t command, uint64_t cookie, int error)
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

#endif
