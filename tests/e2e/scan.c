/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for secrets in files, core images and the memory of a process.
 *
 *   scan NEEDLES files FILE...       every byte of each
 *   scan NEEDLES core CORE SMAPS     places are told as addresses; SMAPS: of the process, then
 *   scan NEEDLES memory PID          everything that the process can read of its own
 *
 * NEEDLES has a line "NAME HEX ..." for each secret of 16 bytes or more. Any 16 bytes of it, cut
 * from its beginning and at its end, are a hit: as they are (raw), the last byte first (reversed:
 * how a big number lies in memory), in hex and in base64 at each of the three alignments.
 * Prints "NAME FORM PLACE FLAGS PATH" for each hit, a few per secret and place, and the bytes
 * looked at on stderr. Exit 0 when all could be read, whatever was found. */
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PIECE_BYTES = 16,
	SECRET_BYTES_MAX = 128,
	PATTERN_BYTES_MAX = 40,
	PATTERNS_MAX = 32768,
	BUCKET_BITS = 20,
	HITS_TOLD_MAX = 64, /* of one secret in one form in one place */
	MAPPINGS_MAX = 4096,
	READ_BYTES = 4 << 20,
};

struct pattern {
	char name[64];
	const char *form;
	uint8_t bytes[PATTERN_BYTES_MAX];
	unsigned length;
	int next;      /* of the same bucket, or -1 */
	unsigned told; /* in this place */
};
static struct pattern pattern[PATTERNS_MAX];
static int pattern_count;
static int bucket[1 << BUCKET_BITS]; /* by the first 4 bytes; number of a pattern + 1, or 0 */
static uint64_t scanned;

struct mapping {
	uint64_t begin, end;
	char mode[5], flags[16], path[256];
};
static struct mapping mapping[MAPPINGS_MAX];
static unsigned mapping_count;

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("scan: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

/* ---- what is looked for ---- */

static unsigned bucket_of(const uint8_t *bytes)
{
	uint32_t word;
	memcpy(&word, bytes, sizeof word);
	return word * 2654435761u >> (32 - BUCKET_BITS);
}

static void pattern_add(const char *name, const char *form, const void *bytes, size_t length)
{
	if (pattern_count == PATTERNS_MAX || length > PATTERN_BYTES_MAX || length < PIECE_BYTES)
		give_up("too many needles, or one of a strange length");
	struct pattern *new = &pattern[pattern_count];
	unsigned at = bucket_of(bytes);
	snprintf(new->name, sizeof new->name, "%s", name);
	new->form = form;
	new->length = (unsigned)length;
	memcpy(new->bytes, bytes, length);
	new->next = bucket[at] - 1;
	bucket[at] = ++pattern_count;
}

static void hex_add(const char *name, const uint8_t *piece, const char *format)
{
	char text[2 * PIECE_BYTES + 1];
	for (unsigned i = 0; i < PIECE_BYTES; i++)
		snprintf(text + 2 * i, 3, format, piece[i]);
	pattern_add(name, "hex", text, 2 * PIECE_BYTES);
}

/* With so many bytes before it in its group of three; the digits that depend on it alone. */
static void base64_add(const char *name, const uint8_t *piece, unsigned before)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char text[PATTERN_BYTES_MAX];
	unsigned count = 0, first = (before * 8 + 5) / 6, last = (before + PIECE_BYTES) * 8 / 6;
	for (unsigned digit = first; digit < last; digit++) {
		unsigned value = 0;
		for (unsigned bit = digit * 6; bit < digit * 6 + 6; bit++)
			value = value << 1 | (piece[bit / 8 - before] >> (7 - bit % 8) & 1);
		text[count++] = digits[value];
	}
	pattern_add(name, "base64", text, count);
}

static void piece_add(const char *name, const uint8_t *piece)
{
	uint8_t reversed[PIECE_BYTES];
	for (unsigned i = 0; i < PIECE_BYTES; i++)
		reversed[i] = piece[PIECE_BYTES - 1 - i];
	pattern_add(name, "raw", piece, PIECE_BYTES);
	pattern_add(name, "reversed", reversed, PIECE_BYTES);
	hex_add(name, piece, "%02x");
	hex_add(name, piece, "%02X");
	for (unsigned before = 0; before < 3; before++)
		base64_add(name, piece, before);
}

static void needle_add(const char *name, const char *hex)
{
	uint8_t secret[SECRET_BYTES_MAX];
	size_t length = strlen(hex) / 2, at = 0;
	if (length > sizeof secret || length < PIECE_BYTES || strlen(hex) % 2)
		give_up("%s: %zu bytes of hex", name, length);
	for (size_t i = 0; i < length; i++)
		if (sscanf(hex + 2 * i, "%2hhx", &secret[i]) != 1)
			give_up("%s: not hex", name);
	for (; at + PIECE_BYTES <= length; at += PIECE_BYTES)
		piece_add(name, secret + at);
	if (at < length)
		piece_add(name, secret + length - PIECE_BYTES);
}

static void needles_read(const char *path)
{
	char line[1024], name[64], hex[2 * SECRET_BYTES_MAX + 2];
	FILE *file = fopen(path, "r");
	if (!file)
		give_up("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, file)) {
		if (sscanf(line, "%63s %257s", name, hex) != 2)
			give_up("%s: \"%s\" is no needle", path, line);
		needle_add(name, hex);
	}
	fclose(file);
	if (!pattern_count)
		give_up("%s: nothing to look for", path);
}

/* ---- looking ---- */

/* Tells where a byte of the run lies. */
typedef void place_teller(const void *context, uint64_t at, char out[512]);

struct run {
	const uint8_t *bytes;
	size_t length, begins_below; /* hits from there on are of the next run */
	uint64_t at;
	place_teller *tell;
	const void *context;
};

static void try_patterns(const struct run *run, size_t at)
{
	char place[512];
	for (int i = bucket[bucket_of(run->bytes + at)] - 1; i >= 0; i = pattern[i].next) {
		struct pattern *tried = &pattern[i];
		if (tried->length > run->length - at ||
		    memcmp(run->bytes + at, tried->bytes, tried->length) != 0 ||
		    tried->told++ >= HITS_TOLD_MAX)
			continue;
		run->tell(run->context, run->at + at, place);
		printf("%s %s %s\n", tried->name, tried->form, place);
	}
}

static bool all_zero(const uint8_t *bytes)
{
	uint64_t word[8], any = 0;
	memcpy(word, bytes, sizeof word);
	for (unsigned i = 0; i < 8; i++)
		any |= word[i];
	return !any;
}

static void run_scan(const struct run *run)
{
	for (size_t at = 0; at + PIECE_BYTES <= run->length && at < run->begins_below; at++) {
		/* A needle may begin with zeros, but it has other bytes within its 16. */
		while (at + 64 <= run->length && all_zero(run->bytes + at))
			at += 64 - PIECE_BYTES;
		if (at >= run->begins_below)
			break;
		if (bucket[bucket_of(run->bytes + at)])
			try_patterns(run, at);
	}
	scanned += run->begins_below < run->length ? run->begins_below : run->length;
}

static void new_place(void)
{
	for (int i = 0; i < pattern_count; i++)
		pattern[i].told = 0;
}

/* ---- files ---- */

static void tell_file(const void *path, uint64_t at, char out[512])
{
	snprintf(out, 512, "0x%llx file %s", (unsigned long long)at, (const char *)path);
}

static const uint8_t *file_map(const char *path, size_t *length)
{
	struct stat status;
	int descriptor = open(path, O_RDONLY | O_CLOEXEC);
	if (descriptor < 0 || fstat(descriptor, &status))
		give_up("%s: %s", path, strerror(errno));
	*length = (size_t)status.st_size;
	void *bytes = *length ? mmap(NULL, *length, PROT_READ, MAP_PRIVATE, descriptor, 0) : NULL;
	if (bytes == MAP_FAILED)
		give_up("%s: %s", path, strerror(errno));
	close(descriptor);
	return bytes;
}

static void file_scan(const char *path)
{
	struct run run = {.tell = tell_file, .context = path};
	run.bytes = file_map(path, &run.length);
	run.begins_below = run.length;
	new_place();
	if (run.length)
		run_scan(&run);
	munmap((void *)run.bytes, run.length);
}

/* ---- the mappings of a process ---- */

/* Of VmFlags those that matter here: lo locked, dd not dumped, ht hugetlb. */
static void flags_take(struct mapping *of, char *line)
{
	static const char wanted[][3] = {"lo", "dd", "ht"};
	char *rest = NULL;
	of->flags[0] = 0;
	for (char *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
		for (unsigned i = 0; i < 3; i++)
			if (!strcmp(word, wanted[i]))
				snprintf(of->flags + strlen(of->flags),
					 sizeof of->flags - strlen(of->flags), ",%s", word);
}

static void mappings_read(const char *path)
{
	char line[1024];
	unsigned long long begin, end;
	FILE *file = fopen(path, "r");
	if (!file)
		give_up("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, file)) {
		struct mapping *last = &mapping[mapping_count];
		if (isxdigit((unsigned char)line[0]) && !isupper((unsigned char)line[0]) &&
		    sscanf(line, "%llx-%llx %4s %*s %*s %*s %255[^\n]", &begin, &end, last->mode,
			   last->path) >= 3) {
			if (mapping_count + 1 == MAPPINGS_MAX)
				give_up("too many mappings");
			last->begin = begin;
			last->end = end;
			mapping_count++;
		} else if (mapping_count && !strncmp(line, "VmFlags:", 8)) {
			flags_take(&mapping[mapping_count - 1], line);
		}
	}
	fclose(file);
	if (!mapping_count)
		give_up("%s: no mappings", path);
}

static void tell_address(const void *context, uint64_t at, char out[512])
{
	(void)context;
	for (unsigned i = 0; i < mapping_count; i++)
		if (mapping[i].begin <= at && at < mapping[i].end) {
			snprintf(out, 512, "0x%llx %s%s %s", (unsigned long long)at,
				 mapping[i].mode, mapping[i].flags,
				 mapping[i].path[0] ? mapping[i].path : "-");
			return;
		}
	snprintf(out, 512, "0x%llx unmapped -", (unsigned long long)at);
}

static void mapping_scan(int memory, const struct mapping *of)
{
	static uint8_t bytes[READ_BYTES];
	struct run run = {.bytes = bytes, .tell = tell_address};
	for (run.at = of->begin; run.at < of->end; run.at += READ_BYTES - PATTERN_BYTES_MAX) {
		uint64_t rest = of->end - run.at;
		size_t wanted = rest < READ_BYTES ? (size_t)rest : READ_BYTES;
		ssize_t got = pread(memory, bytes, wanted, (off_t)run.at);
		if (got <= 0)
			return; /* a device's, or of the kernel */
		run.length = (size_t)got;
		run.begins_below =
			run.length < READ_BYTES ? run.length : READ_BYTES - PATTERN_BYTES_MAX;
		run_scan(&run);
		if (run.length < READ_BYTES)
			return;
	}
}

static void memory_scan(const char *pid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/smaps", pid);
	mappings_read(path);
	snprintf(path, sizeof path, "/proc/%s/mem", pid);
	int memory = open(path, O_RDONLY | O_CLOEXEC);
	if (memory < 0)
		give_up("%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < mapping_count; i++)
		if (mapping[i].mode[0] == 'r')
			mapping_scan(memory, &mapping[i]);
	close(memory);
}

/* ---- core images ---- */

struct core {
	const uint8_t *bytes;
	const Elf64_Phdr *segment;
	unsigned segment_count;
};

static void tell_in_core(const void *context, uint64_t at, char out[512])
{
	const struct core *core = context;
	for (unsigned i = 0; i < core->segment_count; i++) {
		const Elf64_Phdr *segment = &core->segment[i];
		if (segment->p_type == PT_LOAD && segment->p_offset <= at &&
		    at < segment->p_offset + segment->p_filesz) {
			tell_address(NULL, segment->p_vaddr + at - segment->p_offset, out);
			return;
		}
	}
	snprintf(out, 512, "0x%llx note -", (unsigned long long)at); /* registers */
}

static void core_scan(const char *path, const char *smaps)
{
	struct core core;
	struct run run = {.tell = tell_in_core, .context = &core};
	run.bytes = core.bytes = file_map(path, &run.length);
	run.begins_below = run.length;
	Elf64_Ehdr head;
	if (run.length < sizeof head)
		give_up("%s is no core image", path);
	memcpy(&head, run.bytes, sizeof head);
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_type != ET_CORE ||
	    head.e_phoff + (uint64_t)head.e_phnum * sizeof *core.segment > run.length)
		give_up("%s is no core image", path);
	core.segment = (const Elf64_Phdr *)(const void *)(run.bytes + head.e_phoff);
	core.segment_count = head.e_phnum;
	mappings_read(smaps);
	run_scan(&run);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		give_up("see the top of its source");
	needles_read(argv[1]);
	if (!strcmp(argv[2], "files"))
		for (int i = 3; i < argc; i++)
			file_scan(argv[i]);
	else if (!strcmp(argv[2], "core") && argc == 5)
		core_scan(argv[3], argv[4]);
	else if (!strcmp(argv[2], "memory") && argc == 4)
		memory_scan(argv[3]);
	else
		give_up("see the top of its source");
	fprintf(stderr, "%llu MiB\n", (unsigned long long)scanned >> 20);
	return EXIT_SUCCESS;
}
