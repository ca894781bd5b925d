/*
 * Has the educational device (1234:11e8) do DMA to this process's memory and take its INTx interrupts, through the
 * kernel's uio_pci_generic.
 *
 *   edu_uio FUNCTION ROUNDS    FUNCTION as 0000:00:02.0, bound to uio_pci_generic as /dev/uio0; a line WORKING after the first round
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "edu.h"

#define PAGE 4096
#define WAIT_MS 30000

static volatile uint8_t *map_bar(const char *function)
{
	int fd = open_in(function, "resource0", O_RDWR);
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
	command = (uint16_t)((command | COMMAND_BUS_MASTER) & ~COMMAND_INTX_DISABLE);
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

/* Lets the next interrupt through, runs the transfer and waits for that interrupt. */
static void transfer(int uio, int config, volatile uint8_t *bar, uint64_t from, uint64_t to, uint32_t direction)
{
	struct pollfd ready = { .fd = uio, .events = POLLIN };
	uint32_t count, causes;

	enable_interrupt(config);
	start_dma(bar, from, to, direction | DMA_INTERRUPT);
	if (poll(&ready, 1, WAIT_MS) != 1)
		fail("no interrupt came");
	if (read(uio, &count, sizeof(count)) != sizeof(count))
		fail("cannot read the interrupt's count: %s", strerror(errno));
	causes = read32(bar, REG_CAUSES);
	if (causes != CAUSE_DMA)
		fail("an interrupt for the causes 0x%x", causes);
	write32(bar, REG_ACKNOWLEDGE, causes);
}

int main(int argc, char **argv)
{
	volatile uint8_t *bar, *source, *destination;
	uint32_t round, rounds;
	int uio, config;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		fail("usage: edu_uio FUNCTION ROUNDS");
	rounds = (uint32_t)strtoul(argv[2], NULL, 0);
	bar = map_bar(argv[1]);
	check_identification(bar);
	config = open_in(argv[1], "config", O_RDWR);
	uio = open("/dev/uio0", O_RDWR);
	if (uio < 0)
		fail("cannot open /dev/uio0: %s", strerror(errno));
	source = page();
	destination = page();
	for (round = 0; round < rounds; round++) {
		fill(source, round);
		transfer(uio, config, bar, physical(source), DEVICE_BUFFER, 0);
		transfer(uio, config, bar, DEVICE_BUFFER, physical(destination), DMA_TO_MEMORY);
		/* The interrupt has come: so has the data. */
		check_filled(destination, round);
		if (round == 0)
			printf("WORKING\n");
	}
	printf("RESULT dma_rounds %u\n", rounds);
	printf("PASS\n");
	return 0;
}
