/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: a good file as it is read, then one row per mistake with the exact line that
 * must be told. Each row changes one place of the good file. */
#include "config.h"
#include "units.h"

#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define PIN_A "SHA256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa8="
#define PIN_B "SHA256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static const char good[] =		 /* the number of the line stands behind it */
	"version: 1\n"			 /* 1 */
	"node: a\n"			 /* 2 */
	"sites:\n"			 /* 3 */
	"  - name: a\n"			 /* 4 */
	"    certificate: /etc/a.pem\n"	 /* 5 */
	"    key: \"file:/etc/a.key\"\n" /* 6 */
	"    ca: /etc/ca.pem\n"		 /* 7 */
	"    pins: [\"" PIN_A "\"]\n"	 /* 8 */
	"    control: /run/a.sock\n"	 /* 9 */
	"    nbd: [\"unix:/run/a-nbd.sock\", \"tcp:127.0.0.1:10809\"]\n"		   /* 10 */
	"    state: /var/a\n"								   /* 11 */
	"  - {name: b, certificate: /etc/b.pem, key: \"credential:b\", ca: /etc/ca.pem,\n" /* 12 */
	"     pins: [\"" PIN_B "\"], control: /run/b.sock, state: /var/b}\n"		   /* 13 */
	"link:\n"									   /* 14 */
	"  psk: \"file:/etc/psk\"\n"							   /* 15 */
	"  paths:\n"									   /* 16 */
	"    - a: {device: net0, address: 10.77.0.1/24, eal: \"net0,x=y\"}\n"		   /* 17 */
	"      b: {device: net0, address: 10.77.0.2/24}\n"				   /* 18 */
	"      mtu: 9000\n"								   /* 19 */
	"      rate: 10Gbit/s\n"							   /* 20 */
	"    - a: {device: net1, address: 10.78.1.1/24, gateway: 10.78.1.254}\n"	   /* 21 */
	"      b: {device: net1, address: 10.78.2.1/24, gateway: 10.78.2.254}\n"	   /* 22 */
	"groups:\n"									   /* 23 */
	"  - name: g\n"									   /* 24 */
	"    primary: a\n"								   /* 25 */
	"    vault: b\n"								   /* 26 */
	"    data: 2\n"									   /* 27 */
	"    parity: 1\n"								   /* 28 */
	"    ack: received\n"								   /* 29 */
	"    sync: flush\n"								   /* 30 */
	"    window: 64MiB\n"								   /* 31 */
	"    key: \"file:/etc/vol.key\"\n"						   /* 32 */
	"    volumes:\n"								   /* 33 */
	"      - {name: v0, size: 1GiB, block: 32KiB, device: {a: /dev0}}\n"		   /* 34 */
	"      - {name: v1, size: 128KiB, device: {a: /dev1}}\n"			   /* 35 */
	"    stores: {b: [/s/0, /s/1, /s/2]}\n"						   /* 36 */
	"engine: {cpu: {b: 1}, memory: 512MiB}\n";					   /* 37 */

/* The good file with its first `from` replaced; from NULL: `to` is the whole file. */
static char *file_with(const char *from, const char *to)
{
	size_t room = sizeof good + strlen(to) + 1;
	char *text = calloc(1, room);
	assert_non_null(text);
	if (!from) {
		snprintf(text, room, "%s", to);
		return text;
	}
	const char *at = strstr(good, from);
	assert_non_null(at);
	snprintf(text, room, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
	return text;
}

/* gives: all that was told. */
static char *parse(struct config **config, const char *text, size_t length, const char *node,
		   int *err)
{
	char *told = NULL;
	size_t told_bytes;
	FILE *errors = open_memstream(&told, &told_bytes);
	*err = config_parse(config, &(struct config_source){"f", text, length}, node, errors);
	fclose(errors);
	return told;
}

static struct config *parse_good(const char *text, const char *node)
{
	struct config *config;
	int err;
	char *told = parse(&config, text, strlen(text), node, &err);
	assert_string_equal(told, "");
	assert_int_equal(err, 0);
	free(told);
	return config;
}

static void good_file_is_read(void **state)
{
	struct config *c = parse_good(good, NULL);
	assert_string_equal(c->node, "a");
	assert_int_equal(c->self, 0);
	assert_int_equal(c->site_count, 2);
	assert_string_equal(c->site[0].key, "file:/etc/a.key");
	assert_string_equal(c->site[1].pin[0], PIN_B);
	assert_int_equal(c->site[0].nbd_count, 2);
	assert_string_equal(c->site[0].nbd[0].unix_path, "/run/a-nbd.sock");
	assert_int_equal(c->site[0].nbd[1].ip, 0x7f000001);
	assert_int_equal(c->site[0].nbd[1].port, 10809);
	assert_string_equal(c->psk, "file:/etc/psk");
	assert_int_equal(c->path_count, 2);
	assert_int_equal(c->path[0].end[1].address.ip, 0x0a4d0002);
	assert_int_equal(c->path[0].end[1].address.prefix_length, 24);
	assert_string_equal(c->path[0].end[0].eal, "net0,x=y");
	assert_null(c->path[0].end[1].eal);
	assert_int_equal(c->path[0].mtu, 9000);
	assert_int_equal(c->path[0].rate_bytes_per_s, 1250000000);
	assert_int_equal(c->path[1].end[1].gateway, 0x0a4e02fe);
	assert_int_equal(c->path[1].mtu, 1500);
	assert_int_equal(c->path[1].rate_bytes_per_s, 0);
	assert_int_equal(c->path[1].port, 4789);
	const struct config_group *g = &c->group[0];
	assert_int_equal(c->group_count, 1);
	assert_int_equal(g->primary, 0);
	assert_int_equal(g->vault, 1);
	assert_int_equal(g->geometry.k, 2);
	assert_int_equal(g->geometry.m, 1);
	assert_int_equal(g->quorum, 2);
	assert_int_equal(g->ack, ACK_RECEIVED);
	assert_true(g->sync_flush);
	assert_int_equal(g->window_bytes, 64 * MIB);
	assert_int_equal(g->journal_bytes, 256 * MIB);
	assert_int_equal(g->volume_count, 2);
	assert_int_equal(g->volume[0].block_bytes, 32 * KIB);
	assert_int_equal(g->volume[1].block_bytes, 64 * KIB);
	assert_string_equal(g->volume[1].device[0], "/dev1");
	assert_null(g->volume[1].device[1]);
	assert_int_equal(g->store_count[0], 0);
	assert_int_equal(g->store_count[1], 3);
	assert_string_equal(g->store[1][2], "/s/2");
	assert_int_equal(c->engine.lanes, 1);
	assert_int_equal(c->engine.cpu[0], CONFIG_CPU_ANY);
	assert_int_equal(c->engine.cpu[1], 1);
	assert_int_equal(c->engine.memory_bytes, 512 * MIB);
	assert_int_equal(c->engine.aead, CONFIG_AEAD_AUTO);
	config_free(c);
}

/* 1: by the file; 2: by the caller; 3: unknown; 4: nowhere; 5: any. */
static void node_is_resolved(void **state)
{
	static const struct {
		const char *in_file, *node, *told;
		unsigned self;
	} rows[] = {
		{"node: b\n", NULL, "", 1},
		{"node: a\n", "b", "", 1},
		{"node: a\n", "c", "f:1:1: node: no site has the name \"c\"\n", 0},
		{"", NULL, "f:1:1: node: missing; name this site here or by --node\n", 0},
		{"", CONFIG_ANY_NODE, "", 0},
		{"node: c\n", NULL, "f:2:7: node: no site has the name \"c\"\n", 0},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct config *config;
		int err;
		char *text = file_with("node: a\n", rows[i].in_file);
		char *told = parse(&config, text, strlen(text), rows[i].node, &err);
		assert_string_equal(told, rows[i].told);
		assert_int_equal(err, *rows[i].told ? -EINVAL : 0);
		if (config)
			assert_int_equal(config->self, rows[i].self);
		config_free(config);
		free(told);
		free(text);
	}
}

static void quorum_has_a_default(void **state)
{
	static const struct {
		const char *geometry;
		unsigned quorum;
	} rows[] = {
		{"data: 2\n    parity: 1", 2},
		{"data: 1\n    parity: 2", 3},
		{"data: 1\n    parity: 2\n    quorum: 1", 1},
		{"data: 2\n    parity: 1\n    quorum: 3", 3},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char *text = file_with("data: 2\n    parity: 1", rows[i].geometry);
		struct config *config = parse_good(text, NULL);
		assert_int_equal(config->group[0].quorum, rows[i].quorum);
		config_free(config);
		free(text);
	}
}

/* From the geometry to the block of the first volume. */
#define KEY_AND_BLOCK                                                                              \
	"    key: \"file:/etc/vol.key\"\n"                                                         \
	"    volumes:\n"                                                                           \
	"      - {name: v0, size: 1GiB, block: "
#define GEOMETRY                                                                                   \
	"data: 2\n    parity: 1\n    ack: received\n    sync: flush\n    window: "                 \
	"64MiB\n" KEY_AND_BLOCK "32KiB"

struct mistake {
	const char *from, *to, *told;
};

static void mistakes_are_told(const struct mistake *row, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct config *config;
		int err;
		char *text = file_with(row[i].from, row[i].to);
		char *told = parse(&config, text, strlen(text), NULL, &err);
		if (strcmp(told, row[i].told) != 0)
			print_error("row %u (%s)\n", i + 1, row[i].to);
		assert_string_equal(told, row[i].told);
		assert_int_equal(err, -EINVAL);
		assert_null(config);
		free(told);
		free(text);
	}
}

#define ONLY_TOP                                                                                   \
	"f:1:1: sites: missing\nf:1:1: link: missing\nf:1:1: groups: missing\n"                    \
	"f:1:1: node: missing; name this site here or by --node\n"

static void yaml_outside_the_subset(void **state)
{
	static const struct mistake rows[] = {
		/* 1 */ {NULL, "", "f:1:1: the file is empty\n"},
		{NULL, "# nothing\n", "f:1:1: the file is empty\n"},
		{NULL, "version: 1\n\tnode: a\n\t\n",
		 "f:2:1: a tab; use spaces\n"
		 "f:3:1: a tab; use spaces\n"},
		{NULL, "- a\n", "f:1:1: must be a map of keys and values\n"},
		/* 5 */ {NULL, "a\n", "f:1:1: must be a map of keys and values\n"},
		{NULL, "version: \"1\n",
		 "f:1:10: syntax: while scanning a quoted scalar, found unexpected end of "
		 "stream\n"},
		{NULL, "version: 1\n node: a\n",
		 "f:2:6: syntax: mapping values are not allowed in this context\n"},
		{"version: 1\n", "version: &x 1\n", "f:1:10: anchors (&) are not allowed\n"},
		{"node: a\n", "node: *x\n", "f:2:7: aliases (*) are not allowed\n"},
		/* 10 */
		{"version: 1\n", "version: !!int 1\n", "f:1:10: tags (!) are not allowed\n"},
		{"node: a\n", "node: |\n  a\n", "f:2:7: block scalars (| and >) are not allowed\n"},
		{"    stores", "    name: h\n    stores",
		 "f:36:5: groups[0].name: given twice (first in line 24)\n"},
		{"engine:", "---\nengine:", "f:37:1: a second document; there may be only one\n"},
		{"version: 1\n", "%YAML 1.1\n---\nversion: 1\n",
		 "f:1:1: directives (%) are not allowed\n"},
		/* 15 */
		{"{cpu: {b: 1}, memory: 512MiB}", "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
		 "f:37:24: nested deeper than 16\n"},
		{"node: a\n", "node: a\nnode: a\n", "f:3:1: node: given twice (first in line 2)\n"},
		{NULL, "version: 1\n? [a]\n: b\n", "f:2:3: a key must be a plain word\n"},
		{"node: a\n", "node: \"a\\0\"\n", "f:2:7: control characters are not allowed\n"},
		{"/etc/a.pem", "\"/etc/\\na.pem\"", "f:5:18: control characters are not allowed\n"},
		/* 20 */
		{NULL, "\xff\xfe",
		 "f:1:1: not UTF-8 text: invalid leading UTF-8 octet at "
		 "byte 0\n"},
		{NULL, "version: 1\n", ONLY_TOP},
	};
	mistakes_are_told(rows, ARRAY_COUNT(rows));
}

static void keys_and_values(void **state)
{
	static const struct mistake rows[] = {
		/* 1 */ {"    control:", "    kontrol:",
			 "f:4:5: sites[0].control: missing\n"
			 "f:9:5: sites[0].kontrol: unknown key; did you mean \"control\"?\n"},
		{"engine: {", "engine: {frobnicate: 1, ",
		 "f:37:10: engine.frobnicate: unknown key\n"},
		{"version: 1", "version: 2", "f:1:10: version: 2 is not within 1 to 1\n"},
		{"version: 1", "version: 01", "f:1:10: version: \"01\" is not a whole number\n"},
		/* 5 */
		{"data: 2", "data: 0x2",
		 "f:27:11: groups[0].data: \"0x2\" is not a whole number\n"},
		{"data: 2", "data: 17", "f:27:11: groups[0].data: 17 is not within 1 to 16\n"},
		{"parity: 1", "parity: 9", "f:28:13: groups[0].parity: 9 is not within 0 to 8\n"},
		{"data: 2", "data: []", "f:27:11: groups[0].data: must be one value\n"},
		{"data: 2", "data:", "f:27:10: groups[0].data: needs a value\n"},
		/* 10 */
		{"64MiB", "64",
		 "f:31:13: groups[0].window: \"64\" lacks a unit (B, KiB, "
		 "MiB, GiB, TiB)\n"},
		{"64MiB", "64MB",
		 "f:31:13: groups[0].window: unknown unit \"MB\"; did you mean \"MiB\"?\n"},
		{"64MiB", "64furlongs",
		 "f:31:13: groups[0].window: unknown unit \"furlongs\" (B, KiB, MiB, GiB, TiB)\n"},
		{"64MiB", "lots",
		 "f:31:13: groups[0].window: \"lots\" is not a whole number with a "
		 "unit, such as 64KiB\n"},
		{"64MiB", "1KiB", "f:31:13: groups[0].window: 1KiB is not within 4MiB to 64GiB\n"},
		/* 15 */
		{"64MiB", "99999999999999999999GiB",
		 "f:31:13: groups[0].window: \"99999999999999999999GiB\" is too large\n"},
		{"10Gbit/s", "10Gb",
		 "f:20:13: link.paths[0].rate: unknown unit \"Gb\"; did you mean \"Gbit/s\"?\n"},
		{"10Gbit/s", "auto",
		 "f:20:13: link.paths[0].rate: auto comes with a later release; "
		 "give a rate, or none for no limit\n"},
		{"ack: received", "ack: wire",
		 "f:29:10: groups[0].ack: wire comes with a later release; use received\n"},
		{"ack: received", "ack: durabel",
		 "f:29:10: groups[0].ack: \"durabel\" is not one of local, received, durable; did "
		 "you mean \"durable\"?\n"},
		/* 20 */
		{"ack: received", "on_stall: fail",
		 "f:29:15: groups[0].on_stall: fail comes with a later release; use "
		 "block\n"},
		{"memory: 512MiB", "lanes: 2",
		 "f:37:30: engine.lanes: more than 1 comes with a later release; use 1\n"},
		/* 22: shards of 32 KiB, three in a row; each takes a page more in a journal */
		{"window: 64MiB", "window: 512MiB",
		 "f:31:13: groups[0].window: what it keeps may not fit the journals after a "
		 "crash; at most 341MiB, or journal at least 384MiB\n"},
		{GEOMETRY, "data: 1\n    parity: 2\n    journal: 16MiB\n" KEY_AND_BLOCK "256KiB",
		 "f:29:14: groups[0].journal: holds too little of a window; at least 17MiB\n"},
	};
	mistakes_are_told(rows, ARRAY_COUNT(rows));
}

static void a_window_that_is_not_given_fits(void **state)
{
	static const struct {
		const char *journal;
		uint64_t window;
	} rows[] = {
		{"journal: 1GiB", 128 * MIB},
		{"journal: 256MiB", 128 * MIB},
		{"journal: 64MiB", 85 * MIB},
		{"journal: 16MiB", 21 * MIB},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char *text = file_with("window: 64MiB", rows[i].journal);
		struct config *config = parse_good(text, NULL);
		assert_int_equal(config->group[0].window_bytes, rows[i].window);
		config_free(config);
		free(text);
	}
}

static void words_and_addresses(void **state)
{
	static const struct mistake rows[] = {
		/* 1 */ {"\"file:/etc/vol.key\"", "0123456789abcdef",
			 "f:32:10: groups[0].key: a secret is named, never written here: "
			 "\"file:/path\" or "
			 "\"credential:name\"\n"},
		{"\"file:/etc/psk\"", "\"file:psk\"",
		 "f:15:8: link.psk: a secret is named, never written here: \"file:/path\" or "
		 "\"credential:name\"\n"},
		{PIN_A, "SHA256:123",
		 "f:8:12: sites[0].pins[0]: not a fingerprint as casemate cert "
		 "init prints it (SHA256:...)\n"},
		/* 4 */
		{"/etc/a.pem", "a.pem",
		 "f:5:18: sites[0].certificate: \"a.pem\" is not an absolute path\n"},
		{"tcp:127.0.0.1:10809", "127.0.0.1",
		 "f:10:35: sites[0].nbd[1]: \"127.0.0.1\" is neither unix:/path nor "
		 "tcp:address:port\n"},
		{"tcp:127.0.0.1:10809", "tcp:127.0.0.1:70000",
		 "f:10:35: sites[0].nbd[1]: \"tcp:127.0.0.1:70000\" is not tcp:address:port with "
		 "an "
		 "IPv4 address\n"},
		{"10.77.0.1/24", "10.77.0.1",
		 "f:17:34: link.paths[0].a.address: \"10.77.0.1\" is "
		 "not an address with a prefix, such as 10.77.0.1/24\n"},
		{"10.77.0.1/24", "10.77.0.0/24",
		 "f:17:34: link.paths[0].a.address: 10.77.0.0/24 is "
		 "the address of the network, not of a port in it\n"},
		/* 9 */
		{"10.77.0.1/24", "10.77.0/24",
		 "f:17:34: link.paths[0].a.address: \"10.77.0\" is not an IPv4 address\n"},
		{"10.77.0.1/24", "127.0.0.1/24",
		 "f:17:34: link.paths[0].a.address: 127.0.0.1 "
		 "cannot be the address of a port\n"},
		{"      b: {device: net0, address: 10.77.0.2/24}\n", "",
		 "f:17:7: link.paths[0].b: missing\n"},
		{"primary: a", "primary: c",
		 "f:25:14: groups[0].primary: no site has the name \"c\"\n"},
		{"stores: {b:", "stores: {c:",
		 "f:36:13: groups[0].stores.b: 0 stores, but data + parity is 3\n"
		 "f:36:14: groups[0].stores.c: no site has the name \"c\"\n"},
		/* 14 */
		{"stores: {b: [/s/0, /s/1, /s/2]}", "stores: [/s/0]",
		 "f:36:13: groups[0].stores: must be a map from site to value\n"
		 "f:36:13: groups[0].stores.b: 0 stores, but data + parity is 3\n"},
		{"name: g\n", "name: -g\n",
		 "f:24:11: groups[0].name: \"-g\" is not a name: up to 31 letters, digits, - _ . "
		 "and a letter or digit first\n"},
		{"pins: [\"" PIN_A "\"]", "pins: []",
		 "f:8:11: sites[0].pins: needs at least one\n"},
		{"pins: [\"" PIN_A "\"]", "pins: [\"" PIN_A "\", \"" PIN_A "\"]",
		 "f:8:67: sites[0].pins[1]: the same as pins[0]\n"},
	};
	mistakes_are_told(rows, ARRAY_COUNT(rows));
}

static void what_does_not_fit_together(void **state)
{
	static const struct mistake rows[] = {
		/* 1 */ {"  - {name: b,", "  - {name: a,",
			 "f:12:12: sites[1].name: \"a\" is the name of sites[0] too\n"
			 "f:18:7: link.paths[0].b: unknown key\n"
			 "f:22:7: link.paths[1].b: unknown key\n"
			 "f:26:12: groups[0].vault: no site has the name \"b\"\n"
			 "f:36:14: groups[0].stores.b: no site has the name \"b\"\n"
			 "f:37:16: engine.cpu.b: no site has the name \"b\"\n"},
		{"name: v1", "name: v0",
		 "f:35:16: groups[0].volumes[1].name: \"v0\" is the name of groups[0].volumes[0] "
		 "too\n"},
		{"vault: b", "vault: a",
		 "f:26:12: groups[0].vault: is the primary too\n"
		 "f:36:13: groups[0].stores.a: 0 stores, but data + parity is 3\n"},
		{", /s/2]", "]", "f:36:17: groups[0].stores.b: 2 stores, but data + parity is 3\n"},
		/* 5 */
		{"/s/2", "/s/0",
		 "f:36:30: groups[0].stores.b[2]: \"/s/0\" is used for groups[0].stores.b[0] "
		 "already\n"},
		{"data: 2\n    parity: 1", "data: 3\n    parity: 0",
		 "f:27:11: groups[0].data: 3 does not cut a block into whole pages; use 1, 2, 4, 8 "
		 "or 16\n"},
		{"block: 32KiB", "block: 4KiB",
		 "f:34:39: groups[0].volumes[0].block: 4KiB / 2 data shards is less than 4KiB\n"},
		{"block: 32KiB", "block: 33KiB",
		 "f:34:26: groups[0].volumes[0].size: is not a multiple of the block (33KiB)\n"
		 "f:34:39: groups[0].volumes[0].block: 33KiB is not a power of two\n"},
		{"size: 128KiB", "size: 100KiB",
		 "f:35:26: groups[0].volumes[1].size: is not a multiple of the block (64KiB)\n"},
		/* 10 */
		{"parity: 1", "parity: 1\n    quorum: 4",
		 "f:29:13: groups[0].quorum: 4 is not within data and data + parity (2 to "
		 "3)\n"},
		{"parity: 1", "parity: 1\n    quorum: 1",
		 "f:29:13: groups[0].quorum: 1 is not within data and data + parity (2 to 3)\n"},
		{"device: {a: /dev1}", "device: {b: /dev1}",
		 "f:35:42: groups[0].volumes[1].device.a: missing; the primary needs a device\n"},
		{"a: {device: net1, address: 10.78.1.1/24, gateway: 10.78.1.254}",
		 "a: {device: net0, address: 10.77.0.9/16, gateway: 10.77.0.254}",
		 "f:21:19: link.paths[1].a.device: \"net0\" is the device of paths[0] too\n"
		 "f:21:34: link.paths[1].a.address: overlaps the network of paths[0]\n"},
		{"10.78.1.1/24", "10.77.0.1/24",
		 "f:21:34: link.paths[1].a.address: is the address of paths[0] too\n"
		 "f:21:57: link.paths[1].a.gateway: is not another address in the network of this "
		 "end\n"},
		/* 15 */
		{"10.77.0.2/24", "10.77.0.1/24",
		 "f:18:34: link.paths[0].b.address: is the address of the other end too\n"},
		{"10.77.0.2/24", "10.79.0.2/24",
		 "f:18:34: link.paths[0].b.address: is not in the network of the other end; routed "
		 "ends need a gateway each\n"},
		{"control: /run/a.sock", "control: /run/a-nbd.sock",
		 "f:10:11: sites[0].nbd[0]: \"/run/a-nbd.sock\" is used for sites[0].control "
		 "already\n"},
		{"    stores:",
		 "    stores: {b: [/s/0, /s/1, /s/2]}\n  - name: g\n    primary: a\n"
		 "    vault: b\n    data: 1\n    parity: 0\n    key: \"file:/k\"\n"
		 "    volumes: [{name: v1, size: 1MiB, device: {a: /x}}]\n    "
		 "stores: {b: [/y]}\nunused:",
		 "f:37:11: groups[1].name: \"g\" is the name of groups[0] too\n"
		 "f:43:22: groups[1].volumes[0].name: \"v1\" is the name of groups[0].volumes[1] "
		 "too\n"
		 "f:45:1: unused: unknown key\n"},
		{"/s/1, /s/2", "/s/0., /s//./0/",
		 "f:36:31: groups[0].stores.b[2]: \"/s/0\" is used for groups[0].stores.b[0] "
		 "already\n"},
		/* 20 */
		{"net0,x=y", "net_memif0,role=server,socket=/m,bsize=9216",
		 "f:17:53: link.paths[0].a.eal: a memif with a socket needs socket-abstract=no, at "
		 "both ends\n"},
		{"net0,x=y", "net_memif0,role=client,socket=/m,socket-abstract=yes",
		 "f:17:53: link.paths[0].a.eal: a memif with a socket needs socket-abstract=no, at "
		 "both ends\n"},
	};
	mistakes_are_told(rows, ARRAY_COUNT(rows));
}

#define SOCKET_OF_107                                                                              \
	"/run/6789012345678901234567890123456789012345678901234567890"                             \
	"12345678901234567890123456789012345678901234567"

/* Two things that would be one file, or one within the other: each would destroy the other. */
static void what_overlaps(void **state)
{
	static const struct mistake rows[] = {
		/* 1: what a socket would replace */
		{"/run/a.sock", "/etc/a.key",
		 "f:9:14: sites[0].control: \"/etc/a.key\" is used for sites[0].key already\n"},
		{"/run/a.sock", "/etc/vol.key",
		 "f:9:14: sites[0].control: \"/etc/vol.key\" is used for groups[0].key already\n"},
		{"unix:/run/a-nbd.sock", "unix:/etc/x/../psk",
		 "f:10:11: sites[0].nbd[0]: \"/etc/psk\" is used for link.psk already\n"},
		{"/run/a.sock", "/etc/ca.pem",
		 "f:9:14: sites[0].control: \"/etc/ca.pem\" is used for sites[0].ca already\n"},
		/* 5 */
		{"/dev0", "/etc/a.pem",
		 "f:34:58: groups[0].volumes[0].device.a: \"/etc/a.pem\" is used for "
		 "sites[0].certificate already\n"},
		{"/run/a.sock", "/var/a/lock",
		 "f:9:14: sites[0].control: \"/var/a/lock\" is used for the lock of "
		 "sites[0].state already\n"},
		{"/dev1", "/dev0.intent",
		 "f:35:46: groups[0].volumes[1].device.a: \"/dev0.intent\" is used for the intent "
		 "log of groups[0].volumes[0].device.a already\n"},
		{"/dev1", "/var/a/g.intent",
		 "f:35:46: groups[0].volumes[1].device.a: \"/var/a/g.intent\" is used for the "
		 "intent log of groups[0].name already\n"},
		{"/run/a.sock", "/dev0.intent",
		 "f:34:58: groups[0].volumes[0].device.a: its intent log \"/dev0.intent\" is used "
		 "for sites[0].control already\n"},
		/* 10: one in the other */
		{"/s/1", "/s/0/1",
		 "f:36:24: groups[0].stores.b[1]: \"/s/0/1\" lies within groups[0].stores.b[0] "
		 "(\"/s/0\")\n"},
		{"/s/1", "/s/x/../0",
		 "f:36:24: groups[0].stores.b[1]: \"/s/0\" is used for groups[0].stores.b[0] "
		 "already\n"},
		{"/s/1", "/s",
		 "f:36:24: groups[0].stores.b[1]: \"/s\" has groups[0].stores.b[0] within it "
		 "(\"/s/0\")\n"},
		{"device: {a: /dev0}", "device: {a: /dev0, b: /s/1/dev}",
		 "f:36:24: groups[0].stores.b[1]: \"/s/1\" has groups[0].volumes[0].device.b "
		 "within it (\"/s/1/dev\")\n"},
		{"/var/b", "/s/2/state",
		 "f:36:30: groups[0].stores.b[2]: \"/s/2\" has sites[1].state within it "
		 "(\"/s/2/state\")\n"},
		/* 15 */
		{"/run/a.sock", SOCKET_OF_107 "8",
		 "f:9:14: sites[0].control: the path of a socket has at most 107 bytes\n"},
	};
	mistakes_are_told(rows, ARRAY_COUNT(rows));
	static const struct {
		const char *from, *to;
	} good_rows[] = {
		/* 1 */ {"/run/a.sock", SOCKET_OF_107},
		{"/run/a.sock", "/var/a/a.sock"},
		{"/etc/ca.pem", "/etc/a.pem"},
		{"/s/1", "/s/0.1"},
		/* 5 */ {"/s/1", "/s/0/../1"},
		{"/dev0", "/var/a/g"},
		{"/dev0", "/var/a/dev0"},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(good_rows); i++) {
		char *text = file_with(good_rows[i].from, good_rows[i].to);
		config_free(parse_good(text, NULL));
		free(text);
	}
}

static void caps_hold(void **state)
{
	struct config *config;
	char path[] = "/tmp/casemate-config-XXXXXX";
	int file = mkstemp(path);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, CONFIG_FILE_BYTES_MAX + 1), 0);
	assert_int_equal(config_load(&config, path, NULL, NULL), -EFBIG);
	assert_int_equal(ftruncate(file, 0), 0);
	assert_int_equal(write(file, good, sizeof good - 1), sizeof good - 1);
	assert_int_equal(config_load(&config, path, "b", NULL), 0);
	assert_int_equal(config->self, 1);
	config_free(config);
	close(file);
	unlink(path);
	assert_int_equal(config_load(&config, path, NULL, NULL), -ENOENT);

	/* A hundred mistakes: the first 64 and how many more. */
	char many[201] = "", *told;
	int err;
	for (unsigned i = 0; i < 100; i++)
		memcpy(many + 2 * i, "\t\n", 2);
	told = parse(&config, many, strlen(many), NULL, &err);
	assert_int_equal(err, -EINVAL);
	assert_non_null(strstr(told, "f:64:1: a tab; use spaces\nf: and 36 more\n"));
	free(told);
}

static char *shown(const struct config *config, bool comments)
{
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	assert_int_equal(config_show(config, comments, out), 0);
	fclose(out);
	return text;
}

static void show_reads_back_the_same(void **state)
{
	struct config *first = parse_good(good, NULL);
	char *text = shown(first, false), *commented = shown(first, true);
	struct config *second = parse_good(text, NULL), *third = parse_good(commented, NULL);
	json_t *a = config_json(first), *b = config_json(second), *c = config_json(third);
	assert_true(json_equal(a, b));
	assert_true(json_equal(a, c));
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(a, "engine"), "memory")),
		"512MiB");
	json_decref(a);
	json_decref(b);
	json_decref(c);
	free(text);
	free(commented);
	config_free(first);
	config_free(second);
	config_free(third);
}

static void example_is_valid(void **state)
{
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	assert_int_equal(config_example(out), 0);
	fclose(out);
	struct config *config = parse_good(text, NULL);
	assert_int_equal(config->group[0].quorum, 5);
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 100);
	config_free(config);
	free(text);
}

/* No prefix of a file, and no file with one byte changed, may do worse than be refused. */
static void damage_is_refused_calmly(void **state)
{
	struct config *config;
	char text[sizeof good];
	for (size_t length = 0; length < sizeof good; length += 3) {
		config_parse(&config, &(struct config_source){"f", good, length}, NULL, NULL);
		config_free(config);
	}
	for (size_t i = 0; i < sizeof good - 1; i++) {
		memcpy(text, good, sizeof good);
		text[i] = "\n{}[]:-\"#&*!0 \xc3\x00"[i % 16];
		config_parse(&config, &(struct config_source){"f", text, sizeof good - 1}, NULL,
			     NULL);
		config_free(config);
	}
}

static void units_go_both_ways(void **state)
{
	static const struct {
		enum units kind;
		const char *text;
		uint64_t value;
		const char *back;
	} rows[] = {
		{UNITS_SIZE, "64KiB", 65536, "64KiB"},
		{UNITS_SIZE, "1024KiB", MIB, "1MiB"},
		{UNITS_SIZE, "0B", 0, "0B"},
		{UNITS_SIZE, "1537B", 1537, "1537B"},
		{UNITS_DURATION, "10ms", 10 * NS_PER_MS, "10ms"},
		{UNITS_DURATION, "90s", 90 * NS_PER_S, "90s"},
		{UNITS_DURATION, "120s", 120 * NS_PER_S, "2min"},
		{UNITS_RATE, "25Gbit/s", 3125000000, "25Gbit/s"},
		{UNITS_RATE, "1500Mbit/s", 187500000, "1500Mbit/s"},
	};
	static const char *const bad[] = {"",	    "KiB",   "1",     "1 KiB",
					  "1.5KiB", "-1KiB", "+1KiB", "007KiB",
					  "1e3B",   "1kib",  "1KiBB", "16777216TiB"};
	char why[128], back[UNITS_TEXT_BYTES];
	uint64_t value;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		assert_int_equal(units_parse(rows[i].kind, rows[i].text, &value, why, sizeof why),
				 0);
		assert_int_equal(value, rows[i].value);
		units_format(rows[i].kind, value, back);
		assert_string_equal(back, rows[i].back);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(units_parse(UNITS_SIZE, bad[i], &value, why, sizeof why), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_file_is_read),
		cmocka_unit_test(node_is_resolved),
		cmocka_unit_test(quorum_has_a_default),
		cmocka_unit_test(yaml_outside_the_subset),
		cmocka_unit_test(keys_and_values),
		cmocka_unit_test(a_window_that_is_not_given_fits),
		cmocka_unit_test(words_and_addresses),
		cmocka_unit_test(what_does_not_fit_together),
		cmocka_unit_test(what_overlaps),
		cmocka_unit_test(caps_hold),
		cmocka_unit_test(show_reads_back_the_same),
		cmocka_unit_test(example_is_valid),
		cmocka_unit_test(damage_is_refused_calmly),
		cmocka_unit_test(units_go_both_ways),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
