/* Drives `order` while it writes guest memory and sends messages, and takes something away from it: the window, by a reset, by closing.
 *
 *   busy whole URL CA CERT KEY
 *
 * Ends with 0, or says which line was not as it should be.
 */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { MEMORY = 2, BUS_MASTER = 4 };
/* BAR 0 of `order`, and its interrupt table. */
enum { STATUS = 0x20, DMA_FAILED = 8 };
enum { RING_BASE = 0x100, RING_STRIDE = 0x108, RING_SLOTS = 0x10c, RING_BLOCK = 0x110 };
enum { RING_VECTORS = 0x114, RING_ROUNDS = 0x118, RING_COMMAND = 0x130 };
enum { TABLE_BAR = 4 };
static const uint32_t IDENTIFICATION = 0x5244524f;

/* Each round writes the same block. There are enough of them for a while. */
enum { BLOCK = 4096, ROUNDS = 4096 };
static const uint64_t RAM_BASE = 0x100000;
static uint8_t ram[BLOCK];

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  size_t messages, writes;
  /* A callback that is to wait until this thread is about to make its call. */
  bool hold, held, going;
  /* Nothing of that kind may come any more. */
  bool no_messages, no_writes;
} vmm = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* A call that ought to wait for this callback has the time to end before it. */
static void linger(void) {
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static void hold(const bool *must_not_come) {
  bool held;
  pthread_mutex_lock(&vmm.lock);
  CHECK(!*must_not_come);
  held = vmm.held = vmm.hold;
  pthread_cond_broadcast(&vmm.changed);
  while (vmm.held && !vmm.going) pthread_cond_wait(&vmm.changed, &vmm.lock);
  pthread_mutex_unlock(&vmm.lock);
  if (!held) return;
  linger();
  pthread_mutex_lock(&vmm.lock);
  CHECK(!*must_not_come);
  vmm.held = vmm.hold = false;
  pthread_mutex_unlock(&vmm.lock);
}

static void take_message(void *user, uint64_t address, uint32_t data) {
  CHECK(user == &vmm && address == 0xfee00000 && data == 0x40);
  vmm.messages++;
  if (vmm.writes == 0) hold(&vmm.no_messages);
  CHECK(!vmm.no_messages);
}

static int write_guest(void *user, uint64_t address, const void *data, size_t length) {
  CHECK(user == &vmm && address >= RAM_BASE && length <= BLOCK - (address - RAM_BASE));
  vmm.writes++;
  hold(&vmm.no_writes);
  memcpy(ram + (address - RAM_BASE), data, length);
  return 0;
}

/* The next callback waits until `about_to_call`. */
static void hold_next(void) {
  pthread_mutex_lock(&vmm.lock);
  vmm.hold = true;
  vmm.going = false;
  pthread_mutex_unlock(&vmm.lock);
}

static void about_to_call(void) {
  pthread_mutex_lock(&vmm.lock);
  while (!vmm.held) pthread_cond_wait(&vmm.changed, &vmm.lock);
  vmm.going = true;
  pthread_cond_broadcast(&vmm.changed);
  pthread_mutex_unlock(&vmm.lock);
}

static void nothing_more(bool *of_these) {
  pthread_mutex_lock(&vmm.lock);
  CHECK(!vmm.held);
  *of_these = true;
  pthread_mutex_unlock(&vmm.lock);
}

/* From here on it writes and sends messages. */
static void start(potemkin_function *f) {
  const uint32_t entry[4] = {0xfee00000, 0, 0x40, 0};
  const uint16_t on = 0x8000;
  command(f, MEMORY | BUS_MASTER);
  OK(potemkin_bar_write(f, TABLE_BAR, 0, entry, sizeof entry));
  OK(potemkin_config_write(f, (uint16_t)(find_capability(f, 0x11) + 2), &on, sizeof on));
  write64(f, RING_BASE, RAM_BASE);
  write32(f, RING_STRIDE, 0);
  write32(f, RING_SLOTS, ROUNDS);
  write32(f, RING_BLOCK, BLOCK);
  write32(f, RING_VECTORS, 1);
  write64(f, RING_ROUNDS, ROUNDS);
  write32(f, RING_COMMAND, 1);
}

static void forget(void) {
  vmm.messages = vmm.writes = 0;
  vmm.no_messages = vmm.no_writes = false;
}

/* Unmapped while a callback writes: it waits for that one, and no other comes. Messages go on. */
static void unmapped(potemkin_function *f) {
  OK(potemkin_map_window(f, RAM_BASE, BLOCK, POTEMKIN_WINDOW_WRITE, NULL));
  hold_next();
  start(f);
  about_to_call();
  OK(potemkin_unmap_window(f, RAM_BASE, BLOCK));
  nothing_more(&vmm.no_writes);
  while (!(read32(f, STATUS) & DMA_FAILED)) continue;
  CHECK(vmm.writes >= 1);
}

/* Reset while a callback writes: the same, and no message comes either. */
static void reset(potemkin_function *f) {
  uint32_t value = 0;
  OK(potemkin_map_window(f, RAM_BASE, BLOCK, POTEMKIN_WINDOW_WRITE, NULL));
  hold_next();
  start(f);
  about_to_call();
  OK(potemkin_reset(f));
  nothing_more(&vmm.no_writes);
  nothing_more(&vmm.no_messages);
  command(f, MEMORY | BUS_MASTER);
  while (potemkin_bar_read(f, 0, 0, &value, sizeof value) != POTEMKIN_STATUS_OK) continue;
  CHECK(value == IDENTIFICATION);
  OK(potemkin_unmap_window(f, RAM_BASE, BLOCK));
}

/* Closed while a callback takes the first of many messages. */
static void closed(potemkin_function *f) {
  OK(potemkin_map_window(f, RAM_BASE, BLOCK, POTEMKIN_WINDOW_WRITE, ram));
  hold_next();
  start(f);
  about_to_call();
  OK(potemkin_close(f));
  nothing_more(&vmm.no_messages);
  memset(ram, 0, sizeof ram);
}

/* What is left of the old session would show before the new one's host has answered. */
static void again(const char *url, const potemkin_options *options) {
  potemkin_function *f = opened(url, options, NULL);
  command(f, MEMORY);
  CHECK(read32(f, 0) == IDENTIFICATION);
  OK(potemkin_close(f));
  for (size_t i = 0; i < sizeof ram; i++) CHECK(ram[i] == 0);
}

int main(int count, char **arguments) {
  CHECK(count == 6);
  potemkin_options options = options_of(arguments + 3);
  potemkin_callbacks callbacks = {
      .size = sizeof callbacks, .user = &vmm, .message = take_message, .write_guest_memory = write_guest};
  potemkin_function *f = opened(arguments[2], &options, &callbacks);
  unmapped(f);
  OK(potemkin_close(f));
  forget();
  f = opened(arguments[2], &options, &callbacks);
  reset(f);
  forget();
  closed(f);
  again(arguments[2], &options);
  return 0;
}
