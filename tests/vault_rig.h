/* SPDX-License-Identifier: Apache-2.0 */
/* A vault with real stores on files in memory, fed with sealed shards as its primary would send
 * them, and a model of what its volumes should read as. No link: what the vault says is lost. */
#ifndef CASEMATE_TESTS_VAULT_RIG_H
#define CASEMATE_TESTS_VAULT_RIG_H

#include "core/vault.h"

enum {
	RIG_STORES_MAX = 6,
	RIG_FILES_PER_STORE = 6,
	/* the second half are those of stores made anew */
	RIG_FILES = 2 * RIG_STORES_MAX * RIG_FILES_PER_STORE,
	RIG_BLOCKS_MAX = 48,
	RIG_VOLUMES = 2,
	RIG_EXPORT_FIRST = 3,
	RIG_IO_MAX = 4096,
	RIG_HANGS = 1, /* what may become of an operation, beside 0 and negative errnos */
	RIG_APPENDS_MAX = 512,
};

struct rig_file {
	uint8_t *bytes;
	uint64_t length;
};

struct rig {
	struct tools tools;
	struct core_config core;
	struct core_group config;
	struct vault *vault;
	struct effects fx;
	ns_t now;
	struct rig_file file[RIG_FILES], saved[RIG_FILES];
	struct io *io[RIG_IO_MAX]; /* done, to be told next turn */
	unsigned io_count;
	struct io *hanging[RIG_IO_MAX];
	unsigned hanging_count;
	/* What becomes of an operation; asked anew each turn of one that hangs. NULL: all go well.
	 */
	int (*fate)(struct rig *, const struct io *);
	uint64_t turns;
	bool shuffle;	 /* completions are told in any order */
	uint16_t stuck;	 /* operations of this file do not come back; 0: of none */
	uint32_t full;	 /* mask of stores: no write to their images finds room */
	bool full_slots; /* nor to their slots, but to the images */
	int full_err;	 /* with this negative errno */
	uint64_t random;
	struct geometry geometry;
	uint8_t key[RIG_VOLUMES][KEY_BYTES];
	struct uuid volume_id[RIG_VOLUMES], instance;
	struct span span;
	lsn_t lsn; /* last drawn */
	uint32_t generation;
	bool catch_up; /* the kind of the next spans */
	/* the model: what each block was filled from; 0 reads as zeros */
	uint64_t seed[RIG_VOLUMES][RIG_BLOCKS_MAX], saved_seed[RIG_VOLUMES][RIG_BLOCKS_MAX];
	struct record record; /* last sealed */
	uint8_t *shard;	      /* its n shards, page aligned */
	struct rig_append {
		struct store_append append;
		struct rig *rig;
		uint8_t *shard;
	} append[RIG_APPENDS_MAX];
	unsigned append_count, append_done;
	char last_note[256];
	unsigned warnings; /* notes of that level */
};

/* Formatted stores of two volumes (48 blocks of 16 KiB, 20 of 32 KiB), incarnation 1, no vault. */
struct rig *rig_new(struct geometry, uint8_t quorum, uint64_t segment_bytes);
void rig_free(struct rig *);
/* A vault on the files as they are, with these stores present; turns until its stores are read. */
void rig_start(struct rig *, uint32_t present);
/* The same, before its first turn. */
void rig_begin(struct rig *, uint32_t present);
void rig_stop(struct rig *);
/* The files as they are now, and back to them. */
void rig_save(struct rig *);
void rig_load(struct rig *);

/* While nothing is under way: the disks of these stores are full, or no longer. */
void rig_fill(struct rig *, uint32_t stores, int err);
void rig_turn(struct rig *);
void rig_settle(struct rig *);
/* Hello and a new span, as a primary does it. */
void rig_open_span(struct rig *);
/* The hello, and which span would be offered. */
void rig_choose_span(struct rig *);
/* The vault was started again: its primary goes on in its span, from the durable point. */
void rig_resume_span(struct rig *);
/* Its end record, and a span in order after it. */
void rig_end_catch_up(struct rig *);

uint32_t rig_block_bytes(const struct rig *, uint8_t volume);
uint32_t rig_shard_bytes(const struct rig *, uint8_t volume);
/* Seals a new version of the block at this lsn into record and shard; the model is untouched. */
void rig_seal(struct rig *, uint8_t volume, uint64_t block, uint8_t kind, uint64_t seed, lsn_t);
/* New stores, all present, a span open. */
struct rig *rig_ready(struct geometry, uint8_t quorum, uint64_t segment_bytes);
/* A write of the primary: the next lsn, all columns but those of mask lost; the model knows it. */
void rig_write(struct rig *, uint8_t volume, uint64_t block, uint8_t kind, uint32_t lost);
/* Writes over both volumes, with zeros, discards and lost columns among them, until durable. */
void rig_write_some(struct rig *, unsigned count);
/* Appends the last sealed version straight to the stores of mask, past the vault; liar: a store
 * whose shard is wrong but sums up, or -1. */
void rig_append(struct rig *, uint32_t mask, int liar);
void rig_plain(uint64_t seed, uint8_t *out, uint32_t bytes);

/* Reads through the vault; gives the request's result. */
int rig_read(struct rig *, uint8_t volume, uint64_t offset, uint32_t length, uint8_t *data);
/* Whole volumes equal the model; gives the number of unequal or failing blocks. */
unsigned rig_compare(struct rig *);
/* Gives the order's result. */
int rig_command(struct rig *, struct command *);
/* With the right keys. */
int rig_promote(struct rig *, struct command *, bool accept_loss);
/* New files for a store, formatted under this incarnation; gives their numbers. */
struct store_files rig_format_anew(struct rig *, unsigned store, uint32_t incarnation);
/* Whether the file is one of this store, as configured. */
bool rig_is_of(const struct rig *, uint16_t file, unsigned store);
struct rig_file *rig_file(struct rig *, uint16_t number);
/* Finds the shard's bytes on the store's files and flips a bit; gives how many places. */
unsigned rig_damage(struct rig *, unsigned store, const uint8_t *shard, uint32_t bytes);
/* Flips a bit of the header before it in the journal. */
void rig_damage_header(struct rig *, unsigned store, const uint8_t *shard, uint32_t bytes);

#endif
