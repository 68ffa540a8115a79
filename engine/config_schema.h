/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of what may be configured: key, type, place in struct config, preset, bounds and
 * the sentence that explains it. Parser, presets, `config show` and the example come from it. */
#ifndef CASEMATE_CONFIG_SCHEMA_H
#define CASEMATE_CONFIG_SCHEMA_H

#include "config.h"

enum field_type {
	FIELD_MAP,     /* struct, by table */
	FIELD_COUNT,   /* unsigned integer of any width, without unit */
	FIELD_CPU,     /* uint16_t; "any" is CONFIG_CPU_ANY */
	FIELD_SIZE,    /* unsigned integer, bytes */
	FIELD_RATE,    /* uint64_t, bytes per second; "none" is 0 */
	FIELD_CHOICE,  /* uint8_t or bool: index into choices */
	FIELD_NAME,    /* const char *: of a site, group or volume */
	FIELD_TEXT,    /* const char * */
	FIELD_PATH,    /* const char *: absolute file name */
	FIELD_URI,     /* const char *: names a secret */
	FIELD_PIN,     /* const char *: fingerprint of a certificate */
	FIELD_SITE,    /* uint8_t: index of the site named */
	FIELD_IP,      /* uint32_t */
	FIELD_ADDRESS, /* struct config_address */
	FIELD_LISTEN,  /* struct config_listen */
};

/* Where a field has one value per site, its C member is an array by site index. */
enum field_sites {
	SITES_NO,     /* key: value */
	SITES_EACH,   /* key: {a: value, b: value}; either may be missing */
	SITES_COMMON, /* key: value, or as above */
	SITES_AS_KEYS /* a: value, b: value; both are needed */
};

/* A choice with later set is understood and refused: later names the way out. */
struct field_choice {
	const char *word, *later;
};

struct field_table;
struct field {
	const char *key;
	enum field_type type;
	enum field_sites sites;
	size_t offset, bytes; /* of one value, or the whole list, in the struct of the table */
	bool optional;	      /* may be missing without a preset */
	const char *preset;   /* as in the file */
	uint64_t least, most; /* for numbers */
	const struct field_choice *choice;
	const struct field_table *table; /* FIELD_MAP */
	unsigned list_max;		 /* > 0: a list of so many at most */
	size_t count_offset;		 /* of its unsigned count */
	bool list_optional;
	const char *sample; /* shown commented out in the example where there is no value */
	const char *help;
};
struct field_table {
	const struct field *field;
	unsigned count;
};

enum { SITE_UNKNOWN = 0xff };

extern const struct field_table config_schema;

/* The text as a value of the field's type, into *value. texts: strings go there. 0, or -EINVAL with
 * the reason. */
enum { FIELD_WHY_BYTES = 256 };
int field_parse(const struct field *, const char *text, struct config *, void *value,
		char why[FIELD_WHY_BYTES]);
/* gives: the value as JSON, or NULL when it is not set. */
json_t *field_json(const struct field *, const struct config *, const void *value);
/* gives: a copy that config_free frees; NULL without memory. */
const char *config_text_keep(struct config *, const char *text);
/* Index of the site of this name, or SITE_UNKNOWN. */
uint8_t config_site_index(const struct config *, const char *name);

/* What no single key can tell: how values fit together. Values of 0 or NULL were refused already
 * and are passed over. */
struct report;
struct tree;
void config_check(struct config *, const struct tree *root, struct report *);

#endif
