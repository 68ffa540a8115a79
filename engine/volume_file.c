/* SPDX-License-Identifier: Apache-2.0 */
/* A file counts as made once it has been synced; its name is synced by its directory. Zeros are
 * written through direct I/O where there is some, so that a large journal does not push out
 * everybody's page cache. */
#include "volume_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 1024 * 1024 };
/* Between two looks at whether it is wanted still; both take a moment. */
#define SYNC_BYTES    (64 * MIB)
#define RESERVE_BYTES (16 * GIB)

static bool is_cancelled(const struct making *making)
{
	return making->cancel && atomic_load(making->cancel);
}

void making_init(struct making *making, char *why, size_t why_bytes)
{
	must(why && why_bytes, "somebody reads why it failed");
	*making = (struct making){.why = why, .why_bytes = why_bytes};
	why[0] = 0;
}

static void making_add(struct making *making, const char *path)
{
	char **more = reallocarray(making->path, making->count + 1, sizeof *more);
	char *copy = more ? strdup(path) : NULL;

	if (more)
		making->path = more;
	if (copy)
		making->path[making->count++] = copy;
}

static void making_forget(struct making *making)
{
	for (unsigned i = 0; i < making->count; i++)
		free(making->path[i]);
	free(making->path);
	making->path = NULL;
	making->count = 0;
}

void making_keep(struct making *making)
{
	if (making->unreserved[0])
		making_fails(making, 0,
			     "%s: this file system cannot hold space for it and its like; see to "
			     "it that the disk does not fill up",
			     making->unreserved);
	making_forget(making);
}

void making_undo(struct making *making)
{
	for (unsigned i = making->count; i-- > 0;)
		remove(making->path[i]);
	making_forget(making);
}

int making_fails(struct making *making, int err, const char *format, ...)
{
	va_list arguments;

	if (making->why[0])
		return err;
	va_start(arguments, format);
	vsnprintf(making->why, making->why_bytes, format, arguments);
	va_end(arguments);
	return err;
}

int directory_sync(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return err;
}

/* Whatever stands before the last slash; "." and "/" stand for themselves. */
static void path_above(const char *path, char above[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	snprintf(above, PATH_MAX, "%.*s", slash ? (int)(slash == path ? 1 : slash - path) : 1,
		 slash ? path : ".");
}

int directory_make_above(struct making *making, const char *path)
{
	char above[PATH_MAX];

	path_above(path, above);
	return directory_make(making, above);
}

int directory_make(struct making *making, const char *path)
{
	char above[PATH_MAX];
	struct stat stat_now;

	if (!stat(path, &stat_now))
		return S_ISDIR(stat_now.st_mode)
			       ? 0
			       : making_fails(making, -ENOTDIR, "%s is no directory", path);
	int err = directory_make_above(making, path);
	if (err)
		return err;
	if (mkdir(path, 0700) && errno != EEXIST) {
		err = -errno;
		return making_fails(making, err, "cannot make directory %s: %s", path,
				    strerror(-err));
	}
	making_add(making, path);
	path_above(path, above);
	err = directory_sync(above);
	return err ? making_fails(making, err, "cannot sync directory %s: %s", above,
				  strerror(-err))
		   : 0;
}

static int write_whole(int fd, const uint8_t *from, uint64_t offset, uint64_t length)
{
	while (length) {
		ssize_t written = pwrite(fd, from, length, (off_t)offset);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written ? -errno : -EIO;
		from += written;
		offset += (uint64_t)written;
		length -= (uint64_t)written;
	}
	return 0;
}

/* Synced as it goes, so that neither the cache nor the last sync is long. */
static int file_fill(int fd, const struct making *making, const struct file_new *file)
{
	uint8_t *piece = aligned_alloc(PAGE_BYTES, PIECE_BYTES);
	int err = piece ? 0 : -ENOMEM;

	if (piece)
		memset(piece, 0, PIECE_BYTES);
	for (uint64_t offset = 0; !err && offset < file->bytes; offset += PIECE_BYTES) {
		uint64_t length = min_u64(PIECE_BYTES, file->bytes - offset);
		if (file->content == FILE_FILLED)
			file->fill(file->context, offset, piece, length);
		err = is_cancelled(making) ? -ECANCELED : write_whole(fd, piece, offset, length);
		if (!err && (offset + length) % SYNC_BYTES == 0 && fdatasync(fd))
			err = -errno;
	}
	free(piece);
	return err;
}

static int space_hold(int fd, const struct making *making, uint64_t bytes)
{
	int err = 0;

	for (uint64_t offset = 0; !err && offset < bytes; offset += RESERVE_BYTES) {
		uint64_t length = min_u64(RESERVE_BYTES, bytes - offset);
		if (is_cancelled(making))
			err = -ECANCELED;
		else if (fallocate(fd, 0, (off_t)offset, (off_t)length))
			err = -errno;
	}
	return err;
}

/* The extents stay unwritten until they are: a first write costs more, but needs no room. */
static int file_reserve(int fd, struct making *making, const struct file_new *file)
{
	if (file->content == FILE_FILLED)
		return 0;
	int err = space_hold(fd, making, file->bytes);
	if (err != -EOPNOTSUPP && err != -ENOSYS)
		return err;
	if (file->content == FILE_RESERVED && !making->unreserved[0])
		snprintf(making->unreserved, sizeof making->unreserved, "%s", file->path);
	return 0;
}

static int file_content(int fd, struct making *making, const struct file_new *file)
{
	must(file->bytes % PAGE_BYTES == 0, "files are whole pages");
	int err = file_reserve(fd, making, file);
	if (err)
		return err;
	if (ftruncate(fd, (off_t)file->bytes))
		return -errno;
	if (file->content == FILE_ZEROED || file->content == FILE_FILLED)
		return file_fill(fd, making, file);
	return 0;
}

static int file_open_new(const char *path)
{
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
	int fd = open(path, flags | O_DIRECT, 0600);

	/* Without direct I/O the name may have been made before the open was refused. */
	if (fd < 0 && errno == EINVAL) {
		unlink(path);
		fd = open(path, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

int file_make(struct making *making, const struct file_new *file)
{
	int fd = file_open_new(file->path);

	if (fd == -EEXIST)
		return making_fails(making, fd, "%s is there already; it is not overwritten",
				    file->path);
	if (fd < 0)
		return making_fails(making, fd, "cannot make %s: %s", file->path, strerror(-fd));
	making_add(making, file->path);
	int err = file_content(fd, making, file);
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	if (is_cancelled(making))
		return making_fails(making, -ECANCELED,
				    "stopped before all was made; nothing of it is kept");
	if (err)
		return making_fails(making, err, "cannot write %llu bytes to %s: %s",
				    (unsigned long long)file->bytes, file->path, strerror(-err));
	return 0;
}
