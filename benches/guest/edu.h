/*
 * What the programs for the educational device (1234:11e8, QEMU's docs/specs/edu.rst) have in common: its registers, and how they fail.
 * Each program's finding is a line "RESULT name value"; its last line is PASS, or FAIL with the reason (exit code 1).
 */
#ifndef EDU_H
#define EDU_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Configuration space. */
#define COMMAND 4
#define COMMAND_MEMORY 2u
#define COMMAND_BUS_MASTER 4u
#define COMMAND_INTX_DISABLE (1u << 10)

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

/* A file of the function's folder in sysfs. */
static inline int open_in(const char *function, const char *file, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", function, file);
	fd = open(path, flags);
	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static inline uint32_t read32(volatile uint8_t *bar, uint32_t offset)
{
	return *(volatile uint32_t *)(bar + offset);
}

static inline void write32(volatile uint8_t *bar, uint32_t offset, uint32_t value)
{
	*(volatile uint32_t *)(bar + offset) = value;
}

static inline void write64(volatile uint8_t *bar, uint32_t offset, uint64_t value)
{
	*(volatile uint64_t *)(bar + offset) = value;
}

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
