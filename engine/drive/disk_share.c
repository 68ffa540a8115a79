/* SPDX-License-Identifier: Apache-2.0 */
/* Each disk has a list of what waits for it, oldest first, and the disks are asked in turn. A disk
 * is what the kernel gives a number of its own: a block device, or a mounted file system. */
#include "disk_share.h"

void disk_share_init(struct disk_share *share, unsigned slots)
{
	*share = (struct disk_share){.slots = slots};
}

static bool is_free(const struct disk_share_of *of)
{
	return !of->files && !of->in_flight && !of->waiting.head;
}

/* The share of this disk, or one to be had; the last one takes all that find none. */
static unsigned share_find(const struct disk_share *share, uint64_t id)
{
	unsigned number = DISK_SHARES_MAX - 1, seen = atomic_load(&share->seen);

	for (unsigned i = seen; i-- > 0;) {
		if (share->of[i].files && share->of[i].id == id)
			return i;
		if (is_free(&share->of[i]))
			number = i;
	}
	return number == DISK_SHARES_MAX - 1 ? (unsigned)min_u64(number, seen) : number;
}

unsigned disk_share_open(struct disk_share *share, uint64_t id)
{
	unsigned number = share_find(share, id);
	struct disk_share_of *of = &share->of[number];

	if (number >= atomic_load(&share->seen))
		atomic_store(&share->seen, number + 1);
	if (!of->files++) {
		of->id = id;
		atomic_fetch_add(&share->used, 1);
	}
	return number;
}

void disk_share_close(struct disk_share *share, unsigned number)
{
	must(share->of[number].files > 0, "what is closed was opened");
	if (!--share->of[number].files)
		atomic_fetch_sub(&share->used, 1);
}

void disk_share_wait(struct disk_share *share, unsigned number, struct io *io)
{
	io_list_push(&share->of[number].waiting, io);
	share->waiting++;
}

/* At least one, however many disks there are. */
static unsigned share_slots(const struct disk_share *share)
{
	unsigned used = atomic_load_explicit(&share->used, memory_order_relaxed);

	return used > 1 ? (unsigned)max_u64(share->slots / used, 1) : share->slots;
}

static bool may_go(const struct disk_share_of *of, unsigned slots)
{
	return of->waiting.head && of->in_flight < slots;
}

bool disk_share_ready(const struct disk_share *share)
{
	unsigned slots = share_slots(share), seen = share->waiting ? atomic_load(&share->seen) : 0;

	for (unsigned i = 0; i < seen; i++)
		if (may_go(&share->of[i], slots))
			return true;
	return false;
}

struct io *disk_share_next(struct disk_share *share)
{
	unsigned slots = share_slots(share), seen = share->waiting ? atomic_load(&share->seen) : 0;

	for (unsigned i = 0; i < seen; i++) {
		struct disk_share_of *of = &share->of[(share->turn + i) % seen];
		if (!may_go(of, slots))
			continue;
		share->turn = (share->turn + i + 1) % seen;
		share->waiting--;
		of->in_flight++;
		return io_list_pop(&of->waiting);
	}
	return NULL;
}

void disk_share_done(struct disk_share *share, unsigned number)
{
	must(share->of[number].in_flight > 0, "what is done was in flight");
	share->of[number].in_flight--;
}
