/* SPDX-License-Identifier: Apache-2.0 */
/* Secret pages as the kernel sees them, and a hardened process. */
#include "session/secret.h"

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

/* AddressSanitizer turns mlock into nothing, so there is no lock to see. */
#if defined(__SANITIZE_ADDRESS__)
enum { LOCKS_ARE_REAL = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { LOCKS_ARE_REAL = 0 };
#else
enum { LOCKS_ARE_REAL = 1 };
#endif
#else
enum { LOCKS_ARE_REAL = 1 };
#endif

/* The VmFlags of the mapping that begins at this address, or "" when there is none. */
static void flags_of(const void *address, char flags[512])
{
	char line[512];
	bool inside = false;
	FILE *maps = fopen("/proc/self/smaps", "r");
	assert_non_null(maps);
	flags[0] = 0;
	while (fgets(line, sizeof line, maps)) {
		unsigned long begin, end;
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			inside = begin == (uintptr_t)address;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, 512, "%s", line + 8);
	}
	fclose(maps);
}

static void test_pages_are_locked_and_not_copied(void **unused)
{
	static const size_t sizes[] = {1, 32, 4096, 4097, 65536};
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		char flags[512];
		uint8_t *secret = secret_take(sizes[i]);
		assert_non_null(secret);
		assert_true(bytes_are_zero(secret, sizes[i]));
		memset(secret, 0xaa, sizes[i]);
		flags_of(secret, flags);
		if (LOCKS_ARE_REAL)
			assert_non_null(strstr(flags, " lo"));
		assert_non_null(strstr(flags, " dd")); /* not in a core dump */
		assert_non_null(strstr(flags, " dc")); /* not in a child */
		secret_give(secret, sizes[i]);
		flags_of(secret, flags);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_are_locked_and_not_copied),
		cmocka_unit_test(test_neighbours_and_children_cannot_read),
		cmocka_unit_test(test_harden),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
