/*
 * Checks `order` through sysfs, without interrupts.
 *
 *   order_user FUNCTION fresh   FUNCTION as 0000:00:02.0: each register and byte of memory looked at is as a reset leaves it
 *   order_user FUNCTION use     each is changed, and read back
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "order.h"

static const uint64_t mark = UINT64_C(0x1122334455667788);

static void enable(const char *function)
{
	int fd = open_in(function, "enable", O_WRONLY);

	if (write(fd, "1", 1) != 1)
		fail("cannot enable the function: %s", strerror(errno));
	close(fd);
}

static volatile uint8_t *map(const char *function, const char *resource, size_t size)
{
	int fd = open_in(function, resource, O_RDWR | O_SYNC);
	void *bar = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (bar == MAP_FAILED)
		fail("cannot map %s: %s", resource, strerror(errno));
	close(fd);
	return bar;
}

static uint32_t in(int ports, off_t port, size_t width)
{
	uint32_t value = 0;

	if (pread(ports, &value, width, port) != (ssize_t)width)
		fail("cannot read port %ld: %s", (long)port, strerror(errno));
	return value;
}

static void out(int ports, off_t port, size_t width, uint32_t value)
{
	if (pwrite(ports, &value, width, port) != (ssize_t)width)
		fail("cannot write port %ld: %s", (long)port, strerror(errno));
}

static void fresh(volatile uint8_t *bar, int ports, volatile uint8_t *memory, volatile uint8_t *legacy)
{
	expect("scratch", read64(bar, REG_SCRATCH), 0);
	expect("events", read64(bar, REG_EVENTS), 0);
	expect("interrupt status", read32(bar, REG_INTERRUPT_STATUS), 0);
	expect("interrupt enable", read32(bar, REG_INTERRUPT_ENABLE), 0);
	expect("FIFO level", read32(bar, REG_FIFO_LEVEL), 0);
	expect("order, last", read64(bar, REG_ORDER_LAST), 0);
	expect("messenger, rounds", read64(bar, REG_MESSENGER_ROUNDS), 0);
	expect("memory's first bytes", read64(memory, 0), 0);
	expect("memory's last bytes", read64(memory, BAR2_SIZE - 8), 0);
	expect("legacy memory", read64(legacy, 0), 0);
	expect("ticket", in(ports, PORT_TICKET, 4), 1);
}

static void use(volatile uint8_t *bar, int ports, volatile uint8_t *memory, volatile uint8_t *legacy)
{
	uint32_t ticket = read32(bar, REG_TICKET);

	write64(bar, REG_SCRATCH, mark);
	write32(bar, REG_EVENT, 0);
	write32(bar, REG_INTERRUPT_ENABLE, 2);
	/* Not what is enabled, so that no interrupt comes. */
	write32(bar, REG_INTERRUPT_RAISE, 4);
	write64(bar, REG_ORDER_LAST, mark);
	write64(bar, REG_MESSENGER_ROUNDS, mark);
	write64(memory, 0, mark);
	write64(memory, BAR2_SIZE - 8, ~mark);
	write64(legacy, 0, mark);
	out(ports, PORT_FIFO, 4, 0x04030201);
	out(ports, PORT_FIFO, 2, 0x0605);

	expect("scratch", read64(bar, REG_SCRATCH), mark);
	expect("interrupt status", read32(bar, REG_INTERRUPT_STATUS), 4);
	expect("interrupt enable", read32(bar, REG_INTERRUPT_ENABLE), 2);
	expect("order, last", read64(bar, REG_ORDER_LAST), mark);
	expect("messenger, rounds", read64(bar, REG_MESSENGER_ROUNDS), mark);
	expect("memory's first bytes", read64(memory, 0), mark);
	expect("memory's last bytes", read64(memory, BAR2_SIZE - 8), ~mark);
	expect("legacy memory", read64(legacy, 0), mark);
	expect("FIFO level", read32(bar, REG_FIFO_LEVEL), 6);
	expect("FIFO", in(ports, PORT_FIFO, 1), 0x01);
	expect("FIFO", in(ports, PORT_FIFO, 4), 0x05040302);
	expect("ticket", in(ports, PORT_TICKET, 4), ticket + 1);
}

int main(int argc, char **argv)
{
	volatile uint8_t *bar, *memory, *legacy;
	int ports;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		fail("usage: order_user FUNCTION fresh|use");
	enable(argv[1]);
	bar = map(argv[1], "resource0", BAR0_SIZE);
	ports = open_in(argv[1], "resource1", O_RDWR);
	memory = map(argv[1], "resource2", BAR2_SIZE);
	legacy = map(argv[1], "resource5", BAR5_SIZE);
	await_identification(bar);
	if (!strcmp(argv[2], "fresh"))
		fresh(bar, ports, memory, legacy);
	else if (!strcmp(argv[2], "use"))
		use(bar, ports, memory, legacy);
	else
		fail("unknown command %s", argv[2]);
	printf("PASS %s\n", argv[2]);
	return 0;
}
