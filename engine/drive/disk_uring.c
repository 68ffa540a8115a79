/* SPDX-License-Identifier: Apache-2.0 */
/* Disk operations of a lane on io_uring: direct I/O at explicit offsets, whole transfers or an
 * error, and client sockets as guests in the same ring.
 *
 * Who may touch what. The ring is made disabled, so that the control thread can open files; the
 * first thread that submits, reaps or waits enables it and is its only user from then on
 * (SINGLE_ISSUER). Only disk_wake may be called from elsewhere.
 *
 * Order. io_uring promises none, and we ask for none: no links, no drains. A sync covers what the
 * caller saw completed before it submitted the sync. A failed sync is reported and never retried
 * (the kernel tells an error once); a transfer that was interrupted or short is issued again for
 * the rest, which is idempotent because the offset is explicit.
 *
 * A durable write is one write with RWF_DSYNC; on file systems that are not known to keep to that
 * it is a write and then a sync, in the same slot.
 *
 * Life of an operation: waiting list -> slot + SQE -> (again ->)* completion. Slots bound what is
 * in flight, and the completion queue has room for all slots and as many guests.
 *
 * A disk that hangs keeps what it was given, and nobody else may wait for that. So the slots are
 * shared by the disks (disk_share.h); and what the kernel cannot finish at once (every sync, and
 * much else on some file systems) waits in a worker of the kernel, of which there may be as many as
 * there are slots. Such a worker is made when all others sleep, and goes when it was idle for 5 s.
 */
#include "disk.h"

#include "compat.h"
#include "disk_descriptor.h"
#include "disk_share.h"

#include <liburing.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	ENTRIES_MAX = 4096,
	CQE_BATCH = 64,
	ZEROS_BYTES = 1 << 20, /* written over and over where the file system cannot zero */
	AGAIN_MAX = 1 << 16,   /* tries in vain of one operation before its error is believed */
	MEMORY_SLICES = 16,    /* registered buffers */
	WORKER_BYTES = 32 << 10,
	WORKERS_MEMORY_PART = 64, /* of the machine's memory, if all hang */
};
#define SLICE_BYTES GIB /* the kernel takes at most this much per registered buffer */

/* One operation in the ring. */
struct slot {
	struct slot *next; /* free list, or to be issued again */
	struct io *io;
	uint64_t finished; /* bytes */
	uint32_t in_vain;
	bool writes_zeros; /* the file system could not, so we do */
	bool syncs;	   /* all is written; the sync of a durable write is left */
	struct iovec rest; /* of a piece that was cut in the middle */
};

struct file {
	int descriptor; /* -1: free */
	unsigned share; /* of its disk */
	bool registered;
	bool has_dsync;
	bool has_nowait;
	bool reserved;
};

struct disk {
	struct io_uring ring;
	bool enabled;
	bool files_registered;
	unsigned entries;
	unsigned in_flight; /* slots taken + waiting */
	struct slot *slot, *free_slot;
	struct slot *again, **again_tail;
	struct disk_share share; /* with what waits */
	unsigned workers;
	struct file file[DISK_FILES_MAX];
	struct iovec slice[MEMORY_SLICES];
	unsigned slice_count;
	uint8_t *zeros;
	int wake_descriptor;
	uint64_t wake_value;
	bool wake_armed;
	void (*foreign)(void *, uint64_t, int32_t, uint32_t);
	void *foreign_context;
	struct disk_counters counters;
};

/* ---- birth and death ---- */

static int ring_new(struct disk *disk, unsigned flags)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | flags,
		.cq_entries = disk->entries * 4,
	};
	return io_uring_queue_init_params(disk->entries, &disk->ring, &params);
}

static bool ring_can(struct disk *disk)
{
	static const int needed[] = {IORING_OP_READ,   IORING_OP_WRITE, IORING_OP_READV,
				     IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE};
	struct io_uring_probe *probe = io_uring_get_probe_ring(&disk->ring);
	bool all = probe != NULL;
	for (unsigned i = 0; all && i < ARRAY_COUNT(needed); i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	if (probe)
		io_uring_free_probe(probe);
	return all && (disk->ring.features & IORING_FEAT_NODROP) &&
	       (disk->ring.features & IORING_FEAT_EXT_ARG);
}

/* Workers take memory of the kernel (a stack of 16 KiB and what belongs to it) and count among the
 * threads of our user: neither is ours alone. */
static unsigned workers_wanted(unsigned slots)
{
	struct rlimit threads;
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t most = min_u64(slots, memory / WORKERS_MEMORY_PART / WORKER_BYTES);
	if (getrlimit(RLIMIT_NPROC, &threads) == 0 && threads.rlim_cur != RLIM_INFINITY)
		most = min_u64(most, threads.rlim_cur / 2);
	return (unsigned)most;
}

/* The kernel's own limit is four per CPU. All our files are what it calls bounded: regular files
 * and block devices; client sockets need no worker. Kernel 5.15 on. */
static unsigned workers_allow(struct disk *disk)
{
	unsigned now[2] = {0, 0}, limit[2] = {workers_wanted(disk->entries), 0};
	if (io_uring_register_iowq_max_workers(&disk->ring, now) < 0)
		return 0;
	if (limit[0] <= now[0] || io_uring_register_iowq_max_workers(&disk->ring, limit) < 0)
		return now[0];
	return workers_wanted(disk->entries);
}

static void slots_init(struct disk *disk)
{
	for (unsigned i = disk->entries; i-- > 0;) {
		disk->slot[i].next = disk->free_slot;
		disk->free_slot = &disk->slot[i];
	}
	disk->again_tail = &disk->again;
	for (unsigned i = 0; i < DISK_FILES_MAX; i++)
		disk->file[i].descriptor = -1;
	disk_share_init(&disk->share, disk->entries);
}

struct disk *disk_new(unsigned entries)
{
	struct disk *disk = calloc(1, sizeof *disk);
	if (!disk)
		return NULL;
	must(entries >= 1 && entries <= ENTRIES_MAX, "the number of operations in flight is sane");
	disk->entries = entries;
	disk->slot = calloc(entries, sizeof *disk->slot);
	disk->zeros = mmap(NULL, ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	disk->wake_descriptor = eventfd(0, EFD_CLOEXEC);
	int result = -ENOMEM;
	if (!disk->slot || disk->zeros == MAP_FAILED || disk->wake_descriptor < 0)
		goto no_parts;
	slots_init(disk);
	/* Completions are then prepared only when we ask, on this thread (kernel 6.1 on). */
	result = ring_new(disk, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
					IORING_SETUP_TASKRUN_FLAG);
	if (result == -EINVAL)
		result = ring_new(disk, 0);
	if (result < 0)
		goto no_parts;
	result = -ENOSYS;
	if (!ring_can(disk))
		goto not_able;
	disk->files_registered = io_uring_register_files_sparse(&disk->ring, DISK_FILES_MAX) == 0;
	disk->workers = workers_allow(disk);
	return disk;

not_able:
	io_uring_queue_exit(&disk->ring);
no_parts:
	if (disk->wake_descriptor >= 0)
		close(disk->wake_descriptor);
	if (disk->zeros != MAP_FAILED)
		munmap(disk->zeros, ZEROS_BYTES);
	free(disk->slot);
	free(disk);
	errno = -result;
	return NULL;
}

void disk_free(struct disk *disk)
{
	if (!disk)
		return;
	io_uring_queue_exit(&disk->ring);
	for (unsigned i = 0; i < DISK_FILES_MAX; i++)
		if (disk->file[i].descriptor >= 0)
			disk_descriptor_close(disk->file[i].descriptor);
	close(disk->wake_descriptor);
	munmap(disk->zeros, ZEROS_BYTES);
	free(disk->slot);
	free(disk);
}

static struct io_uring_sqe *sqe_take(struct disk *disk)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&disk->ring);
	if (sqe)
		return sqe;
	io_uring_submit(&disk->ring);
	return io_uring_get_sqe(&disk->ring);
}

/* One read of the eventfd is always in the ring, so that a wake-up ends a wait like any
 * completion. */
static void wake_arm(struct disk *disk)
{
	struct io_uring_sqe *sqe = disk->wake_armed ? NULL : sqe_take(disk);
	if (!sqe)
		return;
	io_uring_prep_read(sqe, disk->wake_descriptor, &disk->wake_value, sizeof disk->wake_value,
			   0);
	io_uring_sqe_set_data(sqe, &disk->wake_value);
	disk->wake_armed = true;
}

static void ring_enable(struct disk *disk)
{
	if (disk->enabled)
		return;
	must(compat_ring_enable(&disk->ring) == 0, "a ring made disabled can be enabled once");
	io_uring_register_ring_fd(&disk->ring); /* saves a look-up; not needed */
	disk->enabled = true;
	wake_arm(disk);
}

/* ---- files and memory ---- */

int disk_file_open(struct disk *disk, const char *path, uint64_t size, bool *buffered)
{
	uint16_t number = 0;
	while (number < DISK_FILES_MAX && disk->file[number].descriptor >= 0)
		number++;
	if (number == DISK_FILES_MAX)
		return -ENFILE;
	int descriptor = disk_descriptor_open(path, size, buffered);
	if (descriptor < 0)
		return descriptor;
	disk->file[number] = (struct file){
		.descriptor = descriptor,
		.share = disk_share_open(&disk->share, disk_descriptor_disk(descriptor)),
		.has_dsync = disk_descriptor_has_dsync(descriptor),
		.has_nowait = disk_descriptor_has_nowait(descriptor),
		.reserved = disk_descriptor_is_reserved(descriptor),
	};
	if (disk->files_registered)
		disk->file[number].registered =
			io_uring_register_files_update(&disk->ring, number, &descriptor, 1) == 1;
	return number;
}

void disk_file_close(struct disk *disk, uint16_t number)
{
	must(number < DISK_FILES_MAX && disk->file[number].descriptor >= 0, "the file is open");
	struct file *file = &disk->file[number];
	int none = -1;
	if (file->registered)
		io_uring_register_files_update(&disk->ring, number, &none, 1);
	disk_share_close(&disk->share, file->share);
	disk_descriptor_close(file->descriptor);
	*file = (struct file){.descriptor = -1};
}

bool disk_file_is_reserved(const struct disk *disk, uint16_t number)
{
	must(number < DISK_FILES_MAX, "the file number was given by disk_file_open");
	return disk->file[number].reserved;
}

int disk_file_descriptor(const struct disk *disk, uint16_t number)
{
	must(number < DISK_FILES_MAX, "the file number was given by disk_file_open");
	return disk->file[number].descriptor;
}

int disk_register_memory(struct disk *disk, void *base, uint64_t bytes)
{
	must(disk->slice_count == 0, "memory is registered once");
	uint64_t count = div_up(bytes, SLICE_BYTES);
	if (count == 0 || count > MEMORY_SLICES)
		return -E2BIG;
	for (uint64_t i = 0; i < count; i++)
		disk->slice[i] = (struct iovec){
			.iov_base = (uint8_t *)base + i * SLICE_BYTES,
			.iov_len = min_u64(SLICE_BYTES, bytes - i * SLICE_BYTES),
		};
	int result = io_uring_register_buffers(&disk->ring, disk->slice, (unsigned)count);
	if (result < 0)
		return result;
	disk->slice_count = (unsigned)count;
	return 0;
}

/* The registered buffer that holds all of the piece, or -1. */
static int slice_of(const struct disk *disk, const struct iovec *piece)
{
	const uint8_t *at = piece->iov_base;
	for (unsigned i = 0; i < disk->slice_count; i++) {
		const uint8_t *base = disk->slice[i].iov_base;
		if (at >= base && at + piece->iov_len <= base + disk->slice[i].iov_len)
			return (int)i;
	}
	return -1;
}

/* ---- issuing ---- */

static bool io_is_transfer(const struct io *io)
{
	return io->kind == IO_READ || io->kind == IO_WRITE || io->kind == IO_WRITE_DURABLE;
}

static void io_check(const struct disk *disk, const struct io *io)
{
	must(io->file < DISK_FILES_MAX && disk->file[io->file].descriptor >= 0,
	     "operations go to open files");
	if (io->kind == IO_SYNC)
		return;
	/* tmpfs takes what ext4 refuses, so the rule is ours (docs/store-format.md "alignment"). */
	must(io->offset % PAGE_BYTES == 0 && io->length % PAGE_BYTES == 0 && io->length > 0,
	     "disk ranges are whole pages");
	if (!io_is_transfer(io))
		return;
	must(io->length <= INT32_MAX, "the result of a transfer is its length, in 31 bits");
	uint64_t sum = 0;
	for (unsigned i = 0; i < io->piece_count; i++) {
		must((uintptr_t)io->piece[i].iov_base % PAGE_BYTES == 0 &&
			     io->piece[i].iov_len % PAGE_BYTES == 0,
		     "memory of disk operations is whole pages");
		sum += io->piece[i].iov_len;
	}
	must(sum == io->length, "the pieces make the length");
}

/* The pieces that are still to move: as many whole ones as one operation takes, or the end of one
 * that was cut. */
static struct iovec *slot_pieces(struct slot *slot, unsigned *count)
{
	struct io *io = slot->io;
	uint64_t skip = slot->finished;
	unsigned i = 0;
	while (skip && skip >= io->piece[i].iov_len)
		skip -= io->piece[i++].iov_len;
	must(i < io->piece_count, "something is left to move");
	if (skip == 0) {
		*count = (unsigned)min_u64(io->piece_count - i, IOV_MAX);
		return &io->piece[i];
	}
	slot->rest = (struct iovec){(uint8_t *)io->piece[i].iov_base + skip,
				    io->piece[i].iov_len - skip};
	*count = 1;
	return &slot->rest;
}

static void prepare_transfer(struct disk *disk, struct slot *slot, struct io_uring_sqe *sqe)
{
	const struct io *io = slot->io;
	unsigned count;
	struct iovec *piece = slot_pieces(slot, &count);
	uint64_t offset = io->offset + slot->finished;
	int slice = count == 1 ? slice_of(disk, piece) : -1;
	int descriptor = disk->file[io->file].descriptor;

	if (slice >= 0)
		disk->counters.fixed++;
	if (io->kind == IO_READ && slice >= 0)
		io_uring_prep_read_fixed(sqe, descriptor, piece->iov_base, (unsigned)piece->iov_len,
					 offset, slice);
	else if (io->kind == IO_READ)
		io_uring_prep_readv(sqe, descriptor, piece, count, offset);
	else if (slice >= 0)
		io_uring_prep_write_fixed(sqe, descriptor, piece->iov_base,
					  (unsigned)piece->iov_len, offset, slice);
	else
		io_uring_prep_writev(sqe, descriptor, piece, count, offset);
	if (io->kind == IO_WRITE_DURABLE && disk->file[io->file].has_dsync)
		sqe->rw_flags = RWF_DSYNC;
}

/* docs/operations.md "the device": what had all its space keeps it. Where the file system cannot do
 * that (tmpfs), zeros are written: slower, and nothing else is lost. */
static void prepare_range(struct disk *disk, struct slot *slot, struct io_uring_sqe *sqe)
{
	const struct io *io = slot->io;
	int descriptor = disk->file[io->file].descriptor;
	bool punch = io->kind == IO_DISCARD && !disk->file[io->file].reserved;
	if (slot->writes_zeros)
		io_uring_prep_write(sqe, descriptor, disk->zeros,
				    (unsigned)min_u64(ZEROS_BYTES, io->length - slot->finished),
				    io->offset + slot->finished);
	else
		io_uring_prep_fallocate(
			sqe, descriptor,
			FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
			(off_t)io->offset, (off_t)io->length);
}

static void slot_prepare(struct disk *disk, struct slot *slot, struct io_uring_sqe *sqe)
{
	const struct file *file = &disk->file[slot->io->file];
	if (slot->io->kind == IO_SYNC || slot->syncs)
		io_uring_prep_fsync(sqe, file->descriptor, IORING_FSYNC_DATASYNC);
	else if (io_is_transfer(slot->io))
		prepare_transfer(disk, slot, sqe);
	else
		prepare_range(disk, slot, sqe);
	unsigned flags = file->has_nowait ? 0 : IOSQE_ASYNC;
	if (file->registered) {
		sqe->fd = slot->io->file;
		flags |= IOSQE_FIXED_FILE;
	}
	io_uring_sqe_set_flags(sqe, flags);
	io_uring_sqe_set_data(sqe, slot);
}

static void slot_again(struct disk *disk, struct slot *slot)
{
	slot->next = NULL;
	*disk->again_tail = slot;
	disk->again_tail = &slot->next;
}

static void slot_first(struct disk *disk, struct slot *slot)
{
	slot->next = disk->again;
	if (!disk->again)
		disk->again_tail = &slot->next;
	disk->again = slot;
}

/* Those to be issued again come first: they are the oldest. */
static struct slot *slot_next(struct disk *disk)
{
	struct slot *slot = disk->again;
	if (slot) {
		disk->again = slot->next;
		if (!disk->again)
			disk->again_tail = &disk->again;
		return slot;
	}
	slot = disk->free_slot;
	struct io *io = slot ? disk_share_next(&disk->share) : NULL;
	if (!io)
		return NULL;
	disk->free_slot = slot->next;
	*slot = (struct slot){.io = io};
	return slot;
}

static bool something_to_issue(const struct disk *disk)
{
	return disk->again || (disk->free_slot && disk_share_ready(&disk->share));
}

static void ring_submit(struct disk *disk)
{
	if (io_uring_sq_ready(&disk->ring) == 0)
		return;
	int result = io_uring_submit(&disk->ring);
	/* Short of memory or of completion room: what was not taken stays in the queue. */
	must(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR,
	     "the lane's own thread submits well-formed operations");
}

static void disk_issue(struct disk *disk)
{
	struct slot *slot;
	/* The slot first: what a disk's share is may change at any time. */
	while ((slot = slot_next(disk))) {
		struct io_uring_sqe *sqe = sqe_take(disk);
		if (!sqe) {
			slot_first(disk, slot); /* guests fill the queue: next turn */
			break;
		}
		slot_prepare(disk, slot, sqe);
	}
	wake_arm(disk);
	ring_submit(disk);
}

void disk_submit(struct disk *disk, struct io_list *list)
{
	struct io *io;
	ring_enable(disk);
	while ((io = io_list_pop(list))) {
		io_check(disk, io);
		disk_share_wait(&disk->share, disk->file[io->file].share, io);
		disk->in_flight++;
		disk->counters.submitted++;
	}
	disk_issue(disk);
}

/* ---- completing ---- */

enum verdict { DONE, AGAIN };

static bool is_passing(int32_t result)
{
	return result == -EAGAIN || result == -EINTR || result == -ECANCELED;
}

static void zero_rest(const struct io *io, uint64_t from)
{
	for (unsigned i = 0; i < io->piece_count; i++) {
		uint64_t skip = min_u64(from, io->piece[i].iov_len);
		memset((uint8_t *)io->piece[i].iov_base + skip, 0, io->piece[i].iov_len - skip);
		from -= skip;
	}
}

/* A read ends early at the end of the file, and then zeros follow; or for reasons of its own, and
 * then there is more. Only the size can tell. */
static bool at_end_of_file(const struct disk *disk, const struct slot *slot, uint64_t finished)
{
	struct stat status;
	if (fstat(disk->file[slot->io->file].descriptor, &status) < 0)
		return false;
	return S_ISREG(status.st_mode) && slot->io->offset + finished >= (uint64_t)status.st_size;
}

/* Nothing moved. It is tried again, but not for ever. */
static enum verdict in_vain(struct disk *disk, struct slot *slot, int32_t *result, int32_t error)
{
	if (++slot->in_vain < AGAIN_MAX) {
		disk->counters.again++;
		return AGAIN;
	}
	*result = error;
	return DONE;
}

/* All of a transfer has moved: is it what was asked for? */
static enum verdict written(struct disk *disk, struct slot *slot)
{
	if (slot->io->kind != IO_WRITE_DURABLE || disk->file[slot->io->file].has_dsync)
		return DONE;
	disk->counters.synced_apart++;
	slot->syncs = true;
	return AGAIN;
}

/* Counts what has moved; *result becomes the full length when all has. */
static enum verdict transfer_moved(struct disk *disk, struct slot *slot, int32_t *result)
{
	const struct io *io = slot->io;
	uint64_t finished = slot->finished + (uint32_t)*result;
	must(finished <= io->length, "the kernel moves no more than asked");
	if (finished < io->length) {
		disk->counters.cut_short++;
		if (io->kind == IO_READ && (*result == 0 || at_end_of_file(disk, slot, finished))) {
			zero_rest(io, finished);
			finished = io->length;
		}
	}
	if (finished == io->length) {
		*result = io_is_transfer(io) ? (int32_t)io->length : 0;
		return written(disk, slot);
	}
	/* The rest starts at a page again: direct I/O wants that, and moving some bytes twice does
	 * no harm. */
	finished = align_down(finished, PAGE_BYTES);
	if (finished == slot->finished)
		return in_vain(disk, slot, result, -EIO);
	slot->finished = finished;
	return AGAIN;
}

static enum verdict slot_judge(struct disk *disk, struct slot *slot, int32_t *result)
{
	const struct io *io = slot->io;
	if (io->kind == IO_SYNC)
		return DONE;
	if (slot->syncs) {
		*result = *result < 0 ? *result : (int32_t)io->length;
		return DONE;
	}
	if (is_passing(*result))
		return in_vain(disk, slot, result, *result);
	if (io_is_transfer(io) || slot->writes_zeros)
		return *result < 0 ? DONE : transfer_moved(disk, slot, result);
	if (*result != -EOPNOTSUPP)
		return DONE;
	disk->counters.zeros_written++;
	slot->writes_zeros = true;
	return AGAIN;
}

/* Whether the completion queue entry finished an operation. */
static bool take_completion(struct disk *disk, const struct io_uring_cqe *cqe,
			    struct completion *completion)
{
	if (cqe->user_data & 1) {
		if (disk->foreign)
			disk->foreign(disk->foreign_context, cqe->user_data, cqe->res, cqe->flags);
		return false;
	}
	void *data = io_uring_cqe_get_data(cqe);
	if (data == &disk->wake_value) {
		disk->wake_armed = false;
		return false;
	}
	struct slot *slot = data;
	must(slot >= disk->slot && slot < disk->slot + disk->entries, "completions are of slots");
	int32_t result = cqe->res;
	if (slot_judge(disk, slot, &result) == AGAIN) {
		slot_again(disk, slot);
		return false;
	}
	disk_share_done(&disk->share, disk->file[slot->io->file].share);
	*completion = (struct completion){.io = slot->io, .result = result};
	disk->counters.failed += result < 0;
	slot->io = NULL;
	slot->next = disk->free_slot;
	disk->free_slot = slot;
	disk->in_flight--;
	return true;
}

unsigned disk_reap(struct disk *disk, struct completion *completion, unsigned max)
{
	struct io_uring_cqe *cqe[CQE_BATCH];
	unsigned count = 0;
	ring_enable(disk);
	unsigned ready =
		io_uring_peek_batch_cqe(&disk->ring, cqe, (unsigned)min_u64(max, CQE_BATCH));
	for (unsigned i = 0; i < ready; i++)
		count += take_completion(disk, cqe[i], &completion[count]);
	io_uring_cq_advance(&disk->ring, ready);
	if (!disk->wake_armed || something_to_issue(disk))
		disk_issue(disk);
	return count;
}

unsigned disk_workers(const struct disk *disk)
{
	return disk->workers;
}

unsigned disk_in_flight(const struct disk *disk)
{
	return disk->in_flight;
}

void disk_wait(struct disk *disk, ns_t timeout)
{
	struct __kernel_timespec time = {
		.tv_sec = (long long)min_u64(timeout / NS_PER_S, INT32_MAX),
		.tv_nsec = (long long)(timeout % NS_PER_S),
	};
	struct io_uring_cqe *cqe;
	ring_enable(disk);
	disk_issue(disk);
	int result = io_uring_submit_and_wait_timeout(&disk->ring, &cqe, 1, &time, NULL);
	must(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
		     result == -EBUSY,
	     "waiting on our own ring works");
}

void disk_wake(struct disk *disk)
{
	uint64_t one = 1;
	ssize_t written = write(disk->wake_descriptor, &one, sizeof one);
	(void)written; /* full means that a wake-up is pending already */
}

struct io_uring *disk_ring(struct disk *disk)
{
	return &disk->ring;
}

void disk_set_foreign(struct disk *disk,
		      void (*completed)(void *context, uint64_t user_data, int32_t result,
					uint32_t flags),
		      void *context)
{
	disk->foreign = completed;
	disk->foreign_context = context;
}

void disk_counters(const struct disk *disk, struct disk_counters *counters)
{
	*counters = disk->counters;
}
