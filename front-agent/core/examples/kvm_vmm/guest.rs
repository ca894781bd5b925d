//! What the guest runs: 16-bit code, loaded at [`ENTRY`], which drives `edu`, or the ports of `order`, as a driver does.
#![allow(unsafe_code, reason = "an assembler's symbols")]

use std::arch::global_asm;

/// Where the code is loaded and begins, guest-physical. What it names by address is computed from here.
pub(crate) const ENTRY: u64 = 0x1000;
/// Port: a byte of the console.
pub(crate) const CONSOLE: u16 = 0xe9;
/// Port: a number for the console, 4 bytes; it ends the line.
pub(crate) const NUMBER: u16 = 0xec;

// AT&T's syntax, in which a difference of two labels can be a number.
global_asm!(
    r#"
    .pushsection .rodata
    // The code that loads it may be compiled apart from this.
    .globl potemkin_guest
    .globl potemkin_guest_end
    .code16

    // Prints the text between two labels: one REP OUTS to the console.
    .macro potemkin_say text
        movw $(0x1000 + potemkin_\text - potemkin_guest), %si
        movw $(potemkin_\text\()_end - potemkin_\text), %cx
        movw $0xe9, %dx
        rep outsb                       // cx bytes from ds:si to port dx
    .endm

    // Prints a text, then eax as a number.
    .macro potemkin_tell text
        potemkin_say \text
        movw $0xec, %dx
        outl %eax, %dx
    .endm

    // Selects a register of the function that ebx selects; its data is at port dx then.
    .macro potemkin_select register
        movl %ebx, %eax                 // enable bit, bus, device, function
        orl $\register, %eax
        movw $0xcf8, %dx
        outl %eax, %dx
        movw $0xcfc, %dx
    .endm

    // Writes eax to a register of BAR 0.
    .macro potemkin_write register
        movl %eax, %es:(0x10 + \register)
    .endm

    // Reads a register of BAR 0 into eax.
    .macro potemkin_read register
        movl %es:(0x10 + \register), %eax
    .endm

potemkin_guest:
    cli                                 // nobody interrupts
    cld                                 // strings go up
    xorw %ax, %ax
    movw %ax, %ds                       // data is where we are

    // Which of bus 0's 32 devices is there?
    movl $0x80000000, %ebx              // bus 0, device 0, function 0
1:  potemkin_select 0
    inl %dx, %eax                       // vendor and device
    cmpw $0xffff, %ax
    jne 2f                              // somebody answers
    addl $0x800, %ebx                   // the next device
    cmpl $0x80010000, %ebx
    jne 1b
    potemkin_say none
    hlt

2:  potemkin_tell found
    pushl %eax
    movl %ebx, %eax
    potemkin_tell slot
    popl %eax
    cmpl $0x0d3e1234, %eax
    je potemkin_order

    // How large is BAR 0?
    potemkin_select 0x10
    movl $0xffffffff, %eax
    outl %eax, %dx
    inl %dx, %eax                       // its writable bits are ones
    potemkin_tell bytes

    // Place it: a REP OUTS of two values to one port, of which the last stays.
    potemkin_select 0x10
    movw $(0x1000 + potemkin_bases - potemkin_guest), %si
    movw $2, %cx
    rep outsl                           // cx dwords from ds:si to port dx
    inl %dx, %eax
    potemkin_tell base

    // Decode memory, master the bus. The upper half, its status register, is left alone.
    potemkin_select 4
    inw %dx, %ax
    orw $6, %ax
    outw %ax, %dx

    // BAR 0 is at 1 MiB: segment 0xffff, offset 0x10.
    movw $0xffff, %ax
    movw %ax, %es

    potemkin_read 0x00                  // identification
    potemkin_tell id

    movl $0x12345678, %eax
    potemkin_write 0x04                 // liveness: gives the complement
    potemkin_read 0x04
    potemkin_tell live

    movl $10, %eax
    potemkin_write 0x08                 // factorial
3:  potemkin_read 0x20                  // status
    testb $1, %al
    jnz 3b                              // still computing
    potemkin_read 0x08
    potemkin_tell factorial

    // DMA: 16 bytes of ours into the device's buffer, and from there to 0x3000.
    movl $(0x1000 + potemkin_data - potemkin_guest), %eax
    potemkin_write 0x80                 // source
    movl $0x40000, %eax
    potemkin_write 0x88                 // destination
    movl $16, %eax
    potemkin_write 0x90                 // count
    movl $1, %eax
    potemkin_write 0x98                 // command: start, from memory
4:  potemkin_read 0x98
    testb $1, %al
    jnz 4b                              // under way
    movl $0x40000, %eax
    potemkin_write 0x80
    movl $0x3000, %eax
    potemkin_write 0x88
    movl $7, %eax
    potemkin_write 0x98                 // start, to memory, interrupt when done
5:  potemkin_read 0x98
    testb $1, %al
    jnz 5b
    potemkin_read 0x24                  // interrupt status: why
    potemkin_write 0x64                 // acknowledge
    potemkin_tell cause
    potemkin_read 0x24                  // and now
    potemkin_tell cause
    potemkin_say copy
    movw $0x3000, %si                   // what came back
    movw $16, %cx
    movw $0xe9, %dx
    rep outsb
    hlt

    // `order`: BAR 1 is ports, of which the first is a FIFO of bytes. A text goes in by one instruction and comes out by another.
potemkin_order:
    potemkin_select 0x14
    movl $0xc000, %eax
    outl %eax, %dx
    inl %dx, %eax
    potemkin_tell ports
    potemkin_select 4
    inw %dx, %ax
    orw $1, %ax                         // decode ports
    outw %ax, %dx
    movw $(0x1000 + potemkin_sent - potemkin_guest), %si
    movw $(potemkin_sent_end - potemkin_sent), %cx
    movw $0xc000, %dx
    rep outsb                           // cx bytes from ds:si to port dx
    movw $0, %ax
    movw %ax, %es
    movw $0x3000, %di
    movw $(potemkin_sent_end - potemkin_sent), %cx
    rep insb                            // cx bytes from port dx to es:di
    potemkin_say back
    movw $0x3000, %si
    movw $(potemkin_sent_end - potemkin_sent), %cx
    movw $0xe9, %dx
    rep outsb
    hlt

    .balign 4
potemkin_bases:
    .long 0xe0000000, 0x00100000
potemkin_data:
    .ascii "by way of DMA.\r\n"
potemkin_none:  .ascii "guest: no function on bus 0\n"
potemkin_none_end:
potemkin_found: .ascii "guest: device and vendor "
potemkin_found_end:
potemkin_slot:  .ascii "guest: selected by "
potemkin_slot_end:
potemkin_bytes:  .ascii "guest: BAR 0 sizes as "
potemkin_bytes_end:
potemkin_base:  .ascii "guest: BAR 0 is at "
potemkin_base_end:
potemkin_id:    .ascii "guest: identification "
potemkin_id_end:
potemkin_live:  .ascii "guest: liveness "
potemkin_live_end:
potemkin_factorial:  .ascii "guest: factorial of 10 is "
potemkin_factorial_end:
potemkin_cause: .ascii "guest: interrupt status "
potemkin_cause_end:
potemkin_copy:  .ascii "guest: a copy came back "
potemkin_copy_end:
potemkin_ports: .ascii "guest: BAR 1 is at "
potemkin_ports_end:
potemkin_back:  .ascii "guest: the FIFO gave back "
potemkin_back_end:
potemkin_sent:  .ascii "what one REP OUTS had put into it.\n"
potemkin_sent_end:
potemkin_guest_end:

    .purgem potemkin_say
    .purgem potemkin_tell
    .purgem potemkin_select
    .purgem potemkin_write
    .purgem potemkin_read
    .code64
    .popsection
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static potemkin_guest: u8;
    static potemkin_guest_end: u8;
}

/// The code and its data.
pub(crate) fn image() -> &'static [u8] {
    let (begin, end) = (&raw const potemkin_guest, &raw const potemkin_guest_end);
    let length = end.addr() - begin.addr();
    // SAFETY: the two labels enclose constant bytes of this program, in this order.
    unsafe { std::slice::from_raw_parts(begin, length) }
}
