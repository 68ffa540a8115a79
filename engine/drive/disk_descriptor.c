/* SPDX-License-Identifier: Apache-2.0 */
/* Opening what disks are made of. Direct I/O is asked for and tried out, because some file systems
 * refuse it at open and others only at the first transfer. */
#include "disk_descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { LOCK_TRIES = 20, LOCK_PAUSE_US = 10000, STAT_BLOCK_BYTES = 512 };

static bool direct_works(int descriptor)
{
	_Alignas(PAGE_BYTES) uint8_t page[PAGE_BYTES];
	return pread(descriptor, page, sizeof page, 0) >= 0 || errno != EINVAL;
}

static int descriptor_open(const char *path, bool *buffered)
{
	*buffered = false;
	int descriptor = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (descriptor >= 0 && direct_works(descriptor))
		return descriptor;
	if (descriptor < 0 && errno != EINVAL)
		return -errno;
	if (descriptor >= 0)
		close(descriptor);
	*buffered = true;
	descriptor = open(path, O_RDWR | O_CLOEXEC);
	return descriptor < 0 ? -errno : descriptor;
}

/* The ring of a process that died holds its files until the kernel has torn it down, which is a
 * moment after the process is gone: so a lock is asked for more than once. */
static int descriptor_lock(int descriptor)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
		if (fcntl(descriptor, F_OFD_SETLK, &whole) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		usleep(LOCK_PAUSE_US);
	}
	return -EBUSY;
}

static int descriptor_check_size(int descriptor, uint64_t least)
{
	struct stat status;
	uint64_t size = UINT64_MAX; /* character devices have none */
	if (fstat(descriptor, &status) < 0)
		return -errno;
	if (S_ISREG(status.st_mode))
		size = (uint64_t)status.st_size;
	else if (S_ISBLK(status.st_mode) && ioctl(descriptor, BLKGETSIZE64, &size) < 0)
		return -errno;
	return size < least ? -ENODATA : 0;
}

int disk_descriptor_open(const char *path, uint64_t size, bool *buffered)
{
	int descriptor = descriptor_open(path, buffered);
	if (descriptor < 0)
		return descriptor;
	int result = descriptor_lock(descriptor);
	if (result == 0)
		result = descriptor_check_size(descriptor, size);
	if (result == 0)
		return descriptor;
	close(descriptor);
	return result;
}

/* Those that are known to do what io_uring asks of them. */
static bool is_known(int descriptor)
{
	static const unsigned long known[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
					      F2FS_SUPER_MAGIC, TMPFS_MAGIC};
	struct statfs system;
	struct stat status;
	if (fstat(descriptor, &status) == 0 && S_ISBLK(status.st_mode))
		return true;
	if (fstatfs(descriptor, &system) < 0)
		return false;
	for (unsigned i = 0; i < ARRAY_COUNT(known); i++)
		if ((unsigned long)system.f_type == known[i])
			return true;
	return false;
}

/* Their direct writes end in generic_write_sync or iomap's own, on completion. */
bool disk_descriptor_has_dsync(int descriptor)
{
	return is_known(descriptor);
}

bool disk_descriptor_has_nowait(int descriptor)
{
	return is_known(descriptor);
}

bool disk_descriptor_is_reserved(int descriptor)
{
	struct stat status;
	if (fstat(descriptor, &status) < 0 || !S_ISREG(status.st_mode))
		return false;
	return (uint64_t)status.st_blocks * STAT_BLOCK_BYTES >= (uint64_t)status.st_size;
}

uint64_t disk_descriptor_disk(int descriptor)
{
	struct stat status;
	if (fstat(descriptor, &status) < 0)
		return 0;
	return S_ISBLK(status.st_mode) ? status.st_rdev : status.st_dev;
}

void disk_descriptor_close(int descriptor)
{
	/* By name, because the ring may hold the open file a little longer than we do. */
	struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	fcntl(descriptor, F_OFD_SETLK, &whole);
	close(descriptor);
}
