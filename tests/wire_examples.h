/* SPDX-License-Identifier: Apache-2.0 */
/* One example of each message of the data plane, as the code takes it and as docs/protocol.md
 * "Datagrams" lays it out. Offsets, sizes and bounds are copied from the tables there, not from the
 * code: where the two do not agree, one of them is wrong. */
#ifndef CASEMATE_TESTS_WIRE_EXAMPLES_H
#define CASEMATE_TESTS_WIRE_EXAMPLES_H

#include "core/wire.h"

#include <errno.h>

enum { FIELDS_MAX = 32 };

union message {
	struct wire_shard shard;
	struct wire_alive alive;
	struct wire_hello hello;
	struct wire_state state;
	struct wire_open open;
	struct wire_opened opened;
	struct wire_head head;
	struct wire_points points;
	struct wire_compare compare;
	struct wire_tags tags;
};

/* ---- one example of each ---- */
/* Bytes that count up, so that a field in a wrong place shows. */
#define RUN_8(first)                                                                               \
	(first), (first) + 1, (first) + 2, (first) + 3, (first) + 4, (first) + 5, (first) + 6,     \
		(first) + 7
#define RUN_16(first) RUN_8(first), RUN_8((first) + 8)
#define RUN_40(first) RUN_16(first), RUN_16((first) + 16), RUN_8((first) + 32)
#define UUID(first)                                                                                \
	{                                                                                          \
		{                                                                                  \
			RUN_16(first)                                                              \
		}                                                                                  \
	}

static const union message shard = {
	.shard = {.record = {.span = UUID(0x10),
			     .lsn = 0x3132333435363738,
			     .identity = {.span = UUID(0x20),
					  .lsn = 0x4142434445464748,
					  .generation = 0x51525354},
			     .block = 0x6162636465666768,
			     .kind = RECORD_DISCARD,
			     .shard = 20,
			     .geometry = {.k = 15, .m = 7},
			     .block_bytes = 0x71727374,
			     .tag = {RUN_16(0x80)},
			     .block_crc = 0x91929394,
			     .wall_ns = 0xa1a2a3a4a5a6a7a8},
		  .group = 5,
		  .volume = 6,
		  .offset = 0xb1b2b3b4,
		  .cut_bytes = 0xc1c2 * 64},
};
static const union message alive = {
	.alive = {.instance = UUID(0x10),
		  .sent_ns = 0x2122232425262728,
		  .echo_ns = 0x3132333435363738,
		  .echo_age_ns = 0x4142434445464748,
		  .bye = 1},
};
static const union message hello = {
	.hello = {.group = 0xf7,
		  .name = "payroll",
		  .instance = UUID(0x10),
		  .greeting = 0x21222324,
		  .set = UUID(0x30),
		  .geometry = {.k = 0xe1, .m = 0xe2},
		  .quorum = 0xe3,
		  .generation = 0x41424344,
		  .volume_count = 2,
		  .volume = {{.name = "of-thirty-one-letters-012345678",
			      .id = UUID(0x50),
			      .size = 0x6162636465666768,
			      .block_bytes = 0x71727374,
			      .wrapped_key = {RUN_40(0x80)},
			      .key_check = {RUN_16(0xb0)}},
			     {.name = "b",
			      .id = UUID(0x58),
			      .size = 0x696a6b6c6d6e6f70,
			      .block_bytes = 0x797a7b7c,
			      .wrapped_key = {RUN_40(0x90)},
			      .key_check = {RUN_16(0xc0)}}}},
};
#define SPAN                                                                                       \
	{                                                                                          \
		.id = UUID(0x50), .parent = UUID(0x70), .first = 0x8182838485868788,               \
		.parent_last = 0x7192939495969798, .generation = 0xa1a2a3a4, .kind = SPAN_CATCH_UP \
	}
static const union message state_with_span = {
	.state = {.group = 0xf7,
		  .result = -ESTALE,
		  .instance = UUID(0x10),
		  .greeting = 0x21222324,
		  .set = UUID(0x30),
		  .generation = 0x41424344,
		  .has_span = 1,
		  .span = SPAN,
		  .durable = 0xb1b2b3b4b5b6b7b8,
		  .consistent = 0xc1c2c3c4c5c6c7c8,
		  .highest = 0xd1d2d3d4d5d6d7d8},
};
static const union message open_span = {.open = {.group = 0xf7, .span = SPAN}};
static const union message opened = {
	.opened = {.group = 0xf7, .result = -EAGAIN, .span = UUID(0x10)}};
static const union message head = {
	.head = {.group = 0xf7, .span = UUID(0x10), .last = 0x2122232425262728}};
static const union message points = {
	.points = {.group = 0xf7,
		   .span = UUID(0x10),
		   .received = 0x2122232425262728,
		   .durable = 0x3132333435363738,
		   .consistent = 0x4142434445464748,
		   .credit = 0x5152535455565758,
		   .nack_count = 2,
		   .nack = {{.lsn = 0x6162636465666768,
			     .columns = 0x71727374,
			     .fragment = 0x8182,
			     .count = 0x9192},
			    {.lsn = 0x696a6b6c6d6e6f70,
			     .columns = 0x797a7b7c,
			     .fragment = 0x898a,
			     .count = 65535}}},
};
static const union message compare = {
	.compare = {.group = 0xf7,
		    .volume = 0xe1,
		    .ask = 0x11121314,
		    .block = 0x2122232425262728,
		    .count = 0x31323334},
};
static const union message tags = {
	.tags = {.group = 0xf7,
		 .volume = 0xe1,
		 .ask = 0x11121314,
		 .block = 0x2122232425262728,
		 .count = 2,
		 .tag = {{.kind = RECORD_DATA,
			  .identity = {.span = UUID(0x30),
				       .lsn = 0x4142434445464748,
				       .generation = 0x51525354},
			  .tag = {RUN_16(0x60)}},
			 {.kind = RECORD_VOID,
			  .identity = {.span = UUID(0x38),
				       .lsn = 0x494a4b4c4d4e4f50,
				       .generation = 0x595a5b5c},
			  .tag = {RUN_16(0x68)}}}},
};

/* ---- the document ---- */
/* One line of a table: an integer of 1, 2, 4 or 8 bytes; a name (32 bytes), by its number; or a run
 * of other lengths, that counts up from value, or is zeros. */
struct field {
	uint16_t at, bytes;
	uint64_t value;
};
static const char *const names[] = {"payroll", "of-thirty-one-letters-012345678", "b"};

#define SPAN_FIELDS(base)                                                                          \
	{(base), 16, 0x50}, {(base) + 16, 16, 0x70}, {(base) + 32, 8, 0x8182838485868788},         \
		{(base) + 40, 8, 0x7192939495969798}, {(base) + 48, 4, 0xa1a2a3a4},                \
		{(base) + 52, 1, 2},                                                               \
	{                                                                                          \
		(base) + 53, 11, 0                                                                 \
	}

/* In the order of the document. least and most are the bytes of text; each is what an element adds,
 * counted at count_at up to count_max. */
static const struct layout {
	enum wire_type type;
	const char *name;
	uint32_t least, most, count_at, each, count_max;
	const union message *example;
	struct field field[FIELDS_MAX];
} layouts[] = {
	{.type = WIRE_SHARD,
	 .name = "SHARD",
	 .least = 112,
	 .most = 112,
	 .example = &shard,
	 .field = {{0, 1, 16},
		   {1, 1, 3},  /* kind: discard */
		   {2, 1, 20}, /* column */
		   {3, 1, 15}, /* k */
		   {4, 1, 7},  /* m */
		   {5, 1, 5},  /* group */
		   {6, 1, 6},  /* volume */
		   {7, 1, 0},
		   {8, 4, 0x51525354},		/* generation of the seal identity */
		   {12, 16, 0x10},		/* span of the place */
		   {28, 16, 0x20},		/* span of the seal identity */
		   {44, 8, 0x3132333435363738}, /* lsn of the place */
		   {52, 8, 0x4142434445464748}, /* lsn of the seal identity */
		   {60, 8, 0x6162636465666768}, /* block */
		   {68, 16, 0x80},		/* tag */
		   {84, 4, 0x91929394},		/* CRC-32C of the block */
		   {88, 4, 0xb1b2b3b4},		/* offset of the payload */
		   {92, 2, 0xc1c2},		/* cut */
		   {94, 2, 0},
		   {96, 8, 0xa1a2a3a4a5a6a7a8}, /* wall clock */
		   {104, 4, 0x71727374},	/* bytes of a block */
		   {108, 4, 0}}},
	{.type = WIRE_ALIVE,
	 .name = "ALIVE",
	 .least = 42,
	 .most = 42,
	 .example = &alive,
	 .field = {{0, 1, 17},
		   {1, 16, 0x10},		/* instance */
		   {17, 8, 0x2122232425262728}, /* clock */
		   {25, 8, 0x3132333435363738}, /* echo */
		   {33, 8, 0x4142434445464748}, /* its age */
		   {41, 1, 1}}},		/* stops */
	{.type = WIRE_HELLO,
	 .name = "HELLO",
	 .least = 78,
	 .most = 1006,
	 .count_at = 77,
	 .each = 116,
	 .count_max = 8,
	 .example = &hello,
	 .field = {{0, 1, 18},
		   {1, 1, 0xf7},	/* group */
		   {2, 32, 0},		/* its name */
		   {34, 16, 0x10},	/* instance */
		   {50, 4, 0x21222324}, /* greeting */
		   {54, 16, 0x30},	/* set */
		   {70, 1, 0xe1},	/* k */
		   {71, 1, 0xe2},	/* m */
		   {72, 1, 0xe3},	/* quorum */
		   {73, 4, 0x41424344}, /* generation */
		   {77, 1, 2},		/* volumes */
		   {78, 32, 1},
		   {110, 16, 0x50},		 /* id */
		   {126, 8, 0x6162636465666768}, /* size */
		   {134, 4, 0x71727374},	 /* bytes of a block */
		   {138, 40, 0x80},		 /* wrapped key */
		   {178, 16, 0xb0},		 /* check value */
		   {194, 32, 2},
		   {226, 16, 0x58},
		   {242, 8, 0x696a6b6c6d6e6f70},
		   {250, 4, 0x797a7b7c},
		   {254, 40, 0x90},
		   {294, 16, 0xc0}}},
	{.type = WIRE_STATE,
	 .name = "STATE",
	 .least = 71,
	 .most = 135,
	 .count_at = 46,
	 .each = 64,
	 .count_max = 1,
	 .example = &state_with_span,
	 .field = {{0, 1, 19},
		   {1, 1, 0xf7},	   /* group */
		   {2, 4, (uint32_t)-116}, /* result: ESTALE of Linux */
		   {6, 16, 0x10},	   /* instance */
		   {22, 4, 0x21222324},	   /* greeting */
		   {26, 16, 0x30},	   /* set */
		   {42, 4, 0x41424344},	   /* generation */
		   {46, 1, 1},		   /* a span follows */
		   SPAN_FIELDS(47),
		   {111, 8, 0xb1b2b3b4b5b6b7b8},   /* durable */
		   {119, 8, 0xc1c2c3c4c5c6c7c8},   /* consistent */
		   {127, 8, 0xd1d2d3d4d5d6d7d8}}}, /* highest */
	{.type = WIRE_OPEN,
	 .name = "OPEN",
	 .least = 66,
	 .most = 66,
	 .example = &open_span,
	 .field = {{0, 1, 20}, {1, 1, 0xf7}, SPAN_FIELDS(2)}},
	{.type = WIRE_OPENED,
	 .name = "OPENED",
	 .least = 22,
	 .most = 22,
	 .example = &opened,
	 .field = {{0, 1, 21},
		   {1, 1, 0xf7},
		   {2, 4, (uint32_t)-11}, /* EAGAIN */
		   {6, 16, 0x10}}},
	{.type = WIRE_HEAD,
	 .name = "HEAD",
	 .least = 26,
	 .most = 26,
	 .example = &head,
	 .field = {{0, 1, 22}, {1, 1, 0xf7}, {2, 16, 0x10}, {18, 8, 0x2122232425262728}}},
	{.type = WIRE_POINTS,
	 .name = "POINTS",
	 .least = 51,
	 .most = 1075,
	 .count_at = 50,
	 .each = 16,
	 .count_max = 64,
	 .example = &points,
	 .field = {{0, 1, 23},
		   {1, 1, 0xf7},
		   {2, 16, 0x10},
		   {18, 8, 0x2122232425262728}, /* received */
		   {26, 8, 0x3132333435363738}, /* durable */
		   {34, 8, 0x4142434445464748}, /* consistent */
		   {42, 8, 0x5152535455565758}, /* credit */
		   {50, 1, 2},			/* nacks */
		   {51, 8, 0x6162636465666768}, /* lsn */
		   {59, 4, 0x71727374},		/* columns */
		   {63, 2, 0x8182},		/* first fragment */
		   {65, 2, 0x9192},		/* how many */
		   {67, 8, 0x696a6b6c6d6e6f70},
		   {75, 4, 0x797a7b7c},
		   {79, 2, 0x898a},
		   {81, 2, 65535}}},
	{.type = WIRE_COMPARE,
	 .name = "COMPARE",
	 .least = 19,
	 .most = 19,
	 .example = &compare,
	 .field = {{0, 1, 24},
		   {1, 1, 0xf7},	       /* group */
		   {2, 1, 0xe1},	       /* volume */
		   {3, 4, 0x11121314},	       /* number of the question */
		   {7, 8, 0x2122232425262728}, /* first block */
		   {15, 4, 0x31323334}}},      /* how many */
	{.type = WIRE_TAGS,
	 .name = "TAGS",
	 .least = 20,
	 .most = 830,
	 .count_at = 19,
	 .each = 45,
	 .count_max = 18,
	 .example = &tags,
	 .field = {{0, 1, 25},
		   {1, 1, 0xf7},
		   {2, 1, 0xe1},
		   {3, 4, 0x11121314},
		   {7, 8, 0x2122232425262728},
		   {15, 4, 0},			/* result */
		   {19, 1, 2},			/* tags */
		   {20, 1, 1},			/* kind */
		   {21, 16, 0x30},		/* span of the seal identity */
		   {37, 8, 0x4142434445464748}, /* its lsn */
		   {45, 4, 0x51525354},		/* its generation */
		   {49, 16, 0x60},		/* tag */
		   {65, 1, 5},
		   {66, 16, 0x38},
		   {82, 8, 0x494a4b4c4d4e4f50},
		   {90, 4, 0x595a5b5c},
		   {94, 16, 0x68}}},
};

#endif
