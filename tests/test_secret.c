/* SPDX-License-Identifier: Apache-2.0 */
/* Secret pages as the kernel sees them, and a hardened process. */
#include "session/secret.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bytes.h"
#include "page_flags.h"

static void test_pages_are_locked_and_not_copied(void **unused)
{
	static const size_t sizes[] = {1, 32, 4096, 4097, 65536};
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		char flags[512];
		uint8_t *secret = secret_take(sizes[i]);
		assert_non_null(secret);
		assert_true(bytes_are_zero(secret, sizes[i]));
		memset(secret, 0xaa, sizes[i]);
		if (LOCKS_ARE_REAL)
			assert_true(page_has(secret, PAGE_LOCKED));
		assert_true(page_has(secret, PAGE_NOT_DUMPED));
		assert_true(page_has(secret, PAGE_NOT_IN_CHILD));
		secret_give(secret, sizes[i]);
		page_flags(secret, flags);
		assert_string_equal(flags, "");
	}
	secret_give(NULL, 32);
}

static int child_status(void (*call)(void *), void *argument)
{
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (!child) {
		signal(SIGSEGV, SIG_DFL);
		call(argument);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void touch(void *address)
{
	*(volatile uint8_t *)address;
}

static bool child_faults(void *address)
{
	int status = child_status(touch, address);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void take_and_touch(void *offset)
{
	uint8_t *secret = secret_take(4096);
	if (secret)
		touch(secret + *(long *)offset);
}

static void test_neighbours_and_children_cannot_read(void **unused)
{
	long inside = 4095, before = -1, after = 4096;
	uint8_t *secret = secret_take(4096);
	int own = 7;
	assert_non_null(secret);
	assert_false(child_faults(&own));
	assert_true(child_faults(secret));
	secret_give(secret, 4096);
	assert_int_equal(child_status(take_and_touch, &inside), 0);
	assert_true(WIFSIGNALED(child_status(take_and_touch, &before)));
	assert_true(WIFSIGNALED(child_status(take_and_touch, &after)));
}

static void harden_and_tell(void *unused)
{
	struct rlimit limit;
	if (secret_process_harden())
		_exit(1);
	if (prctl(PR_GET_DUMPABLE) != 0)
		_exit(2);
	if (getrlimit(RLIMIT_CORE, &limit) || limit.rlim_cur || limit.rlim_max)
		_exit(3);
}

static void test_harden(void **unused)
{
	assert_int_equal(child_status(harden_and_tell, NULL), 0);
}

/* What libcrypto holds after it was told, grown and given back. */
static void libcrypto_tried(void *unused)
{
	uint8_t *key, *grown;
	if (secret_libcrypto_harden())
		_exit(1);
	key = OPENSSL_malloc(64);
	if (!key || !page_has(key, PAGE_LOCKED) || !page_has(key, PAGE_NOT_DUMPED))
		_exit(2);
	memset(key, 0xaa, 64);
	grown = OPENSSL_realloc(key, 8192);
	if (!grown || grown == key || grown[0] != 0xaa || grown[63] != 0xaa)
		_exit(3);
	if (!page_has(grown, PAGE_LOCKED))
		_exit(4);
	if (!bytes_are_zero(key + 16, 48)) /* the heap's own links come first */
		_exit(5);
	memset(grown, 0xbb, 8192);
	OPENSSL_free(grown);
	if (!bytes_are_zero(grown + 16, 8192 - 16))
		_exit(6);
	if (OPENSSL_malloc(0) || OPENSSL_malloc(64 * MIB))
		_exit(7);
	if (secret_libcrypto_harden())
		_exit(8);
}

static void libcrypto_was_used(void *unused)
{
	OPENSSL_free(OPENSSL_malloc(1));
	if (secret_libcrypto_harden() != -EBUSY)
		_exit(1);
}

static void test_libcrypto_lives_in_locked_pages(void **unused)
{
	assert_int_equal(child_status(libcrypto_tried, NULL), 0);
	assert_int_equal(child_status(libcrypto_was_used, NULL), 0);
}

static void nothing_can_be_locked(void *unused)
{
	static const struct rlimit none = {0, 0};
	/* Without the right that root has, to lock above any limit. */
	if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setuid(65534)))
		_exit(1);
	errno = 0;
	if (LOCKS_ARE_REAL && (secret_take(32) || errno != EPERM))
		_exit(2);
	if (secret_libcrypto_harden() != -EPERM)
		_exit(3);
	if (!strstr(secret_why(EPERM), "LimitMEMLOCK") ||
	    strstr(secret_why(ENOMEM), "LimitMEMLOCK"))
		_exit(4);
}

static void test_refused_without_locked_memory(void **unused)
{
	assert_int_equal(child_status(nothing_can_be_locked, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_are_locked_and_not_copied),
		cmocka_unit_test(test_neighbours_and_children_cannot_read),
		cmocka_unit_test(test_harden),
		cmocka_unit_test(test_libcrypto_lives_in_locked_pages),
		cmocka_unit_test(test_refused_without_locked_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
