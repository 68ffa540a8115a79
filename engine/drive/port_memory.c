/* SPDX-License-Identifier: Apache-2.0 */
/* Packet memory and its addresses as devices see them. */
#include "port_memory.h"

#include "eal.h"

#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

#include <sys/mman.h>

void *packet_memory_new(uint64_t bytes)
{
	void *memory = eal_has_hugepages() ? rte_zmalloc("packets", bytes, PAGE_BYTES) : NULL;
	if (memory)
		return memory;
	/* Without hugepages EAL's own memory is a fixed amount, which the mbufs need; and only
	 * virtual devices work, which copy from any address. */
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void packet_memory_free(void *memory, uint64_t bytes)
{
	if (!memory)
		return;
	if (eal_has_hugepages() && rte_mem_virt2memseg_list(memory))
		rte_free(memory);
	else
		munmap(memory, bytes);
}

uint64_t packet_memory_device_address(const void *bytes, uint32_t length)
{
	rte_iova_t first = rte_mem_virt2iova(bytes);
	if (rte_eal_iova_mode() == RTE_IOVA_VA || first == RTE_BAD_IOVA)
		return first == RTE_BAD_IOVA ? UINT64_MAX : first;
	/* Physical pages behind neighbouring addresses need not be neighbours. */
	rte_iova_t last = rte_mem_virt2iova((const uint8_t *)bytes + length - 1);
	return last - first == length - 1 ? first : UINT64_MAX;
}
