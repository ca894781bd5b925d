/* A remote PCI function for VMMs written in C: libpotemkin_front. Licence: Apache-2.0 OR MIT.
 *
 * Made from the Rust sources by cbindgen; do not edit. Examples, and the same with links: the documentation of the crate potemkin-capi.
 *
 * Linking. Shared: -lpotemkin_front; the library's name at run time is libpotemkin_front.so.N, N being POTEMKIN_ABI_VERSION: install it so, and
 * libpotemkin_front.so as a link to it. Static: libpotemkin_front.a -lgcc_s -lutil -lrt -lpthread -lm -ldl, in this order, last.
 *
 * Threads. Any thread may call any function at any time, but potemkin_close, which must be the last with its handle. Callbacks come on a
 * thread of the library's; message, map and unmap also on the thread whose call causes them. A callback may call potemkin_abi_version and
 * nothing else of this library, and must not wait for a thread that is inside a call of it.
 *
 * Accesses. Buffers hold bytes as they lie on the bus, the one at the lowest address first: a number is little-endian in them, whatever the
 * machine is. Numbers that are arguments (addresses, a message's data) are the machine's own. Where nothing else is said an access may have
 * any length from 1 byte to POTEMKIN_ACCESS_MAX, at any alignment. 1, 2, 4 and 8 bytes are one access of that width; any other
 * length is a block of consecutive elements, as wide as its alignment and length allow.
 *
 * Blocks and strings travel in pieces of 4096 bytes at most (of a block, also one each that alignment makes at its ends), in order, each one
 * access of the session: those of other threads may come between two. A piece is done or not done. POTEMKIN_STATUS_FAILED means that one
 * piece at least was not, and says nothing of the others: the device may have seen their writes, and the effects of their reads. What a device
 * refuses of a posted write nobody hears of.
 *
 * Waiting. An access of one piece waits for deadline_ms at most, for room among those that are under way (a posted write too) and for its answer
 * together; then the session is lost: what waits ends, and later accesses fail at once. When a broker or a path fails meanwhile, the session goes on
 * over another, and the access is done once. What comes after a lost session says after_loss of potemkin_options. A longer access may wait so long for each of its pieces.
 *
 * One process is one agent: its certificate. Two processes with one certificate take devices from each other: opening a device that the
 * other has (or by a selector that fits it, when none is free) ends the other's session at once, which is then POTEMKIN_STATUS_FAILED, "superseded". This
 * is how a restarted VMM gets its devices back. Give each VMM a certificate of its own. Within a process a device can be open once: a second
 * potemkin_open gives POTEMKIN_STATUS_TRY_AGAIN.
 *
 * Growth. Structures that a caller gives begin with their size; fields are added at their end. What the caller's structure does not have is
 * 0, which means "as before"; what the library's does not have must be 0, or the call gives POTEMKIN_STATUS_INVALID_ARGUMENT. potemkin_get_info
 * fills what both have and sets what only the caller's has to 0. Of a structure that the library gives (potemkin_mapping) a caller looks at
 * no field beyond the size that it has. potemkin_bar_info does not grow. New statuses and other values may come: treat one that you do not know as
 * POTEMKIN_STATUS_FAILED.
 *
 * Processes and signals. A child of fork() has no session: it may exec or _exit, and neither uses nor closes a handle. Descriptors are closed
 * on exec. A process that ends without potemkin_close leaves its devices to the broker, which frees them when it has noticed. The library
 * installs no signal handler and raises no SIGPIPE; its threads have the signal mask of the thread that called potemkin_open. No function may
 * be called in a signal handler; an interrupted one goes on. */

#ifndef POTEMKIN_FRONT_H
#define POTEMKIN_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this interface.
 */
#define POTEMKIN_ABI_VERSION 1

/**
 * In place of a BAR's number: the expansion ROM.
 */
#define POTEMKIN_ROM 6

/**
 * After the loss of a session: nothing. Reads give all-ones, writes are dropped; unplug the function.
 */
#define POTEMKIN_AFTER_LOSS_REMOVE 0

/**
 * After the loss of a session: the device is opened again, for as long as it takes. Until the guest resets the function, reads give what the device declares
 * for a failed one, else all-ones, and writes are dropped; then it goes on, on a device that was reset. If the device has become another one, as
 * POTEMKIN_AFTER_LOSS_REMOVE.
 */
#define POTEMKIN_AFTER_LOSS_RESET 1

/**
 * Longest access, in bytes.
 */
#define POTEMKIN_ACCESS_MAX 1048576

/**
 * Bytes of a device's id in the pool, the zero byte at its end among them.
 */
#define POTEMKIN_ID_BYTES 64

/**
 * The device may read the window.
 */
#define POTEMKIN_WINDOW_READ 1

/**
 * The device may write the window.
 */
#define POTEMKIN_WINDOW_WRITE 2

/**
 * What a call came to.
 */
enum potemkin_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done, all of it; or a posted write that is on its way, of which nobody hears what the device made of it.
   */
  POTEMKIN_STATUS_OK = 0,
  /**
   * There is nothing of this function's at that place: its BARs do not decode it, decode is off, or the BAR ends before.
   * Ask the VMM's other devices; if there are none, reads give all-ones and writes are dropped.
   * The buffer of an absolute read is left as it was; that of a read relative to a BAR is filled with all-ones.
   */
  POTEMKIN_STATUS_NOT_DECODED = 1,
  /**
   * The function decodes it and there is no result: the device refused, or the session is lost. A read has filled its
   * buffer with what the guest is to see: all-ones (a string: from the piece that failed), or in configuration space the bits that
   * are known here. Of an access of more than 4096 bytes other pieces may have been done.
   */
  POTEMKIN_STATUS_FAILED = 2,
  /**
   * An argument is out of range or a null pointer. Nothing was done.
   */
  POTEMKIN_STATUS_INVALID_ARGUMENT = 3,
  /**
   * Opening failed, and may succeed later: the broker cannot be reached, or the device is taken or not there yet.
   */
  POTEMKIN_STATUS_TRY_AGAIN = 4,
  /**
   * Opening failed for good: a rule of the broker's, a wrong certificate, another broker than it should be.
   */
  POTEMKIN_STATUS_REFUSED = 5,
  /**
   * A callback has called the library, which would wait for itself. Nothing was done.
   */
  POTEMKIN_STATUS_IN_CALLBACK = 6,
  /**
   * A bug in the library. It was caught; the handle may still be closed.
   */
  POTEMKIN_STATUS_INTERNAL = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum potemkin_status potemkin_status;
#else
typedef int32_t potemkin_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which of the guest's two kinds of addresses.
 */
enum potemkin_address_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Guest-physical memory.
   */
  POTEMKIN_ADDRESS_KIND_MEMORY = 0,
  /**
   * I/O ports.
   */
  POTEMKIN_ADDRESS_KIND_PORT = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum potemkin_address_kind potemkin_address_kind;
#else
typedef uint32_t potemkin_address_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a BAR decodes.
 */
enum potemkin_bar_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * There is none, or it is the upper half of the one before.
   */
  POTEMKIN_BAR_TYPE_NONE = 0,
  /**
   * Ports.
   */
  POTEMKIN_BAR_TYPE_IO = 1,
  /**
   * Memory at a 32-bit address.
   */
  POTEMKIN_BAR_TYPE_MEMORY32 = 2,
  /**
   * Memory at a 64-bit address.
   */
  POTEMKIN_BAR_TYPE_MEMORY64 = 3,
  /**
   * Memory below 1 MiB.
   */
  POTEMKIN_BAR_TYPE_MEMORY_BELOW1M = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum potemkin_bar_type potemkin_bar_type;
#else
typedef uint32_t potemkin_bar_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a line matters.
 */
enum potemkin_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something was lost.
   */
  POTEMKIN_LOG_LEVEL_ERROR = 1,
  /**
   * Something is not as it should be, and all goes on.
   */
  POTEMKIN_LOG_LEVEL_WARNING = 2,
  /**
   * Something changed its state.
   */
  POTEMKIN_LOG_LEVEL_INFO = 3,
  /**
   * For whoever looks for a fault; among it accesses that a device's description wants shown.
   */
  POTEMKIN_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum potemkin_log_level potemkin_log_level;
#else
typedef uint32_t potemkin_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An open function. Any thread may use it, several at a time; accesses of several threads are in flight together.
 */
typedef struct potemkin_function potemkin_function;

/**
 * Who this VMM is, whom it trusts, and how long it waits. Set it to zero, then fill it in. Nothing of it is kept by the library.
 */
typedef struct potemkin_options {
  /**
   * `sizeof(struct potemkin_options)`.
   */
  size_t size;
  /**
   * PEM file: the authorities that the broker's certificate may come from.
   */
  const char *ca_file;
  /**
   * PEM file: our certificate, which must be an agent's, and those between it and the authority.
   */
  const char *cert_file;
  /**
   * PEM file: its private key.
   */
  const char *key_file;
  /**
   * How long a piece of an access may stay unanswered, in milliseconds, before the session is lost: 50 to 60000, or 0 for 1000. So
   * long a vCPU waits for a host that is silent, once ("Waiting", above).
   */
  uint32_t deadline_ms;
  /**
   * What comes after a session that is lost: `POTEMKIN_AFTER_LOSS_REMOVE` or `POTEMKIN_AFTER_LOSS_RESET`.
   */
  uint32_t after_loss;
} potemkin_options;

/**
 * A range of addresses that stands for all of a BAR (of a platform function: of a region), or for the expansion ROM. Offset 0 is its first
 * address: an access to it is one of `potemkin_bar_read` and its likes at its address less `address`. Valid during the callback only.
 */
typedef struct potemkin_mapping {
  /**
   * Bytes of this structure, as the library has it.
   */
  size_t size;
  /**
   * First address.
   */
  uint64_t address;
  /**
   * Bytes, or ports.
   */
  uint64_t bytes;
  /**
   * Memory or ports.
   */
  potemkin_address_kind kind;
  /**
   * BAR or region 0 to 5, or `POTEMKIN_ROM`.
   */
  uint32_t bar;
} potemkin_mapping;

/**
 * What the VMM does for the device. Set it to zero, then fill it in; it is copied. A callback that is null is not called: such interrupts
 * are lost, such memory cannot be accessed.
 *
 * On the session's thread they are called one at a time, in the order in which the device did what they stand for: when an interrupt
 * comes, the memory that the device wrote before it is written. `message`, `map` and `unmap` also come on a thread of the VMM's, inside a
 * call that it made, and then while another callback may run on the session's thread. Wherever they come, they must return soon,
 * must call nothing of this library but `potemkin_abi_version` (all else answers `POTEMKIN_STATUS_IN_CALLBACK`) and must not wait for a thread that
 * is inside a call of it; so a thread that makes a call holds no lock that a callback takes. They must not unwind.
 */
typedef struct potemkin_callbacks {
  /**
   * `sizeof(struct potemkin_callbacks)`.
   */
  size_t size;
  /**
   * Given to each callback.
   */
  void *user;
  /**
   * The level of the function's INTx line changed; as the guest is to see it, the command register's interrupt-disable bit obeyed.
   */
  void (*set_intx)(void *user, bool level);
  /**
   * MSI vector 0 to 31 fired; the guest has turned MSI and bus mastering on. Not called with `message` set.
   */
  void (*msi)(void *user, uint16_t vector);
  /**
   * MSI-X vector 0 to 2047 fired; the guest has turned MSI-X and bus mastering on. Not called with `message` set.
   */
  void (*msix)(void *user, uint16_t vector);
  /**
   * Reads guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
   */
  int (*read_guest_memory)(void *user, uint64_t address, void *out, size_t length);
  /**
   * Writes guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
   */
  int (*write_guest_memory)(void *user, uint64_t address, const void *data, size_t length);
  /**
   * MSI or MSI-X: the function writes these 4 bytes there, as the guest has programmed it; what the device wrote before is in guest
   * memory. With this set the library keeps the MSI-X table, the pending bits and the masks, and accesses of them are local;
   * without it the VMM keeps them, and hears of vectors by `msi` and `msix`.
   *
   * Called on the session's thread, or on a thread that unmasks what was pending, inside its write; one message at a time. Once the write
   * of a mask has returned, nothing that it holds back comes any more.
   */
  void (*message)(void *user, uint64_t address, uint32_t data);
  /**
   * Accesses to this range are the function's from now on. 0: the VMM hands them to it; else the range cannot be had, and what
   * was mapped before for this BAR stays. It overlaps no other that is mapped for this function.
   *
   * Called on the thread that opens the function, resets it, or writes its configuration space, inside that call, which returns when
   * the VMM's address map is as it says. `map` and `unmap` of one function do not overlap. A BAR that moves is mapped at its
   * new place, then unmapped at the old one.
   */
  int (*map)(void *user, const struct potemkin_mapping *mapping);
  /**
   * Ends that; the same range as in `map`. Called as `map`, and by `potemkin_close` for all that is mapped. Not without `map`.
   */
  void (*unmap)(void *user, const struct potemkin_mapping *mapping);
} potemkin_callbacks;

/**
 * A BAR.
 */
typedef struct potemkin_bar_info {
  /**
   * In bytes; 0: there is none.
   */
  uint64_t bytes;
  /**
   * What it decodes.
   */
  potemkin_bar_type kind;
  /**
   * Reads have no effects.
   */
  bool prefetchable;
} potemkin_bar_info;

/**
 * What the function is: from the device's own description. Where its BARs are stands in configuration space.
 */
typedef struct potemkin_info {
  /**
   * `sizeof(struct potemkin_info)`, to be set before the call.
   */
  size_t size;
  /**
   * The device's id in the pool; of a selector: which one it is. Ends with a zero byte.
   */
  char id[POTEMKIN_ID_BYTES];
  /**
   * Vendor; 0xffff for a platform function, as the device, and all-ones as its class.
   */
  uint16_t vendor_id;
  /**
   * Device.
   */
  uint16_t device_id;
  /**
   * Class code: base class, sub-class, interface, from bit 23 down.
   */
  uint32_t class_code;
  /**
   * Bytes of configuration space: 256 or 4096; 0 for a platform function.
   */
  uint32_t config_bytes;
  /**
   * Interrupt pin: 1 (INTA) to 4, or 0 for none. 1 for a platform function that has an interrupt line.
   */
  uint16_t intx_pin;
  /**
   * MSI vectors, or 0.
   */
  uint16_t msi_vectors;
  /**
   * MSI-X vectors, or 0.
   */
  uint16_t msix_vectors;
  /**
   * Must be ignored.
   */
  uint16_t reserved;
  /**
   * Bytes of the expansion ROM, or 0.
   */
  uint64_t rom_bytes;
  /**
   * The BARs; none of a platform function.
   */
  struct potemkin_bar_info bars[6];
  /**
   * Not on PCI: its ports and memory are at fixed addresses, which `map` gives and absolute accesses answer; among those, with
   * all-ones, are addresses that it takes and ignores, which are not mapped.
   */
  bool platform;
  /**
   * Interrupt line of a platform function that has one: an ISA IRQ or a GSI; `set_intx` gives its level. Else 0.
   */
  uint32_t line;
} potemkin_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of this interface: `POTEMKIN_ABI_VERSION` of the header that the library was built with. It rises when something of
 * the older interface changes; what is only added shows in the sizes of structures. May be called at any time, in callbacks too.
 */
uint32_t potemkin_abi_version(void);

/**
 * Claims a device and opens a session on it; returns when the device's host has accepted it, or when something failed and all is undone: no
 * callback comes any more, and the device is given back. What is refused fails at once. What does not answer is given up: the broker, or
 * one's way to it, after 5 s (besides the time that the system takes for its name), each of its answers after 10 s, the host after
 * `deadline_ms`; with giving the device back that is half a minute at the worst, for each broker that is asked.
 *
 * `url`: `potemkin://broker[:port]/device`, or `potemkin://broker[:port]/?class=CLASS&label.KEY=VALUE` for any free device that
 * fits. Both take `transport=quic` (as without) or `transport=grpc`, and `identity=spiffe://DOMAIN/broker/NAME` (without: any
 * broker of our own trust domain). Default port: 7640. Of a pool with several brokers, up to 16 may be given, with commas between them, the preferred
 * one first: `potemkin://b1.example,b2.example:7641/device`. The device is claimed through the first that can be reached and grants it; what
 * one of them refuses is refused.
 *
 * When the path to the device is lost the session goes on over another: through any of the brokers, over either transport. Accesses wait
 * meanwhile, each for `deadline_ms` at most; nothing is lost and nothing is done twice. Only when none is found in time the session is lost.
 *
 * `callbacks` may be null. Callbacks may come before this returns; so does `map` for a platform function. On success `*function` is the
 * handle, to be closed with `potemkin_close`; else it is null, and `reason` says why in one line of UTF-8 that ends with a zero byte, cut
 * if `reason_size` is too small (512 is plenty). The buffer is the caller's; it may be null. Both are always written; the line is empty on
 * success, and where the status says it all (`POTEMKIN_STATUS_IN_CALLBACK`, `POTEMKIN_STATUS_INTERNAL`).
 *
 * A session that is lost stays lost: reads give `POTEMKIN_STATUS_FAILED` and all-ones. Close it and open again.
 *
 * # Safety
 * Strings end with a zero byte; structures are as large as they say; `reason` has `reason_size` bytes; `callbacks.user` may be
 * used on any thread until the function is closed.
 */
potemkin_status potemkin_open(const char *url,
                              const struct potemkin_options *options,
                              const struct potemkin_callbacks *callbacks,
                              struct potemkin_function **function,
                              char *reason,
                              size_t reason_size);

/**
 * Ends the session and gives the device back (a claim that an operator has made stays); frees the handle. Null is allowed. Before it
 * returns, `unmap` is called for all that is mapped, and INTx is lowered; afterwards no callback comes any more and no window is
 * touched. It waits for a callback or a copy that goes on, and for the brokers, some 20 s at most.
 *
 * # Safety
 * No other call with this handle is going on or comes after.
 */
potemkin_status potemkin_close(struct potemkin_function *function);

/**
 * Whether the session lives: `POTEMKIN_STATUS_OK`, or `POTEMKIN_STATUS_FAILED` and why in `reason`, as `potemkin_open` has it. One that looks for another
 * path lives. With `POTEMKIN_AFTER_LOSS_RESET` it does not from the loss of a session until the guest has reset the function on the next one.
 *
 * # Safety
 * `function` is open; `reason` is null or has `reason_size` bytes.
 */
potemkin_status potemkin_state(const struct potemkin_function *function,
                               char *reason,
                               size_t reason_size);

/**
 * Resets the function, as a bus reset does: configuration space is as at power-on at once; the device is reset in order with the
 * accesses around; no message and no DMA of before reaches the guest afterwards, and `set_intx` lowers the line soon. Calls `unmap` for
 * what was mapped. Waits for a copy or a callback that goes on, never for the network.
 *
 * # Safety
 * `function` is open.
 */
potemkin_status potemkin_reset(const struct potemkin_function *function);

/**
 * The guest has ended an INTx interrupt (EOI), and the VMM has lowered its line with that. `set_intx` raises it again if the level is
 * still up once the device has done what the guest wrote before. For a VMM that keeps the line as `set_intx` says there is no need of it.
 * Waits for nothing.
 *
 * # Safety
 * `function` is open.
 */
potemkin_status potemkin_ack_intx(const struct potemkin_function *function);

/**
 * Says what the function is. `info->size` must be set.
 *
 * # Safety
 * `function` is open; `info` is as large as it says.
 */
potemkin_status potemkin_get_info(const struct potemkin_function *function, struct potemkin_info *info);

/**
 * Reads configuration space, 1 to 4096 bytes that end at 4096 or before. Local, but for bits that the device declares volatile: those ask its host. Bytes
 * beyond the function's own configuration space read as all-ones.
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_config_read(const struct potemkin_function *function,
                                     uint16_t offset,
                                     void *out,
                                     size_t length);

/**
 * Writes configuration space, 1 to 4096 bytes that end at 4096 or before, of which the bits count that the device lets the guest write. Waits for the
 * device where it wants to hear of the write. One that turns bus mastering off or resets the function also waits for a copy or a callback
 * that goes on, as `potemkin_reset` does; one that moves what decodes calls `map` and `unmap`.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_config_write(const struct potemkin_function *function,
                                      uint16_t offset,
                                      const void *data,
                                      size_t length);

/**
 * Reads at an offset in a BAR (0 to 5, memory or ports) or in the expansion ROM (`POTEMKIN_ROM`), whose image is here, and which is
 * read so whether its enable bit is on or off.
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_bar_read(const struct potemkin_function *function,
                                  uint32_t bar,
                                  uint64_t offset,
                                  void *out,
                                  size_t length);

/**
 * Writes at an offset in a BAR. Returns without waiting for the device where the device posts its writes, as memory does by default; else
 * when the device has done it. The expansion ROM ignores what is written to it.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_bar_write(const struct potemkin_function *function,
                                   uint32_t bar,
                                   uint64_t offset,
                                   const void *data,
                                   size_t length);

/**
 * Reads one register `count` times, as a string instruction (REP INS) does: one round trip for each 4096 bytes. `width` is 1, 2, 4 or
 * 8; `out` has room for `count * width` bytes, at most `POTEMKIN_ACCESS_MAX`. The expansion ROM has no registers.
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_bar_read_string(const struct potemkin_function *function,
                                         uint32_t bar,
                                         uint64_t offset,
                                         uint32_t width,
                                         void *out,
                                         size_t count);

/**
 * Writes one register `count` times, as a string instruction (REP OUTS) does: one access for each 4096 bytes.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_bar_write_string(const struct potemkin_function *function,
                                          uint32_t bar,
                                          uint64_t offset,
                                          uint32_t width,
                                          const void *data,
                                          size_t count);

/**
 * Reads at a guest-physical address, if this function decodes it by its BARs and command register as the guest has programmed
 * them (or by its expansion ROM's). All of it lies in one BAR, or the function does not decode it. With
 * `map` set the function is where the VMM has it mapped, also when a move was refused.
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_memory_read(const struct potemkin_function *function,
                                     uint64_t address,
                                     void *out,
                                     size_t length);

/**
 * Writes at a guest-physical address, if this function decodes it.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_memory_write(const struct potemkin_function *function,
                                      uint64_t address,
                                      const void *data,
                                      size_t length);

/**
 * Reads a port, if this function decodes it. More than its width of a register are the ports that follow (not `count` times this one).
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_port_read(const struct potemkin_function *function,
                                   uint16_t port,
                                   void *out,
                                   size_t length);

/**
 * Writes a port, if this function decodes it.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_port_write(const struct potemkin_function *function,
                                    uint16_t port,
                                    const void *data,
                                    size_t length);

/**
 * Reads a port `count` times (REP INS), if this function decodes it. As `potemkin_bar_read_string`.
 *
 * # Safety
 * `function` is open; the bytes at `out` can be written.
 */
potemkin_status potemkin_port_read_string(const struct potemkin_function *function,
                                          uint16_t port,
                                          uint32_t width,
                                          void *out,
                                          size_t count);

/**
 * Writes a port `count` times (REP OUTS), if this function decodes it. As `potemkin_bar_write_string`.
 *
 * # Safety
 * `function` is open; the bytes at `data` can be read.
 */
potemkin_status potemkin_port_write_string(const struct potemkin_function *function,
                                           uint16_t port,
                                           uint32_t width,
                                           const void *data,
                                           size_t count);

/**
 * Lets the device use `size` bytes of guest memory at the guest-physical `address`: for reads (`POTEMKIN_WINDOW_READ`), writes
 * (`POTEMKIN_WINDOW_WRITE`) or both.
 *
 * `base` is where the VMM has that memory mapped; the library copies from and to it until the window is unmapped or the function is closed. With
 * `base` null the callbacks `read_guest_memory` and `write_guest_memory` do it. Windows do not overlap; there are 4096 at most.
 * Without a window the device's DMA is refused, as it is while the guest has bus mastering turned off. All of a transfer is allowed, or
 * nothing of it moves and the device hears of that; so a window with `flags` 0 is one that refuses.
 *
 * `POTEMKIN_STATUS_INVALID_ARGUMENT`: other flags, no bytes, beyond 2^64, longer than memory can be, an overlap, too many. A lost session still
 * takes windows. Waits for a copy or a callback that goes on, never for the network.
 *
 * # Safety
 * `base` is null, or `size` bytes there can be read (and written, if the device may) until then.
 */
potemkin_status potemkin_map_window(const struct potemkin_function *function,
                                    uint64_t address,
                                    uint64_t size,
                                    uint32_t flags,
                                    void *base);

/**
 * Withdraws a window that was mapped with this address and size; without one it gives `POTEMKIN_STATUS_INVALID_ARGUMENT` and changes nothing.
 * When this returns nothing touches the window any more; it waits for a copy or a callback that goes on, never for the network.
 *
 * # Safety
 * `function` is open.
 */
potemkin_status potemkin_unmap_window(const struct potemkin_function *function,
                                      uint64_t address,
                                      uint64_t size);

/**
 * From here on `log` gets what the library has to say, of all functions of the process: lines of UTF-8 without an end, of `level`
 * (a `potemkin_log_level`) and those that matter more. Without this call nothing is said. It can be made once a process.
 *
 * A line comes on whichever thread it concerns, several at a time, and is valid during the call only. As for the other callbacks: it
 * returns soon, calls nothing of this library, takes no lock that a thread holds inside a call.
 *
 * # Safety
 * `user` may be used on any thread until the process ends.
 */
potemkin_status potemkin_set_log(uint32_t level,
                                 void (*log)(void *user, potemkin_log_level level, const char *line),
                                 void *user);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POTEMKIN_FRONT_H */
