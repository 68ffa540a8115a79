/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: one YAML file, the same on both sites, as plain structs. Read once at start;
 * everything in it is owned by the struct config and lives until config_free. */
#ifndef CASEMATE_CONFIG_H
#define CASEMATE_CONFIG_H

#include "core/core.h"

#include <jansson.h>
#include <stdio.h>

enum {
	CONFIG_SITES = 2,
	CONFIG_PINS_MAX = 2, /* current and next */
	CONFIG_NBD_MAX = 4,
	CONFIG_ARGS_MAX = 32,
	CONFIG_FILE_BYTES_MAX = 1024 * 1024,
	CONFIG_CPU_ANY = UINT16_MAX,
};

/* An NBD listener: a Unix socket, or TCP on one IPv4 address. */
struct config_listen {
	const char *unix_path; /* NULL: TCP */
	uint32_t ip;	       /* host order */
	uint16_t port;
};

struct config_site {
	const char *name;
	const char *certificate, *ca; /* PEM files */
	const char *key;	      /* URI of the certificate's private key */
	unsigned pin_count;
	const char *pin[CONFIG_PINS_MAX]; /* "SHA256:..." of this site's certificate */
	const char *control;		  /* Unix socket of the CLI */
	unsigned nbd_count;
	struct config_listen nbd[CONFIG_NBD_MAX];
	const char *state; /* directory: lock, run-time files */
};

/* An IPv4 address with its network; host order. */
struct config_address {
	uint32_t ip;
	uint8_t prefix_length;
};

/* One end of a path: a port of one site. */
struct config_end {
	const char *device; /* ethdev name */
	const char *eal;    /* what EAL needs to make it ("net_memif0,role=server,..."), or NULL */
	struct config_address address;
	uint32_t gateway; /* host order; 0: the peer is on the link */
};

struct config_path {
	struct config_end end[CONFIG_SITES]; /* by site */
	uint32_t mtu;
	uint64_t rate_bytes_per_s; /* 0: not paced */
	uint16_t port;
	uint16_t vlan; /* 0: none */
	bool udp_checksum;
};

struct config_volume {
	const char *name;
	uint64_t size; /* bytes, a multiple of block_bytes */
	uint32_t block_bytes;
	const char *device[CONFIG_SITES]; /* by site; NULL: none there */
};

struct config_group {
	const char *name;
	uint8_t primary, vault; /* indices of sites: the roles at start */
	struct geometry geometry;
	uint8_t quorum;
	uint8_t ack; /* enum ack_mode */
	bool sync_flush;
	uint8_t on_stall; /* enum config_stall */
	uint64_t window_bytes;
	uint64_t journal_bytes; /* per store */
	const char *key;	/* URI of the key that wraps the volumes' keys */
	unsigned volume_count;
	struct config_volume volume[VOLUMES_PER_GROUP_MAX];
	unsigned store_count[CONFIG_SITES]; /* by site: n, or 0 where the site has none */
	const char *store[CONFIG_SITES][SHARDS_MAX];
};

enum config_stall { CONFIG_STALL_BLOCK, CONFIG_STALL_FAIL, CONFIG_STALL_CONTINUE };
enum config_switch { CONFIG_AUTO, CONFIG_ON, CONFIG_OFF };
enum config_aead { CONFIG_AEAD_AUTO, CONFIG_AEAD_OPENSSL, CONFIG_AEAD_IPSECMB };

struct config_text;
struct config {
	unsigned version;
	const char *node; /* name of this site */
	unsigned self;	  /* its index; the peer is !self */
	unsigned site_count;
	struct config_site site[CONFIG_SITES];
	const char *psk; /* URI, or NULL */
	unsigned path_count;
	struct config_path path[PATHS_MAX];
	unsigned group_count;
	struct config_group group[GROUPS_MAX];
	struct {
		uint16_t lanes;
		uint16_t cpu[CONFIG_SITES]; /* by site: of the first lane, or CONFIG_CPU_ANY */
		uint8_t aead;		    /* enum config_aead */
		uint8_t hugepages;	    /* enum config_switch */
		uint64_t memory_bytes;
		unsigned dpdk_arg_count;
		const char *dpdk_arg[CONFIG_ARGS_MAX];
	} engine;
	struct config_text *texts; /* the strings */
};

/* For a check of the file as a whole, whichever site it is read on; self is then 0. */
#define CONFIG_ANY_NODE ""

/* gives: *config. node: the name of this site, or NULL when the file says so. 0; -EINVAL after all
 * errors have been written, one line each; another negative errno when the file cannot be read
 * (also written). errors may be NULL. */
int config_load(struct config **config, const char *file, const char *node, FILE *errors);
/* The same from memory; file names it in errors. */
struct config_source {
	const char *file, *text;
	size_t length;
};
int config_parse(struct config **config, const struct config_source *, const char *node,
		 FILE *errors);
void config_free(struct config *);

/* gives: the effective configuration. Quantities are strings with units, as in the file. */
json_t *config_json(const struct config *);
/* Writes the effective configuration as a file that config_load reads; with comments: each key
 * explained where it first appears. 0 or -ENOMEM. */
int config_show(const struct config *, bool comments, FILE *);
/* Writes a commented example of everything that may be configured. 0 or -ENOMEM. */
int config_example(FILE *);

#endif
