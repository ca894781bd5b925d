/*
 * A driver in user space for `order`, through the kernel's vfio-pci behind an IOMMU: its messenger writes a block of memory and fires an
 * MSI-X vector in each round, over a ring of as many slots as vectors; then the same again after a reset of the function. Before that, its
 * expansion ROM is read.
 *
 *   order_vfio FUNCTION ROUNDS    FUNCTION as 0000:00:02.0, bound to vfio-pci; ROUNDS before and after the reset
 */
#define _GNU_SOURCE
#include "order.h"
#include "vfio_function.h"

#define VECTORS 8u
/* A page each. */
#define SLOTS VECTORS
#define RING UINT64_C(0x100000)
#define ROM_BYTES 2048

static void check_rom(void)
{
	struct vfio_region_info info = region(VFIO_PCI_ROM_REGION_INDEX);
	uint8_t rom[ROM_BYTES], sum = 0;
	size_t i;

	if (info.size < ROM_BYTES || pread(device, rom, ROM_BYTES, (off_t)info.offset) != ROM_BYTES)
		fail("cannot read the ROM of %llu bytes: %s", (unsigned long long)info.size, strerror(errno));
	for (i = 0; i < ROM_BYTES; i++)
		sum = (uint8_t)(sum + rom[i]);
	if (rom[0] != 0x55 || rom[1] != 0xaa || memcmp(rom + 0x1c, "PCIR\x34\x12\x3e\x0d", 8) || sum)
		fail("the ROM begins with 0x%02x%02x, its sum is 0x%02x", rom[0], rom[1], sum);
	printf("RESULT rom %d\n", ROM_BYTES);
}

static void start_messenger(volatile uint8_t *bar, uint32_t rounds)
{
	write64(bar, REG_MESSENGER_BASE, RING);
	write32(bar, REG_MESSENGER_STRIDE, PAGE);
	write32(bar, REG_MESSENGER_SLOTS, SLOTS);
	write32(bar, REG_MESSENGER_BLOCK_BYTES, PAGE);
	write32(bar, REG_MESSENGER_VECTORS, VECTORS);
	write64(bar, REG_MESSENGER_ROUNDS, rounds);
	write32(bar, REG_MESSENGER_COMMAND, MESSENGER_START);
}

static void check_block(volatile uint8_t *block, uint32_t round)
{
	uint32_t k;

	for (k = 0; k < PAGE / 8; k++)
		if (read64(block, k * 8) != round + ((uint64_t)k << 48))
			fail("round %u: word %u is 0x%" PRIx64, round, k, read64(block, k * 8));
}

/* A vector fires again only when its round was taken. The function has been reset just before. */
static void take_rounds(volatile uint8_t *bar, int *events, volatile uint8_t *ring, uint32_t rounds)
{
	uint32_t round;

	start_messenger(bar, rounds);
	for (round = 0; round < rounds; round++) {
		take_interrupt(events[round % VECTORS]);
		/* The interrupt has come: so has the data. */
		check_block(ring + round % SLOTS * PAGE, round);
		write64(bar, REG_MESSENGER_TAKEN, round + 1);
		/* A read that counts must happen once. */
		expect("ticket", read32(bar, REG_TICKET), round + 1);
	}
	expect("messenger, done", read64(bar, REG_MESSENGER_DONE), rounds);
	expect("messenger", read32(bar, REG_MESSENGER_COMMAND), 0);
}

static void reset(volatile uint8_t *bar)
{
	write64(bar, REG_SCRATCH, 7);
	expect("scratch", read64(bar, REG_SCRATCH), 7);
	if (ioctl(device, VFIO_DEVICE_RESET))
		fail("cannot be reset: %s", strerror(errno));
	await_identification(bar);
	expect("scratch", read64(bar, REG_SCRATCH), 0);
	expect("messenger, done", read64(bar, REG_MESSENGER_DONE), 0);
}

int main(int argc, char **argv)
{
	volatile uint8_t *bar, *ring;
	int events[VECTORS];
	uint32_t rounds;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		fail("usage: order_vfio FUNCTION ROUNDS");
	rounds = (uint32_t)strtoul(argv[2], NULL, 0);
	open_device(argv[1]);
	bar = map_bar(VFIO_PCI_BAR0_REGION_INDEX, BAR0_SIZE);
	enable();
	await_identification(bar);
	check_rom();
	enable_vectors(VFIO_PCI_MSIX_IRQ_INDEX, events, VECTORS);
	ring = pages(SLOTS);
	dma_map(ring, RING, SLOTS, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	take_rounds(bar, events, ring, rounds);
	reset(bar);
	memset((void *)ring, 0xaa, SLOTS * PAGE);
	take_rounds(bar, events, ring, rounds);
	show_interrupts(argv[1]);
	printf("RESULT message_rounds %u\n", rounds);
	printf("PASS\n");
	return 0;
}
