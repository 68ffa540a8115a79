/* SPDX-License-Identifier: Apache-2.0 */
/* What this site keeps on disk, opened and held: a lock per site, devices and intent logs of the
 * groups it is primary of, stores of those it is vault of. A missing store is no reason not to
 * start: that is what parity is for. */
#include "engine.h"
#include "log.h"
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A process that was killed holds its locks until the kernel has taken it apart, which goes on for
 * a moment after it has gone: its ring still knows its files. */
#define LOCK_WITHIN_NS (3 * NS_PER_S)
#define LOCK_AGAIN_US  20000
/* The lane closes files between two turns. */
#define CLOSED_WITHIN_NS (2 * NS_PER_S)
#define CLOSED_AGAIN_US	 1000

/* ---- the lock: one daemon per site ---- */

/* Who has written its number and still has a memory of its own. */
static bool lock_holder_lives(const struct engine *engine)
{
	char pid[32] = "", path[64], byte;
	ssize_t got = pread(engine->lock, pid, sizeof pid - 1, 0);

	if (got <= 0)
		return false;
	snprintf(path, sizeof path, "/proc/%ld/cmdline", strtol(pid, NULL, 10));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? 0 : read(fd, &byte, 1);
	if (fd >= 0)
		close(fd);
	return got == 1;
}

static int lock_take(const struct engine *engine)
{
	ns_t until = engine_now() + LOCK_WITHIN_NS;

	while (flock(engine->lock, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || lock_holder_lives(engine) || engine_now() >= until)
			return -EBUSY;
		usleep(LOCK_AGAIN_US);
	}
	return 0;
}

static void lock_told(struct engine *engine, const char *path)
{
	char pid[32] = "unknown";
	ssize_t got = pread(engine->lock, pid, sizeof pid - 1, 0);

	if (got > 0)
		pid[strcspn(pid, "\n")] = 0;
	log_line(NOTE_ERROR, NULL, "casemated is already running with these stores (pid %s, %s)",
		 pid, path);
}

int files_lock(struct engine *engine)
{
	const char *state = engine->config->site[engine->self].state;
	char path[PATH_MAX];

	if (mkdir(state, 0700) && errno != EEXIST) {
		int err = -errno;
		log_line(NOTE_ERROR, NULL, "cannot make the state directory %s: %s", state,
			 strerror(-err));
		return err;
	}
	snprintf(path, sizeof path, "%s/lock", state);
	engine->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (engine->lock < 0) {
		int err = -errno;
		log_line(NOTE_ERROR, NULL, "cannot open %s: %s", path, strerror(-err));
		return err;
	}
	if (lock_take(engine)) {
		lock_told(engine, path);
		return -EBUSY;
	}
	if (ftruncate(engine->lock, 0) || dprintf(engine->lock, "%d\n", (int)getpid()) < 0)
		log_line(NOTE_WARNING, NULL, "cannot write %s: %s", path, strerror(errno));
	return 0;
}

void files_unlock(struct engine *engine)
{
	if (engine->lock >= 0)
		close(engine->lock);
	engine->lock = -1;
}

/* ---- opening ---- */

static int file_open(struct engine *engine, const char *path, uint64_t bytes)
{
	bool buffered = false;
	ns_t until = engine_now() + LOCK_WITHIN_NS;
	int file;

	/* We have the lock of the site: who has the file is on its way out, or no casemate. */
	while ((file = disk_file_open(engine->disk, path, bytes, &buffered)) == -EBUSY &&
	       engine_now() < until)
		usleep(LOCK_AGAIN_US);
	if (file >= 0 && buffered)
		log_line(NOTE_INFO, NULL, "%s: no direct I/O here; buffered, with the same syncs",
			 path);
	return file;
}

static void file_refused(const char *subject, const char *path, int err)
{
	if (err == -EBUSY)
		log_line(NOTE_ERROR, subject, "%s is in use by another process", path);
	else if (err == -ENODATA)
		log_line(NOTE_ERROR, subject, "%s is shorter than it was made", path);
	else
		log_line(NOTE_ERROR, subject, "cannot open %s: %s", path, strerror(-err));
}

static void device_told(const struct engine *engine, const char *volume, const char *path,
			uint16_t file)
{
	struct stat now;

	if (fstat(disk_file_descriptor(engine->disk, file), &now) || !S_ISREG(now.st_mode) ||
	    disk_file_is_reserved(engine->disk, file))
		return;
	log_line(NOTE_INFO, volume,
		 "device %s is sparse: it takes room as it is written, and gives it back by "
		 "discards; a disk that is full stops the group",
		 path);
}

/* One that was there once is not made again: what it held would be zeros. */
static void device_absent(const struct engine *engine, const struct config_group *group,
			  const char *volume, const char *path)
{
	char intent[PATH_MAX];

	volume_intent_path(engine->config, group, intent);
	log_line(NOTE_ERROR, volume, "there is no device %s%s", path,
		 access(intent, F_OK) ? "; casemate volume create makes it"
				      : " any more: bring it back, or promote the vault");
}

static int device_open(struct engine *engine, const struct config_group *group,
		       const struct config_volume *volume, struct core_volume *out)
{
	const char *path = volume->device[engine->self];
	int64_t bytes = volume_device_bytes(path);

	if (bytes == -ENOENT) {
		device_absent(engine, group, volume->name, path);
		return -ENOENT;
	}
	if (bytes == -EINVAL)
		log_line(NOTE_ERROR, volume->name, "%s is neither a file nor a block device", path);
	else if (bytes < 0)
		file_refused(volume->name, path, (int)bytes);
	if (bytes < 0)
		return (int)bytes;
	if ((uint64_t)bytes != volume->size) {
		log_line(NOTE_ERROR, volume->name,
			 "device %s has %lld bytes, but the configuration says %llu", path,
			 (long long)bytes, (unsigned long long)volume->size);
		return -EINVAL;
	}
	int file = file_open(engine, path, volume->size);
	if (file < 0) {
		file_refused(volume->name, path, file);
		return file;
	}
	out->device = (uint16_t)file;
	device_told(engine, volume->name, path, out->device);
	return 0;
}

static int primary_open(struct engine *engine, unsigned g)
{
	const struct config_group *config = &engine->config->group[g];
	struct core_group *group = &engine->core_config->group[g];
	struct intent_config shape;
	char path[PATH_MAX];
	int err = 0;

	for (unsigned v = 0; !err && v < config->volume_count; v++)
		err = device_open(engine, config, &config->volume[v], &group->volume[v]);
	if (err)
		return err;
	volume_intent_path(engine->config, config, path);
	volume_intent_config(config, &shape);
	static const struct intent_identity nobody;
	struct intent_identity identity = nobody;
	identity.volume_count = (uint8_t)config->volume_count;
	int file = file_open(engine, path, intent_format(&shape, &identity, NULL));
	if (file == -ENOENT)
		log_line(NOTE_ERROR, config->name,
			 "there is no intent log %s: bring it back, or promote the vault", path);
	else if (file < 0)
		file_refused(config->name, path, file);
	if (file < 0)
		return file;
	group->intent_file = (uint16_t)file;
	return 0;
}

static int store_file(struct engine *engine, const char *path, uint64_t bytes, char *why,
		      size_t why_bytes)
{
	int file = file_open(engine, path, bytes);

	if (file == -ENODATA)
		snprintf(why, why_bytes, "%s is shorter than it was made", path);
	else if (file < 0)
		snprintf(why, why_bytes, "%s: %s", path,
			 file == -EBUSY ? "in use by another process" : strerror(-file));
	return file;
}

static unsigned store_files_list(const struct config_group *config, const struct store_files *files,
				 int list[ENGINE_STORE_FILES_MAX])
{
	unsigned count = 0;

	list[count++] = files->superblock;
	list[count++] = files->journal;
	for (unsigned v = 0; v < config->volume_count; v++) {
		list[count++] = files->image[v];
		list[count++] = files->slots[v];
	}
	return count;
}

void files_close_store(struct engine *engine, unsigned g, const struct store_files *files)
{
	int list[ENGINE_STORE_FILES_MAX];
	unsigned count = store_files_list(&engine->config->group[g], files, list);

	for (unsigned i = 0; i < count; i++)
		if (list[i] != UINT16_MAX)
			disk_file_close(engine->disk, (uint16_t)list[i]);
}

void files_lane_turn(struct engine *engine)
{
	unsigned count = atomic_load_explicit(&engine->closing.count, memory_order_acquire);

	if (!count)
		return;
	for (unsigned i = 0; i < count; i++)
		disk_file_close(engine->disk, engine->closing.file[i]);
	atomic_store_explicit(&engine->closing.count, 0, memory_order_release);
}

bool files_closing(const struct engine *engine)
{
	return atomic_load_explicit(&engine->closing.count, memory_order_acquire) > 0;
}

/* Nothing is opened meanwhile: the numbers of files are the lane's until it has closed them. */
static bool lane_has_closed(struct engine *engine)
{
	ns_t until = engine_now() + CLOSED_WITHIN_NS;

	while (atomic_load_explicit(&engine->closing.count, memory_order_acquire)) {
		if (engine_now() >= until)
			return false;
		disk_wake(engine->disk);
		usleep(CLOSED_AGAIN_US);
	}
	return true;
}

int files_give_up_store(struct engine *engine, unsigned g, unsigned index, char *why,
			size_t why_bytes)
{
	struct engine_store *store = &engine->store[g][index];
	int list[ENGINE_STORE_FILES_MAX];
	bool closed = lane_has_closed(engine);

	if (closed && store->open) {
		unsigned count = store_files_list(&engine->config->group[g], &store->files, list);
		for (unsigned i = 0; i < count; i++)
			engine->closing.file[i] = (uint16_t)list[i];
		store->open = false;
		atomic_store_explicit(&engine->closing.count, count, memory_order_release);
		closed = lane_has_closed(engine);
	}
	if (!closed)
		snprintf(why, why_bytes, "the lane does not turn: a disk or driver hangs");
	return closed ? 0 : -ETIMEDOUT;
}

int files_open_store(struct engine *engine, unsigned g, unsigned index, struct store_files *files,
		     char *why, size_t why_bytes)
{
	const struct config_group *config = &engine->config->group[g];
	const struct core_group *group = &engine->core_config->group[g];
	const char *directory = config->store[engine->self][index];
	char path[PATH_MAX];
	int file[ENGINE_STORE_FILES_MAX], count = 0;

	memset(files, 0xff, sizeof *files);
	volume_store_path(directory, STORE_SUPERBLOCK, NULL, path);
	file[count] = store_file(engine, path, 2 * STORE_SUPERBLOCK_BYTES, why, why_bytes);
	if (file[count] < 0)
		goto refused;
	files->superblock = (uint16_t)file[count++];
	volume_store_path(directory, STORE_JOURNAL, NULL, path);
	file[count] = store_file(engine, path, group->segment_bytes * group->segment_count, why,
				 why_bytes);
	if (file[count] < 0)
		goto refused;
	files->journal = (uint16_t)file[count++];
	for (unsigned v = 0; v < config->volume_count; v++) {
		const struct config_volume *volume = &config->volume[v];
		volume_store_path(directory, STORE_IMAGE, volume->name, path);
		file[count] = store_file(engine, path,
					 store_image_file_bytes(volume->size, config->geometry),
					 why, why_bytes);
		if (file[count] < 0)
			goto refused;
		files->image[v] = (uint16_t)file[count++];
		volume_store_path(directory, STORE_SLOTS, volume->name, path);
		file[count] = store_file(engine, path,
					 store_slots_file_bytes(volume->size, volume->block_bytes),
					 why, why_bytes);
		if (file[count] < 0)
			goto refused;
		files->slots[v] = (uint16_t)file[count++];
	}
	return 0;
refused:;
	int err = file[count];
	files_close_store(engine, g, files);
	return err;
}

/* How the journals were cut stands in the superblocks: that of the first store that can be read
 * holds for all, and one that says otherwise is not of this set. */
static void journal_shape(struct engine *engine, unsigned g)
{
	const struct config_group *config = &engine->config->group[g];
	struct core_group *group = &engine->core_config->group[g];
	struct volume_store_head *head = calloc(1, sizeof *head);

	for (unsigned i = 0; head && i < config->store_count[engine->self]; i++)
		if (!volume_store_read(config->store[engine->self][i], head)) {
			group->segment_bytes = head->segment_bytes;
			group->segment_count = head->segment_count;
			break;
		}
	free(head);
}

static int vault_open(struct engine *engine, unsigned g)
{
	const struct config_group *config = &engine->config->group[g];
	struct core_group *group = &engine->core_config->group[g];
	unsigned opened = 0, absent = 0, n = geometry_n(config->geometry);
	char why[ENGINE_WHY_BYTES];

	journal_shape(engine, g);
	for (unsigned i = 0; i < n; i++) {
		struct engine_store *store = &engine->store[g][i];
		int err =
			volume_store_judge(config, config->store[engine->self][i], why, sizeof why);
		if (!err)
			err = files_open_store(engine, g, i, &store->files, why, sizeof why);
		if (err == -EBUSY) {
			log_line(NOTE_ERROR, config->name, "store %u: %s", i, why);
			return err;
		}
		if (err) {
			log_line(NOTE_WARNING, config->name, "store %u is missing: %s", i, why);
			absent += err == -ENOENT;
			continue;
		}
		store->open = true;
		group->store[i].present = true;
		group->store[i].files = store->files;
		opened++;
	}
	if (!opened)
		log_line(NOTE_ERROR, config->name,
			 absent == n ? "none of its %u stores is there; casemate volume create "
				       "makes them"
				     : "none of its %u stores can be used: were sizes or the "
				       "geometry changed in the configuration?",
			 n);
	return opened ? 0 : -ENOENT;
}

int files_open(struct engine *engine)
{
	int err = 0;

	engine->disk = disk_new(ENGINE_DISK_ENTRIES);
	if (!engine->disk) {
		err = -errno;
		log_line(NOTE_ERROR, NULL, "io_uring does not start: %s%s", strerror(-err),
			 err == -ENOMEM ? " (see the limit on locked memory)" : "");
		return err;
	}
	if (disk_workers(engine->disk) < ENGINE_DISK_ENTRIES)
		log_line(NOTE_INFO, NULL,
			 "the kernel lets %u disk operations wait at once, of %u: a disk that "
			 "hangs may slow down the others",
			 disk_workers(engine->disk), (unsigned)ENGINE_DISK_ENTRIES);
	for (unsigned g = 0; !err && g < engine->config->group_count; g++)
		err = engine->core_config->group[g].role == ROLE_PRIMARY ? primary_open(engine, g)
									 : vault_open(engine, g);
	return err;
}

/* ---- watching ---- */

/* docs/semantics.md "open file descriptors are no store": what has no name any more, or whose name
 * leads to another file, will not be found after a restart. */
static bool file_lost(const struct engine *engine, const char *path, uint16_t file)
{
	struct stat opened, named;

	if (fstat(disk_file_descriptor(engine->disk, file), &opened) || opened.st_nlink == 0)
		return true;
	return stat(path, &named) || named.st_dev != opened.st_dev || named.st_ino != opened.st_ino;
}

static bool store_lost(const struct engine *engine, unsigned g, unsigned index)
{
	const struct config_group *config = &engine->config->group[g];
	const struct store_files *files = &engine->store[g][index].files;
	const char *directory = config->store[engine->self][index];
	char path[PATH_MAX];

	volume_store_path(directory, STORE_SUPERBLOCK, NULL, path);
	if (file_lost(engine, path, files->superblock))
		return true;
	volume_store_path(directory, STORE_JOURNAL, NULL, path);
	if (file_lost(engine, path, files->journal))
		return true;
	for (unsigned v = 0; v < config->volume_count; v++) {
		volume_store_path(directory, STORE_IMAGE, config->volume[v].name, path);
		if (file_lost(engine, path, files->image[v]))
			return true;
		volume_store_path(directory, STORE_SLOTS, config->volume[v].name, path);
		if (file_lost(engine, path, files->slots[v]))
			return true;
	}
	return false;
}

/* An order for which the queue has no room is given at the next look. */
static void store_lost_tell(struct engine *engine, unsigned g, unsigned index)
{
	struct engine_store *store = &engine->store[g][index];

	store->command = (struct command){
		.kind = COMMAND_STORE_LOST, .group = (uint8_t)g, .store = (uint8_t)index};
	store->lost = store->telling = lane_command(engine->lane, &store->command);
	if (store->lost)
		log_line(NOTE_ERROR, engine->config->group[g].name, "store %u lost its files: %s",
			 index, engine->config->group[g].store[engine->self][index]);
}

void files_watch(struct engine *engine)
{
	for (unsigned g = 0; g < engine->config->group_count; g++)
		for (unsigned i = 0; i < SHARDS_MAX; i++) {
			const struct engine_store *store = &engine->store[g][i];
			if (store->open && !store->lost && !store->telling &&
			    store_lost(engine, g, i))
				store_lost_tell(engine, g, i);
		}
}
