/* SPDX-License-Identifier: Apache-2.0 */
/* A process of its own answers the kernel, one request after the other; what hangs is kept with its
 * number. It has its own end: when it is gone the kernel gives up all that still waits, so that
 * nobody waits for ever, not even a test that was wrong. */
#include "fuse_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	REQUEST_BYTES = 256 * 1024,
	READ_BYTES_MAX = 128 * 1024,
	HUNG_MAX = 4096,
	NODE = 2,
	LOOK_MS = 10,
	LIFE_S = 20, /* less than any test may take */
};

/* Shared with the process that serves. */
struct fuse_file {
	pid_t server; /* the test's alone */
	char directory[128];
	atomic_bool hangs;	/* test: w, server: r */
	atomic_uint hung_count; /* server: w, test: r */
	/* of the server alone */
	int descriptor;
	uint64_t bytes;
	struct fuse_hung {
		uint64_t unique;
		uint32_t opcode, length;
	} hung[HUNG_MAX];
	uint8_t request[REQUEST_BYTES];
};

static void answer(const struct fuse_file *file, uint64_t unique, int err, const void *body,
		   uint32_t length)
{
	struct fuse_out_header header = {
		.len = (uint32_t)sizeof header + length, .error = -err, .unique = unique};
	struct iovec piece[2] = {{&header, sizeof header}, {(void *)(uintptr_t)body, length}};
	/* Who asked may have gone meanwhile. */
	if (writev(file->descriptor, piece, length ? 2 : 1) < 0 && errno != ENOENT)
		perror("fuse");
}

static void transfer_answer(const struct fuse_file *file, const struct fuse_hung *request)
{
	static const uint8_t zeros[READ_BYTES_MAX];
	struct fuse_write_out written = {.size = request->length};

	if (request->opcode == FUSE_READ)
		answer(file, request->unique, 0, zeros, request->length);
	else if (request->opcode == FUSE_WRITE)
		answer(file, request->unique, 0, &written, sizeof written);
	else
		answer(file, request->unique, 0, NULL, 0);
}

static void transfer(struct fuse_file *file, const struct fuse_in_header *in, const void *body)
{
	struct fuse_hung request = {.unique = in->unique, .opcode = in->opcode};
	const struct fuse_read_in *read = body;
	const struct fuse_write_in *write = body;

	if (in->opcode == FUSE_READ)
		request.length = read->size < READ_BYTES_MAX ? read->size : READ_BYTES_MAX;
	else if (in->opcode == FUSE_WRITE)
		request.length = write->size;
	unsigned count = atomic_load(&file->hung_count);
	if (atomic_load(&file->hangs) && count < HUNG_MAX) {
		file->hung[count] = request;
		atomic_store(&file->hung_count, count + 1);
	} else {
		transfer_answer(file, &request);
	}
}

static void let_go(struct fuse_file *file)
{
	for (unsigned i = 0; i < atomic_load(&file->hung_count); i++)
		transfer_answer(file, &file->hung[i]);
	atomic_store(&file->hung_count, 0);
}

static struct fuse_attr attributes(const struct fuse_file *file, uint64_t node)
{
	return (struct fuse_attr){
		.ino = node,
		.size = node == NODE ? file->bytes : 0,
		.blocks = file->bytes / 512,
		.mode = node == NODE ? S_IFREG | 0600 : S_IFDIR | 0700,
		.nlink = 1,
		.blksize = 4096,
	};
}

static void begin(const struct fuse_file *file, uint64_t unique)
{
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
				    .minor = FUSE_KERNEL_MINOR_VERSION,
				    .max_write = READ_BYTES_MAX,
				    .max_background = HUNG_MAX,
				    .congestion_threshold = HUNG_MAX,
				    .flags = FUSE_BIG_WRITES};
	answer(file, unique, 0, &out, sizeof out);
}

static void look_up(const struct fuse_file *file, uint64_t unique, const char *name)
{
	struct fuse_entry_out out = {.nodeid = NODE, .attr = attributes(file, NODE)};
	bool known = !strcmp(name, "file");
	answer(file, unique, known ? 0 : ENOENT, &out, known ? sizeof out : 0);
}

static void request_take(struct fuse_file *file)
{
	const struct fuse_in_header *in = (const void *)file->request;
	const void *body = in + 1;
	struct fuse_attr_out attr = {.attr = attributes(file, in->nodeid)};
	struct fuse_open_out open = {.open_flags = FOPEN_DIRECT_IO};

	switch (in->opcode) {
	case FUSE_INIT:
		begin(file, in->unique);
		break;
	case FUSE_LOOKUP:
		look_up(file, in->unique, body);
		break;
	case FUSE_GETATTR:
		answer(file, in->unique, 0, &attr, sizeof attr);
		break;
	case FUSE_OPEN:
		answer(file, in->unique, 0, &open, sizeof open);
		break;
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
		transfer(file, in, body);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		answer(file, in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break; /* are not answered */
	default:
		answer(file, in->unique, ENOSYS, NULL, 0);
	}
}

static void serve(struct fuse_file *file)
{
	struct pollfd from = {.fd = file->descriptor, .events = POLLIN};

	alarm(LIFE_S);
	while (poll(&from, 1, LOOK_MS) >= 0 && !(from.revents & POLLERR)) {
		if (!atomic_load(&file->hangs))
			let_go(file);
		if (!from.revents)
			continue;
		ssize_t got = read(file->descriptor, file->request, sizeof file->request);
		if (got >= (ssize_t)sizeof(struct fuse_in_header))
			request_take(file);
		else if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
			break; /* unmounted */
	}
}

/* In a namespace whose mounts the rest of the machine does not see. */
static int mount_it(const struct fuse_file *file)
{
	char options[128];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	snprintf(options, sizeof options, "fd=%d,rootmode=40700,user_id=%u,group_id=%u",
		 file->descriptor, (unsigned)getuid(), (unsigned)getgid());
	return mount("casemate-test", file->directory, "fuse", MS_NOSUID | MS_NODEV, options);
}

struct fuse_file *fuse_file_new(const char *directory, uint64_t bytes)
{
	struct fuse_file *file =
		mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (file == MAP_FAILED)
		return NULL;
	file->bytes = bytes;
	snprintf(file->directory, sizeof file->directory, "%s", directory);
	file->descriptor = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	pid_t server = file->descriptor < 0 || mount_it(file) ? -1 : fork();
	if (server == 0) {
		serve(file);
		_exit(0);
	}
	if (file->descriptor >= 0)
		close(file->descriptor);
	file->server = server;
	if (server > 0)
		return file;
	munmap(file, sizeof *file);
	return NULL;
}

void fuse_file_hang(struct fuse_file *file)
{
	atomic_store(&file->hangs, true);
}

unsigned fuse_file_hung(const struct fuse_file *file)
{
	return atomic_load(&file->hung_count);
}

void fuse_file_go_on(struct fuse_file *file)
{
	atomic_store(&file->hangs, false);
}

void fuse_file_free(struct fuse_file *file)
{
	if (!file)
		return;
	kill(file->server, SIGKILL);
	waitpid(file->server, NULL, 0);
	umount2(file->directory, MNT_DETACH);
	munmap(file, sizeof *file);
}
