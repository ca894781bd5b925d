/*
 * A driver in user space for a PCI function, through the kernel's vfio-pci behind an IOMMU (Documentation/driver-api/vfio.rst).
 */
#ifndef VFIO_FUNCTION_H
#define VFIO_FUNCTION_H

#include <inttypes.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "function.h"

#define PAGE 4096
#define WAIT_MS 30000
#define VECTORS_MAX 64

static int container, device;

/* A group is usable once all of its functions are bound to vfio. */
static inline void open_device(const char *function)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char link[256], target[256] = "", path[300];
	int group;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", function);
	if (readlink(link, target, sizeof(target) - 1) < 0)
		fail("%s is behind no IOMMU: %s", function, strerror(errno));
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(target, '/') + 1);
	group = open(path, O_RDWR);
	container = open("/dev/vfio/vfio", O_RDWR);
	if (group < 0 || container < 0)
		fail("cannot open %s or its container: %s", path, strerror(errno));
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		fail("the group is not usable");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		fail("no IOMMU: %s", strerror(errno));
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, function);
	if (device < 0)
		fail("the group has no %s: %s", function, strerror(errno));
}

static inline struct vfio_region_info region(uint32_t index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		fail("no region %u: %s", index, strerror(errno));
	return info;
}

/* The whole of a BAR, which must have this size. */
static inline volatile uint8_t *map_bar(uint32_t index, uint64_t size)
{
	struct vfio_region_info info = region(index);
	void *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info.offset);

	if (info.size != size)
		fail("BAR %u has 0x%" PRIx64 " bytes", index, (uint64_t)info.size);
	if (bar == MAP_FAILED)
		fail("cannot map BAR %u: %s", index, strerror(errno));
	return bar;
}

static inline void enable(void)
{
	off_t at = (off_t)region(VFIO_PCI_CONFIG_REGION_INDEX).offset + COMMAND;
	uint16_t command = COMMAND_MEMORY | COMMAND_BUS_MASTER;

	if (pwrite(device, &command, sizeof(command), at) != sizeof(command))
		fail("cannot write the command register: %s", strerror(errno));
}

/* Gives what is signalled for each vector of an interrupt index, from vector 0 on. */
static inline void enable_vectors(uint32_t index, int *events, uint32_t count)
{
	struct {
		struct vfio_irq_set set;
		int events[VECTORS_MAX];
	} request = {
		.set = {
			.argsz = (uint32_t)(sizeof(request.set) + count * sizeof(int)),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = index,
			.count = count,
		},
	};
	uint32_t vector;

	for (vector = 0; vector < count; vector++) {
		events[vector] = request.events[vector] = eventfd(0, EFD_NONBLOCK);
		if (events[vector] < 0)
			fail("no eventfd: %s", strerror(errno));
	}
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, &request))
		fail("no interrupts: %s", strerror(errno));
}

/* Waits for an interrupt, of which there must be exactly one. */
static inline void take_interrupt(int event)
{
	struct pollfd ready = { .fd = event, .events = POLLIN };
	uint64_t count;

	if (poll(&ready, 1, WAIT_MS) != 1)
		fail("no interrupt came");
	if (read(event, &count, sizeof(count)) != sizeof(count) || count != 1)
		fail("%" PRIu64 " interrupts, not one", count);
}

static inline volatile uint8_t *pages(uint32_t count)
{
	void *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("no memory: %s", strerror(errno));
	memset(memory, 0xaa, count * PAGE);
	return memory;
}

static inline void dma_map(volatile uint8_t *memory, uint64_t iova, uint32_t count, uint32_t access)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = access,
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = (uint64_t)count * PAGE,
	};

	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		fail("cannot map 0x%" PRIx64 ": %s", iova, strerror(errno));
}

static inline void dma_unmap(uint64_t iova, uint32_t count)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = iova, .size = (uint64_t)count * PAGE };

	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) || unmap.size != (uint64_t)count * PAGE)
		fail("cannot unmap 0x%" PRIx64 ": %s", iova, strerror(errno));
}

/* The lines of /proc/interrupts for the device. */
static inline void show_interrupts(const char *function)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[512];

	if (!file)
		fail("cannot open /proc/interrupts: %s", strerror(errno));
	while (fgets(line, sizeof(line), file))
		if (strstr(line, function))
			printf("RESULT interrupts %s", line);
	fclose(file);
}

#endif
