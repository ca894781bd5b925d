/*
 * What the programs for the device `order` (1234:0d3e, device-sdk/devices/src/order) have in common: its registers.
 */
#ifndef ORDER_H
#define ORDER_H

#include "function.h"

#define BAR0_SIZE 4096u
#define BAR2_SIZE 0x100000u
#define BAR5_SIZE 4096u

/* BAR 0. */
#define REG_ID 0x00
#define ID 0x5244524fu
#define REG_SCRATCH 0x10
#define REG_TICKET 0x18
#define REG_EVENTS 0x28
#define REG_EVENT 0x30
#define REG_INTERRUPT_STATUS 0x40
#define REG_INTERRUPT_ENABLE 0x44
#define REG_INTERRUPT_RAISE 0x48
#define REG_FIFO_LEVEL 0x58
#define REG_ORDER_LAST 0x68
#define REG_MESSENGER_BASE 0x100
#define REG_MESSENGER_STRIDE 0x108
#define REG_MESSENGER_SLOTS 0x10c
#define REG_MESSENGER_BLOCK_BYTES 0x110
#define REG_MESSENGER_VECTORS 0x114
#define REG_MESSENGER_ROUNDS 0x118
#define REG_MESSENGER_TAKEN 0x120
#define REG_MESSENGER_DONE 0x128
#define REG_MESSENGER_COMMAND 0x130
#define MESSENGER_START 1u

/* BAR 1. */
#define PORT_FIFO 0x0
#define PORT_TICKET 0x8

/* A function that was just reset reads as all-ones until it is back: polls that this may take. */
#define POLLS_MAX 1000000

static inline void await_identification(volatile uint8_t *bar)
{
	uint32_t id = 0;
	int polls;

	for (polls = 0; polls < POLLS_MAX; polls++) {
		id = read32(bar, REG_ID);
		if (id != 0xffffffffu)
			break;
	}
	printf("RESULT identification 0x%08x\n", id);
	if (id != ID)
		fail("identification 0x%08x, not 0x%08x", id, ID);
}

static inline void expect(const char *what, uint64_t found, uint64_t expected)
{
	if (found != expected)
		fail("%s: 0x%llx, not 0x%llx", what, (unsigned long long)found, (unsigned long long)expected);
}

#endif
