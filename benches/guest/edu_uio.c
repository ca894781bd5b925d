/*
 * Has the educational device (1234:11e8) do DMA to this process's memory and take its INTx interrupts, through the
 * kernel's uio_pci_generic. Each finding is a line "RESULT name value"; the last line is PASS, or FAIL with the reason.
 *
 *   edu_uio FUNCTION ROUNDS    FUNCTION as 0000:00:02.0, bound to uio_pci_generic as /dev/uio0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define BAR0_SIZE 0x100000
#define REG_CAUSES 0x24
#define REG_ACKNOWLEDGE 0x64
#define REG_DMA_SOURCE 0x80
#define REG_DMA_DESTINATION 0x88
#define REG_DMA_COUNT 0x90
#define REG_DMA_COMMAND 0x98
#define DMA_START 1
#define DMA_TO_MEMORY 2
#define DMA_INTERRUPT 4
#define CAUSE_DMA 0x100u
#define DEVICE_BUFFER 0x40000
#define COMMAND 4
#define BUS_MASTER 4u
#define INTX_DISABLE (1u << 10)
#define WAIT_MS 30000

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list arguments;

	printf("FAIL ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(1);
}

static int open_in(const char *function, const char *file)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", function, file);
	fd = open(path, O_RDWR);
	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static volatile uint8_t *map_bar(const char *function)
{
	int fd = open_in(function, "resource0");
	void *bar = mmap(NULL, BAR0_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (bar == MAP_FAILED)
		fail("cannot map BAR 0: %s", strerror(errno));
	return bar;
}

/* The kernel turns INTx off in the command register when an interrupt came (Documentation/driver-api/uio-howto.rst). */
static void enable_interrupt(int config)
{
	uint16_t command;

	if (pread(config, &command, sizeof(command), COMMAND) != sizeof(command))
		fail("cannot read the command register: %s", strerror(errno));
	command = (uint16_t)((command | BUS_MASTER) & ~INTX_DISABLE);
	if (pwrite(config, &command, sizeof(command), COMMAND) != sizeof(command))
		fail("cannot write the command register: %s", strerror(errno));
}

/* A page that stays where it is. */
static volatile uint8_t *page(void)
{
	void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);

	if (memory == MAP_FAILED)
		fail("no page: %s", strerror(errno));
	memset(memory, 0xaa, PAGE);
	return memory;
}

/* Documentation/admin-guide/mm/pagemap.rst: bits 0-54 are the frame's number, bit 63 says that it is present. */
static uint64_t physical(volatile uint8_t *memory)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)memory / PAGE * sizeof(entry))) != sizeof(entry))
		fail("cannot read the page map: %s", strerror(errno));
	close(fd);
	if (!(entry >> 63))
		fail("the page is not present");
	return (entry & ((UINT64_C(1) << 55) - 1)) * PAGE;
}

static void start_dma(volatile uint8_t *bar, uint64_t from, uint64_t to, uint32_t command)
{
	*(volatile uint64_t *)(bar + REG_DMA_SOURCE) = from;
	*(volatile uint64_t *)(bar + REG_DMA_DESTINATION) = to;
	*(volatile uint64_t *)(bar + REG_DMA_COUNT) = PAGE;
	*(volatile uint64_t *)(bar + REG_DMA_COMMAND) = command;
}

/* Lets the next interrupt through, runs the transfer and waits for that interrupt. */
static void transfer(int uio, int config, volatile uint8_t *bar, uint64_t from, uint64_t to, uint32_t direction)
{
	struct pollfd ready = { .fd = uio, .events = POLLIN };
	uint32_t count, causes;

	enable_interrupt(config);
	start_dma(bar, from, to, DMA_START | direction | DMA_INTERRUPT);
	if (poll(&ready, 1, WAIT_MS) != 1)
		fail("no interrupt came");
	if (read(uio, &count, sizeof(count)) != sizeof(count))
		fail("cannot read the interrupt's count: %s", strerror(errno));
	causes = *(volatile uint32_t *)(bar + REG_CAUSES);
	if (causes != CAUSE_DMA)
		fail("an interrupt for the causes 0x%x", causes);
	*(volatile uint32_t *)(bar + REG_ACKNOWLEDGE) = causes;
}

int main(int argc, char **argv)
{
	volatile uint8_t *bar, *source, *destination;
	uint32_t round, rounds;
	int uio, config, i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		fail("usage: edu_uio FUNCTION ROUNDS");
	rounds = (uint32_t)strtoul(argv[2], NULL, 0);
	bar = map_bar(argv[1]);
	config = open_in(argv[1], "config");
	uio = open("/dev/uio0", O_RDWR);
	if (uio < 0)
		fail("cannot open /dev/uio0: %s", strerror(errno));
	source = page();
	destination = page();
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < PAGE; i++)
			source[i] = (uint8_t)(i * 7 + (int)round);
		transfer(uio, config, bar, physical(source), DEVICE_BUFFER, 0);
		transfer(uio, config, bar, DEVICE_BUFFER, physical(destination), DMA_TO_MEMORY);
		/* The interrupt has come: so has the data. */
		for (i = 0; i < PAGE; i++)
			if (destination[i] != source[i])
				fail("round %u: byte %d is 0x%02x, not 0x%02x", round, i, destination[i], source[i]);
	}
	printf("RESULT dma_rounds %u\n", rounds);
	printf("PASS\n");
	return 0;
}
