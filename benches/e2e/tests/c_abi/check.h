/* What the programs have in common: checks, opening, configuration space. */
#ifndef CHECK_H
#define CHECK_H

#include <potemkin_front.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)
#define OK(call) CHECK((call) == POTEMKIN_STATUS_OK)
#define IS(call, name) CHECK((call) == POTEMKIN_STATUS_##name)

static inline potemkin_options options_of(char **arguments) {
  potemkin_options options = {.size = sizeof options};
  options.ca_file = arguments[0];
  options.cert_file = arguments[1];
  options.key_file = arguments[2];
  return options;
}

static inline potemkin_function *opened(const char *url, const potemkin_options *options, const potemkin_callbacks *callbacks) {
  potemkin_function *function = NULL;
  char reason[512] = "unset";
  potemkin_status status = potemkin_open(url, options, callbacks, &function, reason, sizeof reason);
  if (status != POTEMKIN_STATUS_OK) fprintf(stderr, "open: %s\n", reason);
  CHECK(status == POTEMKIN_STATUS_OK && function != NULL && reason[0] == '\0');
  return function;
}

static inline uint32_t config32(potemkin_function *f, uint16_t offset) {
  uint32_t value;
  OK(potemkin_config_read(f, offset, &value, sizeof value));
  return value;
}

static inline void write_config32(potemkin_function *f, uint16_t offset, uint32_t value) {
  OK(potemkin_config_write(f, offset, &value, sizeof value));
}

static inline void command(potemkin_function *f, uint16_t bits) {
  OK(potemkin_config_write(f, 0x04, &bits, sizeof bits));
}

static inline uint16_t find_capability(potemkin_function *f, uint8_t id) {
  uint8_t capability = (uint8_t)config32(f, 0x34);
  while ((config32(f, capability) & 0xff) != id) {
    capability = (uint8_t)(config32(f, capability) >> 8);
    CHECK(capability != 0);
  }
  return capability;
}

/* Registers of BAR 0. */
static inline uint32_t read32(potemkin_function *f, uint64_t offset) {
  uint32_t value;
  OK(potemkin_bar_read(f, 0, offset, &value, sizeof value));
  return value;
}

static inline void write32(potemkin_function *f, uint64_t offset, uint32_t value) {
  OK(potemkin_bar_write(f, 0, offset, &value, sizeof value));
}

static inline void write64(potemkin_function *f, uint64_t offset, uint64_t value) {
  OK(potemkin_bar_write(f, 0, offset, &value, sizeof value));
}

#endif
