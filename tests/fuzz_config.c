/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a configuration file: refused with complaints, or read, shown and read back the
 * same. */
#include "config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct config *config, *again;
	struct config_source source = {"fuzz", (const char *)bytes, length};
	char *text = NULL;
	size_t text_bytes = 0;
	if (config_parse(&config, &source, CONFIG_ANY_NODE, NULL))
		return 0;
	FILE *out = open_memstream(&text, &text_bytes);
	must(out && !config_show(config, false, out), "a configuration can be shown");
	fclose(out);
	source = (struct config_source){"shown", text, text_bytes};
	must(!config_parse(&again, &source, CONFIG_ANY_NODE, stderr), "what is shown can be read");
	json_t *first = config_json(config), *second = config_json(again);
	must(json_equal(first, second), "and says the same");
	json_decref(first);
	json_decref(second);
	config_free(config);
	config_free(again);
	free(text);
	return 0;
}
