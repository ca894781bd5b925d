/* Drives `order` through the C ABI as a VMM that has neither interrupt tables nor decode of its own.
 *
 *   embed whole URL CA CERT KEY
 *
 * Ends with 0, or says which line was not as it should be.
 */
#include "vmm.h"

#define MEMORY_KIND POTEMKIN_ADDRESS_KIND_MEMORY
#define PORT_KIND POTEMKIN_ADDRESS_KIND_PORT

/* Configuration space. */
enum { BAR0 = 0x10, BAR1 = 0x14, BAR2 = 0x18, BAR4 = 0x20, BAR5 = 0x24, ROM = 0x30 };
enum { PORTS = 1, MEMORY = 2, BUS_MASTER = 4 };
/* Its own: how often the device was told of a write, and where it wants to be told. */
enum { TOLD = 0xc4, FORWARDED = 0xc8 };
/* BAR 0 of `order`. */
enum { TOLD_VALUE = 0x90, TOLD_PLACE = 0x98 };
enum { INTERRUPT_STATUS = 0x40, INTERRUPT_ENABLE = 0x44, INTERRUPT_RAISE = 0x48, RAISE_VECTOR = 0x4c };
enum { RING_BASE = 0x100, RING_STRIDE = 0x108, RING_SLOTS = 0x10c, RING_BLOCK = 0x110 };
enum { RING_VECTORS = 0x114, RING_ROUNDS = 0x118, RING_COMMAND = 0x130, RING_FAILED = 2 };
static const uint32_t IDENTIFICATION = 0x5244524f;

/* Where firmware would place it. */
enum { PAGE = 4096, ROM_BYTES = 2048, PORT_BASE = 0xc000, PORT_COUNT = 16 };
static const uint64_t BASE0 = 0xe0000000, BASE0_MOVED = 0xe0300000, BASE0_TAKEN = 0xe0400000;
static const uint64_t BASE2 = 0x1200000000, BASE4 = 0xe0100000, BASE5 = 0xd0000, ROM_BASE = 0xe0200000, RAM_BASE = 0x100000;

enum { VECTORS = 4, BLOCK = 64 };
static const uint64_t APIC = 0xfee00000;

static potemkin_info info;

static uint32_t memory32(potemkin_function *f, uint64_t address) {
  uint32_t value;
  OK(potemkin_memory_read(f, address, &value, sizeof value));
  return value;
}

static void write_memory32(potemkin_function *f, uint64_t address, uint32_t value) {
  OK(potemkin_memory_write(f, address, &value, sizeof value));
}

/* The device hears of the bytes that were written where they were written, and its own count is asked for. */
static void configuration(potemkin_function *f) {
  const uint16_t two = 0xabcd;
  const uint8_t one = 0xef;
  uint64_t value;
  CHECK(config32(f, TOLD) == 0);
  write_config32(f, FORWARDED, 0x12345678);
  OK(potemkin_config_write(f, FORWARDED + 2, &two, sizeof two));
  CHECK(config32(f, TOLD) == 2);
  OK(potemkin_config_write(f, FORWARDED + 3, &one, sizeof one));
  CHECK(config32(f, TOLD) == 3 && config32(f, FORWARDED) == 0xefcd5678);
  OK(potemkin_bar_read(f, 0, TOLD_VALUE, &value, sizeof value));
  CHECK(value == 0xef && read32(f, TOLD_PLACE) == (1u << 16 | (FORWARDED + 3)));
}

/* Nothing is mapped before decode is on, then each BAR. */
static void placed(potemkin_function *f) {
  write_config32(f, BAR0, (uint32_t)BASE0);
  write_config32(f, BAR1, PORT_BASE);
  write_config32(f, BAR2, (uint32_t)BASE2);
  write_config32(f, BAR2 + 4, (uint32_t)(BASE2 >> 32));
  write_config32(f, BAR4, (uint32_t)BASE4);
  write_config32(f, BAR5, (uint32_t)BASE5);
  CHECK(vmm.changes == 0);
  command(f, MEMORY | BUS_MASTER);
  CHANGES_ARE({true, MEMORY_KIND, 0, BASE0, PAGE}, {true, MEMORY_KIND, 2, BASE2, info.bars[2].bytes},
              {true, MEMORY_KIND, 4, BASE4, info.bars[4].bytes}, {true, MEMORY_KIND, 5, BASE5, PAGE});
  command(f, PORTS | MEMORY | BUS_MASTER);
  CHANGES_ARE({true, PORT_KIND, 1, PORT_BASE, PORT_COUNT});
  CHECK(memory32(f, BASE0) == IDENTIFICATION);
}

/* Mapped while its own enable bit is on; an image whose bytes add up to 0. */
static void expansion_rom(potemkin_function *f) {
  uint8_t image[ROM_BYTES], again[ROM_BYTES] = {0}, sum = 0;
  CHECK(info.rom_bytes == ROM_BYTES);
  write_config32(f, ROM, 0xfffffffe);
  CHECK(config32(f, ROM) == (uint32_t)-ROM_BYTES);
  write_config32(f, ROM, (uint32_t)ROM_BASE);
  CHECK(vmm.changes == 0);
  IS(potemkin_memory_read(f, ROM_BASE, image, sizeof image), NOT_DECODED);
  write_config32(f, ROM, (uint32_t)ROM_BASE | 1);
  CHANGES_ARE({true, MEMORY_KIND, POTEMKIN_ROM, ROM_BASE, ROM_BYTES});
  OK(potemkin_memory_read(f, ROM_BASE, image, sizeof image));
  CHECK(image[0] == 0x55 && image[1] == 0xaa && memcmp(image + 0x1c, "PCIR", 4) == 0);
  for (int i = 0; i < ROM_BYTES; i++) sum = (uint8_t)(sum + image[i]);
  CHECK(sum == 0);
  /* It takes a write and ignores it. */
  write_memory32(f, ROM_BASE, 0);
  OK(potemkin_bar_write(f, POTEMKIN_ROM, ROM_BYTES - 1, again, 1));
  IS(potemkin_bar_write(f, POTEMKIN_ROM, ROM_BYTES - 1, again, 2), NOT_DECODED);
  OK(potemkin_bar_read(f, POTEMKIN_ROM, 0, again, sizeof again));
  CHECK(memcmp(image, again, sizeof image) == 0);
  write_config32(f, ROM, (uint32_t)ROM_BASE);
  CHANGES_ARE({false, MEMORY_KIND, POTEMKIN_ROM, ROM_BASE, ROM_BYTES});
}

/* At its new place before it leaves the old one; a place that cannot be had leaves it where it was. */
static void moved(potemkin_function *f) {
  write_config32(f, BAR0, (uint32_t)BASE0_MOVED);
  CHANGES_ARE({true, MEMORY_KIND, 0, BASE0_MOVED, PAGE}, {false, MEMORY_KIND, 0, BASE0, PAGE});
  CHECK(memory32(f, BASE0_MOVED) == IDENTIFICATION);

  vmm.taken = BASE0_TAKEN;
  write_config32(f, BAR0, (uint32_t)BASE0_TAKEN);
  CHECK(vmm.changes == 0 && config32(f, BAR0) == BASE0_TAKEN);
  CHECK(read32(f, 0) == IDENTIFICATION && memory32(f, BASE0_MOVED) == IDENTIFICATION);
  write_config32(f, BAR0, (uint32_t)BASE0_MOVED);
  CHECK(vmm.changes == 0);

  /* Ports go and come back by themselves. */
  command(f, MEMORY | BUS_MASTER);
  command(f, PORTS | MEMORY | BUS_MASTER);
  CHANGES_ARE({false, PORT_KIND, 1, PORT_BASE, PORT_COUNT}, {true, PORT_KIND, 1, PORT_BASE, PORT_COUNT});
}

/* The FIFO behind a port: a string goes in as one access and comes back. */
static void strings(potemkin_function *f) {
  uint16_t in[3] = {0x1111, 0x2222, 0x3333}, back[3] = {0};
  OK(potemkin_port_write_string(f, PORT_BASE, 2, in, 3));
  OK(potemkin_port_read_string(f, PORT_BASE, 2, back, 3));
  CHECK(memcmp(in, back, sizeof in) == 0);
}

static void program(potemkin_function *f, uint32_t vector, uint32_t data, uint32_t masked) {
  const uint64_t entry = BASE4 + 16 * vector;
  write_memory32(f, entry, (uint32_t)APIC | vector << 12);
  write_memory32(f, entry + 4, 0);
  write_memory32(f, entry + 8, data);
  write_memory32(f, entry + 12, masked);
  CHECK(memory32(f, entry + 8) == data && memory32(f, entry + 12) == masked);
}

static void turn_msix(potemkin_function *f, uint16_t control) {
  OK(potemkin_config_write(f, (uint16_t)(find_capability(f, 0x11) + 2), &control, sizeof control));
}

static uint32_t pending(potemkin_function *f) {
  return memory32(f, BASE4 + PAGE);
}

static void is_message(size_t index, uint32_t vector, uint32_t data) {
  CHECK(vmm.message[index].address == (APIC | vector << 12) && vmm.message[index].data == data);
}

/* A block a round, then the round's vector: 0 is masked, 1 and 2 are not. */
static void messages(potemkin_function *f) {
  uint64_t block[BLOCK / 8];
  OK(potemkin_map_window(f, RAM_BASE, RAM_BYTES, POTEMKIN_WINDOW_READ | POTEMKIN_WINDOW_WRITE, ram));
  program(f, 0, 0x40, 1);
  program(f, 1, 0x41, 0);
  program(f, 2, 0x42, 0);
  turn_msix(f, 0x8000);
  write64(f, RING_BASE, RAM_BASE);
  write32(f, RING_STRIDE, BLOCK);
  write32(f, RING_SLOTS, 3);
  write32(f, RING_BLOCK, BLOCK);
  write32(f, RING_VECTORS, 3);
  write64(f, RING_ROUNDS, 3);
  write32(f, RING_COMMAND, 1);
  await_messages(2);
  for (uint32_t round = 1; round < 3; round++) {
    is_message(round - 1, round, 0x40 + round);
    memcpy(block, vmm.message[round - 1].ram + BLOCK * round, sizeof block);
    for (uint64_t k = 0; k < BLOCK / 8; k++) CHECK(block[k] == round + (k << 48));
  }

  /* It comes inside the write that lets it through. */
  CHECK(pending(f) == 1);
  write_memory32(f, BASE4 + 12, 0);
  CHECK(vmm.messages == 3 && pthread_equal(vmm.message[2].thread, pthread_self()));
  is_message(2, 0, 0x40);
  CHECK(pending(f) == 0);

  /* The mask of them all, in configuration space. Posted, then read: the vector has fired. */
  turn_msix(f, 0xc000);
  write32(f, RAISE_VECTOR, 2);
  while (pending(f) != 4) CHECK(read32(f, 0) == IDENTIFICATION);
  CHECK(vmm.messages == 3);
  turn_msix(f, 0x8000);
  CHECK(vmm.messages == 4);
  is_message(3, 2, 0x42);
  turn_msix(f, 0);
}

/* A block that would pass the end of all addresses does not move, in part neither. */
static void overflow(potemkin_function *f) {
  static uint8_t top[PAGE];
  const uint64_t top_base = UINT64_MAX - sizeof top;
  OK(potemkin_map_window(f, top_base, sizeof top, POTEMKIN_WINDOW_WRITE, top));
  write64(f, RING_BASE, UINT64_MAX - BLOCK / 2);
  write64(f, RING_ROUNDS, 1);
  write32(f, RING_COMMAND, 1);
  while (!(read32(f, RING_COMMAND) & RING_FAILED)) continue;
  for (size_t i = 0; i < sizeof top; i++) CHECK(top[i] == 0);
  OK(potemkin_unmap_window(f, top_base, sizeof top));
}

static void level(potemkin_function *f) {
  write32(f, INTERRUPT_STATUS, 0xffffffff);
  write32(f, INTERRUPT_ENABLE, 2);
  write32(f, INTERRUPT_RAISE, 2);
  await_level(true);
  write32(f, INTERRUPT_STATUS, 2);
  await_level(false);
}

/* All is unmapped; then those are mapped that do not overlap: all but the first are at 0. */
static void reset(potemkin_function *f) {
  OK(potemkin_reset(f));
  CHANGES_ARE({false, MEMORY_KIND, 0, BASE0_MOVED, PAGE}, {false, PORT_KIND, 1, PORT_BASE, PORT_COUNT},
              {false, MEMORY_KIND, 2, BASE2, info.bars[2].bytes}, {false, MEMORY_KIND, 4, BASE4, info.bars[4].bytes},
              {false, MEMORY_KIND, 5, BASE5, PAGE});
  write_config32(f, BAR0, (uint32_t)BASE0);
  command(f, MEMORY);
  CHANGES_ARE({true, MEMORY_KIND, 0, BASE0, PAGE}, {true, MEMORY_KIND, 2, 0, info.bars[2].bytes});
}

/* Each BAR is unmapped, that of ports and that below 1 MiB among them. */
static void closed(potemkin_function *f) {
  command(f, 0);
  CHANGES_ARE({false, MEMORY_KIND, 0, BASE0, PAGE}, {false, MEMORY_KIND, 2, 0, info.bars[2].bytes});
  write_config32(f, BAR1, PORT_BASE);
  write_config32(f, BAR2 + 4, (uint32_t)(BASE2 >> 32));
  write_config32(f, BAR4, (uint32_t)BASE4);
  write_config32(f, BAR5, (uint32_t)BASE5);
  command(f, PORTS | MEMORY);
  CHANGES_ARE({true, MEMORY_KIND, 0, BASE0, PAGE}, {true, PORT_KIND, 1, PORT_BASE, PORT_COUNT},
              {true, MEMORY_KIND, 2, BASE2, info.bars[2].bytes}, {true, MEMORY_KIND, 4, BASE4, info.bars[4].bytes},
              {true, MEMORY_KIND, 5, BASE5, PAGE});
  OK(potemkin_close(f));
  CHANGES_ARE({false, MEMORY_KIND, 0, BASE0, PAGE}, {false, PORT_KIND, 1, PORT_BASE, PORT_COUNT},
              {false, MEMORY_KIND, 2, BASE2, info.bars[2].bytes}, {false, MEMORY_KIND, 4, BASE4, info.bars[4].bytes},
              {false, MEMORY_KIND, 5, BASE5, PAGE});
}

int main(int count, char **arguments) {
  CHECK(count == 6);
  potemkin_options options = options_of(arguments + 3);
  potemkin_callbacks callbacks = all_callbacks();
  potemkin_function *f = opened(arguments[2], &options, &callbacks);
  vmm.function = f;
  info.size = sizeof info;
  OK(potemkin_get_info(f, &info));
  CHECK(!info.platform && info.msix_vectors == VECTORS && vmm.changes == 0);
  placed(f);
  configuration(f);
  expansion_rom(f);
  moved(f);
  strings(f);
  messages(f);
  overflow(f);
  level(f);
  reset(f);
  closed(f);
  return 0;
}
