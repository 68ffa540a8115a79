/* SPDX-License-Identifier: Apache-2.0 */
/* The objects that cross the seam: disk operations, datagrams, client requests and commands. Each
 * one is owned by whoever embeds it, is on at most one list at a time, and needs no memory beyond
 * itself: so the effects of a turn are bounded by the objects that exist, and no list can be full.
 */
#ifndef CASEMATE_CORE_IO_H
#define CASEMATE_CORE_IO_H

#include "base.h"

#include <sys/uio.h>

struct effects;

/* ---- disk operations: core gives them to disk.h, and gets them back completed ---- */
enum io_kind {
	IO_READ,
	IO_WRITE,	  /* completed = handed over; durable only after a later IO_SYNC */
	IO_WRITE_DURABLE, /* completed = durable: one RWF_DSYNC write, or write + fdatasync */
	IO_SYNC,    /* fdatasync of the file: covers what completed before this was submitted */
	IO_DISCARD, /* the range reads as zeros and holds no space, where the file was sparse */
	IO_ZERO,    /* the range reads as zeros and keeps its space */
};

/* offset, length and memory of reads and writes are multiples of PAGE_BYTES (asserted by the
 * driver). Short transfers are finished by the driver: result is the full length, or 0 for the
 * others, or a negative errno. A read beyond the end of the file gives zeros. */
struct io {
	struct io *next;
	void (*done)(struct io *, int32_t result, struct effects *); /* called by core_step */
	ns_t since;    /* set by effects_io: of the turn that wanted it */
	uint8_t kind;  /* enum io_kind */
	uint16_t file; /* handle given by disk_file_open */
	uint64_t offset;
	uint64_t length; /* sum of the pieces, or of the range */
	struct iovec *piece;
	unsigned piece_count;
	struct iovec single; /* for those with one piece */
};

/* ---- datagrams out: a cell is a fixed piece of the lane's packet memory ---- */
enum { CELL_HEADROOM_BYTES = 128 }; /* before the datagram: the port writes link headers there */

struct cell {
	struct cell *next;
	uint8_t *datagram; /* UDP payload; CELL_HEADROOM_BYTES before it belong to the port */
	uint32_t length;
	uint8_t path;
	uint8_t in_port; /* port: holds it (1) until it is among the events' sent cells; core: reads
			  */
};

/* ---- datagrams in: borrowed for one turn; contiguous; may be written (opened in place) ---- */
struct packet {
	uint8_t *datagram;
	uint32_t length;
	uint8_t path;
};

/* ---- client requests: a front gives them to core, core gives them back answered ---- */
enum request_kind {
	REQUEST_READ,
	REQUEST_WRITE,
	REQUEST_FLUSH,
	REQUEST_DISCARD,
	REQUEST_ZERO,
	REQUEST_CACHE,
	REQUEST_STATUS
};
enum {
	REQUEST_FUA = 1,     /* durable as the mode says before the answer */
	REQUEST_NO_HOLE = 2, /* zero: keep the space */
};

/* One stretch of the answer to REQUEST_STATUS (NBD base:allocation). */
struct extent {
	uint32_t length;
	uint32_t flags; /* 1 hole, 2 reads as zeros */
};

/* data: of a write, length bytes whose address is congruent to offset modulo PAGE_BYTES; of a read,
 * room for length bytes with the same congruence and PAGE_BYTES-aligned slack around it (the page
 * before and after may be written). Both stay the front's and untouched by it until the answer.
 * Range checks are the front's (asserted). */
struct request {
	struct request *next;
	uint8_t kind;
	uint8_t flags;
	uint16_t export; /* index of the volume, in the order of core_config */
	uint64_t offset;
	uint32_t length;
	uint8_t *data;
	int32_t result;	       /* 0 or negative errno, set by core */
	struct extent *extent; /* status: room, filled by core */
	unsigned extent_count; /* status: room in, filled out */
	void *front;	       /* the front's own */
	/* core's own, from here */
	ns_t arrived;
	lsn_t lsn;	  /* what the answer waits for */
	uint32_t pending; /* block operations still open */
	uint64_t progress;
};

/* ---- intrusive first-in first-out lists of the above ---- */
#define LIST_TYPE(name, type)                                                                      \
	struct name##_list {                                                                       \
		struct type *head, *tail;                                                          \
	};                                                                                         \
	static inline void name##_list_push(struct name##_list *list, struct type *item)           \
	{                                                                                          \
		item->next = NULL;                                                                 \
		if (list->tail)                                                                    \
			list->tail->next = item;                                                   \
		else                                                                               \
			list->head = item;                                                         \
		list->tail = item;                                                                 \
	}                                                                                          \
	static inline struct type *name##_list_pop(struct name##_list *list)                       \
	{                                                                                          \
		struct type *item = list->head;                                                    \
		if (item) {                                                                        \
			list->head = item->next;                                                   \
			if (!list->head)                                                           \
				list->tail = NULL;                                                 \
			item->next = NULL;                                                         \
		}                                                                                  \
		return item;                                                                       \
	}

struct command;
LIST_TYPE(io, io)
LIST_TYPE(cell, cell)
LIST_TYPE(request, request)

#endif
