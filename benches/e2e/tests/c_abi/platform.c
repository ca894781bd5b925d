/* Drives `uart`, which is not on PCI, through the C ABI: 8 ports from 0x3f8 on, line 4, and port 0x80, which it ignores.
 *
 *   platform whole URL CA CERT KEY
 *
 * Ends with 0, or says which line was not as it should be.
 */
#include "vmm.h"

enum { DATA = 0x3f8, INTERRUPT_ENABLE = 0x3f9, IDENTIFICATION = 0x3fa, LINE_STATUS = 0x3fd, SCRATCH = 0x3ff, PROGRESS = 0x80 };
enum { PORTS = 8, LINE = 4 };

static uint8_t in(potemkin_function *f, uint16_t port) {
  uint8_t value;
  OK(potemkin_port_read(f, port, &value, 1));
  return value;
}

static void out(potemkin_function *f, uint16_t port, uint8_t value) {
  OK(potemkin_port_write(f, port, &value, 1));
}

static void what_it_is(potemkin_function *f) {
  potemkin_info info = {.size = sizeof info};
  potemkin_info older = {.size = offsetof(potemkin_info, platform)};
  OK(potemkin_get_info(f, &info));
  CHECK(strcmp(info.id, "uart-0") == 0);
  CHECK(info.platform && info.line == LINE && info.intx_pin == 1);
  CHECK(info.vendor_id == 0xffff && info.config_bytes == 0 && info.msix_vectors == 0 && info.bars[0].bytes == 0);
  CHECK(config32(f, 0) == 0xffffffff);
  /* A VMM of before does not learn of it. */
  OK(potemkin_get_info(f, &older));
  CHECK(older.intx_pin == 1 && !older.platform && older.line == 0);
}

static void registers(potemkin_function *f) {
  uint8_t value = 0;
  out(f, SCRATCH, 0x5a);
  CHECK(in(f, SCRATCH) == 0x5a);
  OK(potemkin_bar_read(f, 0, SCRATCH - DATA, &value, 1));
  CHECK(value == 0x5a);
}

/* What it takes and does nothing with, what it refuses, and what is not its own. */
static void elsewhere(potemkin_function *f) {
  uint8_t bytes[4] = {1, 2, 3, 4};
  uint16_t wide = 0;
  OK(potemkin_port_write(f, PROGRESS, bytes, 1));
  OK(potemkin_port_read(f, PROGRESS, bytes, 1));
  CHECK(bytes[0] == 0xff);
  OK(potemkin_port_write_string(f, PROGRESS, 1, bytes, 4));
  OK(potemkin_port_read_string(f, PROGRESS, 1, bytes, 4));
  CHECK(bytes[1] == 0xff && bytes[3] == 0xff);
  IS(potemkin_port_read(f, DATA, &wide, 2), FAILED);
  CHECK(wide == 0xffff);
  bytes[0] = 7;
  IS(potemkin_port_read(f, PROGRESS + 1, bytes, 1), NOT_DECODED);
  IS(potemkin_port_read(f, DATA + PORTS, bytes, 1), NOT_DECODED);
  IS(potemkin_port_read_string(f, DATA - 1, 1, bytes, 1), NOT_DECODED);
  IS(potemkin_port_write(f, DATA - 1, bytes, 1), NOT_DECODED);
  IS(potemkin_memory_read(f, DATA, bytes, 1), NOT_DECODED);
  CHECK(bytes[0] == 7);
}

/* What is sent comes back, and raises the line until it is read. */
static void line(potemkin_function *f) {
  await_level(false);
  out(f, INTERRUPT_ENABLE, 1);
  out(f, DATA, 'A');
  await_level(true);
  CHECK((in(f, IDENTIFICATION) & 0x0f) == 4 && (in(f, LINE_STATUS) & 1) == 1);
  CHECK(in(f, DATA) == 'A');
  await_level(false);
  out(f, INTERRUPT_ENABLE, 0);
}

static void strings(potemkin_function *f) {
  char back[5];
  OK(potemkin_port_write_string(f, DATA, 1, "hello", 5));
  OK(potemkin_port_read_string(f, DATA, 1, back, 5));
  CHECK(memcmp(back, "hello", 5) == 0);
  CHECK((in(f, LINE_STATUS) & 1) == 0);
}

/* Its ranges stay; registers and line are as at power-on. */
static void reset(potemkin_function *f) {
  uint8_t value;
  out(f, INTERRUPT_ENABLE, 1);
  out(f, DATA, 'A');
  await_level(true);
  OK(potemkin_reset(f));
  await_level(false);
  while (potemkin_port_read(f, SCRATCH, &value, 1) != POTEMKIN_STATUS_OK) continue;
  CHECK(value == 0 && (in(f, LINE_STATUS) & 1) == 0);
  CHECK(vmm.changes == 0);
}

/* What the library says of accesses that are to be seen. */
static struct {
  pthread_mutex_t lock;
  size_t accesses;
  char last[256];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void look(void *user, potemkin_log_level level, const char *line) {
  CHECK(user == &told);
  calls_nothing();
  if (level != POTEMKIN_LOG_LEVEL_DEBUG || strncmp(line, "potemkin::access:", 17) != 0) return;
  pthread_mutex_lock(&told.lock);
  told.accesses++;
  snprintf(told.last, sizeof told.last, "%s", line);
  pthread_mutex_unlock(&told.lock);
}

static void set_log(void) {
  IS(potemkin_set_log(5, look, &told), INVALID_ARGUMENT);
  IS(potemkin_set_log(POTEMKIN_LOG_LEVEL_DEBUG, NULL, &told), INVALID_ARGUMENT);
  OK(potemkin_set_log(POTEMKIN_LOG_LEVEL_DEBUG, look, &told));
  IS(potemkin_set_log(POTEMKIN_LOG_LEVEL_ERROR, look, &told), INVALID_ARGUMENT);
}

/* The ignored port is, the registers are not. They come on this thread. */
static void shown(potemkin_function *f) {
  size_t before = told.accesses;
  out(f, PROGRESS, 0x5a);
  CHECK(told.accesses == before + 1);
  CHECK(strstr(told.last, "write") && strstr(told.last, "address=0x80") && strstr(told.last, "5a"));
  CHECK(in(f, PROGRESS) == 0xff && told.accesses == before + 2);
  CHECK(in(f, SCRATCH) == 0x5a && told.accesses == before + 2);
}

int main(int count, char **arguments) {
  const change mapped = {true, POTEMKIN_ADDRESS_KIND_PORT, 0, DATA, PORTS};
  const change unmapped = {false, POTEMKIN_ADDRESS_KIND_PORT, 0, DATA, PORTS};
  CHECK(count == 6);
  potemkin_options options = options_of(arguments + 3);
  potemkin_callbacks callbacks = all_callbacks();
  set_log();
  vmm.function = opened(arguments[2], &options, &callbacks);
  changes_are(1, &mapped);
  what_it_is(vmm.function);
  registers(vmm.function);
  elsewhere(vmm.function);
  shown(vmm.function);
  line(vmm.function);
  strings(vmm.function);
  reset(vmm.function);
  OK(potemkin_close(vmm.function));
  changes_are(1, &unmapped);
  CHECK(vmm.messages == 0);
  return 0;
}
