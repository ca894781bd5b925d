/* A VMM that hooks addresses and takes messages: it notes each callback. */
#ifndef VMM_H
#define VMM_H

#include "check.h"

#include <pthread.h>

enum { CHANGES = 64, MESSAGES = 16, RAM_BYTES = 0x1000 };

typedef struct {
  bool mapped;
  potemkin_address_kind kind;
  uint32_t bar;
  uint64_t address, bytes;
} change;

typedef struct {
  uint64_t address;
  uint32_t data;
  pthread_t thread;
  /* Guest memory as it was then. */
  uint8_t ram[RAM_BYTES];
} message;

static uint8_t ram[RAM_BYTES];

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  potemkin_function *function;
  bool level;
  /* What has happened since it was last looked at. */
  size_t changes;
  change change[CHANGES];
  size_t messages;
  message message[MESSAGES];
  /* An address that is another device's. */
  uint64_t taken;
} vmm = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* A callback is refused whatever thread it is on. Before the handle is there, there is nothing to call. */
static void calls_nothing(void) {
  uint32_t value;
  CHECK(potemkin_abi_version() == POTEMKIN_ABI_VERSION);
  if (vmm.function != NULL) IS(potemkin_config_read(vmm.function, 0, &value, sizeof value), IN_CALLBACK);
}

static void set_intx(void *user, bool level) {
  CHECK(user == &vmm);
  pthread_mutex_lock(&vmm.lock);
  vmm.level = level;
  pthread_cond_broadcast(&vmm.changed);
  pthread_mutex_unlock(&vmm.lock);
}

static void take_message(void *user, uint64_t address, uint32_t data) {
  CHECK(user == &vmm);
  calls_nothing();
  pthread_mutex_lock(&vmm.lock);
  CHECK(vmm.messages < MESSAGES);
  message *now = &vmm.message[vmm.messages++];
  now->address = address;
  now->data = data;
  now->thread = pthread_self();
  memcpy(now->ram, ram, sizeof ram);
  pthread_cond_broadcast(&vmm.changed);
  pthread_mutex_unlock(&vmm.lock);
}

static void note(bool mapped, const potemkin_mapping *mapping) {
  CHECK(mapping->size >= sizeof *mapping && vmm.changes < CHANGES);
  vmm.change[vmm.changes++] = (change){mapped, mapping->kind, mapping->bar, mapping->address, mapping->bytes};
}

static int map(void *user, const potemkin_mapping *mapping) {
  CHECK(user == &vmm);
  calls_nothing();
  if (vmm.taken != 0 && mapping->address == vmm.taken) return -1;
  note(true, mapping);
  return 0;
}

static void unmap(void *user, const potemkin_mapping *mapping) {
  CHECK(user == &vmm);
  calls_nothing();
  note(false, mapping);
}

/* No callback but these: what they do not give must not be wanted. */
static inline potemkin_callbacks all_callbacks(void) {
  return (potemkin_callbacks){
      .size = sizeof(potemkin_callbacks), .user = &vmm, .set_intx = set_intx, .message = take_message, .map = map, .unmap = unmap};
}

static inline void await_level(bool level) {
  pthread_mutex_lock(&vmm.lock);
  while (vmm.level != level) pthread_cond_wait(&vmm.changed, &vmm.lock);
  pthread_mutex_unlock(&vmm.lock);
}

static inline void await_messages(size_t count) {
  pthread_mutex_lock(&vmm.lock);
  while (vmm.messages < count) pthread_cond_wait(&vmm.changed, &vmm.lock);
  CHECK(vmm.messages == count);
  pthread_mutex_unlock(&vmm.lock);
}

/* What was mapped and unmapped since, in this order, and nothing else. They come inside this thread's own calls. */
static inline void changes_are(size_t count, const change *wanted) {
  CHECK(vmm.changes == count);
  for (size_t i = 0; i < count; i++) {
    const change *is = &vmm.change[i], *want = &wanted[i];
    CHECK(is->mapped == want->mapped && is->kind == want->kind && is->bar == want->bar);
    CHECK(is->address == want->address && is->bytes == want->bytes);
  }
  vmm.changes = 0;
}
#define CHANGES_ARE(...) changes_are(sizeof((change[]){__VA_ARGS__}) / sizeof(change), (change[]){__VA_ARGS__})

#endif
