/*
 * A driver in user space for the educational device, through the kernel's vfio-pci behind an IOMMU: it maps a page for DMA at a new
 * address in each round, has the device move it both ways and takes an MSI for each transfer, then takes the page away again. At the end
 * the device is made to write where it must not, and moves nothing.
 *
 *   edu_vfio FUNCTION ROUNDS    FUNCTION as 0000:00:02.0, bound to vfio-pci
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "edu.h"

#define PAGE 4096
#define WAIT_MS 30000
/* The device drives 28 address bits. */
#define IOVA_FIRST UINT64_C(0x100000)
#define IOVA_END UINT64_C(0x10000000)

static int container, device;

/* Documentation/driver-api/vfio.rst: a group is usable once all of its functions are bound to vfio. */
static void open_device(const char *function)
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

static struct vfio_region_info region(uint32_t index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		fail("no region %u: %s", index, strerror(errno));
	return info;
}

static volatile uint8_t *map_bar(void)
{
	struct vfio_region_info info = region(VFIO_PCI_BAR0_REGION_INDEX);
	void *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info.offset);

	if (info.size != BAR0_SIZE)
		fail("BAR 0 has 0x%" PRIx64 " bytes", (uint64_t)info.size);
	if (bar == MAP_FAILED)
		fail("cannot map BAR 0: %s", strerror(errno));
	return bar;
}

static void enable(void)
{
	off_t at = (off_t)region(VFIO_PCI_CONFIG_REGION_INDEX).offset + COMMAND;
	uint16_t command = COMMAND_MEMORY | COMMAND_BUS_MASTER;

	if (pwrite(device, &command, sizeof(command), at) != sizeof(command))
		fail("cannot write the command register: %s", strerror(errno));
}

/* Gives what is signalled for the one message. */
static int enable_msi(void)
{
	struct {
		struct vfio_irq_set set;
		int fd;
	} request = {
		.set = {
			.argsz = sizeof(request),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSI_IRQ_INDEX,
			.count = 1,
		},
		.fd = eventfd(0, EFD_NONBLOCK),
	};

	if (request.fd < 0 || ioctl(device, VFIO_DEVICE_SET_IRQS, &request))
		fail("no MSI: %s", strerror(errno));
	return request.fd;
}

static volatile uint8_t *page(void)
{
	void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("no page: %s", strerror(errno));
	memset(memory, 0xaa, PAGE);
	return memory;
}

static void dma_map(volatile uint8_t *memory, uint64_t iova, uint32_t access)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = access,
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = PAGE,
	};

	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		fail("cannot map 0x%" PRIx64 ": %s", iova, strerror(errno));
}

static void dma_unmap(uint64_t iova)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = iova, .size = PAGE };

	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) || unmap.size != PAGE)
		fail("cannot unmap 0x%" PRIx64 ": %s", iova, strerror(errno));
}

/* Runs the transfer and waits for its interrupt, of which there must be exactly one. */
static void transfer(volatile uint8_t *bar, int msi, uint64_t from, uint64_t to, uint32_t direction)
{
	struct pollfd ready = { .fd = msi, .events = POLLIN };
	uint64_t count;
	uint32_t causes;

	start_dma(bar, from, to, direction | DMA_INTERRUPT);
	if (poll(&ready, 1, WAIT_MS) != 1)
		fail("no interrupt came");
	if (read(msi, &count, sizeof(count)) != sizeof(count) || count != 1)
		fail("%" PRIu64 " interrupts for a transfer", count);
	causes = read32(bar, REG_CAUSES);
	if (causes != CAUSE_DMA)
		fail("an interrupt for the causes 0x%x", causes);
	write32(bar, REG_ACKNOWLEDGE, causes);
}

/* The lines of /proc/interrupts for the device. */
static void show_interrupts(const char *function)
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

/* The device's buffer holds other bytes than this page, which it may only read, and then not even that. */
static void check_refusals(volatile uint8_t *bar, int msi, volatile uint8_t *memory)
{
	memset((void *)memory, 0, PAGE);
	dma_map(memory, IOVA_FIRST, VFIO_DMA_MAP_FLAG_READ);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST, DMA_TO_MEMORY);
	dma_unmap(IOVA_FIRST);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST, DMA_TO_MEMORY);
	if (memory[0] || memory[1])
		fail("the device moved something to where it must not write");
}

int main(int argc, char **argv)
{
	volatile uint8_t *bar, *source, *destination;
	uint64_t from, to;
	uint32_t round, rounds;
	int msi;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		fail("usage: edu_vfio FUNCTION ROUNDS");
	rounds = (uint32_t)strtoul(argv[2], NULL, 0);
	open_device(argv[1]);
	bar = map_bar();
	enable();
	check_identification(bar);
	msi = enable_msi();
	source = page();
	destination = page();
	for (round = 0; round < rounds; round++) {
		from = IOVA_FIRST + (uint64_t)round * 2 * PAGE;
		to = from + PAGE;
		if (to + PAGE > IOVA_END)
			fail("the device cannot reach the addresses of %u rounds", rounds);
		dma_map(source, from, VFIO_DMA_MAP_FLAG_READ);
		dma_map(destination, to, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
		fill(source, round);
		transfer(bar, msi, from, DEVICE_BUFFER, 0);
		transfer(bar, msi, DEVICE_BUFFER, to, DMA_TO_MEMORY);
		/* The interrupt has come: so has the data. */
		check_filled(destination, round);
		dma_unmap(from);
		dma_unmap(to);
	}
	check_refusals(bar, msi, source);
	show_interrupts(argv[1]);
	printf("RESULT dma_rounds %u\n", rounds);
	printf("PASS\n");
	return 0;
}
