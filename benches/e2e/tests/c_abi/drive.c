/* Drives `edu` through the C ABI as a VMM's device model would, each operation of it once at least.
 *
 *   drive whole   URL CA CERT KEY   everything, on a device that is free
 *   drive spaces  URL CA CERT KEY   the ports and the 64-bit memory of `scratch`
 *   drive lost    URL CA CERT KEY   opens, says "open", and reads until the session is lost
 *   drive refused URL CA CERT KEY   is refused for good
 *   drive later   URL CA CERT KEY   is refused for now
 *   drive briefly URL CA CERT KEY   opens and closes
 *
 * Ends with 0, or says which line was not as it should be.
 */
#include "check.h"

#include <pthread.h>

/* Configuration space. */
enum { STATUS = 0x06, BAR0 = 0x10 };
enum { MEMORY = 2, BUS_MASTER = 4 };
/* Registers of `edu`. */
enum { ID = 0x00, LIVENESS = 0x04, FACTORIAL = 0x08, COMPUTING = 0x20, CAUSES = 0x24, RAISE = 0x60, ACKNOWLEDGE = 0x64 };
enum { DMA_SOURCE = 0x80, DMA_DESTINATION = 0x88, DMA_COUNT = 0x90, DMA_COMMAND = 0x98 };
enum { DMA_START = 1, DMA_TO_MEMORY = 2, DMA_INTERRUPT = 4 };
static const uint32_t IDENTIFICATION = 0x010000ed;
static const uint64_t BUFFER = 0x40000;

static const uint32_t BAR0_BYTES = 1 << 20;
static const uint64_t BAR0_BASE = 0xe0000000;

/* Two windows of guest memory: one that the library reaches by itself, one that it reaches by callbacks. */
enum { WINDOW_BYTES = 0x10000 };
static const uint64_t MAPPED = 0x100000, CALLED = 0x200000;
static uint8_t mapped[WINDOW_BYTES], called[WINDOW_BYTES];
/* And two of one direction each. */
enum { ONE_WAY_BYTES = 0x1000 };
static const uint64_t READABLE = 0x300000, WRITABLE = 0x400000;
static uint8_t readable[ONE_WAY_BYTES], writable[ONE_WAY_BYTES];

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  potemkin_function *function;
  bool level;
  int rises, msis, reads, writes;
  uint8_t at_msi[64];
  potemkin_status from_within;
} vmm = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void set_intx(void *user, bool level) {
  CHECK(user == &vmm);
  pthread_mutex_lock(&vmm.lock);
  vmm.level = level;
  vmm.rises += level;
  pthread_cond_broadcast(&vmm.changed);
  pthread_mutex_unlock(&vmm.lock);
}

/* Refused, and yet the caller has a reason that it can print and a handle that it can close. */
static void opens_nothing(void) {
  potemkin_function *other = vmm.function;
  char reason[8] = "unset";
  IS(potemkin_open("potemkin://x/y", NULL, NULL, &other, reason, sizeof reason), IN_CALLBACK);
  CHECK(other == NULL && reason[0] == '\0');
}

static void msi(void *user, uint16_t vector) {
  uint16_t id;
  CHECK(user == &vmm && vector == 0);
  pthread_mutex_lock(&vmm.lock);
  vmm.msis++;
  /* What the device wrote before is there. */
  memcpy(vmm.at_msi, called, sizeof vmm.at_msi);
  vmm.from_within = potemkin_config_read(vmm.function, 0, &id, sizeof id);
  opens_nothing();
  pthread_cond_broadcast(&vmm.changed);
  pthread_mutex_unlock(&vmm.lock);
}

static bool in_window(uint64_t address, size_t length) {
  return address >= CALLED && address - CALLED <= WINDOW_BYTES - length;
}

static int read_guest(void *user, uint64_t address, void *out, size_t length) {
  CHECK(user == &vmm);
  vmm.reads++;
  if (!in_window(address, length)) return -1;
  memcpy(out, called + (address - CALLED), length);
  return 0;
}

static int write_guest(void *user, uint64_t address, const void *data, size_t length) {
  CHECK(user == &vmm);
  vmm.writes++;
  if (!in_window(address, length)) return -1;
  memcpy(called + (address - CALLED), data, length);
  return 0;
}

static void await_level(bool level) {
  pthread_mutex_lock(&vmm.lock);
  while (vmm.level != level) pthread_cond_wait(&vmm.changed, &vmm.lock);
  pthread_mutex_unlock(&vmm.lock);
}

static void await_rises(int rises) {
  pthread_mutex_lock(&vmm.lock);
  while (vmm.rises < rises) pthread_cond_wait(&vmm.changed, &vmm.lock);
  pthread_mutex_unlock(&vmm.lock);
}

static void await_msis(int msis) {
  pthread_mutex_lock(&vmm.lock);
  while (vmm.msis < msis) pthread_cond_wait(&vmm.changed, &vmm.lock);
  pthread_mutex_unlock(&vmm.lock);
}

static void never(void *user, uint64_t address, uint32_t data) {
  fprintf(stderr, "a message of %x to %llx for %p\n", data, (unsigned long long)address, user);
  exit(1);
}

static potemkin_options options;
static potemkin_callbacks callbacks;

static void fill_in(char **arguments) {
  options = options_of(arguments);
  /* As one that was compiled against the first header: what follows is not looked at. */
  callbacks.size = offsetof(potemkin_callbacks, message);
  callbacks.message = never;
  callbacks.user = &vmm;
  callbacks.set_intx = set_intx;
  callbacks.msi = msi;
  callbacks.read_guest_memory = read_guest;
  callbacks.write_guest_memory = write_guest;
}

static potemkin_function *open_function(const char *url) {
  vmm.function = opened(url, &options, &callbacks);
  return vmm.function;
}

static void dma(potemkin_function *f, uint64_t source, uint64_t destination, uint64_t count, uint64_t what) {
  write64(f, DMA_SOURCE, source);
  write64(f, DMA_DESTINATION, destination);
  write64(f, DMA_COUNT, count);
  write64(f, DMA_COMMAND, DMA_START | what);
}

static void await_dma(potemkin_function *f) {
  while (read32(f, DMA_COMMAND) & DMA_START) continue;
}

static void wrong_openings(const char *url) {
  potemkin_function *function = (potemkin_function *)&vmm;
  char reason[512] = "unset";
  potemkin_options wrong = options;
  IS(potemkin_open(url, &options, &callbacks, NULL, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(strcmp(reason, "function: null") == 0);
  IS(potemkin_open(NULL, &options, &callbacks, &function, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(function == NULL && strstr(reason, "url: null"));
  IS(potemkin_open("http://x/y", &options, NULL, &function, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(strstr(reason, "potemkin://"));
  IS(potemkin_open("http://x/y", &options, NULL, &function, reason, 8), INVALID_ARGUMENT);
  CHECK(strlen(reason) == 7);
  IS(potemkin_open("http://x/y", &options, NULL, &function, NULL, 0), INVALID_ARGUMENT);
  IS(potemkin_open(url, NULL, &callbacks, &function, reason, sizeof reason), INVALID_ARGUMENT);
  wrong.size = 3;
  IS(potemkin_open(url, &wrong, &callbacks, &function, reason, sizeof reason), INVALID_ARGUMENT);
  wrong = options;
  wrong.deadline_ms = 1;
  IS(potemkin_open(url, &wrong, &callbacks, &function, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(strstr(reason, "deadline_ms"));
  wrong = options;
  wrong.key_file = NULL;
  IS(potemkin_open(url, &wrong, &callbacks, &function, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(strstr(reason, "key_file"));
  wrong.key_file = "/absent/key";
  IS(potemkin_open(url, &wrong, &callbacks, &function, reason, sizeof reason), REFUSED);
  CHECK(strstr(reason, "/absent/key"));
  IS(potemkin_open("potemkin://127.0.0.1:1/edu-0", &options, &callbacks, &function, reason, sizeof reason), TRY_AGAIN);
  CHECK(function == NULL && strstr(reason, "127.0.0.1:1"));
}

static void what_it_is(potemkin_function *f) {
  potemkin_info info = {.size = sizeof info};
  OK(potemkin_get_info(f, &info));
  CHECK(strcmp(info.id, "edu-0") == 0);
  CHECK(info.vendor_id == 0x1234 && info.device_id == 0x11e8);
  CHECK(info.config_bytes == 256 || info.config_bytes == 4096);
  CHECK(info.intx_pin == 1 && info.msi_vectors == 1 && info.msix_vectors == 0 && info.rom_bytes == 0);
  CHECK(info.bars[0].bytes == BAR0_BYTES && info.bars[0].kind == POTEMKIN_BAR_TYPE_MEMORY32);
  CHECK(!info.bars[0].prefetchable && info.bars[1].bytes == 0 && info.bars[1].kind == POTEMKIN_BAR_TYPE_NONE);
  info.size = 0;
  IS(potemkin_get_info(f, &info), INVALID_ARGUMENT);
}

/* As firmware does it: find, size, place, enable. */
static void enumerate(potemkin_function *f) {
  uint32_t value;
  uint8_t byte;
  CHECK(config32(f, 0) == 0x11e81234);
  OK(potemkin_config_read(f, 3, &byte, 1));
  CHECK(byte == 0x11);
  value = 0xffffffff;
  OK(potemkin_config_write(f, BAR0, &value, sizeof value));
  CHECK(config32(f, BAR0) == ~(BAR0_BYTES - 1));
  value = (uint32_t)BAR0_BASE;
  OK(potemkin_config_write(f, BAR0, &value, sizeof value));
  CHECK(config32(f, BAR0) == BAR0_BASE);

  /* Decode is off: at the address there is nothing, in the BAR all-ones. */
  value = 7;
  IS(potemkin_memory_read(f, BAR0_BASE, &value, sizeof value), NOT_DECODED);
  CHECK(value == 7);
  IS(potemkin_bar_read(f, 0, ID, &value, sizeof value), NOT_DECODED);
  CHECK(value == 0xffffffff);
  command(f, MEMORY);
  OK(potemkin_memory_read(f, BAR0_BASE + ID, &value, sizeof value));
  CHECK(value == IDENTIFICATION);
  IS(potemkin_memory_read(f, BAR0_BASE + BAR0_BYTES, &value, sizeof value), NOT_DECODED);
  IS(potemkin_memory_write(f, BAR0_BASE - 4, &value, sizeof value), NOT_DECODED);
}

static void registers(potemkin_function *f) {
  uint32_t value = 0x12345678;
  uint32_t elements[3] = {1, 2, 3};
  uint64_t pair[2];
  uint8_t byte = 0;
  CHECK(read32(f, ID) == IDENTIFICATION);
  OK(potemkin_memory_write(f, BAR0_BASE + LIVENESS, &value, sizeof value));
  CHECK(read32(f, LIVENESS) == ~value);
  write32(f, FACTORIAL, 10);
  while (read32(f, COMPUTING) & 1) continue;
  CHECK(read32(f, FACTORIAL) == 3628800);

  /* A string instruction: one register, several elements, the last one stays. */
  OK(potemkin_bar_write_string(f, 0, LIVENESS, 4, elements, 3));
  OK(potemkin_bar_read_string(f, 0, LIVENESS, 4, elements, 3));
  CHECK(elements[0] == ~3u && elements[1] == ~3u && elements[2] == ~3u);

  /* A block: consecutive registers. */
  write64(f, DMA_SOURCE, 0x1122334455667788);
  write64(f, DMA_DESTINATION, 0x99);
  OK(potemkin_bar_read(f, 0, DMA_SOURCE, pair, sizeof pair));
  CHECK(pair[0] == 0x1122334455667788 && pair[1] == 0x99);

  /* The device refuses this width; past the end there is nothing. */
  IS(potemkin_bar_read(f, 0, ID, &byte, 1), FAILED);
  CHECK(byte == 0xff);
  IS(potemkin_bar_read(f, 0, BAR0_BYTES - 2, &value, sizeof value), NOT_DECODED);
  IS(potemkin_bar_write(f, 0, BAR0_BYTES, &value, sizeof value), NOT_DECODED);
  IS(potemkin_bar_read(f, 1, 0, &value, sizeof value), NOT_DECODED);
  IS(potemkin_bar_read(f, POTEMKIN_ROM, 0, &value, sizeof value), NOT_DECODED);
  CHECK(value == 0xffffffff);
}

/* It has none, which is told from a failure. */
static void ports(potemkin_function *f) {
  uint32_t values[2] = {5, 6};
  IS(potemkin_port_read(f, 0xc000, values, 4), NOT_DECODED);
  IS(potemkin_port_write(f, 0xc000, values, 4), NOT_DECODED);
  IS(potemkin_port_read_string(f, 0xc000, 4, values, 2), NOT_DECODED);
  IS(potemkin_port_write_string(f, 0xc000, 4, values, 2), NOT_DECODED);
  CHECK(values[0] == 5 && values[1] == 6);
}

static void wrong_arguments(potemkin_function *f) {
  char reason[8] = "unset";
  uint32_t value = 0;
  IS(potemkin_config_read(NULL, 0, &value, 4), INVALID_ARGUMENT);
  IS(potemkin_config_read(f, 0, NULL, 4), INVALID_ARGUMENT);
  IS(potemkin_config_read(f, 0, &value, 0), INVALID_ARGUMENT);
  IS(potemkin_config_read(f, 4094, &value, 4), INVALID_ARGUMENT);
  IS(potemkin_config_write(f, 4096, &value, 1), INVALID_ARGUMENT);
  IS(potemkin_bar_read(f, 7, 0, &value, 4), INVALID_ARGUMENT);
  IS(potemkin_bar_write(f, 0, 0, &value, POTEMKIN_ACCESS_MAX + 1), INVALID_ARGUMENT);
  IS(potemkin_bar_read_string(f, 0, 0, 3, &value, 1), INVALID_ARGUMENT);
  IS(potemkin_bar_write_string(f, 0, 0, 4, &value, (size_t)-1), INVALID_ARGUMENT);
  IS(potemkin_bar_write_string(f, 0, 0, 4, &value, 0), INVALID_ARGUMENT);
  IS(potemkin_memory_read(f, 0, &value, (size_t)-1), INVALID_ARGUMENT);
  IS(potemkin_port_read(NULL, 0, &value, 1), INVALID_ARGUMENT);
  IS(potemkin_reset(NULL), INVALID_ARGUMENT);
  IS(potemkin_ack_intx(NULL), INVALID_ARGUMENT);
  IS(potemkin_state(NULL, NULL, 0), INVALID_ARGUMENT);
  IS(potemkin_state(NULL, reason, sizeof reason), INVALID_ARGUMENT);
  CHECK(reason[0] == '\0');
  IS(potemkin_map_window(f, MAPPED, 0, POTEMKIN_WINDOW_READ, mapped), INVALID_ARGUMENT);
  IS(potemkin_map_window(f, UINT64_MAX, 2, POTEMKIN_WINDOW_READ, NULL), INVALID_ARGUMENT);
  IS(potemkin_map_window(f, MAPPED, WINDOW_BYTES, 4, mapped), INVALID_ARGUMENT);
  IS(potemkin_unmap_window(f, MAPPED, WINDOW_BYTES), INVALID_ARGUMENT);
}

static void turn_msi(potemkin_function *f, uint16_t on) {
  uint16_t capability = find_capability(f, 0x05);
  OK(potemkin_config_write(f, (uint16_t)(capability + 2), &on, sizeof on));
}

/* The device's buffer, by way of a window that it may write. */
static void buffer_is(potemkin_function *f, const void *wanted, size_t length) {
  memset(called, 0xa5, length);
  dma(f, BUFFER, CALLED, length, DMA_TO_MEMORY);
  await_dma(f);
  CHECK(memcmp(called, wanted, length) == 0);
}

/* What the device may only read it does not write, and what it may only write it does not read. */
static void one_way(potemkin_function *f) {
  OK(potemkin_map_window(f, READABLE, ONE_WAY_BYTES, POTEMKIN_WINDOW_READ, readable));
  OK(potemkin_map_window(f, WRITABLE, ONE_WAY_BYTES, POTEMKIN_WINDOW_WRITE, writable));
  OK(potemkin_map_window(f, 0x500000, 0x1000, 0, writable));
  memcpy(readable, "read", 4);
  memcpy(writable, "gone", 4);

  dma(f, READABLE, BUFFER, 4, 0);
  await_dma(f);
  buffer_is(f, "read", 4);
  dma(f, WRITABLE, BUFFER, 4, 0);
  await_dma(f);
  dma(f, 0x500000, BUFFER, 4, 0);
  await_dma(f);
  buffer_is(f, "read", 4);

  memcpy(readable, "kept", 4);
  dma(f, BUFFER, READABLE, 4, DMA_TO_MEMORY);
  await_dma(f);
  CHECK(memcmp(readable, "kept", 4) == 0 && memcmp(writable, "gone", 4) == 0);
  dma(f, BUFFER, WRITABLE, 4, DMA_TO_MEMORY);
  await_dma(f);
  CHECK(memcmp(writable, "read", 4) == 0);
}

static void transfers(potemkin_function *f) {
  static const uint8_t zeros[64];
  const int both = POTEMKIN_WINDOW_READ | POTEMKIN_WINDOW_WRITE;
  OK(potemkin_map_window(f, MAPPED, WINDOW_BYTES, both, mapped));
  OK(potemkin_map_window(f, CALLED, WINDOW_BYTES, both, NULL));
  IS(potemkin_map_window(f, CALLED + 4096, 4096, both, NULL), INVALID_ARGUMENT);
  for (int i = 0; i < 64; i++) mapped[16 + i] = (uint8_t)(i * 7 + 1);

  /* Bus mastering is off: nothing moves either way, and the driver sees an end. */
  dma(f, MAPPED + 16, BUFFER, 64, 0);
  await_dma(f);
  dma(f, BUFFER, MAPPED + 16, 64, DMA_TO_MEMORY);
  await_dma(f);
  for (int i = 0; i < 64; i++) CHECK(mapped[16 + i] == (uint8_t)(i * 7 + 1));
  command(f, MEMORY | BUS_MASTER);
  buffer_is(f, zeros, sizeof zeros);
  turn_msi(f, 1);

  /* From memory with a base to the device, then to memory by callback; at the MSI it is there. */
  dma(f, MAPPED + 16, BUFFER, 64, 0);
  await_dma(f);
  dma(f, BUFFER, CALLED, 64, DMA_TO_MEMORY | DMA_INTERRUPT);
  await_msis(1);
  CHECK(memcmp(vmm.at_msi, mapped + 16, 64) == 0 && vmm.writes > 0);
  CHECK(vmm.from_within == POTEMKIN_STATUS_IN_CALLBACK);
  write32(f, ACKNOWLEDGE, 0x100);

  /* And the other way. */
  memcpy(called + 0x800, "by callback", 12);
  dma(f, CALLED + 0x800, BUFFER, 12, 0);
  await_dma(f);
  dma(f, BUFFER, MAPPED + WINDOW_BYTES - 12, 12, DMA_TO_MEMORY);
  await_dma(f);
  CHECK(memcmp(mapped + WINDOW_BYTES - 12, "by callback", 12) == 0 && vmm.reads > 0);

  /* Beyond the window nothing moves, and without it neither. */
  dma(f, BUFFER, MAPPED + WINDOW_BYTES - 8, 12, DMA_TO_MEMORY);
  await_dma(f);
  OK(potemkin_unmap_window(f, MAPPED, WINDOW_BYTES));
  dma(f, BUFFER, MAPPED, 12, DMA_TO_MEMORY);
  await_dma(f);
  CHECK(memcmp(mapped + WINDOW_BYTES - 12, "by callback", 12) == 0 && mapped[0] == 0);
  one_way(f);
  turn_msi(f, 0);
}

static void level(potemkin_function *f) {
  int rises;
  uint8_t status;
  await_level(false);
  write32(f, RAISE, 1);
  await_level(true);
  OK(potemkin_config_read(f, STATUS, &status, 1));
  CHECK(status & 8);

  /* Ended while the device still asserts it: it rises again. */
  pthread_mutex_lock(&vmm.lock);
  rises = vmm.rises;
  vmm.level = false;
  pthread_mutex_unlock(&vmm.lock);
  OK(potemkin_ack_intx(f));
  await_rises(rises + 1);

  /* Ended after the guest has acknowledged it: it does not. */
  write32(f, ACKNOWLEDGE, 1);
  await_level(false);
  rises = vmm.rises;
  OK(potemkin_ack_intx(f));
  CHECK(read32(f, CAUSES) == 0);
  CHECK(vmm.rises == rises);
}

static void *read_often(void *f) {
  for (int i = 0; i < 200; i++) CHECK(read32(f, ID) == IDENTIFICATION);
  return NULL;
}

static void threads(potemkin_function *f) {
  pthread_t all[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&all[i], NULL, read_often, f) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(all[i], NULL) == 0);
}

static void reset(potemkin_function *f) {
  uint32_t value = 0x55;
  potemkin_status status;
  write32(f, LIVENESS, value);
  write32(f, RAISE, 1);
  await_level(true);
  OK(potemkin_reset(f));
  await_level(false);
  CHECK(config32(f, BAR0) == 0);
  IS(potemkin_bar_read(f, 0, ID, &value, sizeof value), NOT_DECODED);
  command(f, MEMORY);
  /* Until the device's host has confirmed the reset, reads may give all-ones. */
  do status = potemkin_bar_read(f, 0, ID, &value, sizeof value);
  while (value == 0xffffffff);
  CHECK(status == POTEMKIN_STATUS_OK && value == IDENTIFICATION);
  CHECK( read32(f, LIVENESS) != ~0x55u && read32(f, CAUSES) == 0);
}

/* Without callbacks interrupts are lost and memory without a base cannot be accessed; all else goes on. */
static void without_callbacks(const char *url) {
  const int both = POTEMKIN_WINDOW_READ | POTEMKIN_WINDOW_WRITE;
  int rises = vmm.rises, reads = vmm.reads;
  potemkin_function *f;
  OK(potemkin_open(url, &options, NULL, &f, NULL, 0));
  OK(potemkin_map_window(f, CALLED, WINDOW_BYTES, both, NULL));
  command(f, MEMORY | BUS_MASTER);
  dma(f, CALLED, BUFFER, 12, DMA_INTERRUPT);
  await_dma(f);
  CHECK(read32(f, CAUSES) == 0x100 && vmm.rises == rises && vmm.reads == reads);
  OK(potemkin_close(f));
}

/* In one process a device is open once. */
static void again(const char *url) {
  potemkin_function *other;
  char reason[512] = "";
  IS(potemkin_open(url, &options, NULL, &other, reason, sizeof reason), TRY_AGAIN);
  CHECK(other == NULL && strstr(reason, "edu-0"));
}

static int whole(const char *url) {
  potemkin_function *f;
  char reason[64] = "unset";
  CHECK(potemkin_abi_version() == POTEMKIN_ABI_VERSION);
  wrong_openings(url);
  f = open_function(url);
  again(url);
  what_it_is(f);
  enumerate(f);
  registers(f);
  ports(f);
  wrong_arguments(f);
  transfers(f);
  level(f);
  threads(f);
  reset(f);
  OK(potemkin_state(f, reason, sizeof reason));
  CHECK(reason[0] == '\0');
  /* The line goes down with the function. */
  write32(f, RAISE, 1);
  await_level(true);
  OK(potemkin_close(f));
  CHECK(!vmm.level);
  OK(potemkin_close(NULL));
  /* It is free again. */
  without_callbacks(url);
  return 0;
}

static uint32_t port32(potemkin_function *f, uint16_t port) {
  uint32_t value;
  OK(potemkin_port_read(f, port, &value, sizeof value));
  return value;
}

/* `scratch`: BAR 0 is 64 KiB of memory with a 64-bit address, BAR 2 has 16 ports: how many elements were read from it and written to it. */
static int spaces(const char *url) {
  enum { READS = 0xc000, WRITES = 0xc004 };
  static uint8_t block[0x10000], back[0x10000];
  const uint64_t high = 0x1200000000, low = 0xd0000000;
  uint16_t shorts[5] = {1, 2, 3, 4, 5}, value = 0;
  uint32_t counts[3] = {0};
  potemkin_function *f = open_function(url);
  for (size_t i = 0; i < sizeof block; i++) block[i] = (uint8_t)(i * 31 + (i >> 8));

  /* Above 4 GiB, both halves; ports; decode both. */
  write_config32(f, BAR0, (uint32_t)high);
  write_config32(f, BAR0 + 4, (uint32_t)(high >> 32));
  write_config32(f, BAR0 + 8, READS);
  command(f, 1 | MEMORY);
  OK(potemkin_memory_write(f, high, block, sizeof block));
  OK(potemkin_memory_read(f, high, back, sizeof back));
  CHECK(memcmp(block, back, sizeof block) == 0);
  OK(potemkin_memory_read(f, high + 0x1235, back, 7));
  CHECK(memcmp(block + 0x1235, back, 7) == 0);
  IS(potemkin_memory_read(f, high + sizeof block - 1, &value, 2), NOT_DECODED);

  /* A string is as many elements as it has, at one place. */
  OK(potemkin_port_write(f, READS, counts, 4));
  CHECK(port32(f, READS) == 0 && port32(f, WRITES) == 0);
  OK(potemkin_bar_write_string(f, 0, 0x20, 2, shorts, 5));
  OK(potemkin_bar_read(f, 0, 0x20, &value, 2));
  CHECK(value == 5);
  OK(potemkin_port_read_string(f, WRITES, 4, counts, 3));
  CHECK(counts[0] == 5 && counts[1] == 5 && counts[2] == 5);
  OK(potemkin_bar_read_string(f, 2, 0, 4, counts, 2));
  CHECK(counts[0] == 1 && counts[1] == 1);
  OK(potemkin_port_write_string(f, WRITES, 4, counts, 3));
  CHECK(port32(f, WRITES) == 0);

  /* Decoded and refused by the device; not decoded. */
  IS(potemkin_port_read(f, READS, &value, 2), FAILED);
  CHECK(value == 0xffff);
  value = 7;
  IS(potemkin_port_read(f, READS + 16, &value, 2), NOT_DECODED);
  CHECK(value == 7);

  /* Moved below 4 GiB, with 0 as its upper half, while it decodes. */
  write_config32(f, BAR0 + 4, 0);
  write_config32(f, BAR0, (uint32_t)low);
  IS(potemkin_memory_read(f, high, &value, 2), NOT_DECODED);
  OK(potemkin_memory_read(f, low, back, 4));
  CHECK(memcmp(block, back, 4) == 0);

  /* Ports off, memory on. */
  command(f, MEMORY);
  IS(potemkin_port_write(f, READS, counts, 4), NOT_DECODED);
  OK(potemkin_memory_write(f, low, block, 1));
  OK(potemkin_close(f));
  return 0;
}

static int lost(const char *url) {
  potemkin_function *f = open_function(url);
  char reason[256];
  uint32_t value = 0;
  potemkin_status status;
  command(f, MEMORY);
  CHECK(read32(f, ID) == IDENTIFICATION);
  puts("open");
  fflush(stdout);
  do status = potemkin_bar_read(f, 0, ID, &value, sizeof value);
  while (status == POTEMKIN_STATUS_OK);
  CHECK(status == POTEMKIN_STATUS_FAILED);
  CHECK(value == 0xffffffff);
  IS(potemkin_bar_write(f, 0, LIVENESS, &value, sizeof value), FAILED);
  IS(potemkin_state(f, reason, sizeof reason), FAILED);
  CHECK(reason[0] != '\0');
  printf("%s\n", reason);
  CHECK(config32(f, 0) == 0x11e81234);
  OK(potemkin_close(f));
  return 0;
}

static int refused(const char *url, potemkin_status wanted) {
  potemkin_function *function = NULL;
  char reason[512];
  CHECK(potemkin_open(url, &options, &callbacks, &function, reason, sizeof reason) == wanted);
  CHECK(function == NULL);
  printf("%s\n", reason);
  return 0;
}

static int briefly(const char *url) {
  OK(potemkin_close(open_function(url)));
  return 0;
}

int main(int count, char **arguments) {
  CHECK(count == 6);
  fill_in(arguments + 3);
  if (strcmp(arguments[1], "whole") == 0) return whole(arguments[2]);
  if (strcmp(arguments[1], "spaces") == 0) return spaces(arguments[2]);
  if (strcmp(arguments[1], "lost") == 0) return lost(arguments[2]);
  if (strcmp(arguments[1], "briefly") == 0) return briefly(arguments[2]);
  if (strcmp(arguments[1], "later") == 0) return refused(arguments[2], POTEMKIN_STATUS_TRY_AGAIN);
  CHECK(strcmp(arguments[1], "refused") == 0);
  return refused(arguments[2], POTEMKIN_STATUS_REFUSED);
}
