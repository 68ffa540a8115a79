/* SPDX-License-Identifier: Apache-2.0 */
/* A RAM disk behind the real NBD server on a ring of its own: what NBD clients are tried on, and
 * what the throughput of the front alone is measured with. */
#include "front/nbd_server.h"

#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { RING_ENTRIES = 256, BURST = 64, HELD_MAX = 4096, CHUNK_BYTES = 64 * 1024 };

struct ram {
	uint8_t *bytes;
	uint64_t size;
	uint8_t *written; /* per chunk: may hold something else than zeros */
	bool scramble;	  /* answers are held back and given in another order */
	struct request *held[HELD_MAX];
	unsigned held_count;
	unsigned seed;
};

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number)
{
	stop_wanted = number;
}

/* ---- the disk ---- */

static void ram_write(struct ram *ram, const struct request *request)
{
	memcpy(ram->bytes + request->offset, request->data, request->length);
	for (uint64_t chunk = request->offset / CHUNK_BYTES;
	     chunk <= (request->offset + request->length - 1) / CHUNK_BYTES; chunk++)
		ram->written[chunk] = 1;
}

/* Whole pages go back to the system; the edges are written. */
static void ram_zero(struct ram *ram, const struct request *request)
{
	uint64_t end = request->offset + request->length;
	uint64_t first_page = align_up(request->offset, PAGE_BYTES);
	uint64_t last_page = align_down(end, PAGE_BYTES);
	uint64_t first_chunk = div_up(request->offset, CHUNK_BYTES);

	if (first_page >= last_page) {
		memset(ram->bytes + request->offset, 0, request->length);
		return;
	}
	memset(ram->bytes + request->offset, 0, first_page - request->offset);
	memset(ram->bytes + last_page, 0, end - last_page);
	madvise(ram->bytes + first_page, last_page - first_page, MADV_DONTNEED);
	for (uint64_t chunk = first_chunk; (chunk + 1) * CHUNK_BYTES <= end; chunk++)
		ram->written[chunk] = 0;
}

static void ram_status(const struct ram *ram, struct request *request)
{
	uint64_t at = request->offset, end = request->offset + request->length;
	unsigned count = 0;

	while (at < end) {
		uint64_t next = min_u64((at / CHUNK_BYTES + 1) * CHUNK_BYTES, end);
		uint32_t flags = ram->written[at / CHUNK_BYTES] ? 0 : 3;
		uint32_t length = (uint32_t)(next - at);
		if (count > 0 && request->extent[count - 1].flags == flags)
			request->extent[count - 1].length += length;
		else if (count < request->extent_count)
			request->extent[count++] = (struct extent){length, flags};
		else
			break;
		at = next;
	}
	request->extent_count = count;
}

static void ram_serve(struct ram *ram, struct request *request)
{
	request->result = 0;
	switch ((enum request_kind)request->kind) {
	case REQUEST_READ:
		memcpy(request->data, ram->bytes + request->offset, request->length);
		break;
	case REQUEST_WRITE:
		ram_write(ram, request);
		break;
	case REQUEST_DISCARD:
	case REQUEST_ZERO:
		ram_zero(ram, request);
		break;
	case REQUEST_STATUS:
		ram_status(ram, request);
		break;
	case REQUEST_FLUSH:
	case REQUEST_CACHE:
		break;
	}
}

/* ---- the lane ---- */

static void answer_held(struct ram *ram, struct nbd_server *server, unsigned count)
{
	while (count-- > 0 && ram->held_count > 0) {
		unsigned i = ram->scramble ? (unsigned)rand_r(&ram->seed) % ram->held_count : 0;
		struct request *request = ram->held[i];
		ram->held[i] = ram->held[--ram->held_count];
		nbd_server_answer(server, request);
	}
}

static void serve_burst(struct ram *ram, struct nbd_server *server)
{
	struct request *request[BURST];
	unsigned count;

	while ((count = nbd_server_take_requests(server, request, BURST)))
		for (unsigned i = 0; i < count; i++) {
			ram_serve(ram, request[i]);
			if (!ram->scramble) {
				nbd_server_answer(server, request[i]);
				continue;
			}
			must(ram->held_count < HELD_MAX, "all slots of all connections fit");
			ram->held[ram->held_count++] = request[i];
		}
	answer_held(ram, server, 1 + ram->held_count / 2);
}

static void run(struct ram *ram, struct io_uring *ring, struct nbd_server *server)
{
	struct io_uring_cqe *cqe[BURST];

	while (!nbd_server_stopped(server)) {
		if (stop_wanted)
			nbd_server_stop(server);
		nbd_server_turn(server);
		io_uring_submit_and_wait(ring, ram->held_count ? 0 : 1);
		unsigned count = io_uring_peek_batch_cqe(ring, cqe, BURST);
		for (unsigned i = 0; i < count; i++)
			nbd_server_completed(server, cqe[i]->user_data, cqe[i]->res, cqe[i]->flags);
		io_uring_cq_advance(ring, count);
		serve_burst(ram, server);
	}
}

/* ---- the program ---- */

struct options {
	uint64_t size;
	const char *unix_path, *tcp;
	bool read_only, scramble;
	unsigned connections;
	uint64_t payload_bytes;
};

static const char usage[] =
	"usage: nbd_ram [--size BYTES] [--unix PATH] [--tcp HOST:PORT] [--read-only]\n"
	"               [--scramble] [--connections N] [--payload BYTES]\n";

static bool options_parse(struct options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{"size", required_argument, NULL, 's'},
		{"unix", required_argument, NULL, 'u'},
		{"tcp", required_argument, NULL, 't'},
		{"read-only", no_argument, NULL, 'r'},
		{"scramble", no_argument, NULL, 'x'},
		{"connections", required_argument, NULL, 'c'},
		{"payload", required_argument, NULL, 'p'},
		{NULL, 0, NULL, 0},
	};

	for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;)
		switch (option) {
		case 's':
			options->size = strtoull(optarg, NULL, 0);
			break;
		case 'u':
			options->unix_path = optarg;
			break;
		case 't':
			options->tcp = optarg;
			break;
		case 'r':
			options->read_only = true;
			break;
		case 'x':
			options->scramble = true;
			break;
		case 'c':
			options->connections = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'p':
			options->payload_bytes = strtoull(optarg, NULL, 0);
			break;
		default:
			return false;
		}
	return options->size > 0 && (options->unix_path || options->tcp) && optind == argc;
}

static int listen_all(struct nbd_server *server, const struct options *options)
{
	int result = options->unix_path ? nbd_server_listen_unix(server, options->unix_path) : 0;
	char host[256] = {0};
	const char *colon = options->tcp ? strrchr(options->tcp, ':') : NULL;

	if (result < 0 || !colon || (size_t)(colon - options->tcp) >= sizeof host)
		return result;
	memcpy(host, options->tcp, (size_t)(colon - options->tcp));
	return nbd_server_listen_tcp(server, host, (uint16_t)strtoul(colon + 1, NULL, 10));
}

static bool ram_init(struct ram *ram, const struct options *options)
{
	ram->size = options->size;
	ram->scramble = options->scramble;
	ram->written = calloc(1, div_up(ram->size, CHUNK_BYTES));
	ram->bytes = mmap(NULL, ram->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram->bytes == MAP_FAILED || !ram->written)
		return false;
	madvise(ram->bytes, ram->size, MADV_HUGEPAGE);
	return true;
}

static void print_figures(const struct nbd_server *server)
{
	struct nbd_server_figures figures = nbd_server_figures(server);

	printf("accepted=%llu requests=%llu refused=%llu bad_streams=%llu stalled=%llu "
	       "read_bytes=%llu write_bytes=%llu payload_used=%llu\n",
	       (unsigned long long)figures.accepted, (unsigned long long)figures.requests,
	       (unsigned long long)figures.refused, (unsigned long long)figures.bad_streams,
	       (unsigned long long)figures.stalled, (unsigned long long)figures.read_bytes,
	       (unsigned long long)figures.write_bytes, (unsigned long long)figures.payload_used);
}

int main(int argc, char **argv)
{
	struct options options = {.size = 64 << 20};
	static struct ram ram = {.seed = 1};
	struct io_uring ring;
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN};

	if (!options_parse(&options, argc, argv)) {
		fputs(usage, stderr);
		return 64;
	}
	if (!ram_init(&ram, &options) ||
	    io_uring_queue_init_params(RING_ENTRIES, &ring, &params) < 0)
		return 1;
	struct nbd_server *server = nbd_server_new(&(struct nbd_server_config){
		.ring = &ring,
		.connections = options.connections,
		.payload_bytes = options.payload_bytes,
	});
	if (!server)
		return 1;
	int result = listen_all(server, &options);
	if (result < 0) {
		fprintf(stderr, "nbd_ram: cannot listen: %s\n", strerror(-result));
		return 1;
	}
	nbd_server_set_export(server, 0,
			      &(struct nbd_export){.name = "ram",
						   .size = options.size,
						   .read_only = options.read_only,
						   .ready = true});
	sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
	sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
	run(&ram, &ring, server);
	print_figures(server);
	nbd_server_free(server);
	io_uring_queue_exit(&ring);
	return 0;
}
