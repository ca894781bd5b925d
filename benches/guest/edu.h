/*
 * What the programs for the educational device (1234:11e8, QEMU's docs/specs/edu.rst) have in common: its registers.
 */
#ifndef EDU_H
#define EDU_H

#include "function.h"

#define VENDOR 0x1234u
#define DEVICE 0x11e8u
#define BAR0_SIZE 0x100000u

#define REG_ID 0x00
#define ID 0x010000edu
#define REG_LIVENESS 0x04
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define STATUS_COMPUTING 0x01u
#define REG_CAUSES 0x24
#define REG_RAISE 0x60
#define REG_ACKNOWLEDGE 0x64
#define REG_DMA_SOURCE 0x80
#define REG_DMA_DESTINATION 0x88
#define REG_DMA_COUNT 0x90
#define REG_DMA_COMMAND 0x98
#define DMA_START 1u
#define DMA_TO_MEMORY 2u
#define DMA_INTERRUPT 4u
#define CAUSE_DMA 0x100u
/* Its own buffer, as its DMA registers address it. */
#define DEVICE_BUFFER 0x40000u
#define DEVICE_BUFFER_SIZE 4096u

static inline void check_identification(volatile uint8_t *bar)
{
	uint32_t id = read32(bar, REG_ID);

	printf("RESULT identification 0x%08x\n", id);
	if (id != ID)
		fail("identification 0x%08x, not 0x%08x", id, ID);
}

/* Moves the whole of the device's buffer. */
static inline void start_dma(volatile uint8_t *bar, uint64_t from, uint64_t to, uint32_t command)
{
	write64(bar, REG_DMA_SOURCE, from);
	write64(bar, REG_DMA_DESTINATION, to);
	write64(bar, REG_DMA_COUNT, DEVICE_BUFFER_SIZE);
	write64(bar, REG_DMA_COMMAND, DMA_START | command);
}

/* What a round of a test moves: other bytes in each. */
static inline void fill(volatile uint8_t *memory, uint32_t round)
{
	uint32_t i;

	for (i = 0; i < DEVICE_BUFFER_SIZE; i++)
		memory[i] = (uint8_t)(i * 7 + round);
}

static inline void check_filled(volatile uint8_t *memory, uint32_t round)
{
	uint32_t i;

	for (i = 0; i < DEVICE_BUFFER_SIZE; i++)
		if (memory[i] != (uint8_t)(i * 7 + round))
			fail("round %u: byte %u is 0x%02x, not 0x%02x", round, i, memory[i], (uint8_t)(i * 7 + round));
}

#endif
