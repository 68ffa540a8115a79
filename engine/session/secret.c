/* SPDX-License-Identifier: Apache-2.0 */
/* Each secret has whole pages, with a page on either side that may not be touched: an overrun of
 * a neighbour stops the process instead of reading a key. */
#include "secret.h"

#include "core/keys.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static size_t inner_bytes(size_t bytes)
{
	return align_up(bytes, PAGE_BYTES);
}

static size_t mapped_bytes(size_t bytes)
{
	return inner_bytes(bytes) + 2 * (size_t)PAGE_BYTES;
}

static int pages_protect(void *secret, size_t bytes)
{
	if (mprotect(secret, bytes, PROT_READ | PROT_WRITE) ||
	    madvise(secret, bytes, MADV_DONTDUMP) || madvise(secret, bytes, MADV_DONTFORK))
		return -errno;
	/* Above the limit it says ENOMEM, too; this is no lack of memory. */
	return mlock(secret, bytes) ? -EPERM : 0;
}

void *secret_take(size_t bytes)
{
	must(bytes > 0 && bytes <= MIB, "a secret is a few keys");
	uint8_t *map =
		mmap(NULL, mapped_bytes(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return NULL;
	int result = pages_protect(map + PAGE_BYTES, inner_bytes(bytes));
	if (!result)
		return map + PAGE_BYTES;
	munmap(map, mapped_bytes(bytes));
	errno = -result;
	return NULL;
}

void secret_give(void *secret, size_t bytes)
{
	if (!secret)
		return;
	must((uintptr_t)secret % PAGE_BYTES == 0, "a secret begins where secret_take put it");
	keys_wipe(secret, inner_bytes(bytes));
	int failed = munmap((uint8_t *)secret - PAGE_BYTES, mapped_bytes(bytes));
	must(!failed, "what was mapped unmaps");
}

int secret_process_harden(void)
{
	static const struct rlimit none = {0, 0};
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || setrlimit(RLIMIT_CORE, &none))
		return -errno;
	return 0;
}

/* ---- libcrypto's own memory ----
 * Its secure heap is one run of pages, locked and never dumped, between pages that may not be
 * touched; by itself it holds the private parts of keys alone. Here it takes everything, since an
 * expanded key lies among the ordinary objects. When the heap is full an allocation fails, as when
 * memory is out; handshakes at once are few, so that it does not come to that. */
enum {
	HEAP_BYTES = 4 * 1024 * 1024,
	HEAP_PIECE_BYTES = 32,
};

static bool heap_serves; /* false while the heap makes its own tables */

static void *heap_take(size_t bytes, const char *file, int line)
{
	if (!heap_serves)
		return malloc(bytes);
	return bytes ? CRYPTO_secure_malloc(bytes, file, line) : NULL;
}

static void heap_give(void *memory, const char *file, int line)
{
	if (CRYPTO_secure_allocated(memory))
		CRYPTO_secure_free(memory, file, line); /* wipes */
	else
		free(memory);
}

static void *heap_resize(void *memory, size_t bytes, const char *file, int line)
{
	if (memory && !CRYPTO_secure_allocated(memory))
		return realloc(memory, bytes);
	size_t held = memory ? CRYPTO_secure_actual_size(memory) : 0;
	if (bytes && bytes <= held)
		return memory;
	void *larger = heap_take(bytes, file, line);
	if (larger && memory)
		memcpy(larger, memory, held);
	if (larger || !bytes)
		heap_give(memory, file, line);
	return larger;
}

int secret_libcrypto_harden(void)
{
	if (heap_serves)
		return 0;
	if (!CRYPTO_set_mem_functions(heap_take, heap_resize, heap_give))
		return -EBUSY;
	if (CRYPTO_secure_malloc_init(HEAP_BYTES, HEAP_PIECE_BYTES) != 1)
		return -EPERM; /* its 2 is "not locked, or not kept out of dumps" */
	heap_serves = true;
	return 0;
}

const char *secret_why(int err)
{
	return err == EPERM ? "it cannot be locked: raise the limit on locked memory "
			      "(LimitMEMLOCK= of the unit, ulimit -l)"
			    : strerror(err);
}
