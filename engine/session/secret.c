/* SPDX-License-Identifier: Apache-2.0 */
/* Each secret has whole pages, with a page on either side that may not be touched: an overrun of
 * a neighbour stops the process instead of reading a key. */
#include "secret.h"

#include "core/keys.h"

#include <errno.h>
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
	if (mprotect(secret, bytes, PROT_READ | PROT_WRITE) || mlock(secret, bytes) ||
	    madvise(secret, bytes, MADV_DONTDUMP) || madvise(secret, bytes, MADV_DONTFORK))
		return -errno;
	return 0;
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
