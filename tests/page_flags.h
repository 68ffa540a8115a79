/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel knows of the pages that memory lies in. Include it after cmocka.h. */
#ifndef CASEMATE_TESTS_PAGE_FLAGS_H
#define CASEMATE_TESTS_PAGE_FLAGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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

/* The VmFlags of the mapping that this address is in, or "" when there is none. */
static inline void page_flags(const void *address, char flags[512])
{
	char line[512];
	bool inside = false;
	FILE *maps = fopen("/proc/self/smaps", "r");
	assert_non_null(maps);
	flags[0] = 0;
	while (fgets(line, sizeof line, maps)) {
		unsigned long begin, end;
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			inside = begin <= (uintptr_t)address && (uintptr_t)address < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, 512, "%s", line + 8);
	}
	fclose(maps);
}

static inline bool page_has(const void *address, const char *flag)
{
	char flags[512];
	page_flags(address, flags);
	return strstr(flags, flag);
}
#define PAGE_LOCKED	  " lo"
#define PAGE_NOT_DUMPED	  " dd"
#define PAGE_NOT_IN_CHILD " dc"

#endif
