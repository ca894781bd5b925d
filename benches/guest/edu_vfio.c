/*
 * A driver in user space for the educational device, through the kernel's vfio-pci behind an IOMMU: it maps a page for DMA at a new
 * address in each round, has the device move it both ways and takes an MSI for each transfer, then takes the page away again. Then many pages
 * at once. At the end the device is made to write where it must not, and moves nothing.
 *
 *   edu_vfio FUNCTION ROUNDS    FUNCTION as 0000:00:02.0, bound to vfio-pci
 */
#define _GNU_SOURCE
#include "edu.h"
#include "vfio_function.h"

/* The device drives 28 address bits. */
#define IOVA_FIRST UINT64_C(0x100000)
#define IOVA_END UINT64_C(0x10000000)

/* Runs the transfer and waits for its interrupt. */
static void transfer(volatile uint8_t *bar, int msi, uint64_t from, uint64_t to, uint32_t direction)
{
	uint32_t causes;

	start_dma(bar, from, to, direction | DMA_INTERRUPT);
	take_interrupt(msi);
	causes = read32(bar, REG_CAUSES);
	if (causes != CAUSE_DMA)
		fail("an interrupt for the causes 0x%x", causes);
	write32(bar, REG_ACKNOWLEDGE, causes);
}

/* The device's buffer holds other bytes than this page, which it may only read, and then not even that. */
static void check_refusals(volatile uint8_t *bar, int msi, volatile uint8_t *memory)
{
	memset((void *)memory, 0, PAGE);
	dma_map(memory, IOVA_FIRST, 1, VFIO_DMA_MAP_FLAG_READ);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST, DMA_TO_MEMORY);
	dma_unmap(IOVA_FIRST, 1);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST, DMA_TO_MEMORY);
	if (memory[0] || memory[1])
		fail("the device moved something to where it must not write");
}

/* Many pages at once, and taken away at once: what is mapped there next is what the device reaches. Its buffer holds this round's bytes. */
static void check_ranges(volatile uint8_t *bar, int msi, uint32_t round)
{
	const uint32_t count = 600;
	volatile uint8_t *many = pages(count), *one = pages(1);
	volatile uint8_t *last = many + (uint64_t)(count - 1) * PAGE;

	dma_map(many, IOVA_FIRST, count, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST + (uint64_t)(count - 1) * PAGE, DMA_TO_MEMORY);
	check_filled(last, round);
	dma_unmap(IOVA_FIRST, count);
	dma_map(one, IOVA_FIRST, 1, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	transfer(bar, msi, DEVICE_BUFFER, IOVA_FIRST, DMA_TO_MEMORY);
	check_filled(one, round);
	/* As pages() leaves it. */
	if (many[0] != 0xaa || many[1] != 0xaa)
		fail("the device reached a page that was taken away");
	dma_unmap(IOVA_FIRST, 1);
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
	bar = map_bar(VFIO_PCI_BAR0_REGION_INDEX, BAR0_SIZE);
	enable();
	check_identification(bar);
	enable_vectors(VFIO_PCI_MSI_IRQ_INDEX, &msi, 1);
	source = pages(1);
	destination = pages(1);
	for (round = 0; round < rounds; round++) {
		from = IOVA_FIRST + (uint64_t)round * 2 * PAGE;
		to = from + PAGE;
		if (to + PAGE > IOVA_END)
			fail("the device cannot reach the addresses of %u rounds", rounds);
		dma_map(source, from, 1, VFIO_DMA_MAP_FLAG_READ);
		dma_map(destination, to, 1, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
		fill(source, round);
		transfer(bar, msi, from, DEVICE_BUFFER, 0);
		transfer(bar, msi, DEVICE_BUFFER, to, DMA_TO_MEMORY);
		/* The interrupt has come: so has the data. */
		check_filled(destination, round);
		dma_unmap(from, 1);
		dma_unmap(to, 1);
	}
	check_ranges(bar, msi, rounds - 1);
	check_refusals(bar, msi, source);
	show_interrupts(argv[1]);
	printf("RESULT dma_rounds %u\n", rounds);
	printf("PASS\n");
	return 0;
}
